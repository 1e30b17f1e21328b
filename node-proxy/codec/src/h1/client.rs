// SPDX-License-Identifier: Apache-2.0
//! The client's side of one connection: sends a request, reads the head of its response.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use http::{Method, StatusCode};
use weft_ebpf_common::reason::Reason;

use super::{
    client_body::{ResponseBody, Upload},
    decode::{self, Decoder},
    encode,
    fields::Length,
    parse,
    scan::HeadScan,
    wire::Wire,
};
use crate::{
    body::{Body, Kind},
    config::H1Config,
    error::{Retry, UpstreamError},
    io::Io,
    message::{RequestHead, ResponseHead},
};

/// Takes back connections whose response was read to its end.
pub trait Recycle {
    /// The connection can carry another request. Called while the response's body is being read: do
    /// not touch that body here.
    fn recycle(&self, upstream: H1Upstream);
}

/// A connection to an HTTP/1.1 server that carries one request at a time.
pub struct H1Upstream {
    conn: Box<ClientConn>,
}

/// The state of one connection.
pub(super) struct ClientConn {
    pub(super) wire: Wire,
    pub(super) config: Rc<H1Config>,
    pub(super) decoder: Decoder,
    pub(super) upload: Option<Upload>,
    /// The server accepts another request after this response.
    pub(super) keep_alive: bool,
    scan: HeadScan,
    recycle: Option<Rc<dyn Recycle>>,
    /// Requests sent before the current one.
    reused: u64,
    offered_upgrade: bool,
    interim: usize,
}

/// Interim responses before a final one; a server has no reason to send more.
const MAX_INTERIM: usize = 16;

impl H1Upstream {
    /// A client over a connected stream. `recycle` gets it back after each complete response.
    pub fn new(io: impl Io, config: Rc<H1Config>, recycle: Option<Rc<dyn Recycle>>) -> Self {
        H1Upstream {
            conn: Box::new(ClientConn {
                wire: Wire::new(Box::new(io), BytesMut::new()),
                config,
                decoder: Decoder::Done,
                upload: None,
                keep_alive: false,
                scan: HeadScan::default(),
                recycle,
                reused: 0,
                offered_upgrade: false,
                interim: 0,
            }),
        }
    }

    /// Whether the server has neither closed nor sent anything since the last response: ask before reuse.
    /// Costs no system call unless the socket is ready.
    pub fn is_usable(&mut self) -> bool {
        let wire = &mut self.conn.wire;
        wire.input.is_empty() && wire.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Requests that the connection has carried.
    pub fn requests(&self) -> u64 {
        self.conn.reused
    }

    /// Sends a request and waits for the head of the final response (or of 101, if the head offers an
    /// upgrade). The rest of the request's body is sent while the response's body is read.
    ///
    /// There is no deadline inside: the caller has the route's. Dropping the future closes the connection.
    pub async fn send(
        mut self,
        head: &RequestHead,
        body: Body,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        let mut spare = body.duplicate();
        let is_head = head.method == Method::HEAD;
        self.conn.start(head, body);
        let sent_before = self.conn.wire.output.sent;
        match poll_fn(|cx| self.conn.poll_response(cx, is_head)).await {
            Ok(head) => Ok(self.conn.finish_head(head)),
            Err(failure) => Err(self.conn.error(failure, sent_before, spare.take())),
        }
    }
}

/// Why there is no response head.
pub(super) enum Failure {
    /// The connection ended before the head was complete.
    Closed(&'static str),
    /// What the server sent is not a response.
    Malformed(&'static str),
    /// The server does not read the request.
    Stalled,
    /// The request's own body failed.
    Body(crate::error::BodyError),
}

impl ClientConn {
    fn start(&mut self, head: &RequestHead, body: Body) {
        self.keep_alive = false;
        self.interim = 0;
        self.offered_upgrade = head.upgrade.is_some();
        let expects = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
        let waits = head.headers.get(&http::header::EXPECT).is_some_and(expects);
        let encoder = encode::request(self.wire.output.tail(), head, body.content_length());
        self.upload = (!body.is_end()).then(|| Upload::new(body, encoder, waits));
    }

    fn poll_response(&mut self, cx: &mut Context<'_>, is_head: bool) -> Poll<Result<ResponseHead, Failure>> {
        let upload_failure = match self.poll_send(cx) {
            Ok(()) => None,
            // A server that closed its reading side may still have answered: the response counts.
            Err(Failure::Closed(detail)) => Some(detail),
            Err(failure) => return Poll::Ready(Err(failure)),
        };
        loop {
            match self.buffered_head(is_head) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(detail) => return Poll::Ready(Err(Failure::Malformed(detail))),
            }
            // An interim response may have opened the way for the body.
            if upload_failure.is_none()
                && let Err(failure) = self.poll_send(cx)
            {
                return Poll::Ready(Err(failure));
            }
            match self.wire.poll_fill(cx) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(Failure::Closed("the server closed before its response")));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(Err(Failure::Closed("the server reset before its response")));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Sends what of the request can be sent now.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        loop {
            let finished = match &mut self.upload {
                Some(upload) => upload.poll_push(cx, &mut self.wire.output, self.config.continue_timeout)?,
                None => true,
            };
            if finished {
                self.upload = None;
            }
            let more = !finished && !self.wire.output.has_room();
            match self.wire.poll_flush(cx, self.config.write_timeout) {
                Poll::Ready(Ok(())) if more => {}
                Poll::Ready(Ok(())) | Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(Failure::Stalled);
                }
                Poll::Ready(Err(_)) => {
                    self.keep_alive = false;
                    return Err(Failure::Closed("the server closed before it had read the request"));
                }
            }
        }
    }

