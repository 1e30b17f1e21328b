// SPDX-License-Identifier: Apache-2.0
//! What an attack on the running proxy has found, and what peers that are slow, silent or gone must not come to:
//! each case is a sequence of events in its order, on a clock that is moved by hand.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use weft_ebpf_common::reason::Reason;
use weft_http::h2::{Config, ErrorCode};
use weft_ir::{AppProtocol, Resource, RouteRetry, RouteTimeouts};
use weft_node_proxy::Limits;

use crate::{
    by_hand::{ByHand, CONNECT, Http2, Origin, Peer, Plain},
    mesh::{CLIENT, VIP, policy, rule, shop, to_service},
    support::{backend, route, service},
};

/// The longest pause before a retry: less than an idle connection is kept.
const PAUSE: Duration = Duration::from_secs(20);

/// What an endpoint that takes one request at a time on each connection says.
fn one_stream() -> Config {
    Config { max_streams: 1, ..Config::default() }
}

/// A gateway in front of one origin, with routes for everything and, with retries, for `/retried`.
fn gateway(protocol: AppProtocol, origin: SocketAddr) -> ByHand {
    let mut resources = service("web", protocol, &[origin]);
    resources.push(Resource::Route(route("web", "/", vec![backend("web", 1)])));
    let mut retried = route("retried", "/retried", vec![backend("web", 1)]);
    retried.action.timeouts = RouteTimeouts { request: None, backend_request: Some(Duration::from_secs(1)) };
    retried.action.retry = Some(RouteRetry { codes: vec![503], attempts: 1, backoff: Some(PAUSE) });
    resources.push(Resource::Route(retried));
    ByHand::gateway(resources)
}

/// Has a client take every stream of an endpoint that takes one on each connection; the connections.
fn take_all(hand: &mut ByHand, client: &mut Http2, origin: &Origin) -> Vec<Http2> {
    let mut taken = Vec::new();
    for _ in 0..8 {
        client.ask("GET", "/busy", &[], true);
        hand.until("a connection", || match origin.accept() {
            Some(stream) => {
                taken.push(Http2::server(stream, &one_stream()));
                true
            }
            None => false,
        });
        let last = taken.last_mut().expect("it is there");
        hand.until("it is asked, and knows its limit", || {
            last.requests().len() == 1 && !last.connection.pending().settings
        });
    }
    taken
}

#[test]
fn a_post_whose_try_ended_while_it_waited_for_a_stream_is_sent_once() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let mut hand = gateway(AppProtocol::Http2, origin.address());
    let mut client = Http2::client(hand.connect(), &Config::default());
    let mut taken = take_all(&mut hand, &mut client, &origin);
    let post = client.ask("POST", "/retried", &[], false);
    client.data(post, b"once", true);
    hand.settle();
    // The try ends, and a stream is free while the next one is waited for.
    hand.pass(Duration::from_millis(1100));
    taken[0].answer(1, 200, &[], true);
    hand.until("the first is answered", || client.on(1) == ["200 end"]);
    hand.settle();
    let posts = |taken: &mut Vec<Http2>| {
        let all = taken.iter_mut().flat_map(|peer| peer.requests());
        all.filter(|(_, request)| request.starts_with("POST")).count()
    };
    assert_eq!(posts(&mut taken), 0, "its try is over");
    hand.pass(PAUSE);
    hand.until("it is sent", || posts(&mut taken) == 1);
    let (number, _) = taken[0].requests()[1].clone();
    hand.until("its content comes", || taken[0].on(number).contains(&"data once end".into()));
    taken[0].answer(number, 201, &[], true);
    hand.until("it is answered", || client.on(post) == ["201 end"]);
    hand.settle();
    assert_eq!(posts(&mut taken), 1);
}

