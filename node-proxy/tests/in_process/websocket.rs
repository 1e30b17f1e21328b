// SPDX-License-Identifier: Apache-2.0
//! WebSockets from either version of HTTP to either: how they begin, what passes, how they end.

use std::{net::Shutdown, time::Duration};

use weft_ebpf_common::reason::Reason;
use weft_http::{
    h2::{Config, ErrorCode, PREFACE},
    head::{FieldName, Head, Value},
    websocket,
};
use weft_ir::{AppProtocol, Resource};
use weft_node_proxy::Limits;

use crate::{
    by_hand::{ByHand, CONNECT, Http2, Origin, Peer, Plain},
    mesh::{CLIENT, VIP, policy, rule, shop, to_service},
    support::{backend, route, service},
};

/// The key of RFC 6455, section 1.3, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Whether client and endpoint speak HTTP/2.
const ALL: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn gateway(http2: bool, origin: &Origin) -> ByHand {
    let protocol = if http2 { AppProtocol::Http2 } else { AppProtocol::Http };
    let mut resources = service("web", protocol, &[origin.address()]);
    resources.push(Resource::Route(route("web", "/", vec![backend("web", 1)])));
    ByHand::gateway(resources)
}

/// The request of a WebSocket.
fn offer(hand: &mut ByHand, client: &mut Peer) {
    match client {
        Peer::Plain(plain) => {
            let begin =
                "GET /chat HTTP/1.1\r\nhost: web.shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
            plain.send(
                format!("{begin}sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n").as_bytes(),
            );
        }
        Peer::Http2(http2) => {
            hand.until("extended connects are allowed", || {
                http2.poll();
                http2.connection.takes_extended_connect() == Some(true)
            });
            let mut head = Head::new();
            head.start_request(b"GET", b"/chat", b"web.shop").expect("a request");
            head.set_upgrade(Value::literal("websocket")).expect("room");
            assert_eq!(websocket::offer_to_connect(&mut head), Ok(true));
            http2.open(&head, &[("sec-websocket-version", "13")], false);
        }
    }
}

/// The endpoint's end of the connection that the request came on.
fn offered(hand: &mut ByHand, origin: &Origin, http2: bool) -> Peer {
    let mut server = None;
    hand.until("the endpoint is asked", || {
        server = server.take().or_else(|| Some(Peer::server(origin.accept()?, http2)));
        match &mut server {
            Some(Peer::Plain(plain)) => plain.text().ends_with("\r\n\r\n"),
            Some(Peer::Http2(http2)) => http2.requests().len() == 1,
            None => false,
        }
    });
    let mut server = server.expect("it is there");
    match &mut server {
        Peer::Plain(plain) => {
            let text = plain.text();
            assert!(text.starts_with("GET /chat HTTP/1.1\r\n"), "{text}");
            assert!(text.contains("connection: upgrade\r\nupgrade: websocket\r\n"), "{text}");
            assert!(!text.contains("content-length") && !text.contains("transfer-encoding"), "{text}");
        }
        Peer::Http2(http2) => {
            assert_eq!(http2.on(1), ["CONNECT /chat websocket"]);
            assert!(!http2.head().has(FieldName::SecWebsocketKey));
        }
    }
    server
}

/// The endpoint agrees, with this proof or the right one.
fn agree(server: &mut Peer, proof: Option<&str>) {
    match server {
        Peer::Plain(plain) => {
            let text = plain.text();
            let key = text.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("a key");
            let accept = websocket::accept(key.as_bytes()).expect("a key");
            let accept = proof.unwrap_or(std::str::from_utf8(&accept).expect("text"));
            plain.came.clear();
            let begin = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
            plain.send(format!("{begin}sec-websocket-accept: {accept}\r\n\r\n").as_bytes());
        }
        Peer::Http2(http2) => http2.answer(1, 200, &[("content-length", "5")], false),
    }
}

