// SPDX-License-Identifier: Apache-2.0
//! Rules about source files that no compiler checks: licence lines, sizes, names, where unsafe code is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

mod sources {
    pub(super) mod circles;
    pub(super) mod names;
    pub(super) mod pages;
    pub(super) mod tasks;
}

use sources::{circles, names, pages, tasks};

/// Non-test lines of a file, hard limit (CONTRIBUTING.md).
const MAX_LINES: usize = 500;

/// Where `unsafe_code` may be allowed (ARCHITECTURE.md).
const UNSAFE: [&str; 4] =
    ["ebpf-redirect/", "node-proxy/src/", "node-proxy/tests/cost.rs", "crates/testlab/"];

/// Files whose first lines allow both licences, since the kernel demands the GPL for its helpers.
const DUAL_LICENCE: [&str; 2] = ["ebpf-redirect/programs/", "ebpf-redirect/common/"];

/// A Rust file, with its path below the root of the workspace.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// The text in front of the tests at the end of the file; nothing of a file that is all tests.
    pub(crate) fn without_tests(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        if name == "tests.rs" || self.path.contains("/tests/") {
            return "";
        }
        // Tests that lend their values to those of a submodule are `pub(super)`.
        let ends =
            ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub(super) mod "].map(|start| self.text.find(start));
        match ends.into_iter().flatten().min() {
            Some(end) => &self.text[..end],
            None => &self.text,
        }
    }

    fn is_generated(&self) -> bool {
        self.text.lines().take(5).any(|line| line.contains("@generated"))
    }
}

/// Every file below the root with this extension, build outputs left out.
pub(crate) fn files(extension: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !(name.starts_with('.') && name != ".ci" && name != ".cargo") {
                    walk(&path, extension, found);
                }
            } else if path.extension().is_some_and(|own| own == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), extension, &mut found);
    found.sort();
    found
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The path below the root, as text.
pub(crate) fn below_root(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

/// Every Rust file of the project.
pub(crate) fn sources() -> Vec<Source> {
    let read = |path: PathBuf| Source { path: below_root(&path), text: fs::read_to_string(&path).unwrap() };
    let sources: Vec<Source> = files("rs").into_iter().map(read).collect();
    assert!(sources.len() > 30, "only {} Rust files were found", sources.len());
    sources
}

/// Fails with the list of what breaks a rule.
pub(crate) fn assert_none(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn every_file_names_its_licence() {
    let expected = |path: &str| {
        if DUAL_LICENCE.iter().any(|folder| path.starts_with(folder)) {
            "// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0"
        } else {
            "// SPDX-License-Identifier: Apache-2.0"
        }
    };
    let sources = sources();
    let wrong = sources.iter().filter(|s| s.text.lines().next() != Some(expected(&s.path)));
    assert_none("the first line must name the licence", wrong.map(|s| s.path.clone()).collect());
}

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    for source in sources().iter().filter(|source| !source.is_generated()) {
        let lines = source.without_tests().lines().count();
        if lines > MAX_LINES {
            long.push(format!("{}: {lines} lines", source.path));
        }
    }
    assert_none("files of more than 500 lines without tests", long);
}

#[test]
fn unsafe_code_is_only_where_the_architecture_says() {
    // The workspace denies `unsafe_code`, so that each use needs an `allow` of this lint.
    let allows = |source: &&Source| {
        let lint = concat!("unsafe", "_code");
        source.text.lines().any(|line| line.contains("allow") && line.contains(lint))
    };
    let elsewhere = |source: &&Source| !UNSAFE.iter().any(|folder| source.path.starts_with(folder));
    let sources = sources();
    let own = "crates/xtask/tests/sources.rs";
    let wrong = sources.iter().filter(allows).filter(elsewhere).filter(|source| source.path != own);
    assert_none("unsafe code outside of its places", wrong.map(|s| s.path.clone()).collect());
}

#[test]
fn a_test_is_ignored_only_for_want_of_root() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with("#[ignore") && !line.starts_with("#[ignore = \"needs root") {
                wrong.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    assert_none("`cargo xtask test` runs ignored tests as those that need root", wrong);
}

#[test]
fn modules_are_not_in_mod_rs() {
    // In a folder of tests, cargo would take `support.rs` for a test program: there it is `support/mod.rs`.
    let modules = files("rs").into_iter().filter(|path| path.ends_with("mod.rs"));
    let wrong = modules.map(|path| below_root(&path)).filter(|path| !path.contains("/tests/"));
    assert_none("use foo.rs and foo/bar.rs", wrong.collect());
}

#[test]
fn names_say_what_a_thing_is() {
    assert_none("names that say nothing", names::banned(&sources()));
}

#[test]
fn nothing_is_imported_by_glob() {
    assert_none("glob imports outside of tests", names::glob_imports(&sources()));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    assert_none("files that import each other", circles::circles(&sources()));
}

#[test]
fn every_task_is_supervised() {
    assert_none("start tasks by weft_runtime::supervise", tasks::unsupervised(&sources()));
}

#[test]
fn links_between_pages_lead_somewhere() {
    assert_none("links to files that do not exist", pages::dead_links());
}

#[test]
fn every_folder_of_the_map_exists() {
    assert_none("folders that README.md names", pages::missing_folders());
}

#[test]
fn every_guard_of_an_invariant_exists() {
    assert_none("guards that ARCHITECTURE.md names", pages::missing_guards(&sources()));
}

#[test]
fn every_reason_has_somebody_who_gives_it() {
    let list = "ebpf-redirect/common/src/reason.rs";
    let sources = sources();
    let text = &sources.iter().find(|source| source.path == list).unwrap().text;
    let variant = |line: &str| {
        line.trim().split_once(" = ").filter(|_| line.contains(", hubble ")).map(|(name, _)| name.to_owned())
    };
    let reasons: Vec<String> =
        text.lines().filter_map(variant).filter(|name| name.starts_with(char::is_uppercase)).collect();
    assert!(reasons.len() > 20, "{reasons:?}");
    let used = |reason: &&String| {
        let name = format!("Reason::{reason}");
        let mut others = sources.iter().filter(|source| source.path != list);
        others.any(|source| {
            let mut found = source.without_tests().split(&name).skip(1);
            found.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
    };
    assert_none(
        "reasons that nothing gives",
        reasons.iter().filter(|reason| !used(reason)).cloned().collect(),
    );
}

#[test]
fn only_the_wire_module_sees_the_generated_types() {
    let wire = "crates/ir/src/wire";
    let names = |source: &&Source| source.text.lines().any(|line| line.contains("generated::"));
    let sources = sources();
    assert!(sources.iter().filter(names).any(|source| source.path.starts_with(wire)));
    // aya's bindings of the kernel's helpers are in a module of this name, too.
    let others = [wire, "ebpf-redirect/programs/", "crates/xtask/tests/sources.rs"];
    let elsewhere = |source: &&Source| !others.iter().any(|path| source.path.starts_with(path));
    let wrong = sources.iter().filter(names).filter(elsewhere);
    assert_none("generated types outside of ir/src/wire", wrong.map(|s| s.path.clone()).collect());
}
