// SPDX-License-Identifier: Apache-2.0
use super::*;

const ACCEPT: Name = Name::Known(FieldName::Accept);

fn value(text: &str) -> Value<'_> {
    Value::new(text.as_bytes()).expect("a value")
}

fn other(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a name")
}

/// Accept: a, accept: b, x-one: 1, content-length: 3
fn head() -> Head {
    let mut head = Head::new();
    head.start_request(b"GET", b"/p?q=1", b"a.test:8080").expect("valid");
    head.append(&ACCEPT, value("a")).expect("room");
    head.append(&ACCEPT, value("b")).expect("room");
    head.append(&other("X-One"), value("1")).expect("room");
    head.append(&FieldName::ContentLength.into(), value("3")).expect("room");
    head
}

fn lines(head: &Head) -> Vec<String> {
    head.iter().map(|(name, value)| String::from_utf8_lossy(&[name, b": ", value].concat()).into()).collect()
}

#[test]
fn fields_are_found_by_name_and_in_order() {
    let head = head();
    assert_eq!(head.known(FieldName::Accept), Some(&b"a"[..]));
    assert_eq!(head.values(&ACCEPT).collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(head.get(&other("x-one")), Some(&b"1"[..]));
    assert_eq!(head.get(&other("x-two")), None);
    assert!(head.has(FieldName::ContentLength) && !head.has(FieldName::Host));
    assert_eq!(head.get(&Name::Known(FieldName::Other)), None);
    assert_eq!((head.len(), head.size_bytes()), (4, 7 + 7 + 6 + 15));
    assert_eq!(head.fields().map(Field::known).nth(2), Some(FieldName::Other));
}

#[test]
fn fields_are_found_by_the_text_of_a_name() {
    let mut head = head();
    head.append(&other("x-two"), value("2")).expect("room");
    head.append(&other("x-one"), value("3")).expect("room");
    for name in ["accept", "ACCEPT", "x-one", "X-Two", "x-none", "cookie", "content-length"] {
        let by_text: Vec<_> = head.values_named(name.as_bytes()).collect();
        assert_eq!(by_text, head.values(&other(name)).collect::<Vec<_>>(), "{name}");
    }
    assert_eq!(head.values_named(b"x-one").count(), 2);
    head.remove(&other("x-one"));
    head.remove(&ACCEPT);
    assert_eq!(head.values_named(b"x-one").chain(head.values_named(b"accept")).count(), 0);
    assert_eq!(head.values_named(b"x-two").collect::<Vec<_>>(), [b"2"]);
}

#[test]
fn set_replaces_every_field_of_the_name_in_the_place_of_the_first() {
    let mut head = head();
    head.set(&ACCEPT, value("c")).expect("room");
    head.append(&ACCEPT, value("d")).expect("room");
    head.set(&other("x-two"), value("2")).expect("room");
    assert_eq!(lines(&head), ["accept: c", "x-one: 1", "content-length: 3", "accept: d", "x-two: 2"]);
    assert!(head.remove(&ACCEPT));
    assert!(!head.remove(&ACCEPT) && !head.has(FieldName::Accept));
    head.append(&ACCEPT, value("e")).expect("room");
    assert_eq!(head.known(FieldName::Accept), Some(&b"e"[..]));
    assert!(head.remove(&other("x-one")) && !head.remove(&other("x-one")));
    assert!(head.remove(&other("X-TWO")) && head.remove(&ACCEPT));
    assert_eq!(lines(&head), ["content-length: 3"]);
}

#[test]
fn a_list_is_extended_in_the_place_of_its_first_field() {
    let mut head = head();
    head.extend_list(&ACCEPT, value("c")).expect("room");
    head.extend_list(&other("x-one"), value("2")).expect("room");
    head.extend_list(&other("x-two"), value("3")).expect("room");
    assert_eq!(lines(&head), ["accept: a, b, c", "x-one: 1, 2", "content-length: 3", "x-two: 3"]);
    let long = "x".repeat(MAX_TEXT);
    assert_eq!(head.extend_list(&ACCEPT, value(&long)), Err(TooLarge));
}

#[test]
fn the_start_of_a_path_is_rewritten_alone() {
    for (target, covered, with, wanted) in [
        (&b"/a/b?q=/a"[..], 2, &b"/xyz"[..], &b"/xyz/b?q=/a"[..]),
        (b"/a?q", 2, b"/", b"/?q"),
        (b"/a?q", 99, b"/b", b"/b?q"),
        (b"/a", 0, b"/b", b"/b/a"),
    ] {
        let mut head = Head::new();
        head.start_request(b"GET", target, b"").expect("valid");
        head.set_path_start(covered, with).expect("a target");
        assert_eq!((head.target(), head.received_target()), (wanted, target));
        assert_eq!(head.path(), wanted.split(|byte| *byte == b'?').next().unwrap_or_default());
        for bad in [&b""[..], b"b", b"/\n", b"/#"] {
            assert_eq!(head.set_path_start(usize::MAX, bad), Err(InvalidStart::Target));
        }
        assert_eq!(head.target(), wanted);
        let long = vec![b'/'; MAX_TEXT];
        assert_eq!(head.set_path_start(1, &long), Err(TooLarge.into()));
    }
}

#[test]
fn several_values_are_one_list_and_cookies_one_cookie() {
    let mut scratch = Vec::new();
    let mut head = head();
    assert_eq!(head.combined(&ACCEPT, &mut scratch), Some(&b"a,b"[..]));
    assert_eq!(head.combined(&other("x-one"), &mut scratch), Some(&b"1"[..]));
    assert_eq!(head.combined(&other("x-two"), &mut scratch), None);
    let cookie = Name::Known(FieldName::Cookie);
    for crumb in ["a=1", "b=2", "c=3"] {
        head.append(&cookie, value(crumb)).expect("room");
    }
    assert_eq!(head.combined(&cookie, &mut scratch), Some(&b"a=1; b=2; c=3"[..]));
}

#[test]
fn what_was_received_outlives_every_rewrite() {
    let mut head = head();
    head.set_target(b"/other").expect("a target");
    head.set_authority(b"[fd00::1]:80").expect("an authority");
    assert_eq!((head.target(), head.path(), head.query()), (&b"/other"[..], &b"/other"[..], None));
    assert_eq!(
        (head.received_target(), head.received_authority()),
        (&b"/p?q=1"[..], Some(&b"a.test:8080"[..]))
    );
    assert_eq!(head.host(), b"[fd00::1]");
    assert_eq!(head.set_target(b"/a\r\nb"), Err(InvalidStart::Target));
    assert_eq!(head.set_authority(b"a b"), Err(InvalidStart::Authority));
    assert_eq!(head.target(), b"/other");
}

#[test]
fn a_target_is_path_and_query() {
    let mut head = Head::new();
    for (target, path, query) in [
        (&b"/p?q=1"[..], &b"/p"[..], Some(&b"q=1"[..])),
        (b"/p?", b"/p", Some(b"")),
        (b"/?a?b", b"/", Some(b"a?b")),
        (b"*", b"*", None),
    ] {
        head.start_request(b"OPTIONS", target, b"").expect("valid");
        assert_eq!((head.path(), head.query()), (path, query));
        assert_eq!((head.authority(), head.host()), (None, &b""[..]));
    }
}

#[test]
fn a_cleared_head_remembers_nothing_and_keeps_its_room() {
    let mut head = head();
    let room = head.text.capacity();
    head.clear();
    assert!(head.is_empty() && !head.has(FieldName::Accept) && head.kind() == Kind::Trailers);
    assert_eq!(head.text.capacity(), room);
    let long = "x".repeat(1 << 20);
    head.append(&ACCEPT, value(&long)).expect("room");
    head.clear();
    assert!(head.text.capacity() <= KEPT_TEXT);
}

#[test]
fn a_copy_into_a_head_that_was_used_is_the_same() {
    let (source, mut copy) = (head(), head());
    copy.start_response(503).expect("a status");
    copy.clone_from(&source);
    assert_eq!(lines(&copy), lines(&source));
    assert_eq!(
        (copy.method(), copy.method_text(), copy.target()),
        (Method::Get, &b"GET"[..], &b"/p?q=1"[..])
    );
}

#[test]
fn a_head_has_bounds_of_its_own() {
    let mut head = head();
    let long = "x".repeat(MAX_TEXT);
    assert_eq!(head.append(&ACCEPT, value(&long)), Err(TooLarge));
    let mut head = Head::new();
    for _ in 0..MAX_FIELDS {
        head.append(&ACCEPT, value("")).expect("room");
    }
    assert_eq!(head.append(&ACCEPT, value("")), Err(TooLarge));
}

#[test]
fn methods_say_whether_they_may_be_repeated() {
    for (method, idempotent) in
        [("GET", true), ("PUT", true), ("POST", false), ("PATCH", false), ("PURGE", false), ("get", false)]
    {
        assert_eq!(Method::of(method.as_bytes()).is_idempotent(), idempotent, "{method}");
    }
    assert_eq!(size_of::<Field>(), 32);
}

#[test]
fn lines_that_were_written_before_are_added_as_others_are() {
    let lines_before = Lines::new([
        (FieldName::XForwardedFor, value("192.0.2.1")),
        (FieldName::Via, value("")),
        (FieldName::XForwardedProto, value("http")),
    ]);
    let (mut one, mut other) = (head(), head());
    one.append_lines(&lines_before).expect("room");
    for (name, text) in
        [(FieldName::XForwardedFor, "192.0.2.1"), (FieldName::Via, ""), (FieldName::XForwardedProto, "http")]
    {
        other.append(&name.into(), value(text)).expect("room");
    }
    assert!(one.is_made_as(&other), "{:?}", lines(&one));
    assert_eq!(one.known(FieldName::XForwardedProto), Some(&b"http"[..]));
    let values = [0, 1, 2, 3].map(|at| lines_before.value(at).as_bytes());
    assert_eq!(values, [&b"192.0.2.1"[..], b"", b"http", b""]);
}