#[test]
fn refused_streams_open_no_connections_without_bound() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let mut hand = gateway(AppProtocol::Http2, origin.address());
    let mut client = Http2::client(hand.connect(), &Config::default());
    let asked: Vec<u32> = (0..50).map(|_| client.ask("GET", "/", &[], true)).collect();
    let mut open: Vec<(Http2, usize)> = Vec::new();
    hand.until("every request is answered", || {
        open.extend(origin.accept().map(|stream| (Http2::server(stream, &one_stream()), 0)));
        for (peer, refused) in &mut open {
            for (number, _) in peer.requests().split_off(*refused) {
                *refused += 1;
                peer.reset(number, ErrorCode::REFUSED_STREAM);
            }
        }
        asked.iter().all(|number| client.on(*number).first().is_some_and(|status| status == "502"))
    });
    assert!(open.len() <= 8, "{} connections", open.len());
}

/// An endpoint whose connections are never made: its backlog is full.
fn silent() -> (socket2::Socket, Vec<TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(0).expect("a backlog");
    let address = socket.local_addr().expect("an address").as_socket().expect("of the internet");
    // As many as it takes: one waits to be accepted, and the kernel answers no further one.
    let full = TcpStream::connect(address).expect("the one that waits");
    (socket, vec![full], address)
}

#[test]
fn a_connection_that_is_being_made_keeps_its_deadline_when_who_asked_is_gone() {
    let (_socket, _full, address) = silent();
    let mut hand = gateway(AppProtocol::Http2, address);
    let mut client = Http2::client(hand.connect(), &Config::default());
    let first = client.ask("GET", "/", &[], true);
    hand.settle();
    client.reset(first, ErrorCode::CANCEL);
    hand.settle();
    let second = client.ask("GET", "/", &[], true);
    hand.settle();
    assert_eq!(client.on(second), [""; 0], "it waits for the connection");
    hand.pass(CONNECT + Duration::from_millis(50));
    hand.until("it is answered", || client.on(second).first().is_some_and(|status| status == "503"));
    assert_eq!(hand.reasons(), [Some(Reason::ClientReset), Some(Reason::UpstreamConnectFailed)]);
}

#[test]
fn a_timeout_of_the_route_ends_the_wait_for_a_connection() {
    let (_socket, _full, address) = silent();
    for protocol in [AppProtocol::Http, AppProtocol::Http2] {
        let mut resources = service("web", protocol, &[address]);
        let mut short = route("web", "/", vec![backend("web", 1)]);
        short.action.timeouts.request = Some(Duration::from_millis(500));
        resources.push(Resource::Route(short));
        let mut hand = ByHand::gateway(resources);
        let mut client = hand.connect();
        client.send(b"GET / HTTP/1.1\r\nhost: web.shop\r\n\r\n");
        hand.settle();
        hand.pass(Duration::from_millis(550));
        hand.until("it is answered", || client.text().starts_with("HTTP/1.1 504 "));
    }
}

/// A worker with a redirected client, whose requests to `v1` policies allow or not.
fn redirected(origin: &Origin) -> ByHand {
    ByHand::new(allowing(origin, "/.*"))
}

fn allowing(origin: &Origin, path: &str) -> Vec<Resource> {
    let mut resources = shop(origin.address(), ([127, 0, 0, 42], 1).into(), "node-b");
    resources.push(to_service(route("v1", "/", vec![backend("v1", 1)])));
    resources.push(policy("out", "client", false, "v1", Some(vec![rule("GET", path)])));
    resources
}

#[test]
fn a_request_is_decided_again_when_its_connection_stands() {
    for (http2, allowed) in [(false, true), (false, false), (true, true), (true, false)] {
        let origin = Origin::listen([127, 0, 0, 41]);
        let mut hand = redirected(&origin);
        let mut client = Peer::client(hand.redirected(CLIENT, VIP.into()), http2);
        client.get("/a");
        // The worker is not told before its next turn that the connection stands.
        let mut connection = None;
        hand.until("the endpoint is connected to", || {
            connection = origin.accept();
            connection.is_some()
        });
        hand.publish(allowing(&origin, if allowed { "/a" } else { "/b" }));
        let mut server = Peer::server(connection.expect("it is there"), http2);
        let mut asked = 0;
        hand.until("the client is answered", || {
            if server.requests() > asked {
                asked += 1;
                server.answer();
            }
            client.status().is_some()
        });
        hand.settle();
        assert_eq!(client.status().as_deref(), Some(if allowed { "200" } else { "403" }));
        assert_eq!(server.requests(), usize::from(allowed), "what is not allowed is not sent");
        assert_eq!(hand.reasons(), [(!allowed).then_some(Reason::HttpPolicyDenied)]);
    }
}

