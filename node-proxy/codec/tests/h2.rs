// SPDX-License-Identifier: Apache-2.0
//! HTTP/2 on both sides, and between it and HTTP/1.1.

mod support;

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, uri::PathAndQuery};
use support::{Closure, collect, echo, local, read_until, serve, serve_with, text};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    task::spawn_local,
};
use weft_codec::{
    body::{Body, Frame},
    config::{H1Config, H2Config, ServerConfig},
    drain::DrainTrigger,
    error::Retry,
    h1::H1Upstream,
    h2::H2Upstream,
    message::{RequestHead, Response, ResponseHead},
    serve::serve_connection,
};
use weft_ebpf_common::reason::Reason;

async fn upstream(io: DuplexStream) -> H2Upstream {
    let (upstream, driver) =
        H2Upstream::handshake(io, Rc::new(H2Config::default())).await.expect("a handshake");
    spawn_local(driver);
    upstream
}

fn head(method: Method) -> RequestHead {
    RequestHead::new(method, PathAndQuery::from_static("/x?y"), Some("a.example".parse().expect("a host")))
}

async fn raw_client(io: DuplexStream) -> h2::client::SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(io).await.expect("a handshake");
    spawn_local(async move { drop(connection.await) });
    client
}

#[test]
fn content_and_trailers_go_both_ways_on_many_streams() {
    local(async {
        let peer = serve(echo());
        let upstream = upstream(peer.io).await;
        let mut running = Vec::new();
        for n in 0..20 {
            let upstream = upstream.clone();
            running.push(spawn_local(async move {
                let content = vec![n; 300_000];
                let (response, body) = upstream
                    .send(&head(Method::POST), Body::full(content.clone().into()))
                    .await
                    .expect("a response");
                assert_eq!(response.status, StatusCode::OK);
                assert!(collect(body).await.expect("complete").0 == content);
            }));
        }
        for stream in running {
            stream.await.expect("no panic");
        }
        assert_eq!(upstream.active_streams(), 0);
        assert!(upstream.is_usable());
    });
}

/// Forwards over HTTP/1.1 to `server`, which is served by `handler`.
fn bridge_to_h1(handler: Rc<Closure>) -> Rc<Closure> {
    Closure::new(move |request| {
        let peer = serve(handler.clone());
        async move {
            let upstream = H1Upstream::new(peer.io, Rc::new(H1Config::default()), None);
            let (head, body) = upstream.send(&request.head, request.body).await.expect("a response");
            Response::new(head, body)
        }
    })
}

/// Forwards over HTTP/2.
fn bridge_to_h2(handler: Rc<Closure>) -> Rc<Closure> {
    Closure::new(move |request| {
        let peer = serve(handler.clone());
        async move {
            let upstream = upstream(peer.io).await;
            let (head, body) = upstream.send(&request.head, request.body).await.expect("a response");
            Response::new(head, body)
        }
    })
}

#[test]
fn grpc_passes_through_http1_and_back_with_its_trailers() {
    local(async {
        let server = Closure::new(|request| async move {
            let te = request.head.headers.get(&http::header::TE).map(<[u8]>::to_vec);
            let (content, _) = collect(request.body).await.expect("complete");
            let mut head = ResponseHead::new(StatusCode::OK);
            head.headers.append(
                &HeaderName::from_static("saw-te"),
                &HeaderValue::from_bytes(&te.unwrap_or_default()).expect("text"),
            );
            Response::new(head, Body::from_source(Box::new(WithTrailers(Some(content.into()), false))))
        });
        let peer = serve(bridge_to_h1(server));
        let upstream = upstream(peer.io).await;
        let mut request = head(Method::POST);
        request.headers.append(&http::header::TE, &HeaderValue::from_static("trailers"));
        let (response, body) = upstream.send(&request, Body::full("ping".into())).await.expect("a response");
        assert_eq!(response.headers.get(&HeaderName::from_static("saw-te")), Some(&b"trailers"[..]));
        assert!(!response.headers.contains(&http::header::TRANSFER_ENCODING));
        let (content, trailers) = collect(body).await.expect("complete");
        assert_eq!(content, b"ping");
        let status =
            trailers.expect("trailers").get(&HeaderName::from_static("grpc-status")).map(<[u8]>::to_vec);
        assert_eq!(status.as_deref(), Some(&b"0"[..]));
    });
}

