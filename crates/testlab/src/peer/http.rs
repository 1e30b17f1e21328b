// SPDX-License-Identifier: Apache-2.0
//! An HTTP server that tells what it saw.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge share a port; the first bytes decide. The reply names the
//! server's version, the client's address and the request as it came. The query asks for more:
//! `status=503`, `delay=100` (milliseconds), `bytes=1000000` (a body of that size). `/stats` counts
//! connections and requests, itself not included. A request of type `application/grpc` gets its message
//! back, and the status in trailers. One that offers an upgrade to `websocket` gets it, and then its bytes
//! back until it closes its direction.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// The preface of HTTP/2 begins with this (RFC 9113 section 3.4); no method of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI";

/// The header of the reply that names the server's version.
pub const VERSION: &str = "x-version";

/// What the server is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Where to listen.
    #[arg(long, default_value = "[::]:8080")]
    listen: SocketAddr,
    /// The version that replies name.
    #[arg(long, default_value = "v1")]
    version: String,
    /// Every so many requests, one is answered with 503.
    #[arg(long)]
    fail_every: Option<u64>,
}

/// The reply to an ordinary request.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Seen {
    /// The server's version.
    pub version: String,
    /// The address that the connection came from.
    pub client: SocketAddr,
    /// The address that the connection came to.
    pub local: SocketAddr,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// The method.
    pub method: String,
    /// The path and query.
    pub path: String,
    /// The headers; values of one name are joined by a comma.
    pub headers: BTreeMap<String, String>,
    /// How many bytes the body had.
    pub body_bytes: u64,
}

/// The reply to `/stats`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted.
    pub connections: u64,
    /// Requests received.
    pub requests: u64,
    /// Requests answered with 503 because of `--fail-every`.
    pub failed: u64,
}

struct Server {
    options: Options,
    stats: Cell<Stats>,
}

/// Serves until standard input ends.
pub async fn serve(options: Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    super::ready(listener.local_addr()?);
    let server = Rc::new(Server { options, stats: Cell::default() });
    let local = tokio::task::LocalSet::new();
    let accept = local.run_until(async move {
        loop {
            if let Ok((stream, peer)) = listener.accept().await {
                tokio::task::spawn_local(server.clone().connection(stream, peer));
            }
        }
    });
    tokio::select! {
        () = accept => Ok(()),
        () = super::told_to_stop() => Ok(()),
    }
}

impl Server {
    async fn connection(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Ok(local) = stream.local_addr() else { return };
        let Ok(is_http2) = speaks_http2(&stream).await else { return };
        stream.set_nodelay(true).ok();
        let io = TokioIo::new(stream);
        let first = Cell::new(true);
        let service = service_fn(move |request| {
            let counted = first.replace(false);
            self.clone().answer(request, super::canonical(peer), super::canonical(local), counted)
        });
        // How a connection ends is the client's to tell.
        if is_http2 {
            http2::Builder::new(Local).timer(TokioTimer::new()).serve_connection(io, service).await.ok();
        } else {
            http1::Builder::new()
                .timer(TokioTimer::new())
                .half_close(true)
                .serve_connection(io, service)
                .with_upgrades()
                .await
                .ok();
        }
    }

    async fn answer(
        self: Rc<Self>,
        mut request: Request<Incoming>,
        client: SocketAddr,
        local: SocketAddr,
        first: bool,
    ) -> Result<Response<Reply>, Infallible> {
        if request.uri().path() == "/stats" {
            return Ok(json(StatusCode::OK, &self.stats.get()));
        }
        let mut stats = self.stats.get();
        stats.requests += 1;
        stats.connections += u64::from(first);
        let fails = self.options.fail_every.is_some_and(|every| stats.requests.is_multiple_of(every));
        stats.failed += u64::from(fails);
        self.stats.set(stats);
        if request.headers().get(header::UPGRADE).is_some_and(|offer| offer == "websocket") {
            tokio::task::spawn_local(echo_upgraded(hyper::upgrade::on(&mut request)));
            return Ok(self.named(switching_protocols()));
        }
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            return Ok(json(StatusCode::BAD_REQUEST, &"the body ended early"));
        };
        let asked = Asked::of(&head.uri);
        tokio::time::sleep(asked.delay).await;
        if fails {
            return Ok(self.named(json(StatusCode::SERVICE_UNAVAILABLE, &"failing as asked")));
        }
        if head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/grpc") {
            return Ok(self.named(grpc(body)));
        }
        if let Some(bytes) = asked.bytes {
            return Ok(self.named(Response::new(Reply::full(Bytes::from(vec![b'w'; bytes])))));
        }
        let seen = Seen {
            version: self.options.version.clone(),
            client,
            local,
            protocol: format!("{:?}", head.version),
            method: head.method.to_string(),
            path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            headers: readable(&head.headers, &head.uri),
            body_bytes: body.len() as u64,
        };
        Ok(self.named(json(asked.status, &seen)))
    }

    fn named(&self, mut response: Response<Reply>) -> Response<Reply> {
        if let Ok(value) = HeaderValue::from_str(&self.options.version) {
            response.headers_mut().insert(VERSION, value);
        }
        response
    }
}

/// What the query asks for.
struct Asked {
    status: StatusCode,
    delay: Duration,
    bytes: Option<usize>,
}

impl Asked {
    fn of(uri: &Uri) -> Self {
        let mut asked = Self { status: StatusCode::OK, delay: Duration::ZERO, bytes: None };
        for (key, value) in uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='))
        {
            match key {
                "status" => asked.status = StatusCode::from_bytes(value.as_bytes()).unwrap_or(asked.status),
                "delay" => asked.delay = Duration::from_millis(value.parse().unwrap_or(0)),
                // The size is bounded so that a stray number cannot exhaust the machine.
                "bytes" => asked.bytes = value.parse().ok().map(|bytes: usize| bytes.min(256 << 20)),
                _ => {}
            }
        }
        asked
    }
}

async fn speaks_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut start).await?;
        if count == PREFACE.len() || count == 0 || start[..count] != PREFACE[..count] {
            return Ok(start == PREFACE);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The headers, and the authority as `host` where HTTP/2 carries it elsewhere.
fn readable(headers: &HeaderMap, uri: &Uri) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.entry(name.to_string()).and_modify(|joined| *joined += &format!(",{text}")).or_insert(text);
    }
    if let Some(authority) = uri.authority() {
        all.entry("host".into()).or_insert_with(|| authority.to_string());
    }
    all
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Reply> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Reply::full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn switching_protocols() -> Response<Reply> {
    let mut response = Response::new(Reply::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
}

/// Every byte back until the client closes its direction; how the connection ends is the client's to tell.
async fn echo_upgraded(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(stream) = upgrade.await else { return };
    let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        write.shutdown().await.ok();
    }
}

/// The same message back, and `grpc-status: 0` after it.
fn grpc(message: Bytes) -> Response<Reply> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Reply { data: Some(message), trailers: Some(trailers) });
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A body of one piece, with or without trailers.
pub struct Reply {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Reply {
    /// A body of one piece.
    pub fn full(data: Bytes) -> Self {
        Self { data: Some(data).filter(|data| !data.is_empty()), trailers: None }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// Runs the streams of an HTTP/2 connection on the thread that has it.
#[derive(Clone, Copy)]
pub(super) struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