#[test]
fn what_waited_for_a_stream_is_decided_by_the_policies_of_when_it_is_sent() {
    let origin = Origin::listen([127, 0, 0, 43]);
    let mut hand = redirected(&origin);
    let mut client = Http2::client(hand.redirected(CLIENT, VIP.into()), &Config::default());
    let mut taken = take_all(&mut hand, &mut client, &origin);
    let waits = ["/a", "/b"].map(|path| client.ask("GET", path, &[], true));
    hand.settle();
    hand.publish(allowing(&origin, "/b"));
    taken[0].answer(1, 200, &[], true);
    hand.until("one is sent", || taken[0].requests().len() == 2);
    assert_eq!(taken[0].requests()[1].1, "GET /b end");
    hand.until("the other is refused", || client.on(waits[0]).first().is_some_and(|status| status == "403"));
    let reasons = hand.reasons();
    assert_eq!(reasons.iter().flatten().collect::<Vec<_>>(), [&Reason::HttpPolicyDenied]);
}

#[test]
fn the_next_try_is_decided_by_the_policies_of_when_it_is_sent() {
    let origin = Origin::listen([127, 0, 0, 44]);
    let retried = |path| {
        let mut resources = allowing(&origin, path);
        let mut retried = route("v1", "/", vec![backend("v1", 1)]);
        retried.action.retry = Some(RouteRetry { codes: vec![503], attempts: 1, backoff: Some(PAUSE) });
        resources.push(to_service(retried));
        resources
    };
    let mut hand = ByHand::new(retried("/a"));
    let mut client = hand.redirected(CLIENT, VIP.into());
    client.send(b"GET /a HTTP/1.1\r\nhost: web.shop\r\n\r\n");
    let mut connection = None;
    hand.until("the endpoint is connected to", || {
        connection = connection.take().or_else(|| origin.accept().map(Plain::new));
        connection.as_mut().is_some_and(|connection| connection.text().contains("GET /a"))
    });
    let mut connection = connection.expect("it is there");
    connection.send(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    hand.settle();
    hand.publish(retried("/b"));
    hand.pass(PAUSE);
    hand.until("it is refused", || client.text().starts_with("HTTP/1.1 403 "));
    assert_eq!(connection.text().matches("GET /a").count(), 1);
    assert!(origin.accept().is_none(), "no other connection was made");
}

/// Three sockets have something in one turn: a client that is gone, another that asks, and the connection of the
/// first, whose number the second's has by the time that its turn comes.
#[test]
fn a_socket_that_was_closed_in_this_turn_says_nothing_to_who_has_its_number() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let mut hand = gateway(AppProtocol::Http, origin.address());
    let (mut first, mut second) = (hand.connect(), hand.connect());
    hand.turn();
    first.send(b"GET /first HTTP/1.1\r\nhost: web.shop\r\n\r\n");
    let mut old = None;
    hand.until("the endpoint is asked", || {
        old = old.take().or_else(|| origin.accept().map(Plain::new));
        old.as_mut().is_some_and(|old| old.text().contains("/first"))
    });
    let reset = |mut peer: Plain| peer.reset_when_dropped();
    reset(first);
    second.send(b"GET /second HTTP/1.1\r\nhost: web.shop\r\n\r\n");
    reset(old.expect("it is there"));
    let mut new = None;
    hand.until("the second is answered", || {
        new = new.take().or_else(|| origin.accept().map(Plain::new));
        if let Some(new) = &mut new
            && new.text().contains("/second")
        {
            new.came.clear();
            new.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        second.text().starts_with("HTTP/1.1 ")
    });
    assert!(second.text().starts_with("HTTP/1.1 200 "), "{}", second.text());
    assert_eq!(hand.reasons(), [Some(Reason::ClientReset), None]);
}

/// The shorter of two times, less a little: nothing may be due by then.
fn before(time: Duration) -> Duration {
    time - Duration::from_secs(1)
}

#[test]
fn a_request_whose_content_does_not_come_is_given_up_in_either_version() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let limit = Limits::default().content_timeout;
    for protocol in [AppProtocol::Http, AppProtocol::Http2] {
        let mut hand = gateway(protocol, origin.address());
        let mut plain = hand.connect();
        plain.send(b"POST / HTTP/1.1\r\nhost: web.shop\r\ncontent-length: 100\r\n\r\n");
        let mut client = Http2::client(hand.connect(), &Config::default());
        let stream = client.ask("POST", "/", &[], false);
        let mut open = Vec::new();
        hand.until("both are sent on", || {
            open.extend(origin.accept().map(|stream| Peer::server(stream, protocol == AppProtocol::Http2)));
            open.iter_mut().map(Peer::requests).sum::<usize>() == 2
        });
        // A piece of it, however small, is a sign of life.
        for _ in 0..3 {
            hand.pass(before(limit));
            plain.send(b"x");
            client.data(stream, b"x", false);
            hand.settle();
        }
        hand.pass(limit + Duration::from_millis(50));
        hand.until("both are answered", || {
            plain.text().starts_with("HTTP/1.1 408 ")
                && client.on(stream).last().is_some_and(|it| it == "reset 0")
        });
        assert_eq!(client.on(stream)[0], "408");
        assert_eq!(hand.reasons(), [Some(Reason::RequestTimeout); 2]);
        // The connection itself goes on.
        client.ask("POST", "/", &[], false);
        hand.settle();
        assert_eq!(hand.reasons(), []);
        while origin.accept().is_some() {}
    }
}

