// SPDX-License-Identifier: Apache-2.0
//! Adding a protocol to the L7 rules: the compiler names each place that has to decide about it. Checked by
//! adding one to a copy of the workspace, and reading what does not compile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A copy of the sources below the target folder, so that compiled dependencies are shared.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Copy {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let copy = root.join("target/l7-protocol");
        drop(fs::remove_dir_all(&copy));
        copy_sources(&root, &copy);
        Copy(copy)
    }

    /// Replaces a text that is in the file once.
    fn change(&self, file: &str, from: &str, to: &str) {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{file}: {from}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// The files in which a match leaves the new variant out.
    fn incomplete(&self, packages: &[&str]) -> BTreeSet<String> {
        let mut check = Command::new(env!("CARGO"));
        check.args(["check", "--offline", "--lib", "--keep-going", "--message-format=short"]);
        check.args(packages.iter().flat_map(|package| ["-p", package]));
        let output = check
            .current_dir(&self.0)
            .env("CARGO_TARGET_DIR", self.0.parent().unwrap())
            .env_remove("RUSTFLAGS")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let errors: Vec<&str> = text.lines().filter(|line| line.contains(": error[")).collect();
        let incomplete = |line: &&&str| line.contains("error[E0004]") && line.contains("Dummy");
        assert!(!errors.is_empty() && errors.iter().all(|line| incomplete(&line)), "{text}");
        errors.iter().map(|line| line.split(':').next().unwrap().to_owned()).collect()
    }
}

fn copy_sources(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name())
        };
        if name == "target" || name.to_string_lossy().starts_with('.') && name != ".cargo" {
            continue;
        }
        if path.is_dir() {
            copy_sources(&path, &to.join(name));
        } else if path.is_file() {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

fn set(files: &[&str]) -> BTreeSet<String> {
    files.iter().map(|file| (*file).to_owned()).collect()
}

#[test]
fn a_new_l7_protocol_does_not_compile_until_each_place_decides() {
    let copy = Copy::new();
    let wire = "crates/ir/src/wire/policy.rs";
    copy.change(
        "crates/ir/src/types/policy.rs",
        "    Http(Vec<HttpRule>),",
        "    Http(Vec<HttpRule>),\n    Dummy,",
    );
    assert_eq!(copy.incomplete(&["weft-ir"]), set(&[wire]));
    // The wire is done: the engine and the translation are next.
    let http = "Some(L7Rules::Http(rules)) => {";
    copy.change(wire, http, &format!("Some(L7Rules::Dummy) => unreachable!(),\n        {http}"));
    let engine = "crates/policy/src/l7.rs";
    let translation = "crates/translate/src/policy/cilium_ports.rs";
    assert_eq!(copy.incomplete(&["weft-policy", "weft-translate"]), set(&[engine, translation]));
    // Once the IR has it, the engine's own variant is asked for: by capture too, and by the proxy's permit,
    // which is not compiled here for what it depends on.
    copy.change("crates/ir/src/types/policy.rs", "    Dummy,\n", "");
    copy.change(wire, "Some(L7Rules::Dummy) => unreachable!(),\n        ", "");
    copy.change(engine, "pub enum L7Policy {", "pub enum L7Policy {\n    /// Added.\n    Dummy,");
    let capture = "crates/policy/src/capture.rs";
    assert_eq!(copy.incomplete(&["weft-policy"]), set(&[capture, engine]));
}
