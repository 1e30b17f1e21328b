// SPDX-License-Identifier: Apache-2.0
//! The server's end.

use weft_ebpf_common::reason::Reason;
use weft_http::{
    error::Scope,
    h1::{Event, Length, Limits, Server},
    head::{Head, Scheme, Value},
};

use crate::support::{Message, Peer, add, lines, respond, response};

const GET: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Answers with the content and the trailers behind it.
fn collected(server: &mut Server, request: &Message, out: &mut Vec<u8>) {
    let content = [request.content.clone(), request.trailers.concat().into_bytes()].concat();
    respond(server, 200, &content, out);
}

#[test]
fn a_smuggled_request_behind_a_malformed_one_is_never_dispatched() {
    for head in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nContent-Length: 3\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 30\r\n\r\n",
        "GET / HTTP/1.1\r\nX: 1\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut peer = Peer::new(collected);
        let answer = peer.feed(head) + &peer.feed(GET);
        assert_eq!(
            answer, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "{head:?}"
        );
        assert!(peer.seen.is_empty(), "{head:?}");
        let error = peer.error.expect("refused");
        assert_eq!((error.reason, error.scope), (Reason::BadRequest, Scope::Connection));
        assert!(peer.server.wants_close());
    }
}

#[test]
fn one_empty_line_before_a_request_is_ignored() {
    let mut peer = Peer::new(collected);
    assert_eq!(peer.feed("\r"), "");
    assert_eq!(peer.feed(format!("\n{GET}\r\n{GET}")), format!("{OK}{OK}"));
}

#[test]
fn a_malformed_chunk_ends_the_connection_and_hides_what_follows() {
    for chunk in ["zz\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "0\r\nX : 1\r\n\r\n"] {
        let mut peer = Peer::new(collected);
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = peer.feed(head) + &peer.feed(chunk) + &peer.feed(GET);
        assert!(answer.starts_with("HTTP/1.1 400"), "{chunk:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
        assert_eq!(peer.seen, ["POST /"]);
        assert_eq!(peer.error.map(|error| error.reason), Some(Reason::BadRequest));
    }
}

#[test]
fn oversized_heads_are_refused_before_they_are_complete() {
    let long_target = format!("GET /{}", "x".repeat(20_000));
    let long_field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(1 << 20));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: 1\r\n".repeat(10_000));
    for (head, status, reason) in [
        (long_target, "414", Reason::UriTooLong),
        (long_field, "431", Reason::HeadersTooLarge),
        (many_fields, "431", Reason::HeadersTooLarge),
    ] {
        for size in [64, 1000, head.len()] {
            let mut peer = Peer::new(collected);
            let answer: String = head.as_bytes().chunks(size).map(|piece| peer.feed(piece)).collect();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert_eq!(peer.error.map(|error| error.reason), Some(reason));
        }
    }
}

#[test]
fn requests_are_read_wherever_they_are_split() {
    let bytes = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
        POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n\
        GET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc\
        HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\ndeX-T: 1\
        HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for split in 0..=bytes.len() {
        let mut peer = Peer::new(collected);
        let answer = peer.feed(&bytes[..split]) + &peer.feed(&bytes[split..]);
        assert_eq!(answer, expected, "split at {split}");
        assert_eq!(peer.seen, ["POST /a", "POST /b", "GET /c"]);
        assert!(peer.server.wants_close());
    }
    let mut peer = Peer::new(collected);
    let answer: String = bytes.as_bytes().chunks(1).map(|byte| peer.feed(byte)).collect();
    assert_eq!(answer, expected);
}

#[test]
fn the_next_request_stays_with_the_caller_until_the_response_is_done() {
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let (mut head, input) = (Head::new(), format!("{GET}{GET}"));
    let first = server.receive(input.as_bytes(), &mut head).expect("valid");
    assert_eq!(first, (GET.len(), Some(Event::Head)));
    let rest = &input.as_bytes()[GET.len()..];
    assert_eq!(server.receive(rest, &mut head), Ok((0, Some(Event::End))));
    assert_eq!(server.receive(rest, &mut head), Ok((0, None)));
    assert!(!server.is_idle() && !server.wants_close());
    respond(&mut server, 200, b"", &mut Vec::new());
    assert!(server.is_idle());
    assert_eq!(server.receive(rest, &mut head), Ok((GET.len(), Some(Event::Head))));
}

