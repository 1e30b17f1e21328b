// SPDX-License-Identifier: Apache-2.0
//! From HTTP/2 to HTTP/1.1: what a field of HTTP/2 can hold and a line of HTTP/1.1 cannot never goes
//! upstream, and what both can hold goes there and back unchanged.

use proptest::{collection::vec, prelude::*};
use weft_http::{
    h1::{self, Client, Length, Limits, Server},
    h2::{Config, Connection, Event, PREFACE, StreamId},
    head::{FieldName, Head, Kind, Method, Scheme},
};

use crate::support::{add, lines, request, respond, response, text};

type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

/// A header block of literals that no table remembers, without Huffman codes (RFC 7541, section 6.2.2).
fn block(fields: Fields<'_>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "one byte of length");
            block.push(text.len() as u8);
            block.extend_from_slice(text);
        }
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What goes upstream of one request, and whether it went there as a whole.
fn downgrade(fields: Fields<'_>, content: Option<&[u8]>, trailers: Option<Fields<'_>>) -> (String, bool) {
    let mut out = Vec::new();
    let mut server = Connection::server(&Config::default(), &mut out);
    let end = if content.is_none() && trailers.is_none() { END_STREAM } else { 0 };
    let mut input = PREFACE.to_vec();
    input.extend(frame(SETTINGS, 0, 0, b""));
    input.extend(frame(HEADERS, END_HEADERS | end, 1, &block(fields)));
    if let Some(content) = content {
        input.extend(frame(DATA, if trailers.is_none() { END_STREAM } else { 0 }, 1, content));
    }
    if let Some(trailers) = trailers {
        input.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
    }
    let (mut client, mut upstream) = (Client::new(Limits::default()), Vec::new());
    let (mut rest, mut head, mut complete) = (&input[..], Head::new(), false);
    loop {
        let received = server.receive(rest, &mut head, &mut out);
        rest = &rest[received.consumed..];
        let ended = match received.event {
            None => break,
            Some(Event::Head { end, .. }) => {
                let said = head.known(FieldName::ContentLength).map(|text| String::from_utf8_lossy(text));
                let length = match said.and_then(|text| text.parse().ok()) {
                    Some(length) => Length::Bytes(length),
                    None if end => Length::Bytes(0),
                    None => Length::Unknown,
                };
                if client.send_head(&head, length, &mut upstream).is_err() {
                    break;
                }
                end
            }
            Some(Event::Data { content, end, .. }) => {
                client.send_data(content, &mut upstream).expect("no more than was said");
                end
            }
            Some(Event::Trailers { .. }) => {
                client.send_trailers(&head, &mut upstream).expect("all that was said");
                complete = true;
                false
            }
            Some(_) => break,
        };
        if ended {
            client.finish(&mut upstream).expect("all that was said");
            complete = true;
        }
    }
    (text(&upstream), complete)
}

const START: [(&[u8], &[u8]); 4] =
    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")];

fn with<'a>(more: Fields<'a>) -> Vec<(&'a [u8], &'a [u8])> {
    START.iter().chain(more).copied().collect()
}

fn replaced<'a>(name: &'a [u8], value: &'a [u8]) -> Vec<(&'a [u8], &'a [u8])> {
    START.iter().map(|(old, text)| (*old, if *old == name { value } else { text })).collect()
}

#[test]
fn no_field_of_http_2_becomes_two_lines_of_http_1() {
    let mut count = 0;
    let mut refused = |fields: Fields<'_>| {
        let (upstream, complete) = downgrade(fields, None, None);
        assert_eq!((&upstream[..], complete), ("", false), "{fields:?}");
        count += 1;
    };
    for value in [
        &b"1\r\nX: 2"[..],
        b"1\nX: 2",
        b"1\rX: 2",
        b"1\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
        b"1\0",
        b"\0",
        b"\r",
        b"\n",
        b"1\x7f",
        b"\x01",
        b" 1",
        b"1 ",
        b"\t1",
        b"1\t",
    ] {
        refused(&with(&[(b"x-a", value)]));
        refused(&with(&[(b"content-length", value)]));
    }
    for name in [
        &b"x a"[..],
        b"x:a",
        b"x-a:",
        b"x\r\ny",
        b"x\ny",
        b"x\0y",
        b"X-A",
        b"Content-Length",
        b"",
        b" x",
        b"x\t",
        b"\xc3\xa4",
        b"x\x7f",
        b"x\"y",
        b"transfer-encoding: chunked\r\nx",
        b":status",
        b":unknown",
        b":",
        b":path",
        b":method",
    ] {
        refused(&with(&[(name, b"1")]));
    }
    for (name, value) in [
        (&b"transfer-encoding"[..], &b"chunked"[..]),
        (b"connection", b"close"),
        (b"connection", b"x-a"),
        (b"keep-alive", b"5"),
        (b"proxy-connection", b"x"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"te", b"trailers, chunked"),
        (b"host", b"b"),
        (b"host", b"a b"),
        (b"content-length", b"+3"),
        (b"content-length", b"3, 3"),
        (b"content-length", b""),
        (b"content-length", b"0x3"),
        (b"content-length", b"18446744073709551616"),
    ] {
        refused(&with(&[(name, value)]));
    }
    for (name, value) in [
        (&b":path"[..], &b"/ HTTP/1.1\r\nX: 1"[..]),
        (b":path", b"/\r\n"),
        (b":path", b"/a b"),
        (b":path", b"/\0"),
        (b":path", b"/#f"),
        (b":path", b"/\xff"),
        (b":path", b"a"),
        (b":path", b""),
        (b":path", b"*"),
        (b":path", b"http://b/"),
        (b":method", b"GET / HTTP/1.1\r\nX: 1\r\n\r\n"),
        (b":method", b"GE T"),
        (b":method", b""),
        (b":method", b"CONNECT"),
        (b":scheme", b"http://b/?"),
        (b":scheme", b"ftp"),
        (b":authority", b"a\r\nX: 1"),
        (b":authority", b"a b"),
        (b":authority", b"u@a"),
        (b":authority", b"a/b"),
        (b":authority", b"a,b"),
    ] {
        refused(&replaced(name, value));
    }
    refused(&with(&[(b"content-length", b"3"), (b"content-length", b"3")]));
    refused(&with(&[(b"host", b"a"), (b"host", b"a")]));
    refused(&with(&[(b"x-a", b"1"), (b":path", b"/hidden")]));
    refused(&START[..3].iter().rev().chain(&START[..1]).copied().collect::<Vec<_>>());
    refused(&START[1..]);
    assert!(count >= 80, "{count} shapes");
}