#[test]
fn either_end_of_a_conversation_may_be_silent_for_the_time_of_a_relay() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let limits = Limits::default();
    for grpc in [true, false] {
        let mut hand = gateway(AppProtocol::Http2, origin.address());
        let mut client = Http2::client(hand.connect(), &Config::default());
        let kind = if grpc { "application/grpc" } else { "text/plain" };
        let stream = client.ask("POST", "/", &[("content-type", kind)], false);
        let mut server = None;
        hand.until("the endpoint is asked", || {
            server = server.take().or_else(|| Some(Http2::server(origin.accept()?, &Config::default())));
            server.as_mut().is_some_and(|server| server.requests().len() == 1)
        });
        let mut server = server.expect("it is there");
        if !grpc {
            server.answer(1, 200, &[], false);
        }
        hand.settle();
        hand.pass(before(limits.relay_timeout));
        // Whichever of them speaks.
        if grpc {
            server.answer(1, 200, &[], false);
        }
        server.data(1, b"still", false);
        hand.until("it comes", || client.on(stream).contains(&"data still".into()));
        hand.pass(before(limits.relay_timeout));
        client.data(stream, b"here", false);
        hand.until("it comes", || server.on(1).contains(&"data here".into()));
        assert_eq!(hand.reasons(), []);
        hand.pass(limits.relay_timeout + Duration::from_millis(50));
        hand.until("it is cut", || client.on(stream).last().is_some_and(|last| last.starts_with("reset")));
        assert_eq!(hand.reasons(), [Some(Reason::RequestTimeout)]);
    }
}