struct WithTrailers(Option<Bytes>, bool);

impl weft_codec::body::BodySource for WithTrailers {
    fn poll_frame(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame, weft_codec::body::BodyError>>> {
        std::task::Poll::Ready(match self.0.take() {
            Some(content) => Some(Ok(Frame::Data(content))),
            None if self.1 => None,
            None => {
                self.1 = true;
                let mut trailers = weft_codec::headers::Headers::default();
                trailers.append(&HeaderName::from_static("grpc-status"), &HeaderValue::from_static("0"));
                Some(Ok(Frame::Trailers(trailers)))
            }
        })
    }

    fn content_length(&self) -> Option<u64> {
        None
    }

    fn is_end(&self) -> bool {
        self.1
    }
}

#[test]
fn an_http1_request_crosses_http2_without_its_connection_fields() {
    local(async {
        let seen: Rc<RefCell<Vec<String>>> = Rc::default();
        let log = seen.clone();
        let server = Closure::new(move |request| {
            let mut lines = vec![format!("{} {}", request.head.method, request.head.target)];
            lines.push(format!("{:?}", request.head.authority));
            for (name, value) in request.head.headers.iter() {
                lines.push(format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
            }
            *log.borrow_mut() = lines;
            async { text("crossed") }
        });
        let mut peer = serve(bridge_to_h2(server));
        peer.write("GET /p?q HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-One: 1\r\n\r\n").await;
        let answer = peer.read_until("crossed").await;
        assert_eq!(answer, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ncrossed");
        assert_eq!(*seen.borrow(), ["GET /p?q", "Some(a.example)", "x-one=1"]);
    });
}

#[test]
fn cookie_crumbs_are_joined_and_host_agrees_with_the_authority() {
    local(async {
        let server = Closure::new(|request| async move {
            let cookies: Vec<&[u8]> = request.head.headers.get_all(&http::header::COOKIE).collect();
            assert_eq!(cookies, [b"a=1; b=2; c=3"]);
            assert!(!request.head.headers.contains(&http::header::HOST));
            text("ok")
        });
        let peer = serve(server);
        let client = raw_client(peer.io).await;
        let request = || {
            let mut request = Request::get("http://a.example/").body(()).expect("a request");
            for crumb in ["a=1", "b=2", "c=3"] {
                request.headers_mut().append(http::header::COOKIE, HeaderValue::from_static(crumb));
            }
            request
        };
        let mut same = request();
        same.headers_mut().insert(http::header::HOST, HeaderValue::from_static("A.example"));
        let mut other = request();
        other.headers_mut().insert(http::header::HOST, HeaderValue::from_static("b.example"));
        for (request, status) in [(request(), 200), (same, 200), (other, 400)] {
            let mut ready = client.clone().ready().await.expect("ready");
            let (response, _) = ready.send_request(request, true).expect("sent");
            assert_eq!(response.await.expect("a response").status(), status);
        }
        assert_eq!(peer.handler.errors.borrow()[0].reason, Reason::BadRequest);
    });
}

#[test]
fn requests_that_http1_could_misread_are_refused() {
    local(async {
        let peer = serve(Closure::new(|_| async { text("never") }));
        let client = raw_client(peer.io).await;
        let two_lengths = {
            let mut request = Request::post("http://a/").body(()).expect("a request");
            request.headers_mut().append(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            request.headers_mut().append(http::header::CONTENT_LENGTH, HeaderValue::from_static("5"));
            request
        };
        let user = Request::get("http://u@a/").body(()).expect("a request");
        for request in [two_lengths, user] {
            let mut ready = client.clone().ready().await.expect("ready");
            let (response, _) = ready.send_request(request, true).expect("sent");
            match response.await {
                Ok(response) => assert_eq!(response.status(), 400),
                // `h2` refuses some of them before we see them.
                Err(error) => assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR)),
            }
        }
        assert!(peer.handler.seen.borrow().is_empty());
    });
}

#[test]
fn a_reset_by_the_client_drops_its_handler() {
    struct Flag(Rc<RefCell<bool>>);
    impl Drop for Flag {
        fn drop(&mut self) {
            *self.0.borrow_mut() = true;
        }
    }
    local(async {
        let dropped = Rc::new(RefCell::new(false));
        let flag = dropped.clone();
        let peer = serve(Closure::new(move |_| {
            let flag = Flag(flag.clone());
            async move {
                std::future::pending::<()>().await;
                drop(flag);
                text("never")
            }
        }));
        let upstream = upstream(peer.io).await;
        let request = head(Method::GET);
        let sending = upstream.send(&request, Body::empty());
        tokio::time::timeout(Duration::from_secs(1), sending).await.expect_err("no response");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(*dropped.borrow());
        assert_eq!(upstream.active_streams(), 0);
    });
}

#[test]
fn a_refused_stream_and_a_goaway_are_safe_to_retry() {
    local(async {
        let (client, server) = tokio::io::duplex(64 * 1024);
        spawn_local(async move {
            let mut connection = h2::server::handshake(server).await.expect("a handshake");
            if let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            connection.graceful_shutdown();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        });
        let upstream = upstream(client).await;
        let error = upstream.send(&head(Method::POST), Body::empty()).await.expect_err("refused");
        assert_eq!((error.reason, error.retry), (Reason::UpstreamReset, Retry::Safe));
        while upstream.is_open() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let error = upstream.send(&head(Method::POST), Body::full("x".into())).await.expect_err("going away");
        assert_eq!(error.retry, Retry::Safe);
        assert!(error.unsent_body.is_some());
    });
}

#[test]
fn an_early_response_ends_while_the_request_is_open() {
    local(async {
        let peer = serve(Closure::new(|_| async { Response::empty(StatusCode::FORBIDDEN) }));
        let client = raw_client(peer.io).await;
        let mut ready = client.ready().await.expect("ready");
        let request = Request::post("http://a/").body(()).expect("a request");
        let (response, _stream) = ready.send_request(request, false).expect("sent");
        assert_eq!(response.await.expect("a response").status(), 403);
    });
}

#[test]
fn request_trailers_reach_the_handler() {
    local(async {
        let peer = serve(Closure::new(|request| async {
            let (_, trailers) = collect(request.body).await.expect("complete");
            assert_eq!(trailers.expect("trailers").get(&HeaderName::from_static("x-t")), Some(&b"1"[..]));
            text("ok")
        }));
        let client = raw_client(peer.io).await;
        let mut ready = client.ready().await.expect("ready");
        let request = Request::post("http://a/").body(()).expect("a request");
        let (response, mut stream) = ready.send_request(request, false).expect("sent");
        stream.send_data("data".into(), false).expect("sent");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-t", HeaderValue::from_static("1"));
        stream.send_trailers(trailers).expect("sent");
        assert_eq!(response.await.expect("a response").status(), 200);
    });
}

#[test]
fn a_drain_says_goaway_and_lets_streams_finish() {
    local(async {
        let peer = serve(Closure::new(|_| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            text("done")
        }));
        let upstream = upstream(peer.io).await;
        let running = spawn_local({
            let upstream = upstream.clone();
            async move { upstream.send(&head(Method::GET), Body::empty()).await.map(|(head, _)| head.status) }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        peer.drain.start();
        assert_eq!(running.await.expect("no panic").expect("a response"), StatusCode::OK);
        assert!(!upstream.is_usable());
        assert_eq!(peer.served.await.expect("no panic").failure, None);
    });
}

#[test]
fn an_idle_connection_is_closed_and_a_silent_one_too() {
    local(async {
        let peer = serve(echo());
        let upstream = upstream(peer.io).await;
        upstream.send(&head(Method::GET), Body::empty()).await.expect("a response");
        let start = tokio::time::Instant::now();
        assert_eq!(peer.served.await.expect("no panic").failure, None);
        assert!(start.elapsed() < Duration::from_secs(700));
    });
    local(async {
        let mut peer = serve(echo());
        peer.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let start = tokio::time::Instant::now();
        peer.served.await.expect("no panic");
        assert!(start.elapsed() < Duration::from_secs(700));
    });
    local(async {
        let mut peer = serve(echo());
        peer.write("PRI * HT").await;
        assert_eq!(peer.served.await.expect("no panic").failure, Some(Reason::RequestTimeout));
    });
}

#[test]
fn the_protocol_is_sniffed_wherever_the_preface_is_split() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for split in 1..preface.len() {
        local(async move {
            let mut peer = serve(echo());
            peer.write(&preface[..split]).await;
            tokio::task::yield_now().await;
            peer.write(&preface[split..]).await;
            // The server's own SETTINGS come first: a frame of type 4 on stream 0.
            let mut frame = [0; 9];
            tokio::io::AsyncReadExt::read_exact(&mut peer.io, &mut frame).await.expect("settings");
            assert_eq!(frame[3], 4, "split at {split}");
        });
    }
    local(async {
        let mut peer = serve(echo());
        peer.write("P").await;
        tokio::task::yield_now().await;
        peer.write("OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        assert!(peer.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
        peer.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert!(peer.read_all().await.starts_with("HTTP/1.1 505"));
    });
}

#[test]
fn content_that_the_peer_does_not_take_is_bounded_and_given_up() {
    local(async {
        let (io, server) = tokio::io::duplex(1 << 20);
        let drain = DrainTrigger::new();
        let handler = Closure::new(|_| async {
            Response::new(ResponseHead::new(StatusCode::OK), Body::full(Bytes::from(vec![0; 1 << 20])))
        });
        spawn_local(serve_connection(server, Rc::new(ServerConfig::default()), handler, drain.drain()));
        let client = raw_client(io).await;
        let mut ready = client.ready().await.expect("ready");
        let (response, _) =
            ready.send_request(Request::get("http://a/").body(()).expect("a request"), true).expect("sent");
        let mut body = response.await.expect("a response").into_body();
        let mut read = 0;
        let error = loop {
            // Never releases capacity: the window of 65,535 bytes closes.
            match body.data().await {
                Some(Ok(bytes)) => read += bytes.len(),
                Some(Err(error)) => break error,
                None => panic!("the window was not respected"),
            }
        };
        assert_eq!(read, 65_535);
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    });
}

#[test]
fn an_upgrade_relays_both_streams_until_they_end() {
    local(async {
        let (upstream_io, mut server) = tokio::io::duplex(1024);
        let upstream_io = RefCell::new(Some(upstream_io));
        let proxy = Closure::new(move |request| {
            let io = upstream_io.borrow_mut().take().expect("one request");
            async move {
                let upstream = H1Upstream::new(io, Rc::new(H1Config::default()), None);
                let (head, body) = upstream.send(&request.head, request.body).await.expect("a response");
                Response::new(head, body)
            }
        });
        let mut peer = serve_with(proxy, ServerConfig::default(), 1024);
        peer.write("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
            .await;
        read_until(&mut server, "\r\n\r\n").await;
        server
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
            )
            .await
            .expect("the proxy reads");
        assert!(peer.read_until("hello").await.starts_with("HTTP/1.1 101"));
        read_until(&mut server, "early").await;
        peer.write("late").await;
        read_until(&mut server, "late").await;
        peer.io.shutdown().await.expect("open");
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut server, &mut rest).await.expect("half closed");
        server.write_all(b"bye").await.expect("the other half is open");
        drop(server);
        assert_eq!(peer.read_all().await, "bye");
        assert_eq!(peer.served.await.expect("no panic").failure, None);
    });
}
