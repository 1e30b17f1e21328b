// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;
use crate::head::{FieldName, Name};

fn parse(head: &[u8]) -> Result<(Head, Outline), Error> {
    let mut parsed = Head::new();
    let (len, outline) = request(head, &mut parsed, &Limits::default(), Scheme::Http)?;
    assert_eq!(len, head.len());
    Ok((parsed, outline))
}

fn parse_response(head: &[u8]) -> Result<(Head, Outline), Error> {
    let mut parsed = Head::new();
    response(head, &mut parsed, &Limits::default()).map(|(_, outline)| (parsed, outline))
}

fn status(head: &[u8]) -> Option<u16> {
    parse(head).err().and_then(|error| error.status)
}

fn names(head: &Head) -> Vec<String> {
    head.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
}

#[test]
fn malformed_requests_are_refused() {
    let table: &[(u16, &[u8])] = &[
        // Two framings, or one that is not clear (RFC 9112 section 6.3).
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 4\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n"),
        (
            400,
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
        (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
        // Lines and names (RFC 9112 sections 2.2, 5.1, 5.2).
        (400, b"GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX\0Y: 1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\0\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\x7f\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa4: 1\r\n\r\n"),
        // The request line (section 3).
        (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\r\nHost: a\r\n\r\n"),
        (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (501, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (501, b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n"),
        // Host (section 3.2).
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: [::1,b]\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: []\r\n\r\n"),
        (400, b"GET http://a/ HTTP/1.1\r\n\r\n"),
    ];
    for (expected, head) in table {
        assert_eq!(status(head), Some(*expected), "{}", String::from_utf8_lossy(head));
    }
}

#[test]
fn too_many_headers_and_too_long_targets_have_their_own_status() {
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(128));
    assert_eq!(status(many.as_bytes()), Some(431));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17_000));
    assert_eq!(status(long.as_bytes()), Some(414));
}

#[test]
fn a_request_is_taken_apart() {
    let head = b"POST /p?q=1 HTTP/1.1\r\nhOsT: a.example:8080\r\nAccept:\t x \r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n";
    let (head, outline) = parse(head).expect("valid");
    assert_eq!((head.method(), head.method_text()), (Method::Post, &b"POST"[..]));
    assert_eq!((head.path(), head.query()), (&b"/p"[..], Some(&b"q=1"[..])));
    assert_eq!(head.authority(), Some(&b"a.example:8080"[..]));
    assert_eq!(head.host(), b"a.example");
    assert_eq!(head.known(FieldName::Accept), Some(&b"x"[..]));
    assert!(!head.has(FieldName::Host));
    assert_eq!(outline.framing, Framing::Bytes(12));
    assert!(outline.keep_alive && outline.expects_continue);
}

#[test]
fn the_authority_of_an_absolute_target_replaces_host() {
    for (target, expected, path) in [
        ("http://b.example/x?y", "/x?y", "/x"),
        ("HTTPS://b.example/x?y", "/x?y", "/x"),
        ("http://b.example?y", "/?y", "/"),
        ("http://b.example?y`", "/?y`", "/"),
        ("http://b.example", "/", "/"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let (head, _) = parse(head.as_bytes()).expect("valid");
        assert_eq!((head.target(), head.path()), (expected.as_bytes(), path.as_bytes()));
        assert_eq!(head.received_target(), expected.as_bytes());
        assert_eq!(head.authority(), Some(&b"b.example"[..]));
    }
}

#[test]
fn options_takes_the_asterisk() {
    for target in ["*", "http://a"] {
        let head = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(parse(head.as_bytes()).expect("valid").0.target(), b"*");
    }
}

#[test]
fn ipv6_and_empty_hosts_are_hosts() {
    let (head, _) = parse(b"GET / HTTP/1.1\r\nHost: [fd00::1]:80\r\n\r\n").expect("valid");
    assert_eq!((head.authority(), head.host()), (Some(&b"[fd00::1]:80"[..]), &b"[fd00::1]"[..]));
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost:\r\n\r\n").expect("valid").0.authority(), None);
    assert_eq!(parse(b"GET / HTTP/1.0\r\n\r\n").expect("valid").0.authority(), None);
}

#[test]
fn connection_specific_fields_and_what_connection_names_are_gone() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Secret, close, content-length, te\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n\
        Proxy-Connection: x\r\nTE: trailers\r\nUpgrade: h2c\r\nContent-Length: 0\r\nX-Kept: 1\r\n\r\n";
    let (head, outline) = parse(head).expect("valid");
    assert_eq!(names(&head), ["TE", "Content-Length", "X-Kept"]);
    assert!(
        head.has(FieldName::Te) && head.has(FieldName::ContentLength) && !head.has(FieldName::Connection)
    );
    // Upgrade counts only if Connection names it (RFC 9110, section 7.8).
    assert_eq!(head.upgrade(), None);
    assert!(!outline.keep_alive);
}

#[test]
fn connection_names_known_fields_too_and_several_times() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\nX-A: 1\r\nX-B: 2\r\nx-a: 3\r\nConnection: accept, x-a\r\n\
        Cookie: c\r\nConnection:cookie ,,x-a\r\n\r\n";
    let (head, _) = parse(head).expect("valid");
    assert_eq!(names(&head), ["X-B"]);
    assert!(!head.has(FieldName::Accept) && !head.has(FieldName::Cookie));
    assert_eq!(head.get(&Name::new(b"x-b").expect("a name")), Some(&b"2"[..]));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", ["x"; 33].join(","));
    assert_eq!(status(many.as_bytes()), Some(400));
}

#[test]
fn keep_alive_follows_version_and_connection() {
    for (version, connection, expected) in [
        ("1.1", "x", true),
        ("1.1", "close", false),
        ("1.1", "keep-alive, Close", false),
        ("1.0", "x", false),
        ("1.0", "Keep-Alive", true),
        ("1.0", "keep-alive, close", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        let (_, outline) = parse(head.as_bytes()).expect("valid");
        assert_eq!(outline.keep_alive, expected, "{version} {connection}");
    }
}

#[test]
fn malformed_responses_are_refused() {
    for head in [
        &b"HTTP/1.1 20 OK\r\n\r\n"[..],
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 099 x\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200\rOK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
    ] {
        assert!(parse_response(head).is_err(), "{}", String::from_utf8_lossy(head));
    }
    assert_eq!(parse_response(b"HTTP/1.1 204\r\n\r\n").expect("valid").0.status(), 204);
    let (_, outline) = parse_response(b"HTTP/1.0 200 Fine by me\r\n\r\n").expect("valid");
    assert_eq!(outline.framing, Framing::Unsaid);
}

proptest! {
    #[test]
    fn arbitrary_heads_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut head = bytes;
        head.extend_from_slice(b"\r\n\r\n");
        let (mut parsed, limits) = (Head::new(), Limits::default());
        for len in [
            request(&head, &mut parsed, &limits, Scheme::Http).map(|(len, _)| len),
            response(&head, &mut parsed, &limits).map(|(len, _)| len),
            trailers(&head, &mut parsed, &limits).map(|(len, ())| len),
        ] {
            prop_assert!(len.is_err() || len.is_ok_and(|len| len <= head.len()));
        }
    }

    /// Whatever is accepted holds no byte that could start another line or message when it is written.
    #[test]
    fn accepted_heads_hold_no_line_break(
        target in "[ -~\t\r\n\0]{0,20}",
        name in "[ -~\t\r\n\0]{0,10}",
        value in "[ -~\t\r\n\0\u{80}-\u{ff}]{0,20}",
    ) {
        let head = format!("GET /{target} HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n\r\n");
        let mut parsed = Head::new();
        if request(head.as_bytes(), &mut parsed, &Limits::default(), Scheme::Http).is_ok() {
            let safe = |bytes: &[u8]| bytes.iter().all(|byte| !matches!(byte, b'\r' | b'\n' | 0));
            prop_assert!(safe(parsed.target()));
            for (name, value) in parsed.iter() {
                prop_assert!(safe(value) && octets::is_token(name));
            }
        }
    }
}

#[test]
fn only_websocket_is_an_upgrade() {
    for (offer, expected) in [
        ("websocket", Some("websocket")),
        ("WebSocket", Some("WebSocket")),
        ("h2c", None),
        ("websocket, h2c", None),
        ("TLS/1.0", None),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {offer}\r\n\r\n");
        let (head, _) = parse(head.as_bytes()).expect("valid");
        assert_eq!(head.upgrade(), expected.map(str::as_bytes), "{offer}");
    }
}

#[test]
fn connect_is_for_callers_that_ask_for_it() {
    let limits = Limits { connect: true, ..Limits::default() };
    let parse = |target: &str, fields: &str| {
        let (mut head, text) = (Head::new(), format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        request(text.as_bytes(), &mut head, &limits, Scheme::Http).map(|_| head)
    };
    let head = parse("a.test:443", "").expect("valid");
    assert_eq!(
        (head.method(), head.authority(), head.target()),
        (Method::Connect, Some(&b"a.test:443"[..]), &b""[..])
    );
    for target in ["a.test", "a.test:", "/", "*", "http://a.test:443", ":443", "u@a:443", "a:443/x", "[::1"] {
        assert!(parse(target, "").is_err(), "{target}");
    }
    for fields in ["Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n"] {
        assert!(parse("a.test:443", fields).is_err(), "{fields}");
    }
}
