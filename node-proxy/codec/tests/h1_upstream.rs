// SPDX-License-Identifier: Apache-2.0
//! The client's side of HTTP/1.1 against a scripted server.

mod support;

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header::EXPECT, uri::PathAndQuery};
use support::{collect, local, read_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::spawn_local,
};
use weft_codec::{
    body::{Body, BodyError, BodySource, Frame},
    config::H1Config,
    error::Retry,
    h1::{H1Upstream, Recycle},
    message::RequestHead,
};
use weft_ebpf_common::reason::Reason;

#[derive(Default)]
struct Pool(RefCell<Vec<H1Upstream>>);

impl Recycle for Pool {
    fn recycle(&self, upstream: H1Upstream) {
        self.0.borrow_mut().push(upstream);
    }
}

impl Pool {
    fn take(&self) -> H1Upstream {
        self.0.borrow_mut().pop().expect("a connection came back")
    }
}

fn connect() -> (H1Upstream, DuplexStream, Rc<Pool>) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let pool = Rc::new(Pool::default());
    let upstream = H1Upstream::new(client, Rc::new(H1Config::default()), Some(pool.clone()));
    (upstream, server, pool)
}

fn head(method: Method) -> RequestHead {
    RequestHead::new(method, PathAndQuery::from_static("/x?y"), Some("a.example".parse().expect("a host")))
}

/// A body without length that gives its pieces and then waits or ends.
struct Pieces {
    pieces: Vec<&'static str>,
    ends: bool,
}

impl BodySource for Pieces {
    fn poll_frame(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame, BodyError>>> {
        match self.pieces.pop() {
            Some(piece) => {
                std::task::Poll::Ready(Some(Ok(Frame::Data(Bytes::from_static(piece.as_bytes())))))
            }
            None if self.ends => std::task::Poll::Ready(None),
            None => std::task::Poll::Pending,
        }
    }

    fn content_length(&self) -> Option<u64> {
        None
    }

    fn is_end(&self) -> bool {
        false
    }
}

#[test]
fn a_connection_is_given_back_after_each_complete_response() {
    local(async {
        let (mut upstream, mut server, pool) = connect();
        for (answer, content) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("HTTP/1.1 204 No Content\r\n\r\n", ""),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", ""),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "",
            ),
        ] {
            let served = spawn_local(async move {
                let request = read_until(&mut server, "\r\n\r\n").await;
                server.write_all(answer.as_bytes()).await.expect("the client reads");
                (server, request)
            });
            assert!(upstream.is_usable());
            let (_, body) = upstream.send(&head(Method::GET), Body::empty()).await.expect("a response");
            assert_eq!(collect(body).await.expect("complete").0, content.as_bytes(), "{answer}");
            let (back, request) = served.await.expect("no panic");
            assert_eq!(request, "GET /x?y HTTP/1.1\r\nhost: a.example\r\n\r\n");
            (server, upstream) = (back, pool.take());
        }
        assert_eq!(upstream.requests(), 5);
    });
}

#[test]
fn a_connection_that_cannot_carry_another_request_is_not_given_back() {
    for (answer, content) in [
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.1 200 OK\r\n\r\nabc", "abc"),
        // More than was announced: a response that nobody asked for.
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n", "abc"),
    ] {
        local(async move {
            let (upstream, mut server, pool) = connect();
            server.write_all(answer.as_bytes()).await.expect("the client reads");
            server.shutdown().await.expect("the pipe is open");
            let (_, body) = upstream.send(&head(Method::GET), Body::empty()).await.expect("a response");
            assert_eq!(collect(body).await.expect("complete").0, content.as_bytes());
            assert!(pool.0.borrow().is_empty(), "{answer}");
        });
    }
}

#[test]
fn a_dropped_response_closes_its_connection() {
    local(async {
        let (upstream, mut server, pool) = connect();
        server
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            .await
            .expect("the client reads");
        let (_, body) = upstream.send(&head(Method::GET), Body::empty()).await.expect("a response");
        drop(body);
        let mut request = Vec::new();
        server.read_to_end(&mut request).await.expect("closed");
        assert!(pool.0.borrow().is_empty());
    });
}

#[test]
fn cut_and_malformed_responses_are_errors_with_their_reason() {
    for (answer, reason) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Reason::UpstreamReset),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Reason::UpstreamReset),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Reason::UpstreamProtocol),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", Reason::UpstreamProtocol),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            Reason::UpstreamProtocol,
        ),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Reason::UpstreamProtocol),
        ("HTTP/1.1 200 OK\r\nConte", Reason::UpstreamReset),
        ("", Reason::UpstreamReset),
    ] {
        local(async move {
            let (upstream, mut server, _pool) = connect();
            server.write_all(answer.as_bytes()).await.expect("the client reads");
            server.shutdown().await.expect("the pipe is open");
            let failed = match upstream.send(&head(Method::GET), Body::empty()).await {
                Err(error) => {
                    assert_eq!(error.retry, Retry::No, "{answer}");
                    error.reason
                }
                Ok((_, body)) => collect(body).await.expect_err("cut").reason,
            };
            assert_eq!(failed, reason, "{answer}");
        });
    }
}

#[test]
fn a_reused_connection_that_was_closed_may_be_retried_with_its_body() {
    local(async {
        let (upstream, mut server, pool) = connect();
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("the client reads");
        upstream.send(&head(Method::GET), Body::empty()).await.expect("a response");
        let upstream = pool.take();
        let closing = spawn_local(async move {
            read_until(&mut server, "hello").await;
        });
        let error = upstream.send(&head(Method::PUT), Body::full("hello".into())).await.expect_err("closed");
        closing.await.expect("no panic");
        assert_eq!((error.reason, error.retry), (Reason::UpstreamReset, Retry::IfIdempotent));
        assert_eq!(collect(error.unsent_body.expect("the body")).await.expect("whole").0, b"hello");
    });
}

