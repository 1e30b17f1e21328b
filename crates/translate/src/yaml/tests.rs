// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use super::*;

/// The object of each document, or the error.
fn read(text: &str) -> Vec<Result<Located, YamlError>> {
    let mut budget = Budget::default();
    let one = |chunk| {
        let mut found = Vec::new();
        objects(chunk, Shape::One, &mut budget, &mut |located| found.push(located))?;
        assert!(found.len() <= 1);
        Ok(found.pop())
    };
    chunks(text).into_iter().map(one).filter_map(Result::transpose).collect()
}

fn one(text: &str) -> Value {
    let mut documents = read(text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0).unwrap().value
}

fn error(text: &str) -> String {
    let error = read(text).remove(0).unwrap_err();
    format!("{}: {}", error.line, error.message)
}

#[test]
fn scalars_follow_the_core_schema() {
    let text =
        "a: 1\nb: '1'\nc: yes\nd: true\ne: 010\nf: 1.5\ng: ~\nh: !!str 7\ni: 1.2.3.4\nj: -3\nk: !!int 7\n";
    let expected = json!({"a": 1, "b": "1", "c": "yes", "d": true, "e": "010", "f": 1.5,
                          "h": "7", "i": "1.2.3.4", "j": -3, "k": 7});
    assert_eq!(one(text), expected);
}

#[test]
fn a_label_that_is_null_stays() {
    assert_eq!(one("matchLabels:\n  app:\nother:\n"), json!({"matchLabels": {"app": null}}));
}

#[test]
fn fields_that_are_null_are_told_by_path_and_line_within_bounds() {
    let documents = read("spec:\n  a:\n  b:\n  - c: ~\n    d: 1\nnone: null\nlabels: {x: null}\n");
    let nulls: Vec<_> = documents[0].as_ref().unwrap().nulls().collect();
    assert_eq!(nulls, [("none", 6), ("spec.a", 2), ("spec.b[0].c", 4)]);
    let many = read(&format!("{}: [{}]\n", "k".repeat(1_000), "{a: ~},".repeat(10_000)));
    assert_eq!(many[0].as_ref().unwrap().nulls().count(), MAX_NULLS);
}

#[test]
fn every_document_stands_alone_and_knows_its_lines() {
    let text = "# head\n---\na:\n- b: 1\n  c: 2\n---\nx: [\n---\n--- # empty\nd: 1\n";
    let documents = read(text);
    assert_eq!(documents.len(), 4);
    let first = documents[0].as_ref().unwrap();
    assert_eq!(first.line(), 3);
    assert_eq!((first.line_of("a[0].c"), first.line_of("a[0].nope"), first.line_of("a")), (5, 4, 4));
    assert!(documents[1].is_err());
    assert_eq!(documents[2].as_ref().unwrap().value, Value::Null);
    assert_eq!(documents[3].as_ref().unwrap().line_of("d"), 10);
}

#[test]
fn a_path_with_dots_in_a_key_is_found() {
    let documents = read("metadata:\n  labels:\n    b: x\n    app.kubernetes.io/name: 1\n    a: y\n");
    let located = documents[0].as_ref().unwrap();
    assert_eq!(located.line_of("metadata.labels[app.kubernetes.io/name]"), 4);
    assert_eq!((located.line_of("metadata.labels.a"), located.line_of("metadata.labels.b")), (5, 3));
}

#[test]
fn three_dots_end_a_document_and_lose_none() {
    for text in ["a: 1\n...\nb: 2\n", "a: 1\n...\n---\nb: 2\n...\n", "a: 1\n... # end\n# between\nb: 2"] {
        let values: Vec<Value> = read(text).into_iter().map(|one| one.unwrap().value).collect();
        assert_eq!(values, [json!({"a": 1}), json!({"b": 2})], "{text}");
    }
    assert_eq!(read("a: 1\n...\nb: 2\n")[1].as_ref().unwrap().line(), 3);
}

#[test]
fn a_line_of_dashes_is_a_line_of_a_text_where_it_is_indented() {
    let text = "a: |\n  x\n  ---\n  y\n  ...\nb: 'x\n  --- y'\n";
    assert_eq!(one(text), json!({"a": "x\n---\ny\n...\n", "b": "x --- y"}));
    assert_eq!(one("---a: 1\n"), json!({"---a": 1}));
}

