// SPDX-License-Identifier: Apache-2.0
//! Names of types, functions and files.

use crate::Source;

/// Words that could stand in any name, and so say nothing in one.
const BANNED: [&str; 9] = ["Manager", "Helper", "Util", "Common", "Core", "Info", "Data", "Impl", "Wrapper"];

/// Names that stay, since they are those of the field.
const EXCEPTIONS: [(&str, &str); 1] = [
    // Kubernetes' own name of the API group of pods and services.
    ("crates/api/src/core.rs", "core"),
];

/// Types, functions and files whose names break the rules.
pub(crate) fn banned(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let stem = source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        let excepted = |name: &str| EXCEPTIONS.contains(&(source.path.as_str(), name));
        if stem.split('_').any(is_banned_lower) && !excepted(stem) {
            found.push(source.path.clone());
        }
        for (number, line) in source.text.lines().enumerate() {
            let bad_type =
                declared_type(line).is_some_and(|name| words(name).iter().any(|word| is_banned(word)));
            let bad_function =
                declared_function(line).is_some_and(|name| name.starts_with("get_") && !excepted(name));
            if bad_type || bad_function {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    found
}

/// Glob imports; `use super::*` is for tests, and a prelude is made for it. A `pub use` of a module's own
/// parts is a re-export, not an import.
pub(crate) fn glob_imports(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.without_tests().lines().enumerate() {
            let line = line.trim();
            if line.starts_with("use ") && line.ends_with("::*;") && !line.ends_with("prelude::*;") {
                found.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    found
}

/// An indented `type` belongs to a trait, whose author chose the name.
fn declared_type(line: &str) -> Option<&str> {
    let keywords = ["struct ", "enum ", "trait ", "union ", "type "];
    let count = if line.starts_with(' ') { keywords.len() - 1 } else { keywords.len() };
    declared(line, &keywords[..count])
}

fn declared_function(line: &str) -> Option<&str> {
    declared(line, &["fn ", "const fn ", "async fn ", "unsafe fn "])
}

/// The name after one of these words at the start of an item.
fn declared<'a>(line: &'a str, keywords: &[&str]) -> Option<&'a str> {
    let mut rest = line.trim_start();
    for visibility in ["pub(crate) ", "pub(super) ", "pub "] {
        rest = rest.strip_prefix(visibility).unwrap_or(rest);
    }
    let rest = keywords.iter().find_map(|keyword| rest.strip_prefix(keyword))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end])
}

fn is_banned(word: &str) -> bool {
    BANNED.iter().any(|banned| word == *banned || word.strip_suffix('s') == Some(*banned))
}

fn is_banned_lower(word: &str) -> bool {
    BANNED.iter().any(|banned| {
        let banned = banned.to_lowercase();
        word == banned || word.strip_suffix('s') == Some(banned.as_str())
    })
}

/// The words of a name in camel case.
fn words(name: &str) -> Vec<&str> {
    let starts: Vec<usize> = name.char_indices().filter(|(_, c)| c.is_uppercase()).map(|(i, _)| i).collect();
    let ends = starts.iter().skip(1).copied().chain([name.len()]);
    starts.iter().zip(ends).map(|(start, end)| &name[*start..end]).collect()
}

#[test]
fn banned_words_are_found_as_whole_words() {
    let source = |text: &str| Source { path: "a/b.rs".into(), text: text.into() };
    assert_eq!(banned(&[source("pub(crate) struct RouteManager {")]).len(), 1);
    assert_eq!(banned(&[source("    pub fn get_route(&self) {")]).len(), 1);
    assert!(banned(&[source("struct Database;\nstruct Score;\nfn getter() {")]).is_empty());
}
