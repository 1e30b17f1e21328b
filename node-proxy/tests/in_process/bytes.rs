// SPDX-License-Identifier: Apache-2.0
//! The bytes of messages on their way: between the versions of HTTP, past readers that do not read, and past
//! connections that end in the middle.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::AbortHandle,
    time::timeout,
};
use weft_ir::{AppProtocol, Resource};

use crate::support::{Client, Lab, Origin, backend, eventually, route, service};

const SOON: Duration = Duration::from_secs(20);

/// A gateway in front of one origin.
async fn gateway(protocol: AppProtocol, origin: SocketAddr) -> Lab {
    let mut resources = service("web", protocol, &[origin]);
    resources.push(Resource::Route(route("web", "/", vec![backend("web", 1)])));
    Lab::start(resources).await
}

/// Serves each connection by hand.
async fn raw_origin<F, A>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads the head of a message, byte by byte.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).expect("text")
}

type Requests = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection to the gateway.
async fn http2(address: SocketAddr) -> Requests {
    let stream = TcpStream::connect(address).await.expect("the gateway accepts");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (requests, connection) = handshake.await.expect("a handshake");
    tokio::spawn(connection);
    requests
}

fn post(content: &Bytes) -> Request<Full<Bytes>> {
    let request = Request::post("http://shop.test/").header("host", "shop.test");
    request.body(Full::new(content.clone())).expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_any_length_passes_between_the_versions() {
    for protocol in [AppProtocol::Http, AppProtocol::Http2] {
        let echo = |request: Request<hyper::body::Incoming>| async move {
            let content = request.into_body().collect().await.expect("the content").to_bytes();
            Response::new(Full::new(content))
        };
        let origin = Origin::with(echo).await;
        let lab = gateway(protocol, origin.address).await;
        let (mut h1, mut h2) = (Client::connect(lab.gateway).await, http2(lab.gateway).await);
        for length in [0, 1, 16_384, 65_536, 300_001, 3_000_000] {
            let content: Bytes = (0..length).map(|at: u32| (at % 251) as u8).collect::<Vec<_>>().into();
            let answer = timeout(SOON, h1.send(post(&content))).await.expect("in time");
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, content.len()));
            assert!(answer.body == content, "{protocol:?} by HTTP/1.1");
            let answer = timeout(SOON, h2.send_request(post(&content))).await.expect("in time");
            let body = timeout(SOON, answer.expect("a response").into_body().collect()).await;
            assert!(
                body.expect("in time").expect("the content").to_bytes() == content,
                "{protocol:?} by HTTP/2"
            );
        }
    }
}

/// Waits until a count stands still; yields it.
async fn settled(count: &AtomicUsize) -> usize {
    let mut last = usize::MAX;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = count.load(Ordering::SeqCst);
        if now == last && now > 0 {
            return now;
        }
        last = now;
    }
}

