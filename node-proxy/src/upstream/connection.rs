// SPDX-License-Identifier: Apache-2.0
//! One connection to an endpoint.

use mio::net::TcpStream;
use weft_ebpf_common::reason::Reason;
use weft_http::{
    error::Error,
    h1::{self, Length},
    h2::{self, OpenError, SendError, StreamId},
    head::Head,
};

use crate::{
    state::permit::Permit,
    upstream::{
        output::{Buffers, Output},
        pool::{PoolId, PoolKey},
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
    /// Anything: bytes are relayed.
    Bytes,
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
            Wire::H2(connection) => match connection.open(head, end, number, out) {
                Ok(stream) => Ok(Some(stream)),
                Err(OpenError::TooLarge) => Err(Reason::BadRequest),
                Err(OpenError::Closing | OpenError::Full | OpenError::NoExtendedConnect) => {
                    Err(Reason::UpstreamReset)
                }
            },
            Wire::Bytes => Err(Reason::Internal),
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
        let out = self.output.buffer(buffers);
        match (&mut self.wire, stream) {
            (Wire::H1(client), _) => {
                if let Some(behind) = client.open_data(data.len(), out).map_err(reason)? {
                    self.pass(data, behind, buffers);
                }
                Ok(data.len())
            }
            (Wire::H2(connection), Some(stream)) => {
                connection.send_data(stream, data, end, out).map_err(unsent)
            }
            _ => Err(Reason::Internal),
        }
    }

    /// Writes bytes, and those that follow them.
    pub(crate) fn pass(&mut self, data: &[u8], behind: &[u8], buffers: &mut Buffers) {
        let stands = self.writable && self.phase == Phase::Open;
        let socket = stands.then_some(&mut self.socket);
        self.sent |= self.output.pass(data, behind, socket, buffers);
    }

    /// Ends a request.
    pub(crate) fn finish(
        &mut self,
        stream: Option<StreamId>,
        trailers: Option<&Head>,
        buffers: &mut Buffers,
    ) -> Result<(), Reason> {
        let out = self.output.buffer(buffers);
        match (&mut self.wire, stream, trailers) {
            (Wire::H1(client), _, Some(trailers)) => client.send_trailers(trailers, out).map_err(reason),
            (Wire::H1(client), _, None) => client.finish(out).map_err(reason),
            (Wire::H2(connection), Some(stream), Some(trailers)) => {
                connection.send_trailers(stream, trailers, out).map_err(unsent)
            }
            (Wire::H2(connection), Some(stream), None) => {
                connection.send_data(stream, b"", true, out).map(|_| ()).map_err(unsent)
            }
            _ => Err(Reason::Internal),
        }
    }

    /// Whether it takes another request now.
    pub(crate) fn has_room(&self) -> bool {
        match &self.wire {
            Wire::H2(connection) => !self.ended && connection.capacity() > self.waiting.len(),
            Wire::H1(_) | Wire::Bytes => false,
        }
    }

    /// Whether the rest of a response's content is still to come.
    pub(crate) fn is_inside_content(&self) -> bool {
        match &self.wire {
            Wire::H1(client) => client.content_length() != Length::Bytes(0),
            Wire::H2(connection) => connection.is_inside_head(),
            Wire::Bytes => false,
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
            Wire::H1(_) | Wire::Bytes => self.user.is_some(),
        }
    }

    /// Whether it can carry another request.
    pub(crate) fn is_reusable(&self) -> bool {
        let idle = match &self.wire {
            Wire::H1(client) => client.is_idle(),
            Wire::H2(_) | Wire::Bytes => false,
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

/// Why HTTP/1.1 could not be written.
pub(crate) fn reason(error: Error) -> Reason {
    error.reason
}

/// Why HTTP/2 could not be written.
pub(crate) fn unsent(error: SendError) -> Reason {
    match error {
        SendError::Gone => Reason::ClientReset,
        SendError::OutOfOrder => Reason::Internal,
        SendError::TooLarge => Reason::UpstreamProtocol,
    }
}
