// SPDX-License-Identifier: Apache-2.0
//! The rooms of the node's proxy: each imports only from those below it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

const FOLDER: &str = "node-proxy/src";

/// From the top down (ARCHITECTURE.md).
const ROOMS: [&str; 7] = ["control", "serve", "request", "worker", "upstream", "state", "route"];

/// Imports none of the others, and is imported by the first only.
const ALONE: &str = "ir_client";

/// The first segments behind `crate::` in a source: `use` trees and paths in the code.
fn imports(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (start, marker) in text.match_indices("crate::") {
        let rest = &text[start + marker.len()..];
        match rest.strip_prefix('{') {
            Some(tree) => found.extend(top_level(tree)),
            None => found.extend(name_at(rest)),
        }
    }
    found
}

/// The names at the start of each branch of a tree whose opening brace is behind us.
fn top_level(tree: &str) -> Vec<&str> {
    let (mut depth, mut names, mut fresh) = (0_u32, Vec::new(), true);
    for (position, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if fresh && depth == 0 && !letter.is_whitespace() => {
                names.extend(name_at(&tree[position..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at(text: &str) -> Option<&str> {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

/// Every file of the proxy, with the room it is in.
fn files() -> Vec<(String, String)> {
    fn walk(folder: &Path, room: Option<&str>, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let room = room.unwrap_or(&name);
            if path.is_dir() {
                walk(&path, Some(room), found);
            } else {
                found.push((room.to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(FOLDER), None, &mut found);
    assert!(found.len() > 30, "only {} files were found", found.len());
    found
}

#[test]
fn the_proxy_has_no_module_outside_of_its_rooms() {
    let known: BTreeSet<&str> = ROOMS.into_iter().chain([ALONE, "lib", "main"]).collect();
    let found = files();
    let found: BTreeSet<&str> = found.iter().map(|(room, _)| room.as_str()).collect();
    assert_eq!(found, known);
}

#[test]
fn a_room_of_the_proxy_imports_only_from_those_below() {
    let rank = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut wrong = BTreeSet::new();
    for (room, text) in files().iter().filter(|(room, _)| room != "lib" && room != "main") {
        let own = rank(room);
        assert!(!text.contains("super::super::"), "a path through `super` hides which room it leads to");
        for import in imports(text) {
            let below = match (own, rank(import)) {
                (Some(own), Some(other)) => other >= own,
                (Some(own), None) => own == 0 && import == ALONE,
                (None, _) => import == room.as_str(),
            };
            if !below {
                wrong.insert(format!("{room} -> {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the order of the rooms:\n  {wrong:?}");
}

#[test]
fn every_form_of_an_import_is_seen() {
    let text = "use crate::{\n    a::{b, c::D},\n    e,\n};\nuse crate::f::G;\nlet x = crate::h::i();";
    assert_eq!(imports(text), BTreeSet::from(["a", "e", "f", "h"]));
}