/// What sockets of the loopback device and the proxy may hold of a stream that nobody reads: the kernel's
/// largest buffers on both connections (tcp_rmem and tcp_wmem, 6 and 4 MiB), and room to spare.
const HELD: usize = 24 << 20;
const MUCH: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_one_side_does_not_read_is_not_read_of_the_other() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = raw_origin(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            head(&mut stream).await;
            let begin = format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n");
            stream.write_all(begin.as_bytes()).await.expect("written");
            while stream.write_all(&[b'x'; 65_536]).await.is_ok() {
                count.fetch_add(65_536, Ordering::SeqCst);
            }
        }
    })
    .await;
    let lab = gateway(AppProtocol::Http, origin).await;
    // A client that reads nothing.
    let mut client = TcpStream::connect(lab.gateway).await.expect("a connection");
    client.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.expect("written");
    let held = timeout(SOON, settled(&sent)).await.expect("it stops");
    assert!(held < HELD, "{held} bytes are held for a client that does not read");
    drop(client);
    // The same of a stream, beside which others go on.
    sent.store(0, Ordering::SeqCst);
    let mut requests = http2(lab.gateway).await;
    let unread = requests.send_request(post(&Bytes::new())).await.expect("a response");
    let held = timeout(SOON, settled(&sent)).await.expect("it stops");
    assert!(held < HELD, "{held} bytes are held for a stream that is not read");
    for _ in 0..20 {
        let other = timeout(SOON, requests.send_request(post(&Bytes::new()))).await.expect("in time");
        assert_eq!(other.expect("a response").status(), 200);
    }
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_reads_nothing_holds_its_client_up() {
    let origin = raw_origin(|stream| async move {
        tokio::time::sleep(SOON).await;
        drop(stream);
    })
    .await;
    let lab = gateway(AppProtocol::Http, origin).await;
    let mut client = TcpStream::connect(lab.gateway).await.expect("a connection");
    let begin = format!("POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: {MUCH}\r\n\r\n");
    client.write_all(begin.as_bytes()).await.expect("written");
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let writing = tokio::spawn(async move {
        while client.write_all(&[b'x'; 65_536]).await.is_ok() {
            count.fetch_add(65_536, Ordering::SeqCst);
        }
    });
    let held = timeout(SOON, settled(&sent)).await.expect("it stops");
    assert!(held < HELD, "{held} bytes are held for an endpoint that does not read");
    writing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_cut_is_seen_to_be_cut() {
    for begin in ["content-length: 100", "transfer-encoding: chunked"] {
        let origin = raw_origin(move |mut stream| async move {
            head(&mut stream).await;
            let text = format!("HTTP/1.1 200 OK\r\n{begin}\r\n\r\n3\r\nabc\r\n");
            stream.write_all(text.as_bytes()).await.expect("written");
        })
        .await;
        let lab = gateway(AppProtocol::Http, origin).await;
        let mut client = Client::connect(lab.gateway).await;
        let cut = timeout(SOON, client.try_send(post(&Bytes::new()))).await.expect("in time");
        assert!(cut.is_err(), "{begin} by HTTP/1.1");
        let mut requests = http2(lab.gateway).await;
        let response = requests.send_request(post(&Bytes::new())).await.expect("a head");
        let cut = timeout(SOON, response.into_body().collect()).await.expect("in time");
        assert!(cut.is_err(), "{begin} by HTTP/2");
        // The stream was lost, not the connection.
        assert!(requests.send_request(post(&Bytes::new())).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_pipeline_are_answered_in_their_order() {
    let path = |request: Request<hyper::body::Incoming>| async move {
        // The first take longest.
        let number: u64 = request.uri().path()[1..].parse().expect("a number");
        tokio::time::sleep(Duration::from_millis(40 - 2 * number)).await;
        Response::new(Full::new(Bytes::from(format!("<{number}>"))))
    };
    let origin = Origin::with(path).await;
    let lab = gateway(AppProtocol::Http, origin.address).await;
    let mut client = TcpStream::connect(lab.gateway).await.expect("a connection");
    let mut all = String::new();
    for number in 0..20 {
        let close = if number == 19 { "connection: close\r\n" } else { "" };
        all.push_str(&format!("GET /{number} HTTP/1.1\r\nhost: shop.test\r\n{close}\r\n"));
    }
    client.write_all(all.as_bytes()).await.expect("written");
    let mut answers = String::new();
    timeout(SOON, client.read_to_string(&mut answers)).await.expect("in time").expect("text");
    let order: Vec<&str> =
        answers.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or("")).collect();
    assert_eq!(order, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// A gateway, its origin, and a client that has sent a request, which is not answered before it is told, and the
/// beginning of another.
async fn one_and_a_half() -> (Lab, Origin, Arc<Notify>, TcpStream) {
    let told = Arc::new(Notify::new());
    let waits = Arc::clone(&told);
    let origin = Origin::with(move |request| {
        let waits = Arc::clone(&waits);
        async move {
            if request.uri().path() == "/late" {
                waits.notified().await;
            }
            Response::new(Full::new(Bytes::from("ok")))
        }
    })
    .await;
    let lab = gateway(AppProtocol::Http, origin.address).await;
    let mut client = TcpStream::connect(lab.gateway).await.expect("a connection");
    client.write_all(b"GET /late HTTP/1.1\r\nhost: a\r\n\r\nGET /next HT").await.expect("it is sent");
    eventually("the first request arrives", || origin.count() == 1).await;
    (lab, origin, told, client)
}

/// Until the proxy has seen what was sent before: it has had turns for others since.
async fn turns_pass(lab: &Lab) {
    for _ in 0..10 {
        assert_eq!(lab.get("/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_response_is_awaited_is_read_after_it() {
    let (lab, origin, told, mut client) = one_and_a_half().await;
    client.write_all(b"TP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("it is sent");
    turns_pass(&lab).await;
    let before = origin.count();
    told.notify_one();
    let mut answers = String::new();
    timeout(SOON, client.read_to_string(&mut answers)).await.expect("in time").expect("text");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    assert_eq!(origin.count(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ended_inside_its_next_head_is_not_waited_for() {
    let (lab, _origin, told, mut client) = one_and_a_half().await;
    client.shutdown().await.expect("half closed");
    turns_pass(&lab).await;
    told.notify_one();
    let mut answers = String::new();
    // Less than the time that a head may take.
    let end = timeout(Duration::from_secs(8), client.read_to_string(&mut answers)).await;
    end.expect("in time").expect("text");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_answer_to_head_has_no_content() {
    let origin = Origin::text("ok").await;
    let mut resources = service("web", AppProtocol::Http, &[origin.address]);
    resources.push(Resource::Route(route("web", "/web", vec![backend("web", 1)])));
    let lab = Lab::start(resources).await;
    let ask = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(format!("http://shop.test{path}"));
        request.header("host", "shop.test").body(Full::new(Bytes::new())).expect("a request")
    };
    let mut h2 = http2(lab.gateway).await;
    for _ in 0..2 {
        // What a client of HTTP/2 did not expect costs it the stream or the whole connection.
        let answer = timeout(SOON, h2.send_request(ask("HEAD", "/none"))).await.expect("in time");
        let answer = answer.expect("a response");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert_eq!(answer.into_body().collect().await.expect("an end").to_bytes(), "");
    }
    let answer = h2.send_request(ask("GET", "/none")).await.expect("a response");
    assert_ne!(answer.into_body().collect().await.expect("an end").to_bytes(), "");

    let mut h1 = TcpStream::connect(lab.gateway).await.expect("a connection");
    let two =
        b"HEAD /none HTTP/1.1\r\nhost: a\r\n\r\nHEAD /none HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    h1.write_all(two).await.expect("it is sent");
    let mut answers = String::new();
    timeout(SOON, h1.read_to_string(&mut answers)).await.expect("in time").expect("text");
    assert_eq!(answers.matches("HTTP/1.1 404").count(), 2, "{answers}");
    assert!(answers.ends_with("\r\n\r\n"), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_its_endpoint_closed_while_idle_costs_no_request() {
    let origin = raw_origin(|mut stream| async move {
        head(&mut stream).await;
        // It does not say that it will close.
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("written");
    })
    .await;
    let lab = gateway(AppProtocol::Http, origin).await;
    let mut client = Client::connect(lab.gateway).await;
    for _ in 0..50 {
        let request = Request::get("/").header("host", "shop.test").body(Full::default()).expect("a request");
        assert_eq!(timeout(SOON, client.send(request)).await.expect("in time").text(), "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_response_ends_the_request_on_both_versions() {
    let origin = raw_origin(|mut stream| async move {
        head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
            .await
            .expect("written");
        tokio::time::sleep(Duration::from_millis(200)).await;
    })
    .await;
    let lab = gateway(AppProtocol::Http, origin).await;
    let content = Bytes::from(vec![0; 3_000_000]);
    for _ in 0..3 {
        let mut requests = http2(lab.gateway).await;
        let answer = timeout(SOON, requests.send_request(post(&content))).await.expect("in time");
        assert_eq!(answer.expect("a response").status(), 413);
    }
}

/// An HTTP/2 origin that takes one stream on each connection and answers none; its connections, to be ended.
async fn busy_origin() -> (SocketAddr, Arc<Mutex<Vec<AbortHandle>>>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (open, requests) = (Arc::<Mutex<Vec<AbortHandle>>>::default(), Arc::new(AtomicUsize::new(0)));
    let (connections, count) = (Arc::clone(&open), Arc::clone(&requests));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            let service = service_fn(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let serving = builder.max_concurrent_streams(1).serve_connection(TokioIo::new(stream), service);
            let task = tokio::spawn(async move { drop(serving.await) });
            connections.lock().expect("no panic").push(task.abort_handle());
        }
    });
    (address, open, requests)
}

/// Numbers of exchanges are used again: who waits in a line for a stream may be gone, and another have its
/// number.
#[tokio::test(flavor = "multi_thread")]
async fn who_left_the_line_for_a_stream_leaves_no_trace() {
    let (busy, connections, taken) = busy_origin().await;
    let release = Arc::new(Notify::new());
    let released = Arc::clone(&release);
    let calm = Origin::with(move |request: Request<hyper::body::Incoming>| {
        let released = Arc::clone(&released);
        async move {
            released.notified().await;
            Response::new(Full::new(Bytes::from(request.uri().path().to_owned())))
        }
    })
    .await;
    let mut resources = service("busy", AppProtocol::Http2, &[busy]);
    resources.extend(service("calm", AppProtocol::Http, &[calm.address]));
    resources.push(Resource::Route(route("busy", "/busy", vec![backend("busy", 1)])));
    resources.push(Resource::Route(route("calm", "/calm", vec![backend("calm", 1)])));
    let lab = Lab::with_workers(1, resources).await;
    let ask = |requests: &mut Requests| {
        let request = Request::get("http://shop.test/busy").body(Full::default()).expect("a request");
        tokio::spawn(requests.send_request(request))
    };
    // Each connection has to say that it takes one stream before the next request comes.
    let mut requests = http2(lab.gateway).await;
    let mut carried = Vec::new();
    for number in 1..=8 {
        carried.push(ask(&mut requests));
        eventually("the request arrives", || taken.load(Ordering::SeqCst) == number).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let waiting = ask(&mut requests);
    tokio::time::sleep(Duration::from_millis(100)).await;
    waiting.abort();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let gateway = lab.gateway;
    let innocent = tokio::spawn(async move {
        let request = Request::get("/calm/1").header("host", "shop.test");
        Client::connect(gateway).await.send(request.body(Full::default()).expect("a request")).await
    });
    eventually("the request arrives", || calm.count() == 1).await;
    connections.lock().expect("no panic").iter().for_each(AbortHandle::abort);
    for lost in carried {
        let answer = timeout(SOON, lost).await.expect("in time").expect("no panic").expect("an answer");
        assert_eq!(answer.status(), 502);
    }
    release.notify_one();
    let answer = timeout(SOON, innocent).await.expect("in time").expect("no panic");
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "/calm/1"));
}

/// One connection of eight that has a stream again serves whoever waits, not only who waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn whichever_connection_has_a_stream_first_takes_who_waits_longest() {
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let permits = Arc::clone(&release);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = listener.local_addr().expect("an address");
    let opened = Arc::new(AtomicUsize::new(0));
    let (count, seen) = (Arc::clone(&opened), Arc::new(AtomicUsize::new(0)));
    let taken = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (permits, taken) = (Arc::clone(&permits), Arc::clone(&taken));
            let service = service_fn(move |_| {
                let permits = Arc::clone(&permits);
                taken.fetch_add(1, Ordering::SeqCst);
                async move {
                    permits.acquire().await.expect("open").forget();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let serving = builder.max_concurrent_streams(1).serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { drop(serving.await) });
        }
    });
    let mut resources = service("busy", AppProtocol::Http2, &[origin]);
    resources.push(Resource::Route(route("busy", "/", vec![backend("busy", 1)])));
    let lab = Lab::with_workers(1, resources).await;
    let mut requests = http2(lab.gateway).await;
    let mut all = Vec::new();
    for number in 1..=8 {
        all.push(tokio::spawn(requests.send_request(post(&Bytes::new()))));
        eventually("the request arrives", || seen.load(Ordering::SeqCst) == number).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    all.extend((0..20).map(|_| tokio::spawn(requests.send_request(post(&Bytes::new())))));
    // One after the other ends, wherever it is.
    for done in 1..=20 {
        release.add_permits(1);
        eventually("another is sent", || seen.load(Ordering::SeqCst) == 8 + done).await;
    }
    release.add_permits(8);
    for one in all {
        let answer = timeout(SOON, one).await.expect("in time").expect("no panic").expect("an answer");
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(opened.load(Ordering::SeqCst), 8, "no more connections than that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_request_passes_wherever_its_pieces_end() {
    let echo = |request: Request<hyper::body::Incoming>| async move {
        let content = request.into_body().collect().await.expect("the content").to_bytes();
        Response::new(Full::new(content))
    };
    let origin = Origin::with(echo).await;
    let lab = gateway(AppProtocol::Http, origin.address).await;
    let content = "5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n";
    for split in 0..content.len() {
        let (first, second) = content.split_at(split);
        let mut client = TcpStream::connect(lab.gateway).await.expect("a connection");
        client.set_nodelay(true).expect("an option");
        let begin =
            "POST / HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        client.write_all(format!("{begin}{first}").as_bytes()).await.expect("written");
        tokio::time::sleep(Duration::from_millis(15)).await;
        client.write_all(second.as_bytes()).await.expect("written");
        let mut answer = String::new();
        timeout(SOON, client.read_to_string(&mut answer)).await.expect("in time").expect("text");
        assert!(answer.ends_with("helloabc"), "split at {split}: {answer}");
    }
}
