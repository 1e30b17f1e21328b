// SPDX-License-Identifier: Apache-2.0
//! Which file takes names from which, so that none of them do so in a circle.
//!
//! A module is a part of the one that declares it: that it uses what its parents define ties it to them
//! anyway, and makes no circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::Source;

/// The files by module, such as `crates/ir/src/wire/encode`; that of a crate's root is its folder.
type Modules<'a> = BTreeMap<String, &'a Source>;

/// The files that take names from each other in a circle, each circle a line.
pub(crate) fn circles(sources: &[Source]) -> Vec<String> {
    let modules = modules(sources);
    let imports: BTreeMap<&str, BTreeSet<String>> = modules
        .iter()
        .map(|(at, source)| (at.as_str(), imports(at, source.without_tests(), &modules)))
        .collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|at| (*at, reachable(at, &imports))).collect();
    let mut found = BTreeSet::new();
    for (at, others) in reached.iter().filter(|(at, others)| others.contains(**at)) {
        let circle = others.iter().filter(|other| reached[**other].contains(at));
        found.insert(circle.map(|file| modules[*file].path.as_str()).collect::<Vec<_>>().join(", "));
    }
    found.into_iter().collect()
}

fn modules(sources: &[Source]) -> Modules<'_> {
    let mut modules = Modules::new();
    // `lib.rs` comes before `main.rs`; a program beside a library, or in `bin/`, is a crate of one file.
    for source in sources.iter().filter(|source| !source.without_tests().is_empty()) {
        let Some((_, below)) = source.path.split_once("src/").filter(|(_, below)| !below.starts_with("bin/"))
        else {
            continue;
        };
        let module = source.path.trim_end_matches(".rs");
        let module = match below {
            "lib.rs" | "main.rs" => module.rsplit_once('/').map_or(module, |(folder, _)| folder),
            _ => module,
        };
        modules.entry(module.to_owned()).or_insert(source);
    }
    modules
}

/// The other modules that this one's text names, without those that it is a part of.
fn imports(at: &str, text: &str, modules: &Modules<'_>) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let paths = paths(&code);
    let named = paths.iter().filter_map(|path| module_of(at, path, modules));
    named.filter(|module| at != module && !at.starts_with(&format!("{module}/"))).collect()
}

/// Every path with `::`, each branch of a `use` tree on its own.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let (mut found, mut path, mut outer) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = code;
    while let Some(letter) = rest.chars().next() {
        let word = &rest[..rest.find(|letter| !is_name(letter)).unwrap_or(rest.len())];
        let length = word.len().max(letter.len_utf8());
        match letter {
            _ if !word.is_empty() => path.push(word),
            ':' if rest.starts_with("::{") => outer.push(path.clone()),
            ':' => {}
            // A branch begins as its tree does.
            _ => {
                found.push(std::mem::take(&mut path));
                match letter {
                    '}' => drop(outer.pop()),
                    ';' => outer.clear(),
                    _ => {}
                }
                path = outer.last().cloned().unwrap_or_default();
            }
        }
        rest = &rest[length..];
    }
    found.push(path);
    found.retain(|path| path.len() > 1);
    found
}

/// The file of the module that a path leads to or through, where it begins at `crate`, `self`, `super` or
/// a part of the module.
fn module_of(at: &str, path: &[&str], modules: &Modules<'_>) -> Option<String> {
    let root = format!("{}/src", at.split_once("/src")?.0);
    let mut path = path.iter().peekable();
    let mut module = match **path.peek()? {
        "crate" => path.next().map(|_crate| root)?,
        "self" => path.next().map(|_own| at.to_owned())?,
        "super" => at.to_owned(),
        first => modules.contains_key(&format!("{at}/{first}")).then(|| at.to_owned())?,
    };
    while path.next_if(|step| **step == "super").is_some() {
        module.truncate(module.rfind('/')?);
    }
    for step in path {
        let part = format!("{module}/{step}");
        if !modules.contains_key(&part) {
            break;
        }
        module = part;
    }
    modules.contains_key(&module).then_some(module)
}

/// Whatever a module's imports lead to.
fn reachable<'a>(from: &str, imports: &'a BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&str> = imports[from].iter().map(String::as_str).collect();
    while let Some(module) = next.pop() {
        if found.insert(module) {
            next.extend(imports[module].iter().map(String::as_str));
        }
    }
    found
}

#[test]
fn every_form_of_a_circle_is_found() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let found = |x: &str, y: &str| {
        let root = source("a/src/lib.rs", "mod x;\nmod y;\npub use x::X;");
        let part = source("a/src/y/part.rs", "use super::Y;\nuse crate::x::X;");
        circles(&[root, source("a/src/x.rs", x), source("a/src/y.rs", y), part])
    };
    let imports =
        ["use crate::y::Y;", "use super::{z, y::Y};", "pub(crate) use crate::{\n    z::{Z, W},\n    y,\n};"];
    for import in imports.into_iter().chain(["fn f() {\n    super::y::g()\n}", "use crate::{y as z};"]) {
        assert_eq!(found(import, "use crate::x;"), ["a/src/x.rs, a/src/y.rs"], "{import}");
        let other = "// crate::x\nuse crate::z::x;\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::x;";
        assert_eq!(found(import, other), [""; 0], "{import}");
    }
    assert_eq!(found("use crate::y::part::f;", "mod part;"), ["a/src/x.rs, a/src/y/part.rs"]);
    assert_eq!(found("use crate::y::Y;", "mod part;\npart::f()").len(), 1, "through the part");
    assert_eq!(found("", "mod part;\npart::f()"), [""; 0], "a module and its own part");
}
