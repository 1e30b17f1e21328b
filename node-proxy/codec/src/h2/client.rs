// SPDX-License-Identifier: Apache-2.0
//! The client's side of one connection, shared by all requests to its server.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::Method;
use weft_ebpf_common::reason::Reason;

use super::{
    body::{H2ResponseBody, OpenStream, Sender, Side},
    convert,
};
use crate::{
    body::{Body, BodyError},
    config::H2Config,
    error::{Retry, UpstreamError},
    io::Io,
    message::{RequestHead, ResponseHead},
};

/// A connection to an HTTP/2 server that carries many requests; clones share it.
#[derive(Clone)]
pub struct H2Upstream {
    requests: SendRequest<Bytes>,
    config: Rc<H2Config>,
    ended: Rc<Cell<bool>>,
    open: Rc<Cell<usize>>,
}

impl H2Upstream {
    /// Starts HTTP/2 on a connected stream (prior knowledge or ALPN). The second value drives the
    /// connection: spawn it on the worker; it ends with the connection, which closes when every clone
    /// of the first value is dropped and every stream has ended.
    pub async fn handshake(
        io: impl Io,
        config: Rc<H2Config>,
    ) -> Result<(H2Upstream, impl Future<Output = ()> + 'static), UpstreamError> {
        let io: Box<dyn Io> = Box::new(io);
        let handshake = builder(&config).handshake::<_, Bytes>(io);
        let (requests, connection) = match tokio::time::timeout(config.handshake_timeout, handshake).await {
            Ok(Ok(parts)) => parts,
            Ok(Err(_error)) => return Err(connect_failed("the http/2 handshake failed")),
            Err(_elapsed) => return Err(connect_failed("the http/2 handshake took too long")),
        };
        let ended = Rc::new(Cell::new(false));
        let upstream = H2Upstream { requests, config, ended: ended.clone(), open: Rc::default() };
        let driver = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "http/2 upstream connection failed");
            }
            ended.set(true);
        };
        Ok((upstream, driver))
    }

    /// Whether the connection takes another request now: it lives, no GOAWAY came, and a stream is free.
    pub fn is_usable(&self) -> bool {
        self.is_open() && self.open.get() < self.requests.current_max_send_streams()
    }

    /// Whether the connection lives and no GOAWAY came.
    pub fn is_open(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        !self.ended.get() && !matches!(self.requests.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    /// Requests whose response is not read to its end.
    pub fn active_streams(&self) -> usize {
        self.open.get()
    }

    /// Sends a request and waits for the head of the response. The rest of the request's body is sent
    /// while the response's body is read.
    ///
    /// There is no deadline inside: the caller has the route's. Dropping the future resets the stream
    /// with CANCEL.
    pub async fn send(&self, head: &RequestHead, body: Body) -> Result<(ResponseHead, Body), UpstreamError> {
        let spare = body.duplicate();
        let Some(request) = convert::upstream_request(head, body.content_length()) else {
            let detail = "an http/2 request needs an authority";
            let reason = Reason::BadRequest;
            return Err(UpstreamError { reason, detail, retry: Retry::No, unsent_body: Some(body) });
        };
        let mut requests = self.requests.clone();
        if let Err(error) = poll_fn(|cx| requests.poll_ready(cx)).await {
            let failure = upstream_error(&error, true);
            return Err(UpstreamError { unsent_body: Some(body), ..failure });
        }
        let open = OpenStream::new(&self.open);
        let ends = body.is_end();
        let (response, stream) = match requests.send_request(request, ends) {
            Ok(parts) => parts,
            Err(error) => {
                return Err(UpstreamError { unsent_body: Some(body), ..upstream_error(&error, true) });
            }
        };
        let upload =
            (!ends).then(|| Box::new(Sender::new(stream, body, Side::Upstream, self.config.body_timeout)));
        let mut exchange = Exchange { response, upload };
        match poll_fn(|cx| exchange.poll_head(cx)).await {
            Ok(response) => self.finish_head(response, exchange.upload, head.method == Method::HEAD, open),
            Err(failure) => {
                let untouched = exchange.upload.and_then(|upload| upload.into_untouched());
                Err(UpstreamError { unsent_body: spare.or(untouched), ..failure })
            }
        }
    }

    fn finish_head(
        &self,
        response: http::Response<h2::RecvStream>,
        upload: Option<Box<Sender>>,
        is_head: bool,
        open: OpenStream,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        let (parts, stream) = response.into_parts();
        let (head, length) = convert::response_head(parts).map_err(|error| UpstreamError {
            reason: Reason::UpstreamProtocol,
            detail: error.detail,
            retry: Retry::No,
            unsent_body: None,
        })?;
        if is_head || stream.is_end_stream() {
            return Ok((head, Body::empty()));
        }
        let body = H2ResponseBody::new(stream, length, self.config.body_timeout, upload, open);
        Ok((head, Body::from_source(Box::new(body))))
    }
}

fn builder(config: &H2Config) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_frame_size(config.max_frame_bytes)
        .max_header_list_size(config.max_header_list_bytes)
        .max_send_buffer_size(config.max_send_buffer_bytes);
    builder
}

struct Exchange {
    response: ResponseFuture,
    upload: Option<Box<Sender>>,
}

impl Exchange {
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<h2::RecvStream>, UpstreamError>> {
        let mut upload_failure = None;
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(sent) = upload.poll_send(cx)
        {
            upload_failure = sent.err();
            self.upload = None;
        }
        match Pin::new(&mut self.response).poll(cx) {
            Poll::Ready(response) => Poll::Ready(response.map_err(|error| upstream_error(&error, false))),
            Poll::Pending => match upload_failure {
                Some(error) if !is_upstream(&error) => Poll::Ready(Err(body_failed(error))),
                // The server stopped the request: its response or its reset is on the way.
                _ => Poll::Pending,
            },
        }
    }
}

fn is_upstream(error: &BodyError) -> bool {
    matches!(error.reason, Reason::UpstreamReset | Reason::UpstreamProtocol)
}

fn body_failed(error: BodyError) -> UpstreamError {
    UpstreamError { reason: error.reason, detail: error.detail, retry: Retry::No, unsent_body: None }
}

fn connect_failed(detail: &'static str) -> UpstreamError {
    UpstreamError { reason: Reason::UpstreamConnectFailed, detail, retry: Retry::Safe, unsent_body: None }
}

/// `unsent`: no frame of the request was queued.
fn upstream_error(error: &h2::Error, unsent: bool) -> UpstreamError {
    let refused = error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // `h2` fails only those streams with GOAWAY that are above its last one (RFC 9113 section 6.8).
    let not_taken = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    let retry = if unsent || refused || not_taken { Retry::Safe } else { Retry::No };
    let (reason, detail) = match () {
        () if error.is_library() => (Reason::UpstreamProtocol, "the server broke the protocol of http/2"),
        () if error.is_go_away() => (Reason::UpstreamReset, "the server is closing the connection"),
        () if error.is_reset() => (Reason::UpstreamReset, "the server reset the stream"),
        () => (Reason::UpstreamReset, "the server's connection failed"),
    };
    UpstreamError { reason, detail, retry, unsent_body: None }
}