/// Client and endpoint of a stream that has begun.
fn open(hand: &mut ByHand, origin: &Origin, plain: Plain, (from, to): (bool, bool)) -> (Peer, Peer) {
    let mut client = Peer::client(plain, from);
    offer(hand, &mut client);
    let mut server = offered(hand, origin, to);
    agree(&mut server, None);
    hand.until("the client is told", || client.status().is_some());
    assert_eq!(client.status().as_deref(), Some(if from { "200" } else { "101" }));
    if let Peer::Plain(plain) = &mut client {
        let head = plain.text();
        let (head, _) = head.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("sec-websocket-accept: {ACCEPT}")), "{head}");
        plain.came.clear();
    }
    (client, server)
}

/// Sends as much as is taken now.
fn push(peer: &mut Peer, bytes: &[u8]) -> usize {
    match peer {
        Peer::Plain(plain) => plain.push(bytes),
        Peer::Http2(http2) => http2.data(1, bytes, false),
    }
}

/// Sends the end.
fn finish(peer: &mut Peer) {
    match peer {
        Peer::Plain(plain) => plain.stream.shutdown(Shutdown::Write).expect("connected"),
        Peer::Http2(http2) => drop(http2.data(1, b"", true)),
    }
}

/// What has come, and whether that was all.
fn received(peer: &mut Peer) -> (String, bool) {
    match peer {
        Peer::Plain(plain) => (plain.text(), plain.ended),
        Peer::Http2(http2) => {
            let words = http2.on(1);
            let data = words.iter().filter_map(|words| words.strip_prefix("data "));
            let text = data.map(|data| data.strip_suffix(" end").unwrap_or(data)).collect();
            (text, words.last().is_some_and(|last| last.ends_with(" end")))
        }
    }
}

/// How a stream was broken off, if it was.
fn broken(peer: &mut Peer) -> Option<String> {
    match peer {
        Peer::Plain(plain) => {
            plain.text();
            plain.ended.then(|| "closed".to_owned())
        }
        Peer::Http2(http2) => http2.on(1).pop().filter(|last| last.starts_with("reset")),
    }
}

fn broken_off(http2: bool) -> &'static str {
    if http2 { "reset 8" } else { "closed" }
}

#[test]
fn bytes_pass_both_ways_and_each_end_is_passed_on_alone() {
    for (from, to) in ALL {
        let origin = Origin::listen([127, 0, 0, 1]);
        let mut hand = gateway(to, &origin);
        let plain = hand.connect();
        let (mut client, mut server) = open(&mut hand, &origin, plain, (from, to));
        // More than the windows of HTTP/2 take at once.
        let content: String = (0..100_000).map(|number| format!("{number:06}")).collect();
        for way in 0..2 {
            let (sender, receiver) = match way {
                0 => (&mut client, &mut server),
                _ => (&mut server, &mut client),
            };
            let mut sent = 0;
            hand.until("all of it comes", || {
                sent += push(sender, &content.as_bytes()[sent..]);
                received(sender);
                received(receiver).0.len() == content.len()
            });
            assert!(received(receiver).0 == content, "{from} {to}");
            // Nothing came the other way, and nothing has ended.
            assert!(received(sender).0.len() == way * content.len() && !received(sender).1);
        }
        finish(&mut client);
        hand.until("the endpoint sees the end", || received(&mut server).1);
        assert_eq!(push(&mut server, b"behind it"), 9);
        hand.until("it comes", || received(&mut client).0.ends_with("behind it"));
        assert!(!received(&mut client).1);
        // The request was recorded when it was answered, and what it led to is not yet.
        assert_eq!(hand.reasons(), [None]);
        finish(&mut server);
        hand.until("the client sees the end", || received(&mut client).1);
        hand.settle();
        assert_eq!(hand.reasons(), [None], "{from} {to}");
    }
}

/// Octets that have come.
fn octets(peer: &mut Peer) -> usize {
    match peer {
        Peer::Plain(plain) => {
            plain.read();
            plain.came.len()
        }
        Peer::Http2(http2) => {
            http2.poll();
            http2.octets
        }
    }
}

/// What sockets of the loopback device may hold on two connections (tcp_rmem and tcp_wmem, 6 and 4 MiB), and room
/// to spare.
const HELD: usize = 24 << 20;

