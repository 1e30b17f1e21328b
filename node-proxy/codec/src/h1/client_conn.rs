// SPDX-License-Identifier: Apache-2.0
//! The client's side of one connection, between its requests and within one.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;

use super::{decode::Decoder, failure::Failure, scan::HeadScan, upload::Upload, wire::Wire};
use crate::{config::H1Config, io::Io};

/// Takes back connections whose response was read to its end.
pub trait Recycle {
    /// The connection can carry another request. Called while the response's body is being read: do
    /// not touch that body here.
    fn recycle(&self, upstream: H1Upstream);
}

/// A connection to an HTTP/1.1 server that carries one request at a time.
pub struct H1Upstream {
    pub(super) conn: Box<ClientConn>,
}

/// The state of one connection.
pub(super) struct ClientConn {
    pub(super) wire: Wire,
    pub(super) config: Rc<H1Config>,
    pub(super) decoder: Decoder,
    pub(super) upload: Option<Upload>,
    /// The server accepts another request after this response.
    pub(super) keep_alive: bool,
    pub(super) scan: HeadScan,
    pub(super) recycle: Option<Rc<dyn Recycle>>,
    /// Requests sent before the current one.
    pub(super) reused: u64,
    pub(super) offered_upgrade: bool,
    pub(super) interim: usize,
}

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
}

impl ClientConn {
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
}
