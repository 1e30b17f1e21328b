// SPDX-License-Identifier: Apache-2.0
//! An HTTP client that sends many requests and counts what comes back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::http::{Local, Reply, VERSION};

/// How many different failures are told; the others are counted together.
const MAX_FAILURES: usize = 32;
/// How many bytes of the last body are told.
const MAX_BODY: usize = 4096;

/// How requests share connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// HTTP/1.1, one connection for all requests of a task.
    KeepAlive,
    /// HTTP/1.1, a new connection for each request.
    Close,
    /// HTTP/2 with prior knowledge, one connection for all requests of a task.
    H2,
}

/// What the client is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// `http://address:port/path`.
    url: Uri,
    /// How requests share connections.
    #[arg(long, value_enum, default_value_t = Mode::KeepAlive)]
    mode: Mode,
    /// The method.
    #[arg(long, default_value = "GET")]
    method: Method,
    /// The `Host` header or `:authority`, where it is not the address.
    #[arg(long)]
    host: Option<String>,
    /// More headers, as `name: value`.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// The size of the body.
    #[arg(long, default_value_t = 0)]
    body_bytes: usize,
    /// Sends a gRPC-like message, and wants its status.
    #[arg(long)]
    grpc: bool,
    /// How many requests; without it, until standard input ends.
    #[arg(long)]
    requests: Option<u64>,
    /// How many are on their way at once.
    #[arg(long, default_value_t = 1)]
    concurrency: u32,
    /// The pause of each task between two requests, in milliseconds.
    #[arg(long, default_value = "0", value_parser = super::milliseconds)]
    pause_ms: Duration,
    /// How long a request may take, in milliseconds.
    #[arg(long, default_value = "5000", value_parser = super::milliseconds)]
    timeout_ms: Duration,
    /// The port to connect from, which makes connections the same tuple again and again.
    #[arg(long)]
    from_port: Option<u16>,
}

/// What came of the requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Requests sent.
    pub sent: u64,
    /// Requests that were answered, whatever the status.
    pub answered: u64,
    /// Answers by status.
    pub status: BTreeMap<u16, u64>,
    /// Answers by the version that the server names.
    pub version: BTreeMap<String, u64>,
    /// Requests without an answer, by what went wrong.
    pub failures: BTreeMap<String, u64>,
    /// The median, in microseconds.
    pub p50_us: u64,
    /// The 99th percentile, in microseconds.
    pub p99_us: u64,
    /// The last answer.
    pub last: Option<Answer>,
    /// The last answer with a status of 400 or more.
    pub last_refused: Option<Answer>,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// The first bytes of the body, as text.
    pub body: String,
    /// The size of the body.
    pub body_bytes: usize,
    /// The trailers.
    pub trailers: BTreeMap<String, String>,
}

impl Summary {
    /// Answers with status 200.
    pub fn ok(&self) -> u64 {
        self.status_count(200)
    }

    /// Answers with `status`.
    pub fn status_count(&self, status: u16) -> u64 {
        self.status.get(&status).copied().unwrap_or(0)
    }

    /// Answers of the server's `version`.
    pub fn version_count(&self, version: &str) -> u64 {
        self.version.get(version).copied().unwrap_or(0)
    }

    /// The last answer, read as what the server of [`http`](super::http) says it saw.
    pub fn seen(&self) -> anyhow::Result<super::http::Seen> {
        let last = self.last.as_ref().with_context(|| format!("no answer: {:?}", self.failures))?;
        serde_json::from_str(&last.body).with_context(|| format!("{}: {}", last.status, last.body))
    }
}

impl Answer {
    /// The status of a gRPC call: after the message, or in the head of an answer without one.
    pub fn grpc_status(&self) -> Option<&str> {
        let in_head = self.headers.get("grpc-status").filter(|_| self.body_bytes == 0);
        self.trailers.get("grpc-status").or(in_head).map(String::as_str)
    }
}

enum Connection {
    H1(http1::SendRequest<Reply>),
    H2(http2::SendRequest<Reply>),
}

struct Load {
    options: Options,
    peer: SocketAddr,
    left: Cell<u64>,
    stop: Cell<bool>,
    summary: RefCell<Summary>,
    times: RefCell<Vec<u64>>,
}

/// Sends the requests and prints the [`Summary`].
pub async fn run(options: Options) -> anyhow::Result<()> {
    let authority = options.url.authority().context("the URL has no authority")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let peer =
        SocketAddr::new(host.parse().context("the host is no address")?, authority.port_u16().unwrap_or(80));
    let load = Rc::new(Load {
        peer,
        left: Cell::new(options.requests.unwrap_or(u64::MAX)),
        stop: Cell::new(false),
        summary: RefCell::default(),
        times: RefCell::default(),
        options,
    });
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let stopper = load.clone();
            tokio::task::spawn_local(async move {
                super::told_to_stop().await;
                stopper.stop.set(true);
            });
            let tasks: Vec<_> = (0..load.options.concurrency)
                .map(|_| tokio::task::spawn_local(load.clone().send()))
                .collect();
            for task in tasks {
                task.await?;
            }
            anyhow::Ok(())
        })
        .await?;
    let mut summary = load.summary.take();
    let mut times = load.times.take();
    times.sort_unstable();
    summary.p50_us = times.get(times.len() / 2).copied().unwrap_or(0);
    summary.p99_us = times.get(times.len() * 99 / 100).copied().unwrap_or(0);
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}