#[test]
fn streams_that_are_not_read_are_given_up_on_both_sides() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let limit = Limits::default().write_timeout;
    // A window that nobody opens again once it is full.
    let content = vec![b'x'; 300_000];
    for unread in ["request", "response"] {
        let mut hand = gateway(AppProtocol::Http2, origin.address());
        let mut client = Http2::client(hand.connect(), &Config::default());
        client.keeps = unread == "response";
        let stream = client.ask("POST", "/", &[], unread == "response");
        let mut server = None;
        hand.until("the endpoint is asked", || {
            server = server.take().or_else(|| Some(Http2::server(origin.accept()?, &Config::default())));
            server.as_mut().is_some_and(|server| server.requests().len() == 1)
        });
        let mut server = server.expect("it is there");
        server.keeps = unread == "request";
        let mut sent = 0;
        if unread == "response" {
            server.answer(1, 200, &[], false);
        }
        for _ in 0..50 {
            let rest = &content[sent.min(content.len())..];
            sent += match unread {
                "request" => client.data(stream, rest, false),
                _ => server.data(1, rest, false),
            };
            hand.settle();
            client.poll();
            server.poll();
        }
        assert!(sent > 256 << 10, "{sent} octets");
        hand.pass(before(limit));
        hand.settle();
        assert_eq!(hand.reasons(), []);
        hand.pass(Duration::from_secs(2));
        hand.until("it is given up", || server.on(1).last().is_some_and(|last| last.starts_with("reset")));
        let (reason, told) = match unread {
            "request" => (Reason::UpstreamTimeout, "504"),
            _ => (Reason::ClientReset, "200"),
        };
        assert_eq!(hand.reasons(), [Some(reason)], "{unread}");
        assert_eq!(client.on(stream)[0], told);
    }
}

#[test]
fn what_is_no_request_is_recorded_once() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let mut hand = gateway(AppProtocol::Http, origin.address());
    let mut garbage = hand.connect();
    garbage.send(b"\x16\x03\x01 garbage\r\n\r\n");
    hand.until("it is answered", || garbage.text().starts_with("HTTP/1.1 400 "));
    hand.settle();
    assert_eq!(hand.reasons(), [Some(Reason::BadRequest)]);
    // One whose content breaks the framing is a request, and is recorded as such alone.
    let mut broken = hand.connect();
    broken.send(b"POST / HTTP/1.1\r\nhost: web.shop\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n");
    hand.until("it is answered", || broken.text().starts_with("HTTP/1.1 400 "));
    hand.settle();
    assert_eq!(hand.reasons(), [Some(Reason::BadRequest)]);
}

#[test]
fn what_begins_like_http_2_and_is_not_is_told_so_in_http_2() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let mut hand = gateway(AppProtocol::Http, origin.address());
    for rest in ["* HTTP/2.0\r\n\r\nSX\r\n\r\n", "/ HTTP/1.1\r\n\r\n"] {
        // Also where it comes in pieces.
        let mut client = hand.connect();
        client.send(b"PRI ");
        hand.settle();
        assert_eq!(client.text(), "");
        client.send(rest.as_bytes());
        hand.until("the connection is closed", || {
            client.text();
            client.ended
        });
        // GOAWAY with PROTOCOL_ERROR.
        let goaway = [&[7, 0, 0, 0, 0, 0][..], &[0; 4], &[0, 0, 0, 1]].concat();
        let came = client.came.windows(goaway.len()).any(|window| window == goaway);
        assert!(came, "{:?}", client.came);
        assert_eq!(hand.reasons(), [Some(Reason::BadRequest)]);
    }
    let mut client = hand.connect();
    client.send(b"PRIVATE / HTTP/1.1\r\nhost: web.shop\r\n\r\n");
    hand.until("it is sent on", || origin.accept().is_some());
}

/// Nobody is left for a connection by the time that it stands: it is closed as an idle one is.
#[test]
fn a_connection_for_nobody_is_not_kept_for_ever() {
    let origin = Origin::listen([127, 0, 0, 1]);
    let mut hand = gateway(AppProtocol::Http2, origin.address());
    let mut client = Http2::client(hand.connect(), &Config::default());
    client.poll();
    hand.turn();
    // Both are read in the turn that begins to connect.
    let stream = client.ask("GET", "/", &[], true);
    client.reset(stream, ErrorCode::CANCEL);
    let mut connection = None;
    hand.until("the endpoint is connected to", || {
        connection = origin.accept();
        connection.is_some()
    });
    let mut connection = Plain::new(connection.expect("it is there"));
    hand.settle();
    assert_eq!(hand.reasons(), [Some(Reason::ClientReset)]);
    assert!(connection.text().starts_with("PRI ") && !connection.ended);
    hand.pass(Limits::default().keep_timeout + Duration::from_millis(50));
    hand.until("it is closed", || {
        connection.text();
        connection.ended
    });
}