#[test]
fn byte_order_marks_carriage_returns_and_directives_are_no_content() {
    assert_eq!(one("\u{feff}a: 1\n"), json!({"a": 1}));
    let windows = "# head\r\n---\r\na: 1\r\nb: |\r\n  x\r\n  y\r\n---\r\nc: 2\r\n";
    let values: Vec<Value> = read(windows).into_iter().map(|one| one.unwrap().value).collect();
    assert_eq!(values, [json!({"a": 1, "b": "x\ny\n"}), json!({"c": 2})]);
    assert_eq!(one("%YAML 1.2\n# x\n---\na: 1\n"), json!({"a": 1}));
    for empty in ["", "\n\n", "# only\n# comments\n", "---\n", "---\n---\n# x\n...\n", "\u{feff}"] {
        assert!(read(empty).iter().all(|one| one.as_ref().is_ok_and(|one| one.value.is_null())), "{empty:?}");
    }
}

#[test]
fn more_comments_than_a_parser_buffers_are_read() {
    let text = format!("a:\n{}- 1\n", "  # a comment\n".repeat(10_000));
    assert_eq!(one(&text), json!({"a": [1]}));
}

#[test]
fn what_readers_disagree_about_is_an_error_with_its_line() {
    for (text, expected) in [
        ("a: 1\nb: 2\na: 3\n", "3: the key `a` appears twice"),
        ("x:\n  a: 1\n  a: ~\n", "3: the key `a` appears twice"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "3: merge keys (`<<`) are not supported"),
        ("a: !secret x\n", "1: the tag `!secret` is not supported"),
        ("a: !!int x\n", "1: the value does not have the type `int` of its tag"),
        ("a: !!seq {}\n", "1: the value does not have the type of its tag"),
        ("? [a]\n: 1\n", "1: a key must be a text"),
        ("&k a: 1\nb: *k\n", "1: a key cannot be an anchor"),
        ("a: &x [*x]\n", "1: an alias inside of its own anchor"),
        ("a: *nobody\n", "1: while parsing node, found unknown anchor"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
    for text in ["a:\n\tb: 1\n", "a: \u{0}\n", "a: \"\\u0000", "a: [\n", "a: 'x\n---\ny'\n"] {
        assert!(read(text)[0].is_err(), "{text:?}");
    }
}

#[test]
fn nesting_has_a_limit() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = |depth: usize| format!("a: {}{}\n", open.repeat(depth), close.repeat(depth));
        assert!(read(&text(60_000))[0].is_err());
        assert!(read(&text(MAX_DEPTH))[0].is_err());
        assert!(read(&text(MAX_DEPTH - 2))[0].is_ok());
    }
    let block: String = (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(read(&block)[0].is_err());
    // Half in blocks and half in flows: neither reaches the parser's own limit.
    let half = MAX_DEPTH / 2 + 1;
    let block: String = (0..half).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let text = format!("{block}{}b: {}{}\n", " ".repeat(half), "[".repeat(half), "]".repeat(half));
    assert!(error(&text).ends_with("nests deeper than 64"), "{}", error(&text));
    let mut chain = String::from("a0: &a0 []\n");
    for level in 1..100 {
        chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert_eq!(error(&chain), "64: nests deeper than 64");
}

#[test]
fn what_aliases_stand_for_is_counted_in_values_and_in_bytes() {
    let mut text = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
    for level in 1..9 {
        let before = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(",")));
    }
    assert!(error(&text).contains("stand for more than 200000 values"), "{}", error(&text));
    // One text of a megabyte, twenty thousand times.
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 20_000].join(","));
    assert!(error(&text).contains("3145728 bytes"), "{}", error(&text));
    // The documents of a file share it.
    let document = format!("a: &a {}\nb: *a\n---\n", "x".repeat(1 << 19));
    let errors = read(&document.repeat(10)).iter().filter(|one| one.is_err()).count();
    assert_eq!(errors, 7, "3 MiB are six copies");
}

