// SPDX-License-Identifier: Apache-2.0
//! The server's side of HTTP/1.1, byte for byte.

mod support;

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use support::{Closure, collect, echo, local, serve, serve_with, text};
use tokio::io::AsyncWriteExt;
use weft_codec::{
    body::{Body, BodyError, BodySource, Frame},
    config::{H1Config, ServerConfig},
    message::{Delivery, Observer, Response, ResponseHead},
};
use weft_ebpf_common::reason::Reason;

const GET: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

fn config(change: impl Fn(&mut H1Config)) -> ServerConfig {
    let mut config = ServerConfig::default();
    change(&mut config.h1);
    config
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
        local(async {
            let mut peer = serve(echo());
            peer.write(head).await;
            peer.write(GET).await;
            let answer = peer.read_all().await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head:?}: {answer}");
            assert!(answer.contains("connection: close\r\n"));
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{head:?}: {answer}");
            assert!(peer.handler.seen.borrow().is_empty(), "{head:?}");
            assert_eq!(peer.handler.errors.borrow()[0].reason, Reason::BadRequest);
            drop(peer.io);
            assert_eq!(peer.served.await.expect("no panic").failure, Some(Reason::BadRequest));
        });
    }
}

#[test]
fn a_malformed_chunk_ends_the_connection_and_hides_what_follows() {
    for chunk in ["zz\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "0\r\nX : 1\r\n\r\n"] {
        local(async {
            let handler = Closure::new(|request| async {
                match collect(request.body).await {
                    Ok(_) => text("ok"),
                    Err(error) => {
                        assert_eq!(error.reason, Reason::BadRequest);
                        Response::empty(StatusCode::BAD_REQUEST)
                    }
                }
            });
            let mut peer = serve(handler);
            peer.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            peer.write(chunk).await;
            peer.write(GET).await;
            let answer = peer.read_all().await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{chunk:?}: {answer}");
            assert_eq!(*peer.handler.seen.borrow(), ["POST /"]);
        });
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
        local(async move {
            let mut peer = serve(echo());
            // The server stops reading; what the pipe does not take is the client's loss.
            tokio::time::timeout(Duration::from_secs(5), peer.io.write_all(head.as_bytes())).await.ok();
            let answer = peer.read_all().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert_eq!(peer.handler.errors.borrow()[0].reason, reason);
        });
    }
}

/// Answers with the whole content and the trailers behind it.
fn collected() -> Rc<Closure> {
    Closure::new(|request| async {
        let (mut content, trailers) = collect(request.body).await.expect("complete");
        for (name, value) in trailers.iter().flat_map(|trailers| trailers.iter()) {
            content.extend_from_slice(&[name, b"=", value].concat());
        }
        Response::new(ResponseHead::new(StatusCode::OK), Body::full(content.into()))
    })
}