#[test]
fn who_does_not_read_holds_the_other_up_and_gets_everything_later() {
    let piece = vec![0; 65_536];
    for (from, to) in ALL {
        for by_client in [true, false] {
            let origin = Origin::listen([127, 0, 0, 1]);
            let mut hand = gateway(to, &origin);
            let plain = hand.connect();
            let (client, server) = open(&mut hand, &origin, plain, (from, to));
            let (mut sender, mut receiver) = if by_client { (client, server) } else { (server, client) };
            let (mut sent, mut stuck) = (0, 0);
            while stuck < 50 {
                hand.turn();
                let taken = push(&mut sender, &piece);
                sent += taken;
                assert!(sent < HELD, "{from} {to} {by_client}: {sent} octets are held");
                stuck = if taken > 0 { 0 } else { stuck + 1 };
                if taken == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            hand.until("everything comes", || octets(&mut receiver) == sent);
            let more = sent + (2 << 20);
            hand.until("it goes on", || {
                if sent < more {
                    sent += push(&mut sender, &piece);
                }
                octets(&mut receiver) == sent && sent >= more
            });
        }
    }
}

#[test]
fn what_a_client_sends_before_the_answer_comes_behind_it_or_not_at_all() {
    for (to, agreed) in [(false, true), (false, false), (true, true), (true, false)] {
        let origin = Origin::listen([127, 0, 0, 1]);
        let mut hand = gateway(to, &origin);
        let mut client = Peer::client(hand.connect(), true);
        offer(&mut hand, &mut client);
        push(&mut client, b"early");
        let mut server = offered(&mut hand, &origin, to);
        hand.settle();
        assert_eq!(received(&mut server).0.matches("early").count(), 0, "it waits");
        match (&mut server, agreed) {
            (server, true) => agree(server, None),
            (Peer::Plain(plain), false) => {
                plain.came.clear();
                plain.send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
            }
            (Peer::Http2(http2), false) => {
                http2.answer(1, 403, &[], false);
                http2.data(1, b"no", true);
            }
        }
        hand.until("the client is answered", || client.status().is_some());
        hand.settle();
        assert_eq!(client.status().as_deref(), Some(if agreed { "200" } else { "403" }));
        assert_eq!(received(&mut server).0.matches("early").count(), usize::from(agreed), "{to}");
        if !agreed {
            // The rest of it is not wanted, and the connection goes on.
            assert_eq!(received(&mut client).0, "no");
            assert_eq!(broken(&mut client).as_deref(), Some("reset 0"));
            assert_eq!(hand.reasons(), [None]);
        }
    }
}

#[test]
fn an_endpoint_that_does_not_switch_is_no_websocket() {
    // It knows nothing of it, and answers with a page; a page is for a client of HTTP/1.1 to look at.
    let origin = Origin::listen([127, 0, 0, 1]);
    for (http2, status) in [(false, "200"), (true, "501")] {
        let mut hand = gateway(false, &origin);
        let mut client = Peer::client(hand.connect(), http2);
        offer(&mut hand, &mut client);
        let mut server = offered(&mut hand, &origin, false);
        server.answer();
        hand.until("the client is answered", || client.status().is_some());
        assert_eq!(client.status().as_deref(), Some(status));
        assert_eq!(hand.reasons(), [http2.then_some(Reason::TunnelUnsupported)]);
    }
    // It does not prove that it knows what it says.
    let mut hand = gateway(false, &origin);
    let mut client = Peer::client(hand.connect(), true);
    offer(&mut hand, &mut client);
    let mut server = offered(&mut hand, &origin, false);
    agree(&mut server, Some(ACCEPT));
    hand.until("the client is answered", || client.status().is_some());
    assert_eq!(client.status().as_deref(), Some("502"));
    assert_eq!(hand.reasons(), [Some(Reason::UpstreamProtocol)]);
    hand.until("its connection is closed", || received(&mut server).1);
}

#[test]
fn an_endpoint_of_http_2_is_asked_only_if_it_offers_it() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let without = Config { extended_connect: false, ..Config::default() };
    for http2 in [false, true] {
        let mut hand = gateway(true, &origin);
        let mut client = Peer::client(hand.connect(), http2);
        offer(&mut hand, &mut client);
        let mut server = None;
        hand.until("the client is answered", || {
            server = server.take().or_else(|| Some(Http2::server(origin.accept()?, &without)));
            server.iter_mut().for_each(Http2::poll);
            client.status().is_some()
        });
        assert_eq!(client.status().as_deref(), Some("501"));
        assert_eq!(hand.reasons(), [Some(Reason::TunnelUnsupported)]);
        let mut server = server.expect("it was asked");
        assert_eq!(server.requests(), []);
        // Now that it is known: at once, on the same connection, which serves other requests.
        let mut plain = Peer::client(hand.connect(), false);
        offer(&mut hand, &mut plain);
        hand.until("the client is answered", || plain.status().is_some());
        assert_eq!(plain.status().as_deref(), Some("501"));
        let mut other = Peer::client(hand.connect(), false);
        other.get("/");
        hand.until("the endpoint is asked", || server.requests().len() == 1);
        assert!(origin.accept().is_none());
    }
}