#[test]
fn content_that_disagrees_with_its_length_never_ends_a_request() {
    for (length, content) in
        [(&b"3"[..], &b"abcd"[..]), (b"3", b"ab"), (b"3", b""), (b"0", b"GET /hidden HTTP/1.1\r\n\r\n")]
    {
        let (upstream, complete) = downgrade(&with(&[(b"content-length", length)]), Some(content), None);
        assert!(!complete && !upstream.contains("hidden"), "{upstream}");
    }
    let (upstream, complete) = downgrade(&with(&[(b"content-length", b"3")]), None, None);
    assert_eq!((&upstream[..], complete), ("", false));
}

#[test]
fn trailers_of_http_2_are_held_to_the_same_rules() {
    for (name, value) in [
        (&b"x-a"[..], &b"1\r\n\r\nGET /hidden HTTP/1.1"[..]),
        (b"x a", b"1"),
        (b":path", b"/hidden"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"3"),
        (b"host", b"b"),
    ] {
        let (upstream, complete) = downgrade(&START, Some(b"abc"), Some(&[(name, value)]));
        assert!(!complete && !upstream.contains("hidden") && !upstream.contains("\r\n0\r\n"), "{upstream}");
    }
}

#[test]
fn what_both_versions_can_say_goes_upstream_as_one_request() {
    let start = "POST / HTTP/1.1\r\nhost: a\r\n";
    for (fields, content, trailers, expected) in [
        (with(&[]), None, None, "content-length: 0\r\n\r\n"),
        (with(&[(b"x-a", b"1")]), None, None, "x-a: 1\r\ncontent-length: 0\r\n\r\n"),
        (with(&[(b"host", b"a")]), None, None, "content-length: 0\r\n\r\n"),
        (with(&[(b"host", b"A")]), None, None, "content-length: 0\r\n\r\n"),
        (
            with(&[]),
            Some(&b"0\r\n\r\nGET"[..]),
            None,
            "transfer-encoding: chunked\r\n\r\n8\r\n0\r\n\r\nGET\r\n0\r\n\r\n",
        ),
        (with(&[(b"content-length", b"3")]), Some(b"abc"), None, "content-length: 3\r\n\r\nabc"),
        (with(&[(b"content-length", b"03")]), Some(b"abc"), None, "content-length: 3\r\n\r\nabc"),
        (
            with(&[(b"te", b"trailers")]),
            Some(b"abc"),
            Some(&[(&b"x-t"[..], &b"1"[..])][..]),
            "te: trailers\r\ntransfer-encoding: chunked\r\nconnection: te\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        ),
        (
            with(&[(b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2"), (b"cookie", b"c=3")]),
            None,
            None,
            "cookie: a=1; b=2; c=3\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n",
        ),
        (with(&[(b"x-a", b"\xe4 b\tc")]), None, None, "x-a: \u{fffd} b\tc\r\ncontent-length: 0\r\n\r\n"),
        (with(&[(b"x-a", b"")]), None, None, "x-a: \r\ncontent-length: 0\r\n\r\n"),
    ] {
        let (upstream, complete) = downgrade(&fields, content, trailers);
        assert_eq!((upstream, complete), (format!("{start}{expected}"), true), "{fields:?}");
    }
}

/// Both ends of an HTTP/2 connection, greeted.
struct Http2 {
    client: Connection,
    server: Connection,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Http2 {
    fn new() -> Http2 {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let client = Connection::client(&Config::default(), &mut to_server);
        let server = Connection::server(&Config::default(), &mut to_client);
        let mut both = Http2 { client, server, to_server, to_client };
        for _ in 0..3 {
            let mut head = Head::new();
            assert_eq!(both.at_server(&mut head), None);
            assert_eq!(both.at_client(&mut head), None);
        }
        both
    }

    /// The stream of the head that arrives at the server, if one does.
    fn at_server(&mut self, head: &mut Head) -> Option<StreamId> {
        arrive(&mut self.server, &mut self.to_server, head, &mut self.to_client)
    }

    fn at_client(&mut self, head: &mut Head) -> Option<StreamId> {
        arrive(&mut self.client, &mut self.to_client, head, &mut self.to_server)
    }
}

fn arrive(end: &mut Connection, input: &mut Vec<u8>, head: &mut Head, out: &mut Vec<u8>) -> Option<StreamId> {
    loop {
        let received = end.receive(input, head, out);
        let consumed = received.consumed;
        let found = match received.event {
            None => {
                input.drain(..consumed);
                return None;
            }
            Some(Event::Head { stream, .. }) => Some(stream),
            Some(other) => panic!("{other:?}"),
        };
        input.drain(..consumed);
        if found.is_some() {
            return found;
        }
    }
}

fn lower(head: &Head) -> Vec<String> {
    lines(head)
        .iter()
        .map(|line| line.split_once(": ").expect("a line"))
        .map(|(name, value)| format!("{}: {value}", name.to_lowercase()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// HTTP/1.1 to HTTP/2 to HTTP/1.1, request and response: the same heads but for the case of names.
    #[test]
    fn a_head_comes_through_both_versions_as_it_was(
        fields in vec(("[a-zA-Z][a-zA-Z0-9-]{0,20}", "([!-~\u{80}-\u{ff}]([ -~\t\u{80}-\u{ff}]{0,30}[!-~\u{80}-\u{ff}])?)?"), 0..10),
        target in "/[a-z0-9/.%~-]{0,30}(\\?[a-z0-9=&%]{0,20})?",
        status in 200..600u16,
    ) {
        let own = ["connection", "keep-alive", "upgrade", "host", "te", "expect", "content-length", "trailer",
            "transfer-encoding", "proxy-connection"];
        prop_assume!(fields.iter().all(|(name, _)| !own.contains(&&name.to_lowercase()[..])));
        let mut text = format!("GET {target} HTTP/1.1\r\nHost: a.test:8080\r\n");
        fields.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        let (mut received, mut across, mut back) = (Head::new(), Head::new(), Head::new());
        let mut server = Server::new(Limits::default(), Scheme::Http);
        server.receive(text.as_bytes(), &mut received).expect("valid");
        let mut http2 = Http2::new();
        http2.client.open(&received, true, 7, &mut http2.to_server).expect("room");
        let stream = http2.at_server(&mut across).expect("a request");
        let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
        client.send_head(&across, Length::Bytes(0), &mut out).expect("idle");
        Server::new(Limits::default(), Scheme::Http).receive(&out, &mut back).expect("valid");
        prop_assert_eq!((back.method(), back.target(), back.authority()), (Method::Get, received.target(), received.authority()));
        prop_assert_eq!(lower(&back), lower(&received));

        let mut answer = response(status);
        fields.iter().for_each(|(name, value)| add(&mut answer, name, value));
        out.clear();
        server.receive(b"", &mut Head::new()).expect("the end");
        server.send_head(&answer, Length::Bytes(0), &mut out).expect("due");
        client.receive(&out, &mut received).expect("valid");
        http2.server.send_head(stream, &received, true, &mut http2.to_client).expect("due");
        http2.at_client(&mut across).expect("a response");
        prop_assert_eq!((across.kind(), across.status()), (Kind::Response, status));
        let kept: Vec<String> = lower(&across).into_iter().filter(|line| !line.starts_with("content-length")).collect();
        prop_assert_eq!(kept, lower(&answer));
    }
}

/// The machines of HTTP/1.1 give `h1::Event`, those of HTTP/2 their own; both fill the same head.
#[test]
fn a_head_of_http_2_is_answered_over_http_1() {
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let (mut head, mut out) = (Head::new(), Vec::new());
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(server.receive(get, &mut head), Ok((get.len(), Some(h1::Event::Head))));
    let mut http2 = Http2::new();
    http2.client.open(&request("GET", "/"), true, 0, &mut http2.to_server).expect("room");
    let stream = http2.at_server(&mut head).expect("a request");
    let mut answer = response(200);
    add(&mut answer, "set-cookie", "a");
    add(&mut answer, "set-cookie", "b");
    http2.server.send_head(stream, &answer, true, &mut http2.to_client).expect("due");
    http2.at_client(&mut head).expect("a response");
    server.send_head(&head, Length::Bytes(0), &mut out).expect("due");
    assert_eq!(text(&out), "HTTP/1.1 200 OK\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 0\r\n\r\n");
    server.finish(&mut out).expect("complete");
    server.receive(get, &mut head).expect("valid");
    respond(&mut server, 200, b"", &mut out);
}
