// SPDX-License-Identifier: Apache-2.0
//! Whatever a manifest says, translating it never panics, and depends on the text alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};
use weft_translate::{Problem, Severity, Store, report};

#[path = "support/mesh.rs"]
mod mesh;

use mesh::Mesh;

/// Every manifest of the examples and of the golden tests.
static MANIFESTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = ["../../examples/canary", "../../gateway-api/tests/golden", "tests/golden"]
        .iter()
        .flat_map(|directory| fs::read_dir(root.join(directory)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            let is_output = name.ends_with(".ir.yaml") || name.ends_with(".status.yaml");
            name.ends_with(".yaml") && !is_output
        })
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
});

/// Values that stand where others are expected: wrong types, limits of numbers, long and odd texts.
static VALUES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    vec![
        json!(null),
        json!(0),
        json!(-1),
        json!(65535),
        json!(65536),
        json!(4_294_967_295_u32),
        json!(4_294_967_296_u64),
        json!(i64::MAX),
        json!(1e300),
        json!(true),
        json!(""),
        json!("*"),
        json!("/"),
        json!("a/b/c"),
        json!("*.example.com"),
        json!("::/0"),
        json!("10.0.0.0/33"),
        json!("9999999999h"),
        json!("(((((("),
        json!("(a{1000}){1000}"),
        json!("\u{0}\u{202e}é\r\n"),
        json!("x".repeat(5_000)),
        json!([]),
        json!({}),
        json!([{}]),
        json!([[[[]]]]),
        json!({"a": {"b": ["c"]}}),
        json!({"": null, "a/b": "c", "matchLabels": {"x": 1}}),
    ]
});

#[derive(Clone, Debug)]
enum Mutation {
    DeleteLine(Index),
    RepeatLine(Index),
    SwapLines(Index, Index),
    Indent(Index, usize),
    Truncate(Index),
    Insert(Index, char),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let line = any::<Index>;
    prop_oneof![
        4 => line().prop_map(Mutation::DeleteLine),
        1 => line().prop_map(Mutation::RepeatLine),
        1 => (line(), line()).prop_map(|(a, b)| Mutation::SwapLines(a, b)),
        1 => (line(), 0_usize..8).prop_map(|(at, width)| Mutation::Indent(at, width)),
        1 => line().prop_map(Mutation::Truncate),
        1 => (line(), any::<char>()).prop_map(|(at, what)| Mutation::Insert(at, what)),
    ]
}

/// The numbers of the values that hold no others.
fn leaves(value: &mut Value) -> Vec<usize> {
    (0..size(value)).filter(|number| size(nth(value, *number)) == 1).collect()
}

/// How many values there are in a value, itself included.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// The value of this number, counted from the outermost on.
fn nth(value: &mut Value, number: usize) -> &mut Value {
    if number == 0 {
        return value;
    }
    let children: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => unreachable!("the number is less than the size"),
    };
    let mut left = number - 1;
    for child in children {
        let inside = size(child);
        if left < inside {
            return nth(child, left);
        }
        left -= inside;
    }
    unreachable!("the number is less than the size")
}

/// What is done to a value: it is replaced, or gets what another object has at some place.
#[derive(Clone, Debug)]
enum Edit {
    Leaf(Index, Index),
    Replace(Index, Index),
    Graft(Index, Index),
    Double(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        8 => any::<(Index, Index)>().prop_map(|(at, value)| Edit::Leaf(at, value)),
        1 => any::<(Index, Index)>().prop_map(|(at, value)| Edit::Replace(at, value)),
        1 => any::<(Index, Index)>().prop_map(|(at, from)| Edit::Graft(at, from)),
        1 => any::<Index>().prop_map(Edit::Double),
    ]
}

/// Every document of a text, edited, with one document a line, since JSON is YAML.
fn edited(text: &str, edits: &[Edit]) -> String {
    let mut all = Value::Array(serde_saphyr::from_multiple(text).unwrap_or_default());
    for edit in edits {
        let count = size(&all);
        match edit {
            Edit::Leaf(at, value) => {
                let leaf = *at.get::<usize>(&leaves(&mut all));
                *nth(&mut all, leaf) = value.get::<Value>(&VALUES).clone();
            }
            Edit::Replace(at, value) => *nth(&mut all, at.index(count)) = value.get::<Value>(&VALUES).clone(),
            Edit::Graft(at, from) => {
                let copy = nth(&mut all, from.index(count)).clone();
                *nth(&mut all, at.index(count)) = copy;
            }
            Edit::Double(at) => {
                if let Value::Array(items) = nth(&mut all, at.index(count)) {
                    items.extend(items.clone());
                }
            }
        }
    }
    let Value::Array(documents) = all else { return all.to_string() };
    documents.iter().map(|document| format!("{document}\n---\n")).collect()
}

/// The place of a character of a text that has one.
fn place(text: &str, at: Index) -> usize {
    text.char_indices().nth(at.index(text.chars().count())).unwrap().0
}