#[test]
fn content_and_trailers_stream_through() {
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let (mut head, mut out) = (Head::new(), Vec::new());
    let request = b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    server.receive(request, &mut head).expect("valid");
    assert_eq!(server.content_length(), Length::Unknown);
    server.send_head(&response(200), server.content_length(), &mut out).expect("due");
    assert_eq!(server.receive(b"2\r\nde", &mut head), Ok((5, Some(Event::Data(b"de")))));
    server.send_data(b"de", &mut out).expect("begun");
    assert!(out.ends_with(b"transfer-encoding: chunked\r\n\r\n2\r\nde\r\n"));
    out.clear();
    let end = b"\r\n0\r\nX-T: 1\r\n\r\n";
    assert_eq!(server.receive(end, &mut head), Ok((end.len(), Some(Event::Trailers))));
    server.send_trailers(&head, &mut out).expect("begun");
    assert_eq!(out, b"0\r\nX-T: 1\r\n\r\n");
    assert!(server.is_idle());
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let (mut head, mut out, mut input) = (Head::new(), Vec::new(), format!("{GET}{GET}").into_bytes());
    for _ in 0..2 {
        let (used, event) = server.receive(&input, &mut head).expect("valid");
        assert_eq!(event, Some(Event::Head));
        input.drain(..used);
        assert_eq!(server.receive(&input, &mut head), Ok((0, Some(Event::End))));
        assert_eq!(server.received_end(), Ok(()));
        assert!(!server.wants_close());
        respond(&mut server, 200, b"late", &mut out);
    }
    assert_eq!(server.receive(&input, &mut head), Ok((0, None)));
    assert!(server.wants_close());
    assert_eq!(out.len(), 2 * "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate".len());
}

/// What is left of it may come together with the next request, of which nothing more comes then.
#[test]
fn the_next_request_is_read_with_the_rest_of_one_that_was_answered_early() {
    for (begin, rest) in [
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "2\r\ncd\r\n0\r\nX-T: 1\r\n\r\n"),
        ("Content-Length: 4\r\n\r\nab", "cd"),
    ] {
        for piece in [1, rest.len(), rest.len() + GET.len()] {
            let mut peer = Peer::new(collected);
            peer.feed(format!("POST / HTTP/1.1\r\nHost: a\r\n{begin}"));
            respond(&mut peer.server, 200, b"", &mut peer.out);
            peer.out.clear();
            let mut answers = String::new();
            for bytes in [rest, GET].concat().as_bytes().chunks(piece) {
                answers += &peer.feed(bytes);
            }
            assert_eq!(answers, OK, "{begin:?} {piece}");
        }
    }
}

#[test]
fn a_client_that_closes_inside_a_request_is_told_nothing() {
    for (input, ends) in [
        ("GET / HT", false),
        ("\r", false),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", false),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", false),
        ("", true),
        ("\r\n", true),
    ] {
        let mut peer = Peer::new(collected);
        peer.feed(input);
        let end = peer.server.received_end();
        assert_eq!(end.is_ok(), ends, "{input:?}");
        if let Err(error) = end {
            assert_eq!((error.reason, error.status), (Reason::ClientReset, None));
            peer.server.refuse(&error, &mut peer.out);
        }
        assert!(peer.server.wants_close() && peer.out.is_empty(), "{input:?}");
    }
    // The second request of a pipeline is cut.
    for cut in ["GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"] {
        let mut server = Server::new(Limits::default(), Scheme::Http);
        let (mut head, mut input) = (Head::new(), format!("{GET}{cut}").into_bytes());
        input.drain(..server.receive(&input, &mut head).expect("valid").0);
        assert_eq!(server.receive(&input, &mut head), Ok((0, Some(Event::End))));
        assert_eq!(server.received_end(), Ok(()));
        respond(&mut server, 200, b"", &mut Vec::new());
        let failed = loop {
            match server.receive(&input, &mut head) {
                Ok((used, Some(_))) => drop(input.drain(..used)),
                Ok((_, None)) => panic!("waits for a client that is gone"),
                Err(error) => break error,
            }
        };
        assert_eq!(failed.reason, Reason::ClientReset);
    }
}