/// What an endpoint takes is not known before it says so; it may never do.
#[test]
fn an_endpoint_that_says_nothing_is_waited_for_only_so_long() {
    let origin = Origin::listen([127, 0, 0, 1]);
    for closes in [false, true] {
        let mut hand = gateway(true, &origin);
        let mut client = Peer::client(hand.connect(), false);
        offer(&mut hand, &mut client);
        let mut silent = None;
        hand.until("the endpoint is connected to", || {
            silent = silent.take().or_else(|| Some(Plain::new(origin.accept()?)));
            silent.as_mut().is_some_and(|silent| !silent.text().is_empty())
        });
        hand.settle();
        assert_eq!(client.status(), None);
        match closes {
            true => drop(silent),
            false => hand.pass(Limits::default().content_timeout + Duration::from_millis(50)),
        }
        hand.until("the client is answered", || client.status().is_some());
        let (status, reason) = match closes {
            true => ("502", Reason::UpstreamReset),
            false => ("504", Reason::UpstreamTimeout),
        };
        assert_eq!(client.status().as_deref(), Some(status));
        assert_eq!(hand.reasons(), [Some(reason)]);
    }
    // Nobody listens there any more.
    let mut hand = gateway(true, &origin);
    drop(origin);
    let mut client = Peer::client(hand.connect(), false);
    offer(&mut hand, &mut client);
    hand.pass(CONNECT);
    hand.until("the client is answered", || client.status().is_some());
    assert_eq!(hand.reasons(), [Some(Reason::UpstreamConnectFailed)]);
}

/// A frame of HTTP/2 with a head whose fields are literals.
fn raw_head(stream: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    let mut frame = vec![0, 0, block.len() as u8, 1, 4, 0, 0, 0, stream];
    frame.extend(block);
    frame
}

#[test]
fn other_tunnels_are_refused_with_their_reason() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let mut hand = gateway(false, &origin);
    let mut client = hand.connect();
    client.send(PREFACE);
    client.send(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let (method, scheme) = ((":method", "CONNECT"), (":scheme", "http"));
    let (path, authority) = ((":path", "/"), (":authority", "web.shop:80"));
    client.send(&raw_head(1, &[method, (":protocol", "connect-udp"), scheme, path, authority]));
    client.send(&raw_head(3, &[method, authority]));
    hand.settle();
    assert_eq!(hand.reasons(), [Some(Reason::TunnelUnsupported); 2]);
    client.text();
    assert!(!client.ended, "the connection goes on");
    // A literal of the first answer, to which the second refers.
    assert!(client.came.windows(3).any(|window| window == b"501"));
    let mut plain = hand.connect();
    plain.send(b"CONNECT web.shop:80 HTTP/1.1\r\nhost: web.shop:80\r\n\r\n");
    hand.until("it is answered", || plain.text().starts_with("HTTP/1.1 501 "));
    hand.settle();
    assert_eq!(hand.reasons(), [Some(Reason::TunnelUnsupported)]);
    assert!(origin.accept().is_none());
}

