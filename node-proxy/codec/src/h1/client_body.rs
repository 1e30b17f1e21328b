// SPDX-License-Identifier: Apache-2.0
//! The content of a response on its way in.

use std::{
    io,
    task::{Context, Poll},
};

use weft_ebpf_common::reason::Reason;

use super::{
    client_conn::ClientConn,
    decode::{Decoded, Decoder},
};
use crate::body::{BodyError, BodySource, Frame};

/// The content of a response, read from its connection; sends the rest of the request meanwhile.
pub(super) struct ResponseBody {
    /// None when the response was read to its end or failed.
    conn: Option<Box<ClientConn>>,
    failure: Option<BodyError>,
}

impl ResponseBody {
    pub(super) fn new(conn: Box<ClientConn>) -> Self {
        ResponseBody { conn: Some(conn), failure: None }
    }
}

impl BodySource for ResponseBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
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

    fn content_length(&self) -> Option<u64> {
        match &self.conn {
            Some(conn) => conn.decoder.remaining(),
            None => Some(0),
        }
    }

    fn is_end(&self) -> bool {
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
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
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
        if matches!(self.decoder, Decoder::UntilClose) {
            self.keep_alive = false;
            self.decoder = Decoder::Done;
            return None;
        }
        let detail = "the server closed inside the response";
        Some(Err(BodyError { reason: Reason::UpstreamReset, detail }))
    }
}