#[test]
fn http_1_0_gets_a_connection_that_ends_or_says_that_it_stays() {
    let mut peer = Peer::new(collected);
    assert_eq!(
        peer.feed("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"
    );
    assert!(peer.feed("GET / HTTP/1.0\r\n\r\n").contains("connection: close\r\n"));
    assert!(peer.server.wants_close());
}

/// Content whose length nobody knows.
fn unsized_content(server: &mut Server, _: &Message, out: &mut Vec<u8>) {
    server.send_head(&response(200), Length::Unknown, out).expect("due");
    for piece in ["one", "", "two"] {
        server.send_data(piece.as_bytes(), out).expect("begun");
    }
    server.finish(out).expect("begun");
}

#[test]
fn content_without_length_is_chunked_or_ends_with_the_connection() {
    let mut peer = Peer::new(unsized_content);
    assert_eq!(
        peer.feed(GET),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    );
    assert_eq!(
        peer.feed("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo"
    );
    assert!(peer.server.wants_close());
}

#[test]
fn answers_without_content_keep_the_length_that_is_true_elsewhere() {
    let answer = |server: &mut Server, request: &Message, out: &mut Vec<u8>| {
        let path = String::from_utf8_lossy(request.head.path()).into_owned();
        let mut head = response(path[1..].parse().expect("a status"));
        add(&mut head, "content-length", "42");
        server.send_head(&head, Length::Bytes(0), out).expect("due");
        server.finish(out).expect("nothing was announced");
    };
    let mut peer = Peer::new(answer);
    for (request, expected) in [
        ("HEAD /200", "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n"),
        ("GET /304", "HTTP/1.1 304 Not Modified\r\ncontent-length: 42\r\n\r\n"),
        ("GET /204", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET /200", OK),
    ] {
        assert_eq!(peer.feed(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")), expected, "{request}");
    }
}

#[test]
fn the_content_of_a_response_that_has_none_is_not_written() {
    let mut peer = Peer::new(|server: &mut Server, request: &Message, out: &mut Vec<u8>| {
        let status = if request.head.path() == b"/304" { 304 } else { 200 };
        server.send_head(&response(status), Length::Bytes(3), out).expect("due");
        server.send_data(b"abc", out).expect("ignored");
        server.finish(out).expect("nothing was announced");
    });
    assert_eq!(
        peer.feed("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"),
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"
    );
    assert_eq!(peer.feed("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n"), "HTTP/1.1 304 Not Modified\r\n\r\n");
}

#[test]
fn continue_is_sent_only_when_the_content_is_asked_for() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let mut peer = Peer::new(collected);
    assert_eq!(peer.feed(request), "");
    assert!(peer.server.expects_continue());
    peer.server.send_continue(&mut peer.out);
    assert!(!peer.server.expects_continue());
    assert_eq!(
        peer.feed("abc"),
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
    );
    // The content is on its way already.
    peer.feed(format!("{request}a"));
    peer.server.send_continue(&mut peer.out);
    assert_eq!(peer.feed("bc"), "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc");
    // Refused: whether the content comes nobody can tell.
    peer.feed(request);
    respond(&mut peer.server, 417, b"", &mut peer.out);
    let answer = peer.feed("abc");
    assert!(answer.starts_with("HTTP/1.1 417") && answer.contains("connection: close"), "{answer}");
    assert!(peer.server.wants_close());
}

#[test]
fn interim_responses_are_for_those_who_know_them() {
    let answer = |server: &mut Server, _: &Message, out: &mut Vec<u8>| {
        let mut hints = response(103);
        add(&mut hints, "link", "</a>");
        server.send_head(&hints, Length::Bytes(0), out).expect("due");
        respond(server, 200, b"", out);
    };
    let mut peer = Peer::new(answer);
    assert_eq!(peer.feed(GET), format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}"));
    assert!(peer.feed("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn content_that_nobody_read_is_drained_up_to_a_bound() {
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let (mut head, mut out) = (Head::new(), Vec::new());
    let small = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n";
    server.receive(small.as_bytes(), &mut head).expect("valid");
    respond(&mut server, 200, b"no", &mut out);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno");
    assert!(!server.is_idle() && !server.wants_close());
    assert_eq!(server.receive(b"abc", &mut head), Ok((3, None)));
    assert_eq!(server.receive(b"def", &mut head), Ok((3, None)));
    assert!(server.is_idle());
    assert_eq!(server.receive(GET.as_bytes(), &mut head), Ok((GET.len(), Some(Event::Head))));
    respond(&mut server, 200, b"", &mut out);
    out.clear();
    let large = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
    server.receive(large.as_bytes(), &mut head).expect("valid");
    respond(&mut server, 200, b"", &mut out);
    assert!(out.ends_with(b"connection: close\r\n\r\n") && server.wants_close());
}

#[test]
fn chunks_that_nobody_read_are_drained_up_to_the_same_bound() {
    let limits = Limits { drain_bytes: 4, ..Limits::default() };
    for (rest, stays) in
        [("2\r\nab\r\n2\r\ncd\r\n0\r\nX: 1\r\n\r\n", true), ("5\r\nabcde\r\n", false), ("x\r\n", false)]
    {
        let mut server = Server::new(limits, Scheme::Http);
        let mut head = Head::new();
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        server.receive(request, &mut head).expect("valid");
        respond(&mut server, 200, b"", &mut Vec::new());
        server.receive(rest.as_bytes(), &mut head).expect("nobody asks for it");
        assert_eq!((server.is_idle(), server.wants_close()), (stays, !stays), "{rest:?}");
    }
}

#[test]
fn content_not_as_long_as_announced_ends_the_connection() {
    let start = |server: &mut Server| {
        let (mut head, mut out) = (Head::new(), Vec::new());
        server.receive(GET.as_bytes(), &mut head).expect("valid");
        server.send_head(&response(200), Length::Bytes(10), &mut out).expect("due");
        out
    };
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let mut out = start(&mut server);
    server.send_data(b"abc", &mut out).expect("less so far");
    let error = server.finish(&mut out).expect_err("too short");
    assert_eq!((error.reason, error.status), (Reason::UpstreamReset, None));
    assert!(server.wants_close());
    assert_eq!(out, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let mut out = start(&mut server);
    let error = server.send_data(b"0123456789a", &mut out).expect_err("too long");
    assert_eq!(error.reason, Reason::UpstreamReset);
    assert!(out.ends_with(b"\r\n\r\n") && server.wants_close());
}

#[test]
fn leaving_ends_idle_connections_at_once_and_busy_ones_after_their_answer() {
    let mut peer = Peer::new(collected);
    peer.feed(GET);
    assert!(!peer.server.wants_close());
    peer.server.leave();
    assert!(peer.server.wants_close());
    let mut peer = Peer::new(|server: &mut Server, _: &Message, out: &mut Vec<u8>| {
        server.leave();
        assert!(!server.wants_close());
        respond(server, 200, b"done", out);
    });
    assert_eq!(peer.feed(GET), "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone");
    assert!(peer.server.wants_close());
}

#[test]
fn an_upgrade_leaves_what_follows_to_the_tunnel() {
    let offer = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut peer = Peer::new(|server: &mut Server, request: &Message, out: &mut Vec<u8>| {
        let mut head = response(101);
        head.set_upgrade(Value::new(request.head.upgrade().expect("an offer")).expect("a value"))
            .expect("room");
        server.send_head(&head, Length::Bytes(0), out).expect("offered");
    });
    assert_eq!(
        peer.feed(format!("{offer}raw ")),
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    assert!(peer.server.is_tunnel() && !peer.server.wants_close());
    peer.feed("bytes");
    assert_eq!(peer.input, b"raw bytes");
}

#[test]
fn a_switch_that_nobody_offered_is_not_written() {
    let offer = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for (fields, with) in [("", true), (offer, false), (&format!("{offer}Content-Length: 3\r\n"), true)] {
        let mut server = Server::new(Limits::default(), Scheme::Http);
        let (mut head, mut out) = (Head::new(), Vec::new());
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        server.receive(request.as_bytes(), &mut head).expect("valid");
        let mut switch = response(101);
        if with {
            switch.set_upgrade(Value::literal("websocket")).expect("room");
        }
        let error = server.send_head(&switch, Length::Bytes(0), &mut out).expect_err("not offered");
        assert_eq!((error.reason, error.status), (Reason::UpstreamProtocol, Some(502)));
        respond(&mut server, 502, b"", &mut out);
        assert!(out.starts_with(b"HTTP/1.1 502"));
    }
}

#[test]
fn connect_is_refused_or_becomes_a_tunnel_as_the_caller_likes() {
    let limits = Limits { connect: true, ..Limits::default() };
    let connect = "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n";
    let mut peer = Peer::with(limits, |server: &mut Server, request: &Message, out: &mut Vec<u8>| {
        assert_eq!(request.head.authority(), Some(&b"a.test:443"[..]));
        respond(server, 405, b"", out);
    });
    // A client that counts on the tunnel sends its bytes at once: they are no request.
    assert_eq!(
        peer.feed(format!("{connect}{GET}")),
        "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    assert!(peer.server.wants_close());
    assert_eq!(peer.seen.len(), 1);
    let mut peer = Peer::with(limits, |server: &mut Server, _: &Message, out: &mut Vec<u8>| {
        let mut head = response(200);
        add(&mut head, "content-length", "3");
        server.send_head(&head, Length::Unknown, out).expect("due");
    });
    assert_eq!(peer.feed(format!("{connect}raw")), "HTTP/1.1 200 OK\r\n\r\n");
    assert!(peer.server.is_tunnel());
    assert_eq!(peer.input, b"raw");
}

#[test]
fn fields_are_written_once_and_in_order() {
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let (mut head, mut out) = (Head::new(), Vec::new());
    server.receive(GET.as_bytes(), &mut head).expect("valid");
    let mut head = response(200);
    for (name, value) in [
        ("server", "weft"),
        ("content-length", "9"),
        ("content-length", "3"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-a"),
        ("keep-alive", "5"),
        ("upgrade", "h2c"),
        ("proxy-connection", "x"),
        ("host", "b"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
    ] {
        add(&mut head, name, value);
    }
    assert_eq!(lines(&head).len(), 12);
    server.send_head(&head, Length::Bytes(3), &mut out).expect("due");
    assert_eq!(
        String::from_utf8_lossy(&out),
        "HTTP/1.1 200 OK\r\nserver: weft\r\ncontent-length: 3\r\nset-cookie: a\r\nset-cookie: b\r\n\r\n"
    );
}

#[test]
fn a_machine_that_is_used_wrongly_says_so() {
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let mut out = Vec::new();
    for error in [
        server.send_head(&response(200), Length::Bytes(0), &mut out).expect_err("no request"),
        server.send_data(b"x", &mut out).expect_err("no head"),
        server.finish(&mut out).expect_err("no head"),
    ] {
        assert_eq!(error.reason, Reason::Internal);
    }
    server.receive(GET.as_bytes(), &mut Head::new()).expect("valid");
    assert!(server.send_head(&Head::new(), Length::Bytes(0), &mut out).is_err());
    assert!(out.is_empty());
}