/// A client pod whose requests for a path may go to the Service's one endpoint.
fn allowing(origin: &Origin, http2: bool, path: &str) -> Vec<Resource> {
    let mut resources = shop(origin.address(), ([127, 0, 0, 46], 1).into(), "node-b");
    for resource in &mut resources {
        if let (Resource::Service(service), true) = (resource, http2) {
            service.ports.iter_mut().for_each(|port| port.app_protocol = AppProtocol::Http2);
        }
    }
    resources.push(to_service(route("v1", "/", vec![backend("v1", 1)])));
    resources.push(policy("out", "client", false, "v1", Some(vec![rule("GET", path)])));
    resources
}

#[test]
fn a_websocket_is_a_get_to_policies_and_ends_when_they_no_longer_allow_it() {
    // A client of HTTP/2 that was redirected is kept at that, so that three of four ways are left.
    for (from, to) in [(false, false), (false, true), (true, true)] {
        let origin = Origin::listen([127, 0, 0, 45]);
        let mut hand = ByHand::new(allowing(&origin, to, "/other"));
        let mut refused = Peer::client(hand.redirected(CLIENT, VIP.into()), from);
        offer(&mut hand, &mut refused);
        hand.until("it is answered", || refused.status().is_some());
        assert_eq!(refused.status().as_deref(), Some("403"));
        assert_eq!(hand.reasons(), [Some(Reason::HttpPolicyDenied)]);
        hand.publish(allowing(&origin, to, "/chat"));
        let plain = hand.redirected(CLIENT, VIP.into());
        let (mut client, mut server) = open(&mut hand, &origin, plain, (from, to));
        // A change that still allows it leaves it alone.
        hand.publish(allowing(&origin, to, "/cha."));
        push(&mut client, b"still");
        hand.until("it comes", || received(&mut server).0 == "still");
        assert_eq!(hand.reasons(), [None]);
        hand.publish(allowing(&origin, to, "/other"));
        hand.until("both are told", || broken(&mut client).is_some() && broken(&mut server).is_some());
        assert_eq!(broken(&mut client).as_deref(), Some(broken_off(from)));
        assert_eq!(broken(&mut server).as_deref(), Some(broken_off(to)));
        assert_eq!(hand.reasons(), [Some(Reason::PolicyTightened)]);
    }
}

#[test]
fn a_break_on_one_side_is_one_on_the_other() {
    for (from, to) in ALL {
        for by_client in [true, false] {
            let origin = Origin::listen([127, 0, 0, 1]);
            let mut hand = gateway(to, &origin);
            let plain = hand.connect();
            let (client, server) = open(&mut hand, &origin, plain, (from, to));
            let (mut breaks, mut other, http2) = match by_client {
                true => (client, server, to),
                false => (server, client, from),
            };
            // What an endpoint has sent before is not lost.
            let last = if by_client { "" } else { "last words" };
            push(&mut breaks, last.as_bytes());
            match &mut breaks {
                Peer::Http2(http2) => http2.reset(1, ErrorCode::CANCEL),
                Peer::Plain(plain) => plain.reset_when_dropped(),
            }
            drop(breaks);
            hand.until("the other is told", || broken(&mut other).is_some());
            assert_eq!(broken(&mut other).as_deref(), Some(broken_off(http2)), "{from} {to} {by_client}");
            assert_eq!(received(&mut other).0, last, "{from} {to}");
            let reason = if by_client { Reason::ClientReset } else { Reason::UpstreamReset };
            assert_eq!(hand.reasons(), [None, Some(reason)], "{from} {to} {by_client}");
        }
    }
}

#[test]
fn a_silent_websocket_ends_with_the_patience_of_a_relay() {
    let limit = Limits::default().relay_timeout;
    for (from, to) in ALL {
        let origin = Origin::listen([127, 0, 0, 1]);
        let mut hand = gateway(to, &origin);
        let plain = hand.connect();
        let (mut client, mut server) = open(&mut hand, &origin, plain, (from, to));
        for (sender, receiver) in [(0, 1), (1, 0)] {
            let mut ends = [&mut client, &mut server];
            hand.pass(limit - Duration::from_secs(1));
            push(ends[sender], b"ping");
            hand.until("it comes", || received(ends[receiver]).0 == "ping");
        }
        hand.pass(limit + Duration::from_millis(50));
        hand.until("both are told", || broken(&mut client).is_some() && broken(&mut server).is_some());
        assert_eq!(hand.reasons(), [None, None]);
    }
}
