// SPDX-License-Identifier: Apache-2.0
//! What goes out.

use super::{Connection, ErrorCode, MAX_PAYLOAD, OUTPUT_FOR_CONTENT, Phase, StreamId, block, frame};
use crate::{
    h2::{
        config::Role,
        frame::MAX_WINDOW,
        streams::{Receiving, Sending, Stream},
    },
    head::{Head, Kind, Method},
};

/// Why a request was not sent. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The connection is ending, or never takes requests.
    #[error("the connection takes no further requests")]
    Closing,
    /// The server takes no more at once.
    #[error("the server takes no more requests at once")]
    Full,
    /// The server said that it would not read so large a head.
    #[error("the head is larger than the server reads")]
    TooLarge,
    /// The server does not speak the extended CONNECT of RFC 8441.
    #[error("the server does not take an extended connect")]
    NoExtendedConnect,
}

/// Why something was not sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The stream is gone.
    #[error("the stream is gone")]
    Gone,
    /// It is not its turn: a head behind a head, or content before it or behind the end.
    #[error("the stream does not wait for that")]
    OutOfOrder,
    /// The peer said that it would not read so large a head.
    #[error("the head is larger than the peer reads")]
    TooLarge,
}

impl Connection {
    /// How many further requests may be sent now.
    pub fn capacity(&self) -> usize {
        if self.opens_nothing() {
            return 0;
        }
        self.peer.max_streams.saturating_sub(self.streams.active()) as usize
    }

