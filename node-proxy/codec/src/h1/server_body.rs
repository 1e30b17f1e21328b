// SPDX-License-Identifier: Apache-2.0
//! The server's side of a connection, shared by its driver and by the body of the current request.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use weft_ebpf_common::reason::Reason;

use super::{
    decode::{Decoded, Decoder},
    scan::HeadScan,
    wire::Wire,
};
use crate::{
    body::{BodyError, BodySource, Frame},
    config::ServerConfig,
    io::Io,
};

/// The state of one connection.
pub(super) struct Conn {
    pub(super) wire: Wire,
    pub(super) config: Rc<ServerConfig>,
    pub(super) scan: HeadScan,
    pub(super) decoder: Decoder,
    /// Counts requests, so that a body kept too long reads nothing of the next one.
    pub(super) request: u64,
    /// The client waits for `100 Continue` and has not got it.
    pub(super) wants_continue: bool,
    /// Content bytes of the current request that were read.
    pub(super) received: u64,
    pub(super) body_error: Option<BodyError>,
}

impl Conn {
    pub(super) fn new(io: Box<dyn Io>, input: BytesMut, config: Rc<ServerConfig>) -> Self {
        Conn {
            wire: Wire::new(io, input),
            config,
            scan: HeadScan::default(),
            decoder: Decoder::Done,
            request: 0,
            wants_continue: false,
            received: 0,
            body_error: None,
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx, self.config.h1.write_timeout)
    }

    /// The next piece of the current request's content.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(error) = self.body_error {
            return Poll::Ready(Some(Err(error)));
        }
        self.send_continue(cx);
        loop {
            match self.decoder.decode(&mut self.wire.input, &self.config.h1) {
                Ok(Decoded::Data(bytes)) => {
                    self.received += bytes.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::Data(bytes))));
                }
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::Trailers(trailers)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::NeedMore) => {}
                Err(detail) => return self.fail(Reason::BadRequest, detail),
            }
            match self.wire.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    return self.fail(Reason::ClientReset, "the client closed inside the body");
                }
                Poll::Ready(Err(_)) => {
                    return self.fail(Reason::ClientReset, "the client's connection failed");
                }
                Poll::Pending => {
                    if self.wire.read_timer.poll_expired(cx, self.config.h1.body_timeout) {
                        return self.fail(Reason::RequestTimeout, "the client stopped inside the body");
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Answers `Expect: 100-continue` when somebody asks for the body, unless it is on its way already.
    fn send_continue(&mut self, cx: &mut Context<'_>) {
        if !std::mem::take(&mut self.wants_continue) || !self.wire.input.is_empty() {
            return;
        }
        self.wire.output.tail().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        // What the socket does not take now leaves with the response; an error shows when reading.
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            tracing::trace!(%error, "100 continue not sent");
        }
    }

    fn fail(&mut self, reason: Reason, detail: &'static str) -> Poll<Option<Result<Frame, BodyError>>> {
        let error = BodyError { reason, detail };
        self.body_error = Some(error);
        Poll::Ready(Some(Err(error)))
    }

    /// While a handler works: notices that the client's connection failed. The end of the client's
    /// stream is no failure (a half-closed client waits for its answer), and a pipelined request stays
    /// in the buffer, of which one read is the bound.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.decoder.is_done() && self.wire.input.is_empty() && !self.wire.eof {
            if ready!(self.wire.poll_fill(cx)).is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// The content of a request, read from its connection.
pub(super) struct RequestBody {
    conn: Rc<RefCell<Conn>>,
    request: u64,
}

impl RequestBody {
    pub(super) fn new(conn: Rc<RefCell<Conn>>, request: u64) -> Self {
        RequestBody { conn, request }
    }
}

impl BodySource for RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut conn = self.conn.borrow_mut();
        if conn.request != self.request {
            let error = BodyError {
                reason: Reason::ClientReset,
                detail: "the request was answered before its body was read",
            };
            return Poll::Ready(Some(Err(error)));
        }
        conn.poll_body(cx)
    }

    fn content_length(&self) -> Option<u64> {
        let conn = self.conn.borrow();
        conn.decoder.remaining().filter(|_| conn.request == self.request)
    }

    fn is_end(&self) -> bool {
        let conn = self.conn.borrow();
        conn.request == self.request && conn.body_error.is_none() && conn.decoder.is_done()
    }
}
