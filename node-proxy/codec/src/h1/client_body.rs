// SPDX-License-Identifier: Apache-2.0
//! The two bodies of a client's connection: the request's on its way out, the response's on its way in.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use weft_ebpf_common::reason::Reason;

use super::{
    client::{ClientConn, Failure},
    decode::Decoded,
    encode::Encoder,
    wire::Output,
};
use crate::{
    body::{Body, Frame},
    error::BodyError,
    timer::Timer,
};

/// The content of a request that is being sent.
pub(super) struct Upload {
    body: Body,
    encoder: Encoder,
    touched: bool,
    /// Waits for `100 Continue`, until the timer passes.
    held: Option<Timer>,
}

impl Upload {
    pub(super) fn new(body: Body, encoder: Encoder, held: bool) -> Self {
        Upload { body, encoder, touched: false, held: held.then(Timer::default) }
    }

    /// Pushes pieces while there is room; true at the end of the body.
    pub(super) fn poll_push(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Output,
        patience: Duration,
    ) -> Result<bool, Failure> {
        if let Some(timer) = &mut self.held {
            if !timer.poll_expired(cx, patience) {
                return Ok(false);
            }
            self.held = None;
        }
        while out.has_room() {
            let frame = match self.body.poll_frame(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(frame) => frame,
            };
            self.touched = true;
            let written = match frame {
                Some(Ok(Frame::Data(bytes))) => {
                    let fits = self.encoder.data(out, bytes);
                    if fits && !self.body.is_end() {
                        continue;
                    }
                    fits && self.encoder.finish(out, None)
                }
                Some(Ok(Frame::Trailers(trailers))) => self.encoder.finish(out, Some(&trailers)),
                None => self.encoder.finish(out, None),
                Some(Err(error)) => return Err(Failure::Body(error)),
            };
            return match written {
                true => Ok(true),
                false => Err(Failure::Body(LENGTH_DIFFERS)),
            };
        }
        Ok(false)
    }

    /// The server wants the body.
    pub(super) fn release(&mut self) {
        self.held = None;
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The body, if nothing of it was taken.
    pub(super) fn into_untouched(self) -> Option<Body> {
        (!self.touched).then_some(self.body)
    }
}

const LENGTH_DIFFERS: BodyError =
    BodyError { reason: Reason::BadRequest, detail: "the request's content is not as long as announced" };

/// The content of a response, read from its connection; sends the rest of the request meanwhile.
pub(crate) struct ResponseBody {
    /// None when the response was read to its end or failed.
    conn: Option<Box<ClientConn>>,
    failure: Option<BodyError>,
}

impl ResponseBody {
    pub(super) fn new(conn: Box<ClientConn>) -> Self {
        ResponseBody { conn: Some(conn), failure: None }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(error) = self.failure {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(conn) = &mut self.conn else { return Poll::Ready(None) };
        let polled = conn.poll_content(cx);
        match &polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Err(error))) => {
                self.failure = Some(*error);
                self.conn = None;
            }
            Poll::Ready(_) if conn.decoder.is_done() => {
                if let Some(conn) = self.conn.take() {
                    conn.complete();
                }
            }
            Poll::Ready(_) => {}
        }
        polled
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        match &self.conn {
            Some(conn) => conn.decoder.remaining(),
            None => Some(0),
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        self.conn.is_none() && self.failure.is_none()
    }
}

impl ClientConn {
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        // A server that answers early may stop reading: only the response's own end matters then.
        if (self.upload.is_some() || !self.wire.output.is_empty()) && self.poll_send(cx).is_err() {
            self.upload = None;
            self.keep_alive = false;
        }
        loop {
            match self.decoder.decode(&mut self.wire.input, &self.config) {
                Ok(Decoded::Data(bytes)) => return Poll::Ready(Some(Ok(Frame::Data(bytes)))),
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::Trailers(trailers)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::NeedMore) => {}
                Err(detail) => {
                    return Poll::Ready(Some(Err(BodyError { reason: Reason::UpstreamProtocol, detail })));
                }
            }
            match self.wire.poll_fill_timed(cx, self.config.body_timeout) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => return Poll::Ready(self.content_end()),
                Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                    let detail = "the server stopped inside the response";
                    return Poll::Ready(Some(Err(BodyError { reason: Reason::UpstreamTimeout, detail })));
                }
                Poll::Ready(Err(_)) => {
                    let detail = "the server reset inside the response";
                    return Poll::Ready(Some(Err(BodyError { reason: Reason::UpstreamReset, detail })));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The connection ended: the end of a body without length, the cut of any other.
    fn content_end(&mut self) -> Option<Result<Frame, BodyError>> {
        if matches!(self.decoder, super::decode::Decoder::UntilClose) {
            self.keep_alive = false;
            self.decoder = super::decode::Decoder::Done;
            return None;
        }
        let detail = "the server closed inside the response";
        Some(Err(BodyError { reason: Reason::UpstreamReset, detail }))
    }
}