    /// Sends a request, with the number that its events shall carry. `end`: it has no content.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn open(
        &mut self,
        head: &Head,
        end: bool,
        token: u32,
        out: &mut Vec<u8>,
    ) -> Result<StreamId, OpenError> {
        if self.opens_nothing() {
            return Err(OpenError::Closing);
        }
        if self.capacity() == 0 {
            return Err(OpenError::Full);
        }
        if head.protocol().is_some() && !self.peer.extended_connect {
            return Err(OpenError::NoExtendedConnect);
        }
        if !self.takes(head) {
            return Err(OpenError::TooLarge);
        }
        let number = self.next;
        self.next += 2;
        let sending = if end { Sending::Ended } else { Sending::Content };
        let id = self.add(number, token, Receiving::Head, sending);
        if let Some(stream) = self.streams.get(id) {
            stream.no_content = Connection::answers_without_content(head);
            stream.connect = head.method() == Method::Connect;
        }
        self.write_head(number, head, end, out);
        Ok(id)
    }

    /// Sends a response, interim ones before it as many as there are.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_head(
        &mut self,
        id: StreamId,
        head: &Head,
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let fits = self.takes(head);
        let stream = self.sending(id)?;
        if stream.sending != Sending::Head || head.kind() != Kind::Response {
            return Err(SendError::OutOfOrder);
        }
        if !fits {
            return Err(SendError::TooLarge);
        }
        let end = end && !head.is_interim();
        if !head.is_interim() {
            stream.sending = Sending::Content;
        }
        self.write_head(id.number, head, end, out);
        if end {
            self.sent_all(id, out);
        }
        Ok(())
    }

    /// Sends of content as much as the peer's windows and the room in `out` allow, and says how much that is. What is left
    /// is to be sent again at [`Event::Window`](super::Event::Window); `end` counts once all was accepted.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_data(
        &mut self,
        id: StreamId,
        content: &[u8],
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<usize, SendError> {
        let connection = self.send_window;
        let stream = self.sending(id)?;
        if stream.sending != Sending::Content {
            return Err(SendError::OutOfOrder);
        }
        let room = OUTPUT_FOR_CONTENT.saturating_sub(out.len());
        let window = stream.send_window.min(connection).max(0) as usize;
        let accepted = content.len().min(window).min(room);
        let all = accepted == content.len();
        stream.send_window -= accepted as i32;
        self.send_window -= accepted as i32;
        if !all {
            self.wait(id);
        }
        if accepted > 0 || (all && end) {
            self.budget.sent(accepted, !all && accepted == window);
            write_content(id.number, &content[..accepted], all && end, out);
        }
        if all && end {
            self.sent_all(id, out);
        }
        Ok(accepted)
    }

    /// Sends trailers behind all content, which has to be accepted by then.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_trailers(&mut self, id: StreamId, head: &Head, out: &mut Vec<u8>) -> Result<(), SendError> {
        let fits = self.takes(head);
        let stream = self.sending(id)?;
        if stream.sending != Sending::Content || head.kind() != Kind::Trailers {
            return Err(SendError::OutOfOrder);
        }
        if !fits {
            return Err(SendError::TooLarge);
        }
        if head.is_empty() {
            // A block without fields would be as good, and some peers take it for an error.
            write_content(id.number, b"", true, out);
        } else {
            self.write_head(id.number, head, true, out);
        }
        self.sent_all(id, out);
        Ok(())
    }

    /// Gives a stream up. Content that was handed out of it need not be released.
    pub fn reset(&mut self, id: StreamId, code: ErrorCode, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get(id) else { return };
        if stream.lingers {
            let held = stream.held;
            self.streams.remove(id);
            return self.give_back(held, out);
        }
        frame::write_reset(id.number, code, out);
        self.forget(id, true, out);
    }

    /// Whether no request will ever be sent again.
    fn opens_nothing(&self) -> bool {
        let ends = self.closing.begun || self.closing.peer_last.is_some() || self.phase == Phase::Closed;
        ends || self.role == Role::Server || self.next > MAX_WINDOW
    }

    /// Lets a stream wait for its own window, or for its turn.
    fn wait(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id) else { return };
        if stream.send_window <= 0 {
            stream.waits_for_window = true;
        } else if !stream.in_line {
            stream.in_line = true;
            self.line.push_back(id);
        }
    }

    fn sending(&mut self, id: StreamId) -> Result<&mut Stream, SendError> {
        if self.phase == Phase::Closed {
            return Err(SendError::Gone);
        }
        self.streams.get(id).ok_or(SendError::Gone)
    }

    /// Whether the peer reads so large a head.
    #[inline]
    fn takes(&self, head: &Head) -> bool {
        block::list_size_at_most(head) <= self.peer.max_header_list
            || block::list_size(head) <= self.peer.max_header_list
    }

    fn write_head(&mut self, number: u32, head: &Head, end: bool, out: &mut Vec<u8>) {
        let (encoder, written) =
            (&mut self.encoder, &mut self.written[usize::from(head.kind() == Kind::Trailers)]);
        let before = encoder.state();
        if let Some(block) = before.and_then(|state| written.recall(head, state)) {
            return frame::write_block(number, end, out, |out| out.extend_from_slice(block));
        }
        frame::write_block(number, end, out, |out| {
            let start = out.len();
            block::write(head, encoder, out);
            if let Some(state) = before.filter(|state| encoder.state() == Some(*state)) {
                written.remember(head, state, &out[start..]);
            }
        });
    }

    /// We have sent everything on a stream.
    #[inline]
    fn sent_all(&mut self, id: StreamId, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.sending = Sending::Ended;
        if stream.receiving == Receiving::Unwanted {
            // It was answered: the client need not send the rest (RFC 9113, section 8.1).
            return self.reset(id, ErrorCode::NO_ERROR, out);
        }
        self.settle(id);
    }
}

fn write_content(number: u32, content: &[u8], end: bool, out: &mut Vec<u8>) {
    if content.len() <= MAX_PAYLOAD {
        return frame::write_data(number, content, end, out);
    }
    let mut pieces = content.chunks(MAX_PAYLOAD).peekable();
    while let Some(piece) = pieces.next() {
        frame::write_data(number, piece, end && pieces.peek().is_none(), out);
    }
}