#[test]
fn a_closed_connection_is_not_usable_and_a_request_on_it_was_never_seen() {
    local(async {
        let (mut upstream, server, _pool) = connect();
        assert!(upstream.is_usable());
        drop(server);
        assert!(!upstream.is_usable());
        let error = upstream.send(&head(Method::POST), Body::full("hello".into())).await.expect_err("closed");
        assert_eq!(error.retry, Retry::Safe);
        assert!(error.unsent_body.is_some());
    });
}

#[test]
fn content_is_framed_by_what_is_known_of_it() {
    local(async {
        let (upstream, mut server, pool) = connect();
        let answered = spawn_local(async move {
            let first = read_until(&mut server, "hello").await;
            server
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .expect("the client reads");
            let second = read_until(&mut server, "0\r\n\r\n").await;
            server
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .expect("the client reads");
            let third = read_until(&mut server, "\r\n\r\n").await;
            server
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .expect("the client reads");
            [first, second, third]
        });
        let mut lying = head(Method::POST);
        lying.headers.append(&http::header::CONTENT_LENGTH, &HeaderValue::from_static("7"));
        lying.headers.append(&http::header::TRANSFER_ENCODING, &HeaderValue::from_static("chunked"));
        upstream.send(&lying, Body::full("hello".into())).await.expect("a response");
        let pieces = Body::from_source(Box::new(Pieces { pieces: vec!["lo", "hel"], ends: true }));
        pool.take().send(&lying, pieces).await.expect("a response");
        pool.take().send(&head(Method::POST), Body::empty()).await.expect("a response");
        let start = "POST /x?y HTTP/1.1\r\nhost: a.example\r\n";
        assert_eq!(
            answered.await.expect("no panic"),
            [
                format!("{start}content-length: 5\r\n\r\nhello"),
                format!("{start}transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
                format!("{start}content-length: 0\r\n\r\n"),
            ]
        );
    });
}

#[test]
fn an_early_response_is_read_while_the_request_is_still_being_sent() {
    local(async {
        let (upstream, mut server, pool) = connect();
        server
            .write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\n")
            .await
            .expect("the client reads");
        let pieces = Body::from_source(Box::new(Pieces { pieces: vec!["first"], ends: false }));
        let (response, body) = upstream.send(&head(Method::POST), pieces).await.expect("a response");
        assert_eq!(response.status, StatusCode::PAYLOAD_TOO_LARGE);
        let reading = spawn_local(collect(body));
        read_until(&mut server, "5\r\nfirst\r\n").await;
        server.write_all(b"big").await.expect("the client reads");
        assert_eq!(reading.await.expect("no panic").expect("complete").0, b"big");
        // The request never ended, so the connection cannot carry another.
        assert!(pool.0.borrow().is_empty());
    });
}

#[test]
fn a_request_with_expect_waits_for_continue_but_not_for_ever() {
    let expecting = || {
        let mut head = head(Method::POST);
        head.headers.append(&EXPECT, &HeaderValue::from_static("100-continue"));
        head
    };
    local(async move {
        let (upstream, mut server, pool) = connect();
        let answered = spawn_local(async move {
            read_until(&mut server, "\r\n\r\n").await;
            let start = tokio::time::Instant::now();
            server.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.expect("the client reads");
            read_until(&mut server, "hello").await;
            assert!(start.elapsed() < Duration::from_millis(500));
            server
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .expect("the client reads");
            read_until(&mut server, "\r\n\r\n").await;
            let start = tokio::time::Instant::now();
            read_until(&mut server, "hello").await;
            assert!(start.elapsed() >= Duration::from_millis(500));
            server
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .expect("the client reads");
            read_until(&mut server, "\r\n\r\n").await;
            server
                .write_all(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
                .await
                .expect("the client reads");
        });
        upstream.send(&expecting(), Body::full("hello".into())).await.expect("a response");
        pool.take().send(&expecting(), Body::full("hello".into())).await.expect("a response");
        let refused = pool.take().send(&expecting(), Body::full("hello".into())).await.expect("a response");
        assert_eq!(refused.0.status, StatusCode::EXPECTATION_FAILED);
        assert!(pool.0.borrow().is_empty());
        answered.await.expect("no panic");
    });
}

#[test]
fn a_switched_upstream_gives_its_raw_stream() {
    local(async {
        let (upstream, mut server, _pool) = connect();
        let answered = spawn_local(async move {
            let request = read_until(&mut server, "\r\n\r\n").await;
            let answer =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw";
            server.write_all(answer).await.expect("the client reads");
            request
        });
        let mut offer = head(Method::GET);
        offer.upgrade = Some("websocket".into());
        let (response, body) = upstream.send(&offer, Body::empty()).await.expect("a response");
        assert_eq!(response.upgrade.as_deref(), Some(&b"websocket"[..]));
        let mut bytes = Vec::new();
        body.into_upgraded().expect("a stream").read_to_end(&mut bytes).await.expect("readable");
        assert_eq!(bytes, b"raw");
        assert!(answered.await.expect("no panic").contains("connection: upgrade\r\nupgrade: websocket\r\n"));
    });
}

#[test]
fn a_server_that_stops_inside_a_response_is_given_up() {
    local(async {
        let (upstream, mut server, _pool) = connect();
        server
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            .await
            .expect("the client reads");
        let (_, body) = upstream.send(&head(Method::GET), Body::empty()).await.expect("a response");
        assert_eq!(collect(body).await.expect_err("stalled").reason, Reason::UpstreamTimeout);
    });
}
