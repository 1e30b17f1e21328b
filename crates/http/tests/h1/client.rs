// SPDX-License-Identifier: Apache-2.0
//! The client's end, against servers that behave and that do not.

use weft_ebpf_common::reason::Reason;
use weft_http::{
    h1::{Client, Event, Length, Limits, Retry},
    head::{Head, Value},
};

use crate::support::{add, read_response, request, text};

const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn get(client: &mut Client) -> String {
    let mut out = Vec::new();
    client.send_head(&request("GET", "/x?y"), Length::Bytes(0), &mut out).expect("idle");
    text(&out)
}

/// Sends GET and reads the whole answer.
fn exchange(client: &mut Client, answer: &[u8]) -> String {
    get(client);
    let mut input = answer.to_vec();
    let (messages, ended) = read_response(client, &mut input).expect("valid");
    assert!(ended && input.is_empty(), "{}", text(answer));
    text(&messages.last().expect("a response").content)
}

#[test]
fn a_connection_is_idle_after_each_complete_response() {
    let mut client = Client::new(Limits::default());
    for (answer, content) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", "abc"),
    ] {
        assert!(client.is_idle());
        assert_eq!(get(&mut client), "GET /x?y HTTP/1.1\r\nhost: a.example\r\n\r\n");
        let mut input = answer.as_bytes().to_vec();
        let (messages, ended) = read_response(&mut client, &mut input).expect("valid");
        assert!(ended && client.is_idle(), "{answer}");
        assert_eq!(text(&messages.last().expect("a response").content), content, "{answer}");
    }
    assert_eq!(client.answered(), 6);
}

#[test]
fn a_response_is_the_same_wherever_it_is_split() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
        HTTP/1.1 200 OK\r\nServer: s\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n";
    for split in 0..answer.len() {
        let mut client = Client::new(Limits::default());
        get(&mut client);
        let mut input = answer[..split].to_vec();
        let (mut messages, ended) = read_response(&mut client, &mut input).expect("valid");
        assert!(!ended);
        input.extend_from_slice(&answer[split..]);
        let mut head = Head::new();
        let (mut content, mut trailers) = (Vec::new(), false);
        while let (used, Some(event)) = client.receive(&input, &mut head).expect("valid") {
            match event {
                Event::Head => messages.push(Default::default()),
                Event::Data(data) => content.extend_from_slice(data),
                Event::Trailers => trailers = head.len() == 1,
                Event::End => panic!("trailers are the end"),
            }
            input.drain(..used);
        }
        let before: Vec<u8> = messages.iter().flat_map(|message| message.content.clone()).collect();
        assert_eq!([before, content].concat(), b"abc", "split at {split}");
        assert!(trailers && messages.len() == 2 && client.is_idle(), "split at {split}");
    }
}

#[test]
fn a_connection_that_cannot_carry_another_request_is_not_idle() {
    for (answer, content) in [
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
    ] {
        let mut client = Client::new(Limits::default());
        assert_eq!(exchange(&mut client, answer.as_bytes()), content);
        assert!(!client.is_idle() && client.wants_close(), "{answer}");
    }
    let mut client = Client::new(Limits::default());
    get(&mut client);
    let mut input = b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec();
    let (messages, ended) = read_response(&mut client, &mut input).expect("valid");
    assert_eq!((&messages[0].content[..], ended), (&b"abc"[..], false));
    assert_eq!(client.content_length(), Length::Unknown);
    assert_eq!(client.received_end(), Ok(Some(Event::End)));
    assert!(!client.is_idle() && client.wants_close());
}

#[test]
fn bytes_that_answer_no_request_end_the_connection_and_not_the_response_before() {
    let mut client = Client::new(Limits::default());
    get(&mut client);
    let mut input = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n".to_vec();
    let (messages, ended) = read_response(&mut client, &mut input).expect("valid");
    assert_eq!((&messages[0].content[..], ended), (&b"abc"[..], true));
    let error = client.receive(&input, &mut Head::new()).expect_err("nobody asked");
    assert_eq!(error.reason, Reason::UpstreamProtocol);
    assert!(!client.is_idle() && client.wants_close());
    for garbage in [&b"x"[..], b"\r\n", b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let mut client = Client::new(Limits::default());
        exchange(&mut client, EMPTY);
        assert!(client.receive(garbage, &mut Head::new()).is_err());
        assert!(client.send_head(&request("GET", "/"), Length::Bytes(0), &mut Vec::new()).is_err());
    }
}

