// SPDX-License-Identifier: Apache-2.0
//! The Markdown pages: links, the map of folders, and the guards of the invariants.

use std::fs;

use crate::{Source, below_root, files, root};

/// Relative links whose target does not exist.
pub(crate) fn dead_links() -> Vec<String> {
    let mut dead = Vec::new();
    for page in files("md") {
        let text = fs::read_to_string(&page).unwrap();
        for target in links(&text) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !page.with_file_name("").join(file).exists() {
                dead.push(format!("{}: {target}", below_root(&page)));
            }
        }
    }
    dead
}

/// Folders in the map of README.md (`| `folder/` | ... |`) that do not exist.
pub(crate) fn missing_folders() -> Vec<String> {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let folders: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(folder, _)| folder)
        .filter(|folder| folder.ends_with('/'))
        .collect();
    assert!(folders.len() > 10, "README.md has no map of folders");
    folders.into_iter().filter(|folder| !root().join(folder).is_dir()).map(str::to_owned).collect()
}

/// Guards in ARCHITECTURE.md (`[guard: name]`) that are no test, lint or file of the project.
pub(crate) fn missing_guards(sources: &[Source]) -> Vec<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let guards: Vec<&str> = text
        .split("[guard: `")
        .skip(1)
        .filter_map(|rest| rest.split_once("`]"))
        .map(|(guard, _)| guard)
        .collect();
    assert!(!guards.is_empty(), "ARCHITECTURE.md names no guard");
    let is_test = |name: &str| sources.iter().any(|source| source.text.contains(&format!("fn {name}(")));
    let is_lint = |name: &str| {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        manifest.lines().any(|line| line.starts_with(&format!("{name} = ")))
    };
    let exists = |guard: &str| {
        let name = guard.rsplit("::").next().unwrap_or(guard);
        root().join(guard).exists() || is_test(name) || is_lint(name)
    };
    guards.into_iter().filter(|guard| !exists(guard)).map(str::to_owned).collect()
}

/// Targets of inline links that stay within the project.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for rest in text.split("](").skip(1) {
        if let Some((target, _)) = rest.split_once(')')
            && !target.contains("://")
            && !target.starts_with("mailto:")
            && !target.contains(char::is_whitespace)
        {
            found.push(target);
        }
    }
    found
}

#[test]
fn only_links_within_the_project_are_followed() {
    assert_eq!(links("[a](b.md) [c](https://d) `x](y z)`"), ["b.md"]);
}