    /// The final head in the buffer, if it is complete; interim ones are skipped.
    fn buffered_head(&mut self, is_head: bool) -> Result<Option<ResponseHead>, &'static str> {
        loop {
            let Some(len) = self.scan.section_len(&self.wire.input).map_err(|error| error.detail)? else {
                let max = self.config.max_head_bytes;
                return self
                    .scan
                    .check_limits(self.wire.input.len(), max, max, self.config.max_headers)
                    .map(|()| None)
                    .map_err(|_error| "the response's head is too large");
            };
            if len > self.config.max_head_bytes {
                return Err("the response's head is too large");
            }
            let bytes = decode::take(&mut self.wire.input, len);
            let (head, framing) = parse::response(bytes, &self.config).map_err(|error| error.detail)?;
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return self.check_switch(head).map(Some);
            }
            if head.status.is_informational() {
                self.take_interim(head.status)?;
                continue;
            }
            let no_content =
                is_head || head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
            self.keep_alive = framing.keep_alive;
            self.decoder = match framing.length {
                _ if no_content => Decoder::Done,
                Length::Bytes(bytes) => Decoder::length(bytes),
                Length::Chunked => Decoder::chunked(),
                Length::Unsaid => Decoder::UntilClose,
            };
            return Ok(Some(head));
        }
    }

    fn check_switch(&mut self, head: ResponseHead) -> Result<ResponseHead, &'static str> {
        if !self.offered_upgrade || head.upgrade.is_none() || self.upload.is_some() {
            return Err("the server switched protocols without being asked");
        }
        Ok(head)
    }

    fn take_interim(&mut self, status: StatusCode) -> Result<(), &'static str> {
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return Err("the server sent too many interim responses");
        }
        if status == StatusCode::CONTINUE
            && let Some(upload) = &mut self.upload
        {
            upload.release();
        }
        Ok(())
    }

    fn finish_head(mut self: Box<Self>, head: ResponseHead) -> (ResponseHead, Body) {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let stream = self.wire.take_raw();
            return (head, Body { kind: Kind::Upgraded(stream) });
        }
        if let Some(upload) = &mut self.upload {
            // A final response to a request that waited: its body is not wanted (RFC 9110 section 10.1.1).
            if upload.is_held() {
                self.upload = None;
                self.keep_alive = false;
            }
        }
        let body = match self.decoder {
            Decoder::Done => {
                self.complete();
                Body::empty()
            }
            Decoder::Length(bytes) if self.wire.input.len() as u64 >= bytes => {
                let content = decode::take(&mut self.wire.input, bytes as usize);
                self.decoder = Decoder::Done;
                self.complete();
                Body::full(content)
            }
            _ => Body { kind: Kind::H1Response(ResponseBody::new(self)) },
        };
        (head, body)
    }

    /// The response was read to its end: gives the connection back if it can carry another request.
    pub(super) fn complete(mut self: Box<Self>) {
        let clean = self.wire.input.is_empty() && self.wire.output.is_empty() && !self.wire.eof;
        if !self.keep_alive || self.upload.is_some() || !clean {
            return;
        }
        self.reused += 1;
        self.wire.read_timer.clear();
        if let Some(recycle) = self.recycle.clone() {
            recycle.recycle(H1Upstream { conn: self });
        }
    }

    fn error(mut self: Box<Self>, failure: Failure, sent_before: u64, spare: Option<Body>) -> UpstreamError {
        let nothing_sent = self.wire.output.sent == sent_before;
        let untouched = self.upload.take().and_then(Upload::into_untouched);
        let (reason, detail, retry) = match failure {
            Failure::Body(error) => (error.reason, error.detail, Retry::No),
            Failure::Stalled => {
                (Reason::UpstreamTimeout, "the server stopped reading the request", Retry::No)
            }
            Failure::Malformed(detail) => (Reason::UpstreamProtocol, detail, Retry::No),
            Failure::Closed(detail) if nothing_sent => (Reason::UpstreamReset, detail, Retry::Safe),
            Failure::Closed(detail) if self.reused > 0 && self.wire.input.is_empty() && self.interim == 0 => {
                (Reason::UpstreamReset, detail, Retry::IfIdempotent)
            }
            Failure::Closed(detail) => (Reason::UpstreamReset, detail, Retry::No),
        };
        UpstreamError { reason, detail, retry, unsent_body: spare.or(untouched) }
    }
}