fn mutate(text: &str, mutation: &Mutation) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let of = |at: &Index| at.index(lines.len());
    match mutation {
        Mutation::DeleteLine(at) => drop(lines.remove(of(at))),
        Mutation::RepeatLine(at) => lines.insert(of(at), lines[of(at)].clone()),
        Mutation::SwapLines(a, b) => {
            let (a, b) = (of(a), of(b));
            lines.swap(a, b);
        }
        Mutation::Indent(at, width) => {
            let at = of(at);
            lines[at] = format!("{}{}", " ".repeat(*width), lines[at].trim_start());
        }
        Mutation::Truncate(at) => return text[..place(text, *at)].to_owned(),
        Mutation::Insert(at, what) => {
            let mut text = text.to_owned();
            let at = place(&text, *at);
            text.insert(at, *what);
            return text;
        }
    }
    lines.join("\n")
}

/// All that a user may see of it.
fn shown(mesh: &Mesh) -> String {
    let resources: Vec<_> = mesh.resources.iter().map(|(key, one)| (key.to_string(), one)).collect();
    let lines: Vec<String> = mesh.told().iter().map(|one| report::line(&one.object, &one.status)).collect();
    let problems: Vec<String> = mesh.problems.iter().map(ToString::to_string).collect();
    serde_json::to_string(&(resources, lines, problems)).unwrap()
}

/// Translates a text after a good one, beside another file, and from nothing, with the same identities.
fn check(good: &str, bad: &str, beside: &str) -> Result<(), TestCaseError> {
    let mut followed = Mesh::of([("a.yaml", good), ("b.yaml", beside)]);
    followed.store.apply("a.yaml", bad);
    followed.update(0);
    let mut fresh = Mesh::new(followed.records.clone());
    fresh.store.apply_all([("a.yaml", bad), ("b.yaml", beside)], []);
    fresh.update(0);
    if !fresh.store.problems().any(|problem| problem.severity == Severity::Unrecognized) {
        prop_assert_eq!(shown(&followed), shown(&fresh));
    }
    // What is gone leaves nothing behind, and the same texts lead to the same result.
    followed.store.apply_all([], ["a.yaml", "b.yaml"]);
    followed.update(0);
    prop_assert_eq!(followed.store.objects().len(), 0);
    prop_assert_eq!(shown(&followed), shown(&Mesh::of([])));
    followed.store.apply_all([("a.yaml", bad), ("b.yaml", beside)], []);
    followed.update(0);
    prop_assert_eq!(shown(&followed), shown(&fresh));
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn no_text_makes_the_translation_panic(
        at in any::<Index>(),
        other in any::<Index>(),
        mutations in vec(mutation(), 1..6),
    ) {
        let good = at.get::<String>(&MANIFESTS);
        let bad = mutations.iter().fold(good.clone(), |text, one| mutate(&text, one));
        check(good, &bad, other.get::<String>(&MANIFESTS))?;
    }
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn no_object_makes_the_translation_panic(
        at in any::<Index>(),
        other in any::<Index>(),
        edits in vec(edit(), 1..16),
    ) {
        let good = at.get::<String>(&MANIFESTS);
        check(good, &edited(good, &edits), other.get::<String>(&MANIFESTS))?;
    }
}

/// What means something to a reader of YAML, and what does not.
const PIECES: [&str; 44] = [
    "apiVersion: v1\n",
    "kind: Service\n",
    "kind: List\n",
    "kind: ServiceList\n",
    "items:\n",
    "- ",
    "  ",
    "\n",
    "metadata: {name: a}\n",
    "metadata:\n  name: a\n",
    "spec: ",
    "---\n",
    "...\n",
    "--- ",
    "---\r\n",
    "\r",
    "\t",
    "&a ",
    "*a ",
    "*a\n",
    "<<: ",
    "!!str ",
    "!x ",
    "? ",
    ": ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "# c\n",
    "%YAML 1.2\n",
    "\u{feff}",
    "\u{0}",
    "\u{2028}",
    "é",
    "\\u0000",
    "~",
    "5",
    "@`",
];

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn any_text_is_read_or_refused(
        pieces in vec(any::<Index>(), 0..60),
        bytes in vec(any::<u8>(), 0..40),
        at in any::<Index>(),
    ) {
        let mut text: Vec<&str> = pieces.iter().map(|piece| *piece.get::<&str>(&PIECES)).collect();
        let bytes = String::from_utf8_lossy(&bytes);
        text.insert(at.index(text.len() + 1), &bytes);
        let text = text.concat();
        let (mut once, mut twice) = (Store::default(), Store::default());
        once.apply("a.yaml", &text);
        twice.apply("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: kept}\n");
        twice.apply("a.yaml", &text);
        let is_unrecognized = |problem: &Problem| problem.severity == Severity::Unrecognized;
        let lines = u32::try_from(text.split(['\n', '\r']).count()).unwrap();
        for problem in once.problems() {
            prop_assert!((1..=lines + 1).contains(&problem.line), "{problem} of {lines} lines");
        }
        if !once.problems().any(is_unrecognized) {
            let all = |store: &Store| format!("{:?} {:?}", store.objects(), store.problems().collect::<Vec<_>>());
            prop_assert_eq!(all(&once), all(&twice));
        } else {
            prop_assert!(twice.objects().keys().any(|key| &*key.name == "kept" || &*key.name == "a"));
        }
    }
}
