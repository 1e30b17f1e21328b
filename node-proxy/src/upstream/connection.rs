// SPDX-License-Identifier: Apache-2.0
//! One connection to an endpoint.

use mio::net::TcpStream;
use weft_ebpf_common::reason::Reason;
use weft_http::{
    h1::{self, Length},
    h2::{self, OpenError, StreamId},
    head::Head,
    websocket,
};

use crate::{
    state::permit::Permit,
    upstream::{
        output::{Buffers, Output},
        pool::{PoolId, PoolKey},
        spoken::{Line, Spoken, reason},
        timeout::Timeout,
    },
};

/// What is spoken on a connection.
#[derive(Debug)]
pub(crate) enum Wire {
    /// HTTP/1.1.
    H1(h1::Client),
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
    fn spoken(&mut self, stream: Option<StreamId>) -> Spoken<'_, h1::Client> {
        match (self, stream) {
            (Wire::H1(client), _) => Spoken::H1(client),
            (Wire::H2(connection), Some(stream)) => Spoken::H2(connection, stream),
            (Wire::Switched { ended }, _) => Spoken::Switched(ended),
            (Wire::H2(_) | Wire::Bytes, _) => Spoken::Other,
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The endpoint has not answered yet.
    Connecting,
    /// It stands.
    Open,
}

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) struct EndpointConnection {
    pub(crate) socket: TcpStream,
    /// Tells it from those that had its number before.
    pub(crate) owner: u32,
    pub(crate) wire: Wire,
    pub(crate) phase: Phase,
    /// Its pool; nothing for a connection that one client has for itself.
    pub(crate) pool: Option<PoolId>,
    /// Where it goes.
    pub(crate) key: PoolKey,
    /// The exchange, or the tunnel, that has it.
    pub(crate) user: Option<u32>,
    /// Exchanges whose requests are written once the endpoint is there to read them.
    pub(crate) waiting: Vec<u32>,
    pub(crate) output: Output,
    /// What was read and is not complete.
    pub(crate) rest: Vec<u8>,
    /// The socket took bytes of the current request.
    pub(crate) sent: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Nothing is read while its user's client does not take what was read.
    pub(crate) paused: bool,
    pub(crate) is_dirty: bool,
    /// What was read waits until what is written here is taken, not for more bytes.
    pub(crate) stalled: bool,
    /// Clients are not read because so much waits to be written here.
    pub(crate) holds: bool,
    /// The endpoint sends nothing after what is there.
    pub(crate) finished: bool,
    /// The endpoint sends nothing more.
    pub(crate) ended: bool,
    pub(crate) timeout: Timeout,
}

impl EndpointConnection {
    /// A connection that is being made.
    pub(crate) fn new(socket: TcpStream, owner: u32, wire: Wire, key: PoolKey) -> EndpointConnection {
        EndpointConnection {
            socket,
            owner,
            wire,
            phase: Phase::Connecting,
            pool: None,
            key,
            user: None,
            waiting: Vec::new(),
            output: Output::default(),
            rest: Vec::new(),
            sent: false,
            readable: false,
            writable: false,
            paused: false,
            is_dirty: false,
            stalled: false,
            holds: false,
            finished: false,
            ended: false,
            timeout: Timeout::default(),
        }
    }

    /// Writes the head of a request for which there is a permit. `number` comes with what is said of it;
    /// `end`: it has no content.
    pub(crate) fn send_head(
        &mut self,
        _permit: &Permit,
        request: Sent<'_>,
        buffers: &mut Buffers,
    ) -> Result<Option<StreamId>, Reason> {
        let out = self.output.buffer(buffers);
        let Sent { head, length, end, number } = request;
        match &mut self.wire {
            Wire::H1(client) => {
                self.sent = false;
                client.send_head(head, length, out).map(|()| None).map_err(reason)
            }
            Wire::H2(connection) => {
                // A WebSocket is offered by a request of its own kind; there are few of them.
                let connect = head.upgrade().map(|_| as_connect(head)).transpose()?;
                let (head, end) = connect.as_ref().map_or((head, end), |connect| (connect, false));
                match connection.open(head, end, number, out) {
                    Ok(stream) => Ok(Some(stream)),
                    Err(OpenError::TooLarge) => Err(Reason::BadRequest),
                    Err(OpenError::NoExtendedConnect) => Err(Reason::TunnelUnsupported),
                    Err(OpenError::Closing | OpenError::Full) => Err(Reason::UpstreamReset),
                }
            }
            Wire::Switched { .. } | Wire::Bytes => Err(Reason::Internal),
        }
    }