impl Load {
    async fn send(self: Rc<Self>) {
        let mut connection = None;
        while !self.stop.get() && self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            self.summary.borrow_mut().sent += 1;
            let start = Instant::now();
            let result = tokio::time::timeout(self.options.timeout_ms, self.exchange(&mut connection)).await;
            let took = start.elapsed().as_micros() as u64;
            match result {
                Ok(Ok(answer)) => self.count(answer, took),
                Ok(Err(error)) => self.fail(&format!("{error:#}"), &mut connection),
                Err(_) => self.fail("no answer in time", &mut connection),
            }
            if self.options.mode == Mode::Close {
                connection = None;
            }
            if !self.options.pause_ms.is_zero() {
                tokio::time::sleep(self.options.pause_ms).await;
            }
        }
    }

    fn count(&self, answer: Answer, took: u64) {
        let mut summary = self.summary.borrow_mut();
        summary.answered += 1;
        *summary.status.entry(answer.status).or_default() += 1;
        if let Some(version) = answer.headers.get(VERSION) {
            *summary.version.entry(version.clone()).or_default() += 1;
        }
        if answer.status >= 400 {
            summary.last_refused = Some(answer.clone());
        }
        summary.last = Some(answer);
        self.times.borrow_mut().push(took);
    }

    fn fail(&self, why: &str, connection: &mut Option<Connection>) {
        *connection = None;
        let failures = &mut self.summary.borrow_mut().failures;
        let full = failures.len() >= MAX_FAILURES && !failures.contains_key(why);
        let key = if full { "other" } else { why };
        *failures.entry(key.to_owned()).or_default() += 1;
    }

    async fn exchange(&self, connection: &mut Option<Connection>) -> anyhow::Result<Answer> {
        if connection.as_ref().is_none_or(Connection::is_closed) {
            *connection = Some(self.connect().await?);
        }
        let Some(open) = connection else { bail!("no connection") };
        let request = self.request()?;
        let response = match open {
            Connection::H1(sender) => {
                sender.ready().await.context("connection")?;
                sender.send_request(request).await
            }
            Connection::H2(sender) => {
                sender.ready().await.context("connection")?;
                sender.send_request(request).await
            }
        };
        let answer = read(response.context("request")?).await.context("body")?;
        if self.options.grpc && answer.status == 200 && answer.grpc_status().is_none() {
            bail!("no grpc-status");
        }
        Ok(answer)
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let socket = match self.peer {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        if let Some(port) = self.options.from_port {
            socket.set_reuseaddr(true)?;
            let any = if self.peer.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
            socket.bind(SocketAddr::new(any, port)).context("bind")?;
        }
        let stream: TcpStream = socket.connect(self.peer).await.context("connect")?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        if self.options.mode == Mode::H2 {
            let builder = http2::Builder::new(Local);
            let (sender, driver) =
                builder.clone().timer(TokioTimer::new()).handshake(io).await.context("handshake")?;
            tokio::task::spawn_local(driver);
            return Ok(Connection::H2(sender));
        }
        let (sender, driver) = http1::handshake(io).await.context("handshake")?;
        tokio::task::spawn_local(driver);
        Ok(Connection::H1(sender))
    }

    fn request(&self) -> anyhow::Result<Request<Reply>> {
        let options = &self.options;
        let mut body = Bytes::from(vec![b'w'; options.body_bytes]);
        if options.grpc {
            body = message(&body);
        }
        let mut request = Request::new(Reply::full(body));
        *request.method_mut() = options.method.clone();
        let authority = match (&options.host, options.url.authority()) {
            (Some(host), _) => host.clone(),
            (None, Some(authority)) => authority.to_string(),
            (None, None) => String::new(),
        };
        let path = options.url.path_and_query().map_or("/", |path| path.as_str());
        if options.mode == Mode::H2 {
            *request.uri_mut() = format!("http://{authority}{path}").parse()?;
            *request.version_mut() = Version::HTTP_2;
        } else {
            *request.uri_mut() = path.parse()?;
            request.headers_mut().insert(header::HOST, HeaderValue::from_str(&authority)?);
        }
        if options.grpc {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
            *request.method_mut() = Method::POST;
        }
        for line in &options.headers {
            let (name, value) = line.split_once(':').context("a header is `name: value`")?;
            request.headers_mut().append(HeaderName::try_from(name)?, HeaderValue::from_str(value.trim())?);
        }
        Ok(request)
    }
}

impl Connection {
    fn is_closed(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_closed(),
            Self::H2(sender) => sender.is_closed(),
        }
    }
}

async fn read(response: http::Response<Incoming>) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let bytes = collected.to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: texts(&head.headers),
        body: String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_BODY)]).into_owned(),
        body_bytes: bytes.len(),
        trailers: texts(&trailers),
    })
}

fn texts(headers: &http::HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// A gRPC message: not compressed, its length, its bytes.
fn message(bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0][..], &length, bytes].concat().into()
}
