// SPDX-License-Identifier: Apache-2.0
//! Content that comes in, and the windows that bound it.

use super::{Connection, Content, Event, Fault, Header, Step, StreamId, flag, frame};
use crate::h2::{
    budget::EMPTY,
    streams::{Closed, Receiving},
};

impl Connection {
    /// A DATA frame, of which the payload may not be there as a whole.
    pub(super) fn data<'a>(
        &mut self,
        header: Header,
        input: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, Fault> {
        let number = header.stream;
        if number == 0 {
            return Err(Fault::protocol("content without a stream"));
        }
        let (skip, padding) = match input.first() {
            _ if !header.has(flag::PADDED) => (0, 0),
            Some(&padding) if header.length > usize::from(padding) => (1, usize::from(padding)),
            None if header.length > 0 => return Ok((0, None)),
            _ => return Err(Fault::protocol("more padding than payload")),
        };
        // Padding counts against the windows too (RFC 9113, section 6.9.1).
        let length = header.length as u32;
        self.receive_window = self
            .receive_window
            .checked_sub(length)
            .ok_or(Fault::flow("more than the connection's window"))?;
        let left = header.length - skip - padding;
        let end = header.has(flag::END_STREAM);
        if left == 0 && !end {
            self.budget.control(EMPTY)?;
        }
        let content = match self.streams.find(number) {
            None => self.unwanted(number, header.length - skip, length, out)?,
            Some(id) => match self.admit(id, length, left, end) {
                Err(fault) => {
                    let event = self.fail_stream(id, fault, out)?;
                    let rest = self.discard(header.length, length, out);
                    self.content = (rest.left > 0).then_some(rest);
                    return Ok((frame::HEADER_LEN, event));
                }
                Ok(false) => self.discard(header.length - skip, length, out),
                Ok(true) => {
                    self.credit(id, length - left as u32, out);
                    Content { stream: Some(id), left, padding, end }
                }
            },
        };
        self.content = Some(content);
        let (octets, event) = self.go_on(content, &input[skip..], out);
        Ok((frame::HEADER_LEN + skip + octets, event))
    }

    /// Whether the stream takes a frame of this length, of which `content` is no padding. False: nobody wants it.
    #[inline]
    fn admit(&mut self, id: StreamId, length: u32, content: usize, end: bool) -> Result<bool, Fault> {
        let Some(stream) = self.streams.get(id) else { return Ok(false) };
        match stream.receiving {
            Receiving::Content | Receiving::Unwanted => {}
            Receiving::Head => return Err(Fault::protocol("content before the response")),
            Receiving::Ended => return Err(Fault::closed("content behind the end of a stream")),
        }
        stream.receive_window =
            stream.receive_window.checked_sub(length).ok_or(Fault::flow("more than the stream's window"))?;
        if stream.receiving == Receiving::Unwanted {
            if end {
                self.end(id);
            }
            return Ok(false);
        }
        if stream.content_left != u64::MAX {
            stream.content_left = stream
                .content_left
                .checked_sub(content as u64)
                .ok_or(Fault::protocol("more content than its length says"))?;
            if end && stream.content_left > 0 {
                return Err(Fault::protocol("less content than its length says"));
            }
        }
        Ok(true)
    }

    /// Content for a stream that is gone.
    fn unwanted(
        &mut self,
        number: u32,
        left: usize,
        length: u32,
        out: &mut Vec<u8>,
    ) -> Result<Content, Fault> {
        if self.is_idle(number) {
            return Err(Fault::protocol("content on a stream that nobody opened"));
        }
        match self.tombs.find(number) {
            Closed::ResetByUs => self.budget.control(1)?,
            Closed::ByPeer | Closed::Unused => {
                return Err(Fault::closed("content on a stream that had ended"));
            }
        }
        Ok(self.discard(left, length, out))
    }

    /// Gives a frame's octets back at once, and skips those that are left of it.
    fn discard(&mut self, left: usize, length: u32, out: &mut Vec<u8>) -> Content {
        self.give_back(length, out);
        Content { stream: None, left, padding: 0, end: false }
    }

    /// What is there of a DATA frame.
    #[inline]
    pub(super) fn go_on<'a>(&mut self, content: Content, input: &'a [u8], out: &mut Vec<u8>) -> Step<'a> {
        let octets = content.left.min(input.len());
        let padding = content.padding.min(input.len() - octets);
        let rest = Content { left: content.left - octets, padding: content.padding - padding, ..content };
        let done = rest.left == 0 && rest.padding == 0;
        self.content = (!done).then_some(rest);
        let Some(id) = content.stream else { return (octets + padding, None) };
        let end = done && content.end;
        if octets == 0 && !end {
            return (padding, None);
        }
        let Some(stream) = self.streams.get(id) else {
            // It was reset while its frame was under way.
            self.give_back(content.left as u32, out);
            self.content = (!done).then_some(Content { stream: None, ..rest });
            return (octets + padding, None);
        };
        let token = stream.token;
        stream.held += octets as u32;
        if octets > 0 {
            self.budget.carried();
        }
        if end {
            self.end(id);
        }
        let content = &input[..octets];
        (octets + padding, Some(Event::Data { stream: id, token, content, end }))
    }

    /// Says that content of a stream is no longer held: the peer may send as much again.
    pub fn release(&mut self, id: StreamId, octets: usize, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get(id) else { return };
        let octets = stream.held.min(u32::try_from(octets).unwrap_or(u32::MAX));
        stream.held -= octets;
        if stream.lingers && stream.held == 0 {
            self.streams.remove(id);
            return self.give_back(octets, out);
        }
        self.credit(id, octets, out);
    }

    /// Gives octets back to a stream and to the connection.
    #[inline]
    fn credit(&mut self, id: StreamId, octets: u32, out: &mut Vec<u8>) {
        if octets == 0 {
            return;
        }
        let enough = self.config.stream_window / 2;
        if let Some(stream) = self.streams.get(id).filter(|stream| stream.receiving == Receiving::Content) {
            stream.credit += octets;
            if stream.credit >= enough {
                frame::write_window_update(id.number, stream.credit, out);
                stream.receive_window += stream.credit;
                stream.credit = 0;
            }
        }
        self.give_back(octets, out);
    }

    /// Gives octets back to the connection, in portions of half its window.
    #[inline]
    pub(super) fn give_back(&mut self, octets: u32, out: &mut Vec<u8>) {
        self.credit += octets;
        if self.credit >= self.config.connection_window / 2 {
            frame::write_window_update(0, self.credit, out);
            self.receive_window += self.credit;
            self.credit = 0;
        }
    }
}