    /// Writes a piece of a request's content, the last where it ends; says how much of it was taken.
    pub(crate) fn send_data(
        &mut self,
        stream: Option<StreamId>,
        data: &[u8],
        end: bool,
        buffers: &mut Buffers,
    ) -> Result<usize, Reason> {
        let stands = self.writable && self.phase == Phase::Open;
        let socket = stands.then_some(&mut self.socket);
        let line = Line { output: &mut self.output, socket, buffers };
        let written = self.wire.spoken(stream).data(data, end, line)?;
        self.sent |= written.at_once;
        Ok(written.taken)
    }

    /// Writes bytes of a tunnel.
    pub(crate) fn pass(&mut self, data: &[u8], buffers: &mut Buffers) {
        let stands = self.writable && self.phase == Phase::Open;
        self.output.pass(data, b"", stands.then_some(&mut self.socket), buffers);
    }

    /// Ends a request.
    pub(crate) fn finish(
        &mut self,
        stream: Option<StreamId>,
        trailers: Option<&Head>,
        buffers: &mut Buffers,
    ) -> Result<(), Reason> {
        self.wire.spoken(stream).finish(trailers, self.output.buffer(buffers))
    }

    /// What is known of an endpoint that is to be asked for a WebSocket: whether it takes that, or nothing yet.
    pub(crate) fn takes_websocket(&self) -> Option<bool> {
        match &self.wire {
            Wire::H2(connection) => connection.takes_extended_connect(),
            Wire::H1(_) | Wire::Switched { .. } | Wire::Bytes => Some(true),
        }
    }

    /// Whether it takes another request now.
    pub(crate) fn has_room(&self) -> bool {
        match &self.wire {
            Wire::H2(connection) => !self.ended && connection.capacity() > self.waiting.len(),
            Wire::H1(_) | Wire::Switched { .. } | Wire::Bytes => false,
        }
    }

    /// Whether the rest of a response's content is still to come.
    pub(crate) fn is_inside_content(&self) -> bool {
        match &self.wire {
            Wire::H1(client) => client.content_length() != Length::Bytes(0),
            Wire::H2(connection) => connection.is_inside_head(),
            Wire::Switched { .. } | Wire::Bytes => false,
        }
    }

    /// Whether so much waits to be written that nothing more is answered.
    pub(crate) fn is_behind(&self) -> bool {
        self.output.len() >= h2::OUTPUT_FOR_CONTENT
    }

    /// Whether somebody has it.
    pub(crate) fn is_used(&self) -> bool {
        match &self.wire {
            Wire::H2(connection) => connection.open_streams() > 0 || !self.waiting.is_empty(),
            Wire::H1(_) | Wire::Switched { .. } | Wire::Bytes => self.user.is_some(),
        }
    }

    /// Whether it can carry another request.
    pub(crate) fn is_reusable(&self) -> bool {
        let idle = match &self.wire {
            Wire::H1(client) => client.is_idle(),
            Wire::H2(_) | Wire::Switched { .. } | Wire::Bytes => false,
        };
        idle && !self.ended && self.rest.is_empty() && self.phase == Phase::Open
    }
}

/// A request as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    pub(crate) head: &'a Head,
    pub(crate) length: Length,
    /// It has no content.
    pub(crate) end: bool,
    /// Names its exchange.
    pub(crate) number: u32,
}

/// An offer of a WebSocket as HTTP/2 makes it.
fn as_connect(offer: &Head) -> Result<Head, Reason> {
    let mut head = offer.clone();
    match websocket::offer_to_connect(&mut head) {
        Ok(true) => Ok(head),
        Ok(false) => Err(Reason::TunnelUnsupported),
        Err(_) => Err(Reason::BadRequest),
    }
}
