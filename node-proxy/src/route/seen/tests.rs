// SPDX-License-Identifier: Apache-2.0
use weft_http::head::{Name, Value};

use super::*;

fn request(method: &str, target: &str, authority: &str, fields: &[(&str, &str)]) -> Head {
    let mut head = Head::new();
    head.start_request(method.as_bytes(), target.as_bytes(), authority.as_bytes()).expect("a request");
    for (name, value) in fields {
        let name = Name::new(name.as_bytes()).expect("a name");
        head.append(&name, Value::new(value.as_bytes()).expect("a value")).expect("room");
    }
    head
}

fn get(target: &str, fields: &[(&str, &str)]) -> Head {
    request("GET", target, "a.test", fields)
}

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn looked(method: bool, query: bool, headers: &[Arc<str>]) -> Looked<'_> {
    let mut looked = Looked::default();
    looked.add(method, query, headers);
    looked
}

/// Whether the second request is taken for the first.
fn same(looked: &Looked<'_>, first: &Head, second: &Head) -> bool {
    let mut last = Last::default();
    last.set(Asked::effective(first), looked, ());
    last.get(Asked::effective(second)).is_some()
}

#[test]
fn only_what_was_looked_at_has_to_be_the_same() {
    let nothing = Looked::default();
    let first = get("/a?q=1", &[("x-a", "1"), ("accept", "*/*")]);
    assert!(same(&nothing, &first, &request("POST", "/a?q=2", "a.test", &[("x-a", "2")])));
    assert!(!same(&nothing, &first, &get("/b?q=1", &[])), "another path");
    assert!(!same(&nothing, &first, &request("GET", "/a", "b.test", &[])), "another authority");
    assert!(!same(&looked(true, false, &[]), &first, &request("POST", "/a?q=1", "a.test", &[])));
    assert!(!same(&looked(false, true, &[]), &first, &get("/a?q=2", &[])));
    let headers = names(&["x-a", "accept"]);
    let all = looked(true, true, &headers);
    assert!(same(&all, &first, &get("/a?q=1", &[("accept", "*/*"), ("x-b", "1"), ("X-A", "1")])));
    for fields in [
        &[("x-a", "1")][..],
        &[("x-a", "1"), ("accept", "")],
        &[("x-a", "1"), ("accept", "*/*"), ("accept", "*/*")],
        &[("x-a", ""), ("accept", "*/*")],
        &[("accept", "*/*")],
    ] {
        assert!(!same(&all, &first, &get("/a?q=1", fields)), "{fields:?}");
    }
}

#[test]
fn parts_are_never_taken_for_each_other() {
    let headers = names(&["x-a", "x-b"]);
    let all = looked(true, true, &headers);
    let requests = [
        request("G", "/", "", &[]),
        request("G", "/", "a", &[]),
        request("GA", "/", "", &[]),
        request("G", "/", "", &[("x-a", "")]),
        request("G", "/", "", &[("x-b", "")]),
        request("G", "/", "", &[("x-a", "1"), ("x-a", "2")]),
        request("G", "/", "", &[("x-a", "2"), ("x-a", "1")]),
        request("G", "/", "", &[("x-a", "12")]),
        request("G", "/", "", &[("x-a", "1"), ("x-b", "2")]),
        request("G", "/", "", &[("x-a", "x-b")]),
        request("G", "/?", "", &[]),
    ];
    for (number, first) in requests.iter().enumerate() {
        for (other, second) in requests.iter().enumerate() {
            assert_eq!(same(&all, first, second), number == other, "{number} {other}");
        }
    }
}

#[test]
fn what_is_long_or_looks_at_too_much_is_decided_each_time() {
    let target = |len: usize| format!("/{}", "a".repeat(len));
    let nothing = Looked::default();
    let (short, long) = (get(&target(400), &[]), get(&target(LONGEST), &[]));
    assert!(same(&nothing, &short, &short) && !same(&nothing, &long, &long));
    let headers = names(&["x-a"]);
    let mut many = Looked::default();
    (0..LISTS).for_each(|_| many.add(false, false, &headers));
    let value = "v".repeat(LONGEST);
    assert!(same(&many, &short, &short) && !same(&many, &short, &get("/", &[("x-a", &value)])));
    let large = get("/", &[("x-a", &value)]);
    assert!(!same(&many, &large, &large));
    many.add(false, false, &headers);
    assert!(!same(&many, &short, &short));
    let mut last = Last::default();
    last.set(Asked::effective(&short), &nothing, 1);
    last.set(Asked::effective(&long), &nothing, 2);
    assert_eq!(last.get(Asked::effective(&short)), None, "what was noted before is gone");
    assert!(last.note.text.capacity() <= 2 * LONGEST);
}

#[test]
fn received_and_effective_are_noted_apart() {
    let mut head = get("/a", &[]);
    let mut last = Last::default();
    last.set(Asked::received(&head), &Looked::default(), ());
    head.set_target(b"/b").expect("a target");
    head.set_authority(b"b.test").expect("an authority");
    assert!(last.get(Asked::received(&head)).is_some() && last.get(Asked::effective(&head)).is_none());
}