#[test]
fn requests_are_read_wherever_they_are_split() {
    let bytes = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
        POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n\
        GET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc\
        HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ndeX-T=1\
        HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for split in 0..=bytes.len() {
        local(async move {
            let mut peer = serve(collected());
            peer.write(&bytes[..split]).await;
            tokio::task::yield_now().await;
            peer.write(&bytes[split..]).await;
            assert_eq!(peer.read_all().await, expected, "split at {split}");
            assert_eq!(*peer.handler.seen.borrow(), ["POST /a", "POST /b", "GET /c"]);
        });
    }
    local(async move {
        let mut peer = serve(collected());
        for byte in bytes.as_bytes() {
            peer.write([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(peer.read_all().await, expected);
    });
}

#[test]
fn content_and_trailers_stream_through() {
    local(async {
        let mut peer = serve(echo());
        peer.write("POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n").await;
        assert!(
            peer.read_until("2\r\nde\r\n").await.ends_with("transfer-encoding: chunked\r\n\r\n2\r\nde\r\n")
        );
        peer.write("0\r\nX-T: 1\r\n\r\n").await;
        assert_eq!(peer.read_until("\r\n\r\n").await, "0\r\nX-T: 1\r\n\r\n");
    });
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    local(async {
        let handler = Closure::new(|_| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            text("late")
        });
        let mut peer = serve(handler);
        peer.write(format!("{GET}{GET}")).await;
        peer.io.shutdown().await.expect("the pipe is open");
        assert_eq!(peer.read_all().await.matches("\r\n\r\nlate").count(), 2);
        assert_eq!(peer.served.await.expect("no panic").failure, None);
    });
}

#[test]
fn http_1_0_gets_a_connection_that_ends_or_says_that_it_stays() {
    local(async {
        let mut peer = serve(echo());
        peer.write("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let first = peer.read_until("\r\n\r\n").await;
        assert_eq!(first, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n");
        peer.write("GET / HTTP/1.0\r\n\r\n").await;
        assert!(peer.read_all().await.contains("connection: close\r\n"));
    });
}

/// A body whose length nobody knows.
struct Unsized(Vec<&'static str>);

impl BodySource for Unsized {
    fn poll_frame(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame, BodyError>>> {
        std::task::Poll::Ready(
            self.0.pop().map(|piece| Ok(Frame::Data(Bytes::from_static(piece.as_bytes())))),
        )
    }

    fn content_length(&self) -> Option<u64> {
        None
    }

    fn is_end(&self) -> bool {
        false
    }
}

fn unsized_body() -> Response {
    Response::new(ResponseHead::new(StatusCode::OK), Body::from_source(Box::new(Unsized(vec!["two", "one"]))))
}

#[test]
fn content_without_length_is_chunked_or_ends_with_the_connection() {
    local(async {
        let mut peer = serve(Closure::new(|_| async { unsized_body() }));
        peer.write(GET).await;
        let chunked = peer.read_until("0\r\n\r\n").await;
        assert!(
            chunked.ends_with("transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
            "{chunked}"
        );
        peer.write("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let closed = peer.read_all().await;
        assert_eq!(closed, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo");
    });
}

#[test]
fn answers_without_content_keep_the_length_that_is_true_elsewhere() {
    local(async {
        let handler = Closure::new(|request| async move {
            let status = request.head.path()[1..].parse().expect("a status");
            let mut head = ResponseHead::new(StatusCode::from_u16(status).expect("a status"));
            head.headers.append(&http::header::CONTENT_LENGTH, &HeaderValue::from_static("42"));
            Response::new(head, Body::empty())
        });
        let mut peer = serve(handler);
        peer.write("HEAD /200 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(peer.read_until("\r\n\r\n").await, "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n");
        peer.write("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(
            peer.read_until("\r\n\r\n").await,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 42\r\n\r\n"
        );
        peer.write("GET /204 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(peer.read_until("\r\n\r\n").await, "HTTP/1.1 204 No Content\r\n\r\n");
        peer.write("GET /200 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(peer.read_until("\r\n\r\n").await, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
}

#[test]
fn continue_is_sent_only_when_the_body_is_asked_for() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    local(async move {
        let mut peer = serve(collected());
        peer.write(head).await;
        assert_eq!(peer.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        peer.write("abc").await;
        assert!(peer.read_until("abc").await.starts_with("HTTP/1.1 200 OK"));
    });
    local(async move {
        let mut peer = serve(Closure::new(|_| async { Response::empty(StatusCode::EXPECTATION_FAILED) }));
        peer.write(head).await;
        let answer = peer.read_all().await;
        assert!(answer.starts_with("HTTP/1.1 417"), "{answer}");
        assert!(answer.contains("connection: close"));
    });
}

#[test]
fn a_body_that_nobody_read_is_drained_up_to_a_bound() {
    local(async {
        let mut peer = serve(Closure::new(|_| async { text("no") }));
        peer.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
        peer.write(GET).await;
        assert_eq!(peer.read_until("no").await, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno");
        assert_eq!(peer.read_until("no").await, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno");
        peer.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\nabc").await;
        assert!(peer.read_all().await.contains("connection: close"));
        assert_eq!(*peer.handler.seen.borrow(), ["POST /", "GET /next", "POST /"]);
    });
}

#[test]
fn deadlines_end_slow_heads_idle_connections_and_stalled_bodies() {
    local(async {
        let mut peer = serve(echo());
        let start = tokio::time::Instant::now();
        for byte in GET.as_bytes() {
            // One byte a second: the deadline counts from the first.
            if peer.io.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(peer.read_all().await.starts_with("HTTP/1.1 408"));
        assert!(start.elapsed() < Duration::from_secs(40));
        assert_eq!(peer.handler.errors.borrow()[0].reason, Reason::RequestTimeout);
    });
    local(async {
        let mut peer = serve(echo());
        peer.write(GET).await;
        peer.read_until("\r\n\r\n").await;
        let start = tokio::time::Instant::now();
        assert_eq!(peer.read_all().await, "");
        let waited = start.elapsed();
        assert!((Duration::from_secs(299)..Duration::from_secs(302)).contains(&waited), "{waited:?}");
    });
    local(async {
        let handler = Closure::new(|request| async {
            match collect(request.body).await {
                Err(error) if error.reason == Reason::RequestTimeout => {
                    Response::empty(StatusCode::REQUEST_TIMEOUT)
                }
                _ => text("read"),
            }
        });
        let mut peer = serve(handler);
        peer.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na").await;
        assert!(peer.read_all().await.starts_with("HTTP/1.1 408"));
    });
}

struct Record(Rc<RefCell<Vec<Delivery>>>);

impl Observer for Record {
    fn delivered(self: Box<Self>, delivery: Delivery) {
        self.0.borrow_mut().push(delivery);
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_reported() {
    local(async {
        let delivered: Rc<RefCell<Vec<Delivery>>> = Rc::default();
        let record = delivered.clone();
        let handler = Closure::new(move |_| {
            let mut response = Response::new(
                ResponseHead::new(StatusCode::OK),
                Body::full(Bytes::from(vec![b'x'; 1 << 20])),
            );
            response.observer = Some(Box::new(Record(record.clone())));
            async { response }
        });
        let mut peer = serve_with(handler, config(|h1| h1.write_timeout = Duration::from_secs(5)), 1024);
        peer.write(GET).await;
        assert_eq!(peer.served.await.expect("no panic").failure, Some(Reason::ClientReset));
        assert_eq!(delivered.borrow()[0].failure, Some(Reason::ClientReset));
        assert!(delivered.borrow()[0].sent_bytes <= 1024);
    });
}

#[test]
fn delivery_counts_content_of_both_directions() {
    local(async {
        let delivered: Rc<RefCell<Vec<Delivery>>> = Rc::default();
        let record = delivered.clone();
        let handler = Closure::new(move |request| {
            let record = record.clone();
            async move {
                collect(request.body).await.expect("complete");
                let mut response = text("answer");
                response.observer = Some(Box::new(Record(record)));
                response
            }
        });
        let mut peer = serve(handler);
        peer.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
        peer.read_until("answer").await;
        let expected = Delivery { sent_bytes: 6, received_bytes: 3, failure: None };
        assert_eq!(*delivered.borrow(), [expected]);
    });
}

#[test]
fn a_body_shorter_than_announced_ends_the_connection() {
    struct Short(bool);
    impl BodySource for Short {
        fn poll_frame(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame, BodyError>>> {
            let first = std::mem::replace(&mut self.0, false);
            std::task::Poll::Ready(first.then(|| Ok(Frame::Data(Bytes::from_static(b"abc")))))
        }
        fn content_length(&self) -> Option<u64> {
            Some(10)
        }
        fn is_end(&self) -> bool {
            !self.0
        }
    }
    local(async {
        let mut peer = serve(Closure::new(|_| async {
            Response::new(ResponseHead::new(StatusCode::OK), Body::from_source(Box::new(Short(true))))
        }));
        peer.write(GET).await;
        peer.write(GET).await;
        assert_eq!(peer.read_all().await, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
        assert_eq!(peer.served.await.expect("no panic").failure, Some(Reason::UpstreamReset));
    });
}

#[test]
fn a_drain_ends_idle_connections_at_once_and_busy_ones_after_their_answer() {
    local(async {
        let mut peer = serve(echo());
        peer.write(GET).await;
        peer.read_until("\r\n\r\n").await;
        peer.drain.start();
        assert_eq!(peer.read_all().await, "");
    });
    local(async {
        let mut peer = serve(Closure::new(|_| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            text("done")
        }));
        peer.write(GET).await;
        tokio::task::yield_now().await;
        peer.drain.start();
        let answer = peer.read_all().await;
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("done"), "{answer}");
    });
}

#[test]
fn an_upgrade_hands_the_stream_over_with_what_was_read_ahead() {
    local(async {
        let handler = Closure::new(|request| async move {
            assert_eq!(request.head.upgrade.as_deref(), Some(&b"websocket"[..]));
            let mut head = ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS);
            head.upgrade = request.head.upgrade;
            let mut response = Response::new(head, Body::empty());
            response.on_upgrade = Some(Box::new(|mut stream| {
                Box::pin(async move {
                    let mut bytes = Vec::new();
                    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await.expect("readable");
                    stream.write_all(&bytes).await.expect("writable");
                })
            }));
            response
        });
        let mut peer = serve(handler);
        peer.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw ")
            .await;
        let head = peer.read_until("\r\n\r\n").await;
        assert_eq!(
            head,
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        );
        peer.write("bytes").await;
        peer.io.shutdown().await.expect("the pipe is open");
        assert_eq!(peer.read_all().await, "raw bytes");
    });
}

#[test]
fn a_handler_of_a_gone_client_is_dropped() {
    struct Dropped(Rc<RefCell<bool>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            *self.0.borrow_mut() = true;
        }
    }
    local(async {
        let dropped = Rc::new(RefCell::new(false));
        let guard = dropped.clone();
        let handler = Closure::new(move |_| {
            let guard = Dropped(guard.clone());
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                text("never")
            }
        });
        let mut peer = serve(handler);
        peer.write(GET).await;
        tokio::task::yield_now().await;
        peer.served.abort();
        assert!(peer.served.await.is_err());
        assert!(*dropped.borrow());
    });
}