#[test]
fn cut_and_malformed_responses_are_errors_with_their_reason() {
    for (answer, reason) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Reason::UpstreamReset),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Reason::UpstreamReset),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Reason::UpstreamProtocol),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", Reason::UpstreamProtocol),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nab", Reason::UpstreamProtocol),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nab", Reason::UpstreamProtocol),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            Reason::UpstreamProtocol,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Reason::UpstreamProtocol),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            Reason::UpstreamProtocol,
        ),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Reason::UpstreamProtocol),
        ("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", Reason::UpstreamProtocol),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Reason::UpstreamProtocol),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::UpstreamProtocol),
        ("HTTP/1.1 200 OK\r\nConte", Reason::UpstreamReset),
        ("", Reason::UpstreamReset),
    ] {
        let mut client = Client::new(Limits::default());
        get(&mut client);
        let mut input = answer.as_bytes().to_vec();
        let read = read_response(&mut client, &mut input);
        let error = read.and_then(|_| client.received_end()).expect_err(answer);
        assert_eq!((error.reason, error.status), (reason, Some(502)), "{answer}");
        assert_eq!(client.retry(true), Retry::No, "{answer}");
        assert!(client.wants_close());
    }
}

/// Every prefix of a response is a response cut short, except for those that end where it ends.
#[test]
fn a_response_cut_at_any_byte_is_never_taken_for_a_whole_one() {
    for answer in [
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: 1\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    ] {
        for cut in 0..answer.len() {
            let mut client = Client::new(Limits::default());
            get(&mut client);
            let mut input = answer.as_bytes()[..cut].to_vec();
            let (_, ended) = read_response(&mut client, &mut input).expect("valid so far");
            assert!(!ended, "{answer:?} cut at {cut}");
            let error = client.received_end().expect_err("cut");
            assert_eq!(error.reason, Reason::UpstreamReset, "{answer:?} cut at {cut}");
        }
    }
}

#[test]
fn what_was_not_answered_may_be_sent_again_where_that_is_safe() {
    let mut client = Client::new(Limits::default());
    assert_eq!(client.received_end(), Ok(None));
    let mut client = Client::new(Limits::default());
    get(&mut client);
    assert_eq!((client.retry(false), client.retry(true)), (Retry::Safe, Retry::No));
    let mut client = Client::new(Limits::default());
    exchange(&mut client, EMPTY);
    get(&mut client);
    assert_eq!((client.retry(false), client.retry(true)), (Retry::Safe, Retry::IfIdempotent));
    assert_eq!(client.receive(b"H", &mut Head::new()), Ok((0, None)));
    assert_eq!(client.retry(true), Retry::No);
}

