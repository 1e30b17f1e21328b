// SPDX-License-Identifier: Apache-2.0
//! One connection from a client.

use mio::net::TcpStream;
use weft_ebpf_common::reason::Reason;
use weft_http::{
    h1::{self, Length},
    h2::{self, ErrorCode, StreamId},
    head::Head,
};

use crate::{
    request::Connection,
    upstream::{
        output::{Buffers, Output},
        spoken::{Line, Spoken, reason, unsent},
        timeout::Timeout,
    },
    worker::Open,
};

/// What is spoken on a connection.
#[derive(Debug)]
pub(super) enum Wire {
    /// Not known before its first bytes.
    Sniffing,
    /// HTTP/1.1.
    H1(h1::Server),
    /// HTTP/2. On the heap, since it is much larger.
    H2(Box<h2::Connection>),
    /// What a request switched to: bytes of its exchange.
    Switched {
        /// All was written but its end.
        ended: bool,
    },
    /// Anything: bytes are relayed.
    Bytes,
}

impl Wire {
    fn spoken(&mut self, stream: Option<StreamId>) -> Spoken<'_, h1::Server> {
        match (self, stream) {
            (Wire::H1(server), _) => Spoken::H1(server),
            (Wire::H2(connection), Some(stream)) => Spoken::H2(connection, stream),
            (Wire::Switched { ended }, _) => Spoken::Switched(ended),
            (Wire::Sniffing | Wire::H2(_) | Wire::Bytes, _) => Spoken::Other,
        }
    }
}

/// A connection from a client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: TcpStream,
    /// Tells it from those that had its number before.
    pub(super) owner: u32,
    pub(super) connection: Connection,
    pub(super) wire: Wire,
    /// The exchange under way on HTTP/1.1, or the tunnel.
    pub(super) user: Option<u32>,
    pub(super) output: Output,
    /// What was read and is not complete, or is not to be looked at yet.
    pub(super) rest: Vec<u8>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Nothing is read while the endpoint does not take what was read.
    pub(super) paused: bool,
    pub(super) is_dirty: bool,
    /// The client sends nothing after what is there.
    pub(super) finished: bool,
    /// The client sends nothing more.
    pub(super) ended: bool,
    /// Endpoints are not read because so much waits to be written here.
    pub(super) holds: bool,
    /// What is left waits for the end of a response, not for more bytes.
    pub(super) stalled: bool,
    /// What was written is not all: it is closed so that this shows.
    pub(super) cut: bool,
    /// The end of what was written is sent.
    pub(super) lingers: bool,
    /// The head of a request is being waited for, since its first byte.
    pub(super) heading: bool,
    /// Nothing more is read, and it is closed once everything is written.
    pub(super) closing: bool,
    pub(super) timeout: Timeout,
    /// Counts it while it is open.
    pub(super) _open: Open,
}

impl Client {
    /// A connection of which nothing was read.
    pub(super) fn new(socket: TcpStream, owner: u32, connection: Connection, open: Open) -> Client {
        Client {
            socket,
            owner,
            connection,
            wire: Wire::Sniffing,
            user: None,
            output: Output::default(),
            rest: Vec::new(),
            // Whoever connects has often sent something by the time that it is accepted.
            readable: true,
            writable: true,
            paused: false,
            is_dirty: false,
            finished: false,
            ended: false,
            holds: false,
            stalled: false,
            cut: false,
            lingers: false,
            heading: false,
            closing: false,
            timeout: Timeout::default(),
            _open: open,
        }
    }

    /// Writes the head of a response; says whether it was all of it.
    pub(super) fn send_head(
        &mut self,
        stream: Option<StreamId>,
        head: &Head,
        length: Length,
        buffers: &mut Buffers,
    ) -> Result<bool, Reason> {
        let out = self.output.buffer(buffers);
        match (&mut self.wire, stream) {
            (Wire::H1(server), _) => server.send_head(head, length, out).map(|()| false).map_err(reason),
            (Wire::H2(connection), Some(stream)) => {
                let end = length == Length::Bytes(0) && !head.is_interim();
                connection.send_head(stream, head, end, out).map(|()| end).map_err(unsent)
            }
            _ => Err(Reason::Internal),
        }
    }

    /// Writes a piece of a response's content, the last where it ends; says how much of it was taken.
    pub(super) fn send_data(
        &mut self,
        stream: Option<StreamId>,
        data: &[u8],
        end: bool,
        buffers: &mut Buffers,
    ) -> Result<usize, Reason> {
        let socket = self.writable.then_some(&mut self.socket);
        let line = Line { output: &mut self.output, socket, buffers };
        Ok(self.wire.spoken(stream).data(data, end, line)?.taken)
    }

    /// Writes bytes of a tunnel.
    pub(super) fn pass(&mut self, data: &[u8], buffers: &mut Buffers) {
        self.output.pass(data, b"", self.writable.then_some(&mut self.socket), buffers);
    }

    /// Ends a response.
    pub(super) fn finish(
        &mut self,
        stream: Option<StreamId>,
        trailers: Option<&Head>,
        buffers: &mut Buffers,
    ) -> Result<(), Reason> {
        self.wire.spoken(stream).finish(trailers, self.output.buffer(buffers))
    }

    /// Gives up a request whose response is not to be completed; false where the connection has to end.
    pub(super) fn reset(&mut self, stream: Option<StreamId>, code: ErrorCode, buffers: &mut Buffers) -> bool {
        let out = self.output.buffer(buffers);
        match (&mut self.wire, stream) {
            (Wire::H2(connection), Some(stream)) => {
                connection.reset(stream, code, out);
                true
            }
            _ => false,
        }
    }

    /// Whether so much waits to be written that nothing more is answered.
    pub(super) fn is_behind(&self) -> bool {
        self.output.len() >= h2::OUTPUT_FOR_CONTENT
    }

    /// Whether more is to be read.
    pub(super) fn wants_more(&self) -> bool {
        self.readable && !self.paused && !self.stalled && !self.closing
    }

    /// Whether the rest of a request's content is still to come.
    pub(super) fn wants_content(&self) -> bool {
        match &self.wire {
            Wire::H1(server) => !self.paused && server.content_length() != Length::Bytes(0),
            Wire::H2(_) | Wire::Sniffing | Wire::Switched { .. } | Wire::Bytes => false,
        }
    }

    /// Whether a head has begun and is not complete.
    pub(super) fn is_inside_head(&self) -> bool {
        match &self.wire {
            Wire::Sniffing => !self.rest.is_empty(),
            Wire::H1(_) => self.user.is_none() && !self.is_idle(),
            Wire::H2(connection) => connection.is_inside_head(),
            Wire::Switched { .. } | Wire::Bytes => false,
        }
    }

    /// Whether what comes is no longer HTTP.
    pub(super) fn is_tunnel(&self) -> bool {
        match &self.wire {
            Wire::H1(server) => server.is_tunnel(),
            Wire::Sniffing | Wire::H2(_) => false,
            Wire::Switched { .. } | Wire::Bytes => true,
        }
    }

    /// Whether the connection waits for a request of which nothing came.
    pub(super) fn is_idle(&self) -> bool {
        self.rest.is_empty()
            && match &self.wire {
                Wire::Sniffing => true,
                Wire::H1(server) => server.is_idle(),
                Wire::H2(connection) => connection.open_streams() == 0 && !connection.is_inside_head(),
                Wire::Switched { .. } | Wire::Bytes => false,
            }
    }
}
