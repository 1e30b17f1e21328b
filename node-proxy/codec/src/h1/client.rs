// SPDX-License-Identifier: Apache-2.0
//! Sends a request, and reads the head of its response.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use http::{Method, StatusCode};
use weft_ebpf_common::reason::Reason;

use super::{
    client_body::ResponseBody,
    client_conn::{ClientConn, H1Upstream},
    decode::{self, Decoder},
    encode,
    failure::Failure,
    fields::Length,
    parse,
    upload::Upload,
};
use crate::{
    body::Body,
    error::{Retry, UpstreamError},
    message::{RequestHead, ResponseHead},
};

/// Interim responses before a final one; a server has no reason to send more.
const MAX_INTERIM: usize = 16;

impl H1Upstream {
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
            return (head, Body::upgraded(stream));
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
            _ => Body::from_source(Box::new(ResponseBody::new(self))),
        };
        (head, body)
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