#[test]
fn content_is_framed_by_what_is_known_of_it() {
    let mut client = Client::new(Limits::default());
    let mut lying = request("POST", "/x?y");
    add(&mut lying, "content-length", "7");
    add(&mut lying, "transfer-encoding", "chunked");
    let start = "POST /x?y HTTP/1.1\r\nhost: a.example\r\n";
    for (head, length, pieces, expected) in [
        (&lying, Length::Bytes(5), vec!["hel", "lo"], "content-length: 5\r\n\r\nhello"),
        (
            &lying,
            Length::Unknown,
            vec!["hel", "", "lo"],
            "transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ),
        (&request("POST", "/x?y"), Length::Bytes(0), vec![], "content-length: 0\r\n\r\n"),
    ] {
        let mut out = Vec::new();
        client.send_head(head, length, &mut out).expect("idle");
        assert_eq!(client.wants_content(), length != Length::Bytes(0));
        for piece in pieces {
            client.send_data(piece.as_bytes(), &mut out).expect("as announced");
        }
        client.finish(&mut out).expect("as announced");
        assert_eq!(text(&out), format!("{start}{expected}"));
        let mut input = EMPTY.to_vec();
        assert!(read_response(&mut client, &mut input).expect("valid").1);
        assert!(client.is_idle());
    }
}

#[test]
fn content_that_breaks_its_promise_ends_the_connection() {
    for (data, ends) in [("abcd", false), ("ab", true)] {
        let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
        client.send_head(&request("POST", "/"), Length::Bytes(3), &mut out).expect("idle");
        let sent = client.send_data(data.as_bytes(), &mut out);
        assert_eq!(sent.is_ok(), ends);
        let error = sent.and_then(|()| client.finish(&mut out)).expect_err("not three bytes");
        assert_eq!(error.reason, Reason::BadRequest);
        assert!(client.wants_close());
    }
}

#[test]
fn an_early_response_is_read_while_the_request_is_still_being_sent() {
    let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
    client.send_head(&request("POST", "/"), Length::Unknown, &mut out).expect("idle");
    let mut input = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\n".to_vec();
    let (messages, ended) = read_response(&mut client, &mut input).expect("valid");
    assert_eq!((messages[0].head.status(), ended), (413, false));
    assert!(client.wants_content());
    client.send_data(b"first", &mut out).expect("still wanted");
    assert!(out.ends_with(b"5\r\nfirst\r\n"));
    let mut input = b"big".to_vec();
    assert!(read_response(&mut client, &mut input).expect("valid").1);
    // The request never ended, so the connection cannot carry another.
    assert!(!client.is_idle() && client.wants_close() && !client.wants_content());
}

#[test]
fn an_early_response_to_a_request_that_ends_in_time_keeps_the_connection() {
    let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
    client.send_head(&request("POST", "/"), Length::Bytes(3), &mut out).expect("idle");
    let mut input = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab".to_vec();
    assert!(!read_response(&mut client, &mut input).expect("valid").1);
    client.send_data(b"abc", &mut out).expect("wanted");
    client.finish(&mut out).expect("complete");
    input.extend_from_slice(b"c");
    assert!(read_response(&mut client, &mut input).expect("valid").1);
    assert!(client.is_idle());
}

#[test]
fn a_request_with_expect_waits_for_the_word_of_the_server() {
    let mut expecting = request("POST", "/");
    add(&mut expecting, "expect", "100-continue");
    let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
    client.send_head(&expecting, Length::Bytes(5), &mut out).expect("idle");
    assert!(client.waits_for_continue());
    let mut input = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    read_response(&mut client, &mut input).expect("valid");
    assert!(!client.waits_for_continue() && client.wants_content());
    client.send_data(b"hello", &mut out).expect("wanted");
    client.finish(&mut out).expect("complete");
    let mut input = EMPTY.to_vec();
    assert!(read_response(&mut client, &mut input).expect("valid").1);
    // The caller lost its patience.
    client.send_head(&expecting, Length::Bytes(5), &mut out).expect("idle");
    client.send_data(b"hello", &mut out).expect("wanted");
    assert!(!client.waits_for_continue());
    client.finish(&mut out).expect("complete");
    let mut input = EMPTY.to_vec();
    assert!(read_response(&mut client, &mut input).expect("valid").1);
    // A final response instead of the word: the content is not wanted, and was announced.
    client.send_head(&expecting, Length::Bytes(5), &mut out).expect("idle");
    let mut input = b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (messages, ended) = read_response(&mut client, &mut input).expect("valid");
    assert_eq!((messages[0].head.status(), ended), (417, true));
    assert!(!client.wants_content() && client.wants_close());
    // Without content nothing waits.
    let mut client = Client::new(Limits::default());
    client.send_head(&expecting, Length::Bytes(0), &mut out).expect("idle");
    assert!(!client.waits_for_continue());
}

#[test]
fn a_switched_connection_leaves_what_follows_to_the_tunnel() {
    let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
    let mut offer = request("GET", "/");
    offer.set_upgrade(Value::literal("websocket")).expect("room");
    add(&mut offer, "te", "trailers");
    client.send_head(&offer, Length::Bytes(0), &mut out).expect("idle");
    assert!(text(&out).ends_with("te: trailers\r\nconnection: te, upgrade\r\nupgrade: websocket\r\n\r\n"));
    let mut input =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw".to_vec();
    let (messages, _) = read_response(&mut client, &mut input).expect("offered");
    assert_eq!(messages[0].head.upgrade(), Some(&b"websocket"[..]));
    assert!(client.is_tunnel() && !client.wants_close());
    assert_eq!(input, b"raw");
}

#[test]
fn a_server_switches_only_to_what_was_offered() {
    for (answer, length) in [("h2c", 0), ("websocket, h2c", 0), ("websocket", 3)] {
        let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
        let mut offer = request("POST", "/");
        offer.set_upgrade(Value::literal("websocket")).expect("room");
        client.send_head(&offer, Length::Bytes(length), &mut out).expect("idle");
        let input = format!("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: {answer}\r\n\r\n");
        let error = client.receive(input.as_bytes(), &mut Head::new()).expect_err(answer);
        assert_eq!(error.reason, Reason::UpstreamProtocol);
    }
}

#[test]
fn a_server_sends_only_so_many_interim_responses() {
    let mut client = Client::new(Limits::default());
    get(&mut client);
    let mut input = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(17);
    let error = read_response(&mut client, &mut input).expect_err("17 are too many");
    assert_eq!(error.reason, Reason::UpstreamProtocol);
}

#[test]
fn connect_has_the_authority_as_its_target() {
    let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
    let mut head = Head::new();
    head.start_request(b"CONNECT", b"/", b"a.test:443").expect("valid");
    client.send_head(&head, Length::Bytes(0), &mut out).expect("idle");
    assert_eq!(text(&out), "CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\n\r\n");
    // What a 2xx says of a length means nothing.
    let mut input = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw".to_vec();
    let (messages, ended) = read_response(&mut client, &mut input).expect("valid");
    assert_eq!((messages[0].head.status(), ended, &input[..]), (200, false, &b"raw"[..]));
    assert!(client.is_tunnel());
}

#[test]
fn the_answer_to_head_has_no_content_whatever_it_says() {
    let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
    client.send_head(&request("HEAD", "/"), Length::Bytes(0), &mut out).expect("idle");
    for framing in ["Content-Length: 7", "Transfer-Encoding: chunked"] {
        let mut input = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").into_bytes();
        let (messages, ended) = read_response(&mut client, &mut input).expect("valid");
        assert!(ended && messages[0].content.is_empty() && client.is_idle());
        client.send_head(&request("HEAD", "/"), Length::Bytes(0), &mut out).expect("idle");
    }
}
