// SPDX-License-Identifier: Apache-2.0
//! The request pipeline behind a gateway listener, over real sockets on the loopback address.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_ebpf_common::reason::Reason;
use weft_flow_export::Verdict;
use weft_ir::{
    AppProtocol, HeaderChanges, Hostname, PathChange, RateLimit, RateLimitTarget, Redirect, RedirectStatus,
    Resource, Rewrite, RouteFilter, RouteKind, RouteRetry, RouteTimeouts, Scheme,
};

use crate::support::{Client, Lab, Origin, backend, eventually, free_address, name, route, service};

fn status(code: u16, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}

fn get(target: &str) -> Request<Full<Bytes>> {
    Request::get(target).header("host", "shop.test").body(Full::default()).expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_split_by_weight_and_changes_under_load_without_a_failure() {
    let (v1, v2) = (Origin::text("v1").await, Origin::text("v2").await);
    let mut resources = service("v1", AppProtocol::Http, &[v1.address]);
    resources.extend(service("v2", AppProtocol::Http, &[v2.address]));
    resources.push(Resource::Route(route("canary", "/", vec![backend("v1", 90), backend("v2", 10)])));
    let mut lab = Lab::start(resources).await;

    let mut client = Client::connect(lab.gateway).await;
    for _ in 0..1000 {
        assert_eq!(client.send(get("/")).await.status, 200);
    }
    assert!((98..=102).contains(&v2.count()), "{} of 1000", v2.count());

    let (stop, failures, sent) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (stop, failures, sent) = (Arc::clone(&stop), Arc::clone(&failures), Arc::clone(&sent));
            let gateway = lab.gateway;
            tokio::spawn(async move {
                let mut client = Client::connect(gateway).await;
                while !stop.load(Ordering::Relaxed) {
                    let answered = client.try_send(get("/")).await;
                    sent.fetch_add(1, Ordering::Relaxed);
                    if !answered.is_ok_and(|answer| answer.status == 200) {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for step in 0..20 {
        let weights = if step % 2 == 0 { (50, 50) } else { (90, 10) };
        let backends = vec![backend("v1", weights.0), backend("v2", weights.1)];
        lab.apply(vec![Resource::Route(route("canary", "/", backends))]).await;
        let seen = sent.load(Ordering::Relaxed);
        eventually("more requests", || sent.load(Ordering::Relaxed) > seen + 50).await;
    }
    lab.apply(vec![Resource::Route(route("canary", "/", vec![backend("v1", 50), backend("v2", 50)]))]).await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("the load ends");
    }
    assert_eq!(failures.load(Ordering::Relaxed), 0);

    let before = (v1.count(), v2.count());
    for _ in 0..400 {
        assert_eq!(client.send(get("/")).await.status, 200);
    }
    let share = v2.count() - before.1;
    assert!((196..=204).contains(&share), "{share} of 400 after the change");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_routed_has_the_status_that_gateway_api_asks_for() {
    let origin = Origin::text("ok").await;
    let mut resources = service("web", AppProtocol::Http, &[origin.address]);
    resources.extend(service("empty", AppProtocol::Http, &[]));
    let dead = free_address();
    resources.extend(service("dead", AppProtocol::Http, &[dead]));
    let no_service = weft_ir::RouteBackend { service: None, weight: 1, filters: vec![] };
    let mut invalid = route("invalid-filter", "/invalid-filter", vec![backend("web", 1)]);
    invalid.action.filters = vec![RouteFilter::Invalid];
    for each in [
        route("ok", "/ok", vec![backend("web", 1)]),
        route("none", "/none", vec![]),
        route("reference", "/reference", vec![no_service]),
        route("missing", "/missing", vec![backend("missing", 1)]),
        route("zero", "/zero", vec![backend("web", 0), backend("empty", 0)]),
        route("empty", "/empty", vec![backend("empty", 1)]),
        route("dead", "/dead", vec![backend("dead", 1)]),
        invalid,
    ] {
        resources.push(Resource::Route(each));
    }
    let lab = Lab::start(resources).await;
    for (target, status, reason) in [
        ("/nothing", 404, Reason::NoRoute),
        ("/none", 500, Reason::InvalidBackend),
        ("/reference", 500, Reason::InvalidBackend),
        ("/missing", 500, Reason::InvalidBackend),
        ("/invalid-filter", 500, Reason::InvalidBackend),
        ("/zero", 503, Reason::NoWeight),
        ("/empty", 503, Reason::NoServiceBackend),
        ("/dead", 503, Reason::UpstreamConnectFailed),
    ] {
        assert_eq!(lab.get(target).await.status, status, "{target}");
        let flow = lab.flow(|flow| flow.http.as_ref().is_some_and(|http| &*http.path == target)).await;
        assert_eq!((flow.reason, flow.verdict), (Some(reason), Verdict::Error), "{target}");
    }
    assert_eq!(lab.get("/ok").await.text(), "ok");
    let flow = lab.flow(|flow| flow.http.as_ref().is_some_and(|http| &*http.path == "/ok")).await;
    assert_eq!((flow.reason, flow.verdict, flow.revision.revision), (None, Verdict::Forwarded, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_backend_fails_its_share_only() {
    let origin = Origin::text("ok").await;
    let mut resources = service("web", AppProtocol::Http, &[origin.address]);
    resources.push(Resource::Route(route("half", "/", vec![backend("web", 1), backend("missing", 1)])));
    let lab = Lab::start(resources).await;
    let mut client = Client::connect(lab.gateway).await;
    let mut failed = 0;
    for _ in 0..100 {
        match client.send(get("/")).await.status.as_u16() {
            200 => {}
            500 => failed += 1,
            other => panic!("status {other}"),
        }
    }
    assert!((48..=52).contains(&failed), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_change_requests_and_responses() {
    let echo = |request: Request<hyper::body::Incoming>| async move {
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .map_or("-".to_owned(), |value| value.to_str().expect("text").to_owned())
        };
        let text = format!(
            "{} host={} set={} removed={} for={} proto={}",
            request.uri(),
            header("host"),
            header("x-set"),
            header("x-remove"),
            header("x-forwarded-for"),
            header("x-forwarded-proto"),
        );
        let mut response = Response::new(Full::new(Bytes::from(text)));
        response.headers_mut().insert("x-internal", http::HeaderValue::from_static("1"));
        response
    };
    let origin = Origin::with(echo).await;
    let mut resources = service("web", AppProtocol::Http, &[origin.address]);
    let mut changed = route("changed", "/old/", vec![backend("web", 1)]);
    changed.action.filters = vec![
        RouteFilter::RequestHeaders(HeaderChanges {
            set: vec![("x-set".into(), "1".into())],
            add: vec![],
            remove: vec!["x-remove".into()],
        }),
        RouteFilter::Rewrite(Rewrite {
            hostname: Hostname::new("inner.test"),
            path: Some(PathChange::Prefix("/new".into())),
        }),
        RouteFilter::ResponseHeaders(HeaderChanges {
            set: vec![("x-out".into(), "2".into())],
            add: vec![],
            remove: vec!["x-internal".into()],
        }),
    ];
    let mut moved = route("moved", "/moved", vec![]);
    moved.action.filters = vec![RouteFilter::Redirect(Redirect {
        scheme: Some(Scheme::Https),
        hostname: None,
        path: Some(PathChange::Prefix("/here".into())),
        port: None,
        status: RedirectStatus::MovedPermanently,
    })];
    resources.extend([Resource::Route(changed), Resource::Route(moved)]);
    let lab = Lab::start(resources).await;

    let answer = lab.send(Request::get("/old/path?q=1").header("x-remove", "1").header("x-set", "0")).await;
    assert_eq!(answer.text(), "/new/path?q=1 host=inner.test set=1 removed=- for=127.0.0.1 proto=http");
    assert_eq!((answer.header("x-out"), answer.header("x-internal")), (Some("2"), None));

    let answer = lab.get("/moved/x?q=1").await;
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("location"), Some("https://shop.test/here/x?q=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_answers_429_with_retry_after() {
    let origin = Origin::text("ok").await;
    let mut resources = service("web", AppProtocol::Http, &[origin.address]);
    resources.push(Resource::Route(route("limited", "/", vec![backend("web", 1)])));
    resources.push(Resource::RateLimit(RateLimit {
        name: name("limit"),
        target: RateLimitTarget::Route { kind: RouteKind::HttpRoute, name: name("limited") },
        requests: 1,
        interval: Duration::from_secs(3600),
        burst: 5,
        per_client: false,
    }));
    let mut lab = Lab::start(resources).await;
    let mut counts = (0, 0);
    for round in 0..20 {
        // Connections of their own reach both workers: the limit is the node's.
        let answer = lab.get("/").await;
        match answer.status.as_u16() {
            200 => counts.0 += 1,
            429 => {
                counts.1 += 1;
                let wait: u64 = answer.header("retry-after").expect("a wait").parse().expect("seconds");
                assert!((3500..=3600).contains(&wait), "{wait}");
            }
            other => panic!("status {other}"),
        }
        if round == 10 {
            // A change of something else does not fill the bucket.
            lab.apply(vec![Resource::Route(route("other", "/other", vec![backend("web", 1)]))]).await;
        }
    }
    assert_eq!(counts, (5, 15));
    assert_eq!(origin.count(), 5);
    lab.flow(|flow| flow.reason == Some(Reason::RateLimited) && flow.verdict == Verdict::Dropped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_rescue_requests_from_a_failing_backend() {
    // What fails says so in its head alone, or with content.
    for (protocol, content) in [
        (AppProtocol::Http, "no"),
        (AppProtocol::Http2, "no"),
        (AppProtocol::Http2, ""),
        (AppProtocol::Http, ""),
    ] {
        let (good, bad) =
            (Origin::text("ok").await, Origin::with(move |_| async move { status(503, content) }).await);
        let mut resources = service("web", protocol, &[good.address, bad.address]);
        let mut retried = route("retried", "/", vec![backend("web", 1)]);
        retried.action.retry =
            Some(RouteRetry { codes: vec![503], attempts: 3, backoff: Some(Duration::from_millis(1)) });
        resources.push(Resource::Route(retried));
        let lab = Lab::start(resources).await;
        let mut client = Client::connect(lab.gateway).await;
        for round in 0..40 {
            let request = Request::post("/").header("host", "shop.test");
            let body = Full::new(Bytes::from(vec![b'x'; 1000]));
            let answer = client.send(request.body(body).expect("a request")).await;
            assert_eq!(answer.status, 200, "request {round} over {protocol:?} with {content:?}");
        }
        assert!(bad.count() > 0, "the failing backend was never tried");
        assert_eq!(good.count(), 40);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refuses_connections_is_left_out_by_a_retry() {
    let good = Origin::text("ok").await;
    let mut resources = service("web", AppProtocol::Http, &[good.address, free_address()]);
    let mut retried = route("retried", "/", vec![backend("web", 1)]);
    retried.action.retry =
        Some(RouteRetry { codes: vec![], attempts: 1, backoff: Some(Duration::from_millis(1)) });
    resources.push(Resource::Route(retried));
    let lab = Lab::start(resources).await;
    for _ in 0..20 {
        assert_eq!(lab.get("/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_budget_bounds_the_retries() {
    let bad = Origin::with(|_| async { status(503, "no") }).await;
    let mut resources = service("web", AppProtocol::Http, &[bad.address]);
    let mut retried = route("retried", "/", vec![backend("web", 1)]);
    retried.action.retry = Some(RouteRetry { codes: vec![503], attempts: 10, backoff: Some(Duration::ZERO) });
    resources.push(Resource::Route(retried));
    let lab = Lab::start(resources).await;
    let mut client = Client::connect(lab.gateway).await;
    let begun = std::time::Instant::now();
    for _ in 0..200 {
        assert_eq!(client.send(get("/")).await.status, 503);
    }
    // A fifth of 200, and 10 a second; nine times as many without a budget.
    let most = 200 + 40 + 10 * (begun.elapsed().as_secs() as usize + 2);
    assert!(bad.count() <= most, "{} tries for 200 requests", bad.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_answer_504() {
    let slow = Origin::with(|_| async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        status(200, "late")
    })
    .await;
    let mut resources = service("web", AppProtocol::Http, &[slow.address]);
    let with = |route_name: &str, path: &str, request: Option<u64>, backend_request: Option<u64>| {
        let mut timed = route(route_name, path, vec![backend("web", 1)]);
        timed.action.timeouts = RouteTimeouts {
            request: request.map(Duration::from_millis),
            backend_request: backend_request.map(Duration::from_millis),
        };
        timed
    };
    let mut retried = with("retried", "/retried", None, Some(100));
    retried.action.retry = Some(RouteRetry { codes: vec![], attempts: 2, backoff: Some(Duration::ZERO) });
    resources.extend([
        Resource::Route(with("request", "/request", Some(100), None)),
        Resource::Route(with("backend", "/backend", None, Some(100))),
        Resource::Route(retried),
    ]);
    let lab = Lab::start(resources).await;
    for (target, tries) in [("/request", 1), ("/backend", 1), ("/retried", 3)] {
        let before = slow.count();
        let begun = std::time::Instant::now();
        assert_eq!(lab.get(target).await.status, 504, "{target}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{target}");
        assert_eq!(slow.count() - before, tries, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_goes_through_http2_with_its_trailers() {
    let grpc = |request: Request<hyper::body::Incoming>| async move {
        let version = request.version();
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let trailers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        )]);
        let mut response =
            Response::new(Full::new(body).with_trailers(std::future::ready(Some(Ok(trailers)))));
        let value = if version == http::Version::HTTP_2 { "2" } else { "1" };
        response.headers_mut().insert("x-version", http::HeaderValue::from_static(value));
        response
    };
    let origin = Origin::with(grpc).await;
    let mut resources = service("grpc", AppProtocol::Http2, &[origin.address]);
    resources.push(Resource::Route(route("grpc", "/", vec![backend("grpc", 1)])));
    let lab = Lab::start(resources).await;

    let stream = TcpStream::connect(lab.gateway).await.expect("a connection");
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.expect("a handshake");
    tokio::spawn(connection);
    let request = Request::post("http://shop.test/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\x02hi")))
        .expect("a request");
    let response = requests.send_request(request).await.expect("a response");
    assert_eq!(response.headers()["x-version"], "2");
    let collected = response.into_body().collect().await.expect("a body");
    assert_eq!(collected.trailers().expect("trailers")["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), &b"\0\0\0\0\x02hi"[..]);

    // The gateway's own answers are gRPC too.
    let mut lab = lab;
    lab.apply(vec![Resource::Route(route("grpc", "/other", vec![backend("grpc", 1)]))]).await;
    let request = Request::post("http://shop.test/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .body(Full::default())
        .expect("a request");
    let response = requests.send_request(request).await.expect("a response");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "12");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_half_closed_clients_do_not_hold_up_others() {
    let origin = Origin::text("ok").await;
    let mut resources = service("web", AppProtocol::Http, &[origin.address]);
    resources.push(Resource::Route(route("web", "/", vec![backend("web", 1)])));
    let lab = Lab::start(resources).await;
    let mut slow = Vec::new();
    for round in 0..100 {
        let mut stream = TcpStream::connect(lab.gateway).await.expect("a connection");
        let text: &[u8] = match round % 3 {
            0 => b"GET / HT",
            1 => b"POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 100\r\n\r\nabc",
            _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        };
        stream.write_all(text).await.expect("it is sent");
        slow.push(stream);
    }
    for _ in 0..50 {
        assert_eq!(lab.get("/").await.status, 200);
    }
    // What is no HTTP is answered with 400, and told as a flow.
    let mut noise = TcpStream::connect(lab.gateway).await.expect("a connection");
    noise.write_all(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").await.expect("it is sent");
    let mut answer = Vec::new();
    noise.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    lab.flow(|flow| flow.reason == Some(Reason::BadRequest)).await;
    // A client that closes its sending side after the request still gets its answer.
    let mut half = TcpStream::connect(lab.gateway).await.expect("a connection");
    half.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n")
        .await
        .expect("it is sent");
    half.shutdown().await.expect("half closed");
    let mut answer = String::new();
    half.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("ok"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_what_runs_and_refuses_what_is_new() {
    let released = Arc::new(AtomicBool::new(false));
    let wait = Arc::clone(&released);
    let slow = Origin::with(move |_| {
        let wait = Arc::clone(&wait);
        async move {
            eventually("released", || wait.load(Ordering::SeqCst)).await;
            status(200, "done")
        }
    })
    .await;
    let mut resources = service("web", AppProtocol::Http, &[slow.address]);
    resources.push(Resource::Route(route("web", "/", vec![backend("web", 1)])));
    let Lab { plane, gateway, .. } = Lab::start(resources).await;
    let running = tokio::spawn(async move { Client::connect(gateway).await.send(get("/")).await });
    eventually("the request arrives", || slow.count() == 1).await;
    let draining = tokio::spawn(plane.drain(std::time::Instant::now() + Duration::from_secs(20)));
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(gateway).await.is_ok() {
        assert!(std::time::Instant::now() < until, "the gateway still accepts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    released.store(true, Ordering::SeqCst);
    assert_eq!(running.await.expect("no panic").text(), "done");
    draining.await.expect("the drain ends");
}
