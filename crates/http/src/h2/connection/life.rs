// SPDX-License-Identifier: Apache-2.0
//! How a connection ends, and what its owner can ask about it.

use super::{Connection, ErrorCode, Fault, Phase, StreamId, frame};
use crate::h2::{config::Role, frame::MAX_WINDOW};

/// The payload of the PING whose answer says that the peer knows that we want to end.
const LAST_CALL: [u8; 8] = *b"lastcall";

/// The payload of the PING that asks whether the peer is there.
const ALIVE: [u8; 8] = *b"alive???";

/// What the peer owes: the owner has the clock, and decides how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The preface or the first SETTINGS did not come.
    pub handshake: bool,
    /// Our SETTINGS are not acknowledged.
    pub settings: bool,
    /// A header block began and did not end.
    pub header_block: bool,
    /// A PING is not answered.
    pub ping: bool,
    /// Streams with content that the peer's windows, or an output that it does not read, hold up.
    pub blocked_streams: usize,
}

impl Connection {
    /// What the peer owes.
    pub fn pending(&self) -> Pending {
        let blocked = |stream: &&crate::h2::streams::Stream| stream.waits_for_window || stream.in_line;
        Pending {
            handshake: matches!(self.phase, Phase::Preface | Phase::Settings),
            settings: self.settings_sent > 0,
            header_block: self.block.stream != 0,
            ping: self.pinged,
            blocked_streams: self.streams.iter().map(|(_, stream)| stream).filter(blocked).count(),
        }
    }

    /// Whether the peer owes the rest of its preface or of a header block: what [`pending`](Connection::pending)
    /// says of them, without looking at the streams.
    pub fn is_inside_head(&self) -> bool {
        matches!(self.phase, Phase::Preface | Phase::Settings) || self.block.stream != 0
    }

    /// Whether the server takes the extended CONNECT of RFC 8441; nothing before its SETTINGS are there.
    pub fn takes_extended_connect(&self) -> Option<bool> {
        (self.phase == Phase::Open).then_some(self.peer.extended_connect)
    }

    /// Whether content waits for a turn that [`receive`](Connection::receive) gives without input, once what was
    /// appended is written.
    pub fn has_content_in_line(&self) -> bool {
        !self.line.is_empty() && self.send_window > 0
    }

    /// The streams that are open, with their tokens.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, u32)> {
        self.streams.iter().map(|(id, stream)| (id, stream.token))
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        self.streams.len() as usize
    }

    /// Attaches a number of the user's to a stream, which comes with its events.
    pub fn set_token(&mut self, id: StreamId, token: u32) {
        if let Some(stream) = self.streams.get(id) {
            stream.token = token;
        }
    }

    /// Asks the peer whether it is there; [`Pending::ping`] until it answers.
    pub fn ping(&mut self, out: &mut Vec<u8>) {
        if !self.pinged && self.phase != Phase::Closed {
            self.pinged = true;
            frame::write_ping(false, ALIVE, out);
        }
    }

    pub(super) fn pong(&mut self, payload: [u8; 8], out: &mut Vec<u8>) -> Result<(), Fault> {
        match payload {
            ALIVE if self.pinged => self.pinged = false,
            LAST_CALL if self.closing.begun => self.stop_taking(out),
            _ => self.budget.control(1)?,
        }
        Ok(())
    }

    /// Begins to end the connection in order (RFC 9113, section 6.8). A server says that it will end, and a round
    /// trip later which request was the last, so that none that was under way is lost; a client opens no further
    /// streams. [`is_drained`](Connection::is_drained) once all streams have come to their end.
    pub fn shutdown(&mut self, out: &mut Vec<u8>) {
        if self.closing.begun || self.phase == Phase::Closed {
            return;
        }
        self.closing.begun = true;
        let last = if self.role == Role::Server { MAX_WINDOW } else { 0 };
        frame::write_go_away(last, ErrorCode::NO_ERROR, "", out);
        if self.role == Role::Server {
            frame::write_ping(false, LAST_CALL, out);
        }
    }

    /// The second step of [`shutdown`](Connection::shutdown): says which request is the last. It comes by itself
    /// with the answer to a PING; its owner calls it where that takes too long.
    pub fn stop_taking(&mut self, out: &mut Vec<u8>) {
        if self.role == Role::Server && self.closing.last.is_none() && self.phase != Phase::Closed {
            self.closing.begun = true;
            self.closing.last = Some(self.last_peer);
            frame::write_go_away(self.last_peer, ErrorCode::NO_ERROR, "", out);
        }
    }

    /// Whether the connection can be closed: it was to end, and nothing is left on it.
    pub fn is_drained(&self) -> bool {
        let said = self.closing.last.is_some() || (self.closing.begun && self.role == Role::Client);
        let left = self.closing.peer_last.is_some() && !self.closing.report;
        self.phase == Phase::Closed || (self.streams.len() == 0 && (said || left))
    }

    /// Ends the connection at once.
    pub fn close(&mut self, code: ErrorCode, out: &mut Vec<u8>) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            frame::write_go_away(self.last_peer, code, "", out);
        }
    }

    /// Whether the connection has ended: nothing that comes is looked at.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }
}
