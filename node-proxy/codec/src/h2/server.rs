// SPDX-License-Identifier: Apache-2.0
//! Drives the server's side of one connection and the handlers of its streams, in one task.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream};
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use http::{Method, StatusCode};
use weft_ebpf_common::reason::Reason;

use super::{
    body::{H2RequestBody, Sender, Side},
    convert,
};
use crate::{
    body::Body,
    config::{H2Config, ServerConfig},
    drain::Drain,
    error::ProtocolError,
    handler::{Handler, Served},
    io::Io,
    message::{Delivery, Request, Response, ResponseHead},
    timer::Timer,
};

type Streams = FuturesUnordered<Pin<Box<dyn Future<Output = ()>>>>;

/// Serves HTTP/2 until the connection ends.
pub(crate) async fn serve<H: Handler>(
    io: Box<dyn Io>,
    config: Rc<ServerConfig>,
    handler: Rc<H>,
    drain: Drain,
) -> Served {
    let handshake = builder(&config.h2).handshake::<_, Bytes>(io);
    let connection = match tokio::time::timeout(config.h2.handshake_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "http/2 handshake failed");
            return failed(&*handler, &error, 0);
        }
        Err(_elapsed) => {
            let error =
                ProtocolError::silent(Reason::RequestTimeout, "the handshake was not complete in time");
            handler.on_protocol_error(&error);
            return Served { requests: 0, failure: Some(error.reason) };
        }
    };
    let mut driver = Driver {
        connection,
        streams: Streams::new(),
        handler,
        config,
        drain,
        draining: false,
        accepting: true,
        idle: Timer::default(),
        requests: 0,
    };
    match poll_fn(|cx| driver.poll(cx)).await {
        Ok(()) => Served { requests: driver.requests, failure: None },
        // A transport that fails between requests fails nobody's request.
        Err(error) if error.is_io() && driver.streams.is_empty() => {
            Served { requests: driver.requests, failure: None }
        }
        Err(error) => {
            tracing::debug!(%error, "http/2 connection failed");
            failed(&*driver.handler, &error, driver.requests)
        }
    }
}

fn failed<H: Handler>(handler: &H, error: &h2::Error, requests: u64) -> Served {
    if error.is_io() || error.is_remote() {
        return Served { requests, failure: Some(Reason::ClientReset) };
    }
    let error = ProtocolError::silent(Reason::BadRequest, "the connection broke the protocol of http/2");
    handler.on_protocol_error(&error);
    Served { requests, failure: Some(error.reason) }
}

fn builder(config: &H2Config) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_frame_size(config.max_frame_bytes)
        .max_header_list_size(config.max_header_list_bytes)
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_send_buffer_size(config.max_send_buffer_bytes)
        .max_pending_accept_reset_streams(config.max_pending_reset_streams)
        .max_local_error_reset_streams(Some(config.max_local_error_resets));
    builder
}

struct Driver<H> {
    connection: Connection<Box<dyn Io>, Bytes>,
    streams: Streams,
    handler: Rc<H>,
    config: Rc<ServerConfig>,
    drain: Drain,
    draining: bool,
    accepting: bool,
    idle: Timer,
    requests: u64,
}

impl<H: Handler> Driver<H> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if !self.draining && self.drain.poll_draining(cx).is_ready() {
            self.draining = true;
            self.connection.graceful_shutdown();
        }
        // Accepting also writes what the streams have queued, so it comes first and last.
        loop {
            if self.accepting {
                match self.connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        self.start(request, respond);
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => self.accepting = false,
                    Poll::Pending => {}
                }
            }
            if !self.poll_streams(cx) {
                break;
            }
        }
        match (self.accepting, self.streams.is_empty()) {
            // The connection is over: no stream of it can be answered any more.
            (false, _) => Poll::Ready(Ok(())),
            (true, false) => {
                self.idle.clear();
                Poll::Pending
            }
            (true, true) => self.poll_idle(cx),
        }
    }

    /// Runs the handlers that can go on; true if one ended, so that its frames are written now.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let mut ended = false;
        while let Poll::Ready(Some(())) = Pin::new(&mut self.streams).poll_next(cx) {
            ended = true;
        }
        ended
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if !self.idle.poll_expired(cx, self.config.h2.idle_timeout) {
            return Poll::Pending;
        }
        if self.draining {
            // It was told to go before and has neither gone nor acknowledged.
            return Poll::Ready(Ok(()));
        }
        self.draining = true;
        self.idle.clear();
        self.connection.graceful_shutdown();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn start(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.requests += 1;
        let (handler, config) = (self.handler.clone(), self.config.clone());
        self.streams.push(Box::pin(serve_stream(request, respond, handler, config)));
    }
}

async fn serve_stream<H: Handler>(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: Rc<H>,
    config: Rc<ServerConfig>,
) {
    let (parts, stream) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let (head, length) = match convert::request_head(parts) {
        Ok(head) => head,
        Err(error) => {
            handler.on_protocol_error(&error);
            refuse(&mut respond, error.status);
            return;
        }
    };
    let received = Rc::new(Cell::new(0));
    let body = match stream.is_end_stream() {
        true => Body::empty(),
        false => {
            let body = H2RequestBody::new(stream, length, config.h2.body_timeout, received.clone());
            Body::from_source(Box::new(body))
        }
    };
    let response = {
        let mut call = pin!(handler.call(Request { head, body }));
        let called = poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => respond.poll_reset(cx).map(|_reason| None),
        });
        match called.await {
            Some(response) => response,
            None => return,
        }
    };
    send(&mut respond, response, is_head, &config.h2, &received).await;
}

fn refuse(respond: &mut SendResponse<Bytes>, status: Option<StatusCode>) {
    let head = ResponseHead::new(status.unwrap_or(StatusCode::BAD_REQUEST));
    if let Err(error) = respond.send_response(convert::client_response(head, Some(0), false), true) {
        tracing::trace!(%error, "response not sent");
    }
}

async fn send(
    respond: &mut SendResponse<Bytes>,
    response: Response,
    is_head: bool,
    config: &H2Config,
    received: &Cell<u64>,
) {
    let Response { mut head, mut body, observer, .. } = response;
    if head.status.is_informational() {
        // A switch of protocols cannot be done here, and an interim status is not final.
        head = ResponseHead::new(StatusCode::BAD_GATEWAY);
        body = Body::empty();
    }
    let no_content =
        is_head || head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
    let keep_length = no_content && head.status != StatusCode::NO_CONTENT;
    let ends = no_content || body.is_end();
    let length = if no_content { None } else { body.content_length() };
    let (sent_bytes, failure) =
        match respond.send_response(convert::client_response(head, length, keep_length), ends) {
            Err(_reset) => (0, Some(Reason::ClientReset)),
            Ok(_) if ends => (0, None),
            Ok(stream) => {
                let mut sender = Sender::new(stream, body, Side::Client, config.body_timeout);
                let sent = poll_fn(|cx| match sender.poll_send(cx) {
                    Poll::Ready(sent) => Poll::Ready(sent.err().map(|error| error.reason)),
                    Poll::Pending => sender.poll_reset(cx).map(|()| Some(Reason::ClientReset)),
                })
                .await;
                (sender.sent, sent)
            }
        };
    if let Some(observer) = observer {
        observer.delivered(Delivery { sent_bytes, received_bytes: received.get(), failure });
    }
}
