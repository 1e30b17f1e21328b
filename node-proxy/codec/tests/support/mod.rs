// SPDX-License-Identifier: Apache-2.0
//! A server over an in-memory pipe, whose handler is a closure, and what the tests read of it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::{cell::RefCell, future::Future, pin::Pin, rc::Rc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::{JoinHandle, LocalSet, spawn_local},
};
use weft_codec::{
    body::{Body, BodyError, Frame},
    config::ServerConfig,
    drain::DrainTrigger,
    error::ProtocolError,
    handler::{Handler, Served},
    headers::Headers,
    message::{Request, Response, ResponseHead},
    serve::serve_connection,
};

type Answer = Pin<Box<dyn Future<Output = Response>>>;

/// Calls a closure, and keeps what it saw.
pub struct Closure {
    answer: Box<dyn Fn(Request) -> Answer>,
    pub seen: RefCell<Vec<String>>,
    pub errors: RefCell<Vec<ProtocolError>>,
}

impl Closure {
    pub fn new<F: Future<Output = Response> + 'static>(answer: impl Fn(Request) -> F + 'static) -> Rc<Self> {
        Rc::new(Closure {
            answer: Box::new(move |request| Box::pin(answer(request))),
            seen: RefCell::default(),
            errors: RefCell::default(),
        })
    }
}

impl Handler for Closure {
    async fn call(&self, request: Request) -> Response {
        self.seen.borrow_mut().push(format!("{} {}", request.head.method, request.head.target));
        (self.answer)(request).await
    }

    fn on_protocol_error(&self, error: &ProtocolError) {
        self.errors.borrow_mut().push(*error);
    }
}

/// One connection to a server.
pub struct Peer {
    pub io: DuplexStream,
    pub handler: Rc<Closure>,
    pub drain: DrainTrigger,
    pub served: JoinHandle<Served>,
}

pub fn serve(handler: Rc<Closure>) -> Peer {
    serve_with(handler, ServerConfig::default(), 64 * 1024)
}

pub fn serve_with(handler: Rc<Closure>, config: ServerConfig, pipe_bytes: usize) -> Peer {
    let (io, server) = tokio::io::duplex(pipe_bytes);
    let drain = DrainTrigger::new();
    let served = spawn_local(serve_connection(server, Rc::new(config), handler.clone(), drain.drain()));
    Peer { io, handler, drain, served }
}

impl Peer {
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.expect("the server reads");
    }

    /// Reads until the server closes.
    pub async fn read_all(&mut self) -> String {
        let mut bytes = Vec::new();
        self.io.read_to_end(&mut bytes).await.expect("the pipe does not fail");
        String::from_utf8(bytes).expect("text")
    }

    /// Reads until what was read ends with `end`.
    pub async fn read_until(&mut self, end: &str) -> String {
        read_until(&mut self.io, end).await
    }
}

pub async fn read_until(io: &mut DuplexStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        match io.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => panic!("closed after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8(bytes).expect("text")
}

/// Runs a test on one worker; a test that hangs fails.
pub fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let limited = async { tokio::time::timeout(std::time::Duration::from_secs(3600), test).await };
    LocalSet::new().block_on(&runtime.expect("a runtime"), limited).expect("the test ends");
}

pub fn text(content: &'static str) -> Response {
    Response::new(ResponseHead::new(http::StatusCode::OK), Body::full(content.into()))
}

/// The whole body.
pub async fn collect(mut body: Body) -> Result<(Vec<u8>, Option<Headers>), BodyError> {
    let (mut content, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame? {
            Frame::Data(bytes) => content.extend_from_slice(&bytes),
            Frame::Trailers(fields) => trailers = Some(fields),
        }
    }
    Ok((content, trailers))
}

/// Echoes content and trailers.
pub fn echo() -> Rc<Closure> {
    Closure::new(|request| async { Response::new(ResponseHead::new(http::StatusCode::OK), request.body) })
}