#[test]
fn an_object_has_a_size_and_a_list_may_be_larger() {
    let error = error(&format!("a: [{}]\n", "1,".repeat(MAX_VALUES)));
    assert_eq!(error, "1: the object has more than 200000 values");
    let text = format!("a: {}\n", "x".repeat(MAX_BYTES));
    assert!(read(&text)[0].as_ref().unwrap_err().message.contains("more than 3145728 bytes"));
    let item = format!("- {{a: {}}}\n", "x".repeat(MAX_BYTES / 2));
    let list = format!("kind: List\nitems:\n{}", item.repeat(9));
    let mut found = 0;
    let each = &mut |located: Located| found += located.value["a"].as_str().unwrap().len();
    objects(chunks(&list)[0], Shape::List, &mut Budget::default(), each).unwrap();
    assert_eq!(found, 9 * (MAX_BYTES / 2));
}

#[test]
fn a_list_without_items_is_an_error() {
    let list = |text| {
        let mut found = 0;
        objects(chunks(text)[0], Shape::List, &mut Budget::default(), &mut |_| found += 1).map(|()| found)
    };
    assert_eq!(list("items: []\n"), Ok(0));
    assert_eq!(list("items: [{}, {}]\nmetadata: {items: [1, 2]}\n"), Ok(2));
    for text in ["kind: List\n", "items:\n", "items: {}\n", "items: 5\n", "metadata: {items: []}\n"] {
        assert!(list(text).is_err(), "{text}");
    }
    assert!(list("items: []\nitems: []\n").is_err());
}

fn head_of(text: &str) -> Result<Option<head::Head>, YamlError> {
    head(chunks(text)[0], |_, _| false)
}

#[test]
fn the_head_says_what_a_document_is_wherever_it_does() {
    let text = "# c\nspec: {kind: X, metadata: {name: no}}\nmetadata:\n  labels: {name: no}\n  name: a\n  namespace: b\n\
                kind: Y\nother: [kind, {kind: z}]\n? [kind]\n: kind\napiVersion: v1\n";
    let head = head_of(text).unwrap().unwrap();
    assert_eq!((head.line, &*head.api_version, &*head.kind), (2, "v1", "Y"));
    assert_eq!((head.namespace.as_deref(), head.name.as_deref()), (Some("b"), Some("a")));
}

#[test]
fn a_head_that_does_not_say_what_it_is_is_an_error() {
    for text in [
        "a: 1\n",
        "apiVersion: v1\n",
        "apiVersion: v1\nkind: 5\n",
        "apiVersion: v1\nkind: ''\n",
        "apiVersion: v1\nkind: [Pod]\n",
        "apiVersion: v1\nkind: {Pod: ''}\n",
        "kind: &a X\napiVersion: *a\n",
        "- apiVersion: v1\n  kind: Pod\n",
        "Pod\n",
        "5\n",
        "apiVersion: v1\nkind: Pod\nkind: Foreign\n",
        "apiVersion: v1\nkind: Foreign\nmetadata: {name: a, name: b}\n",
        "apiVersion: v1\nkind: Foreign\nspec: [\n",
        "apiVersion: v1\rkind: Foreign\r---\rkind: Pod\r",
        "kind: {",
    ] {
        assert!(head_of(text).is_err(), "{text:?}");
    }
    let long = format!("apiVersion: v1\nkind: {}\n", "x".repeat(5 << 20));
    assert_eq!(head_of(&long).unwrap_err().message, "kind is longer than 512 bytes");
    assert_eq!(head_of("--- # nothing\n"), Ok(None));
}

#[test]
fn a_head_is_read_no_further_than_needed() {
    let text = "apiVersion: v1\nkind: Pod\nspec: [\n";
    let head = head(chunks(text)[0], |_, kind| kind == "Pod").unwrap().unwrap();
    assert_eq!((&*head.kind, head.name), ("Pod", None));
    let asked = std::cell::Cell::new(0);
    let text = format!("kind: X\napiVersion: v1\ndata: [{}]\n", "1,".repeat(1_000));
    super::head(chunks(&text)[0], |_, _| asked.replace(asked.get() + 1) > 9).unwrap();
    assert_eq!(asked.get(), 1, "however large it is");
}
