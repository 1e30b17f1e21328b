// SPDX-License-Identifier: Apache-2.0
//! Header blocks that come in: requests, responses and trailers.

use super::{
    Block, Connection, Event, Fault, HEADER_LEN, Header, MAX_CONTINUATIONS, MAX_PAYLOAD, StreamId, flag,
    frame,
};
use crate::{
    error::Scope,
    h2::{
        budget::EMPTY,
        config::Role,
        error::{ErrorCode, too_large},
        message::{Nobody, Reader},
        streams::{Closed, Receiving, Sending, Stream},
    },
    head::{Head, Kind, Method},
};

/// How much larger than the list of fields a header block may be before the connection ends: coded, a list is
/// smaller than it counts, and somewhat too large a one shall be answered.
const BLOCK_FACTOR: usize = 2;

/// Octets of room that is kept for blocks of several frames.
const KEPT_ROOM: usize = MAX_PAYLOAD + HEADER_LEN;

/// What a whole header block is for.
#[derive(Clone, Copy)]
struct Whole<'b> {
    number: u32,
    end: bool,
    octets: &'b [u8],
}

/// What a block was read as.
enum Read {
    /// A head, and the length of its content where it says one.
    Whole(Option<u64>),
    /// The list of its fields is larger than allowed.
    TooLarge,
    /// It breaks this rule.
    Malformed(&'static str),
}

impl Connection {
    #[inline]
    pub(super) fn headers(
        &mut self,
        header: Header,
        block: &[u8],
        head: &mut Head,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        let (number, end) = (header.stream, header.has(flag::END_STREAM));
        if header.has(flag::END_HEADERS) {
            return self.whole(Whole { number, end, octets: block }, head, out);
        }
        let octets = std::mem::take(&mut self.block.octets);
        self.block = Block { stream: number, end_stream: end, frames: 0, octets };
        self.block.octets.extend_from_slice(block);
        Ok(None)
    }

    pub(super) fn continuation(
        &mut self,
        header: Header,
        more: &[u8],
        head: &mut Head,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        let block = &mut self.block;
        block.frames += 1;
        let limit = MAX_PAYLOAD.max(BLOCK_FACTOR * self.config.max_header_list as usize);
        if block.frames > MAX_CONTINUATIONS || block.octets.len() + more.len() > limit {
            return Err(Fault::calm("a header block has no end"));
        }
        block.octets.extend_from_slice(more);
        if !header.has(flag::END_HEADERS) {
            self.budget.control(if more.is_empty() { EMPTY } else { 1 })?;
            return Ok(None);
        }
        let Block { stream: number, end_stream: end, mut octets, .. } = std::mem::take(&mut self.block);
        let event = self.whole(Whole { number, end, octets: &octets }, head, out);
        octets.clear();
        octets.shrink_to(KEPT_ROOM);
        self.block.octets = octets;
        event
    }

    #[inline]
    fn whole(
        &mut self,
        block: Whole<'_>,
        head: &mut Head,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        let number = block.number;
        if let Some(id) = self.streams.find(number) {
            return self.on_stream(id, block, head, out);
        }
        if !self.is_idle(number) {
            return self.on_closed(block);
        }
        if self.role == Role::Client || number.is_multiple_of(2) {
            return Err(Fault::protocol("a head on a stream that nobody opened"));
        }
        self.last_peer = number;
        self.request(block, head, out)
    }

    /// A block for a stream that is gone: it is read for the table's sake.
    fn on_closed(&mut self, block: Whole<'_>) -> Result<Option<Event<'static>>, Fault> {
        match self.tombs.find(block.number) {
            Closed::ResetByUs => self.budget.control(1)?,
            Closed::ByPeer => return Err(Fault::closed("a head on a stream that had ended")),
            Closed::Unused => return Err(Fault::protocol("the numbers of streams only grow")),
        }
        self.skip(block)
    }

    fn skip(&mut self, block: Whole<'_>) -> Result<Option<Event<'static>>, Fault> {
        self.decoder.decode(block.octets, 0, &mut Nobody).map_err(unreadable)?;
        Ok(None)
    }

    /// A new stream.
    fn request(
        &mut self,
        block: Whole<'_>,
        head: &mut Head,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        if self.closing.last.is_some() {
            // The client did not know yet, and will send it elsewhere (RFC 9113, section 6.8).
            self.budget.control(1)?;
            self.tombs.add(block.number, true);
            return self.skip(block);
        }
        if self.streams.active() >= self.config.max_streams {
            self.budget.reset()?;
            self.refuse(block.number, ErrorCode::REFUSED_STREAM, out);
            return self.skip(block);
        }
        let fault = match self.read(block.octets, Kind::Request, head)? {
            Read::TooLarge => {
                self.budget.reset()?;
                let receiving = if block.end { Receiving::Ended } else { Receiving::Unwanted };
                let id = self.add(block.number, 0, receiving, Sending::Head);
                if let Some(stream) = self.streams.get(id) {
                    stream.refused = true;
                }
                return Ok(Some(Event::Rejected { stream: Some(id), failure: too_large(self.role) }));
            }
            Read::Malformed(detail) => detail,
            Read::Whole(Some(1..)) if block.end => "no content although its length says so",
            Read::Whole(length) => {
                let receiving = if block.end { Receiving::Ended } else { Receiving::Content };
                let id = self.add(block.number, 0, receiving, Sending::Head);
                if let Some(stream) = self.streams.get(id) {
                    // No length bounds what follows a connect (RFC 9110, section 9.3.6).
                    let bounded = length.filter(|_| head.method() != Method::Connect);
                    stream.content_left = bounded.unwrap_or(u64::MAX);
                }
                return Ok(Some(Event::Head { stream: id, token: 0, end: block.end }));
            }
        };
        self.budget.reset()?;
        self.refuse(block.number, ErrorCode::PROTOCOL_ERROR, out);
        let failure = Fault::protocol(fault).failure(self.role, Scope::Message);
        Ok(Some(Event::Rejected { stream: None, failure }))
    }

    fn refuse(&mut self, number: u32, code: ErrorCode, out: &mut Vec<u8>) {
        frame::write_reset(number, code, out);
        self.tombs.add(number, true);
    }

    pub(super) fn add(
        &mut self,
        number: u32,
        token: u32,
        receiving: Receiving,
        sending: Sending,
    ) -> StreamId {
        self.streams.insert(Stream {
            number,
            token,
            receiving,
            sending,
            send_window: self.peer.initial_window,
            receive_window: self.config.stream_window,
            held: 0,
            credit: 0,
            content_left: u64::MAX,
            no_content: false,
            connect: false,
            waits_for_window: false,
            in_line: false,
            refused: false,
            lingers: false,
        })
    }

    /// Reads a block into the head; the length of its content, where it says one.
    #[inline]
    fn read(&mut self, block: &[u8], kind: Kind, head: &mut Head) -> Result<Read, Fault> {
        let memo = usize::from(kind == Kind::Trailers);
        let before = self.decoder.state();
        if let Some(state) = before
            && let Some(length) = self.memos[memo].recall(block, state, head)
        {
            return Ok(Read::Whole(length));
        }
        let max = self.config.max_header_list as usize;
        let extended_connect = kind == Kind::Request && self.config.extended_connect;
        let mut reader = Reader::new(head, kind, extended_connect);
        let size = self.decoder.decode(block, max, &mut reader).map_err(unreadable)?;
        Ok(match reader.finish() {
            _ if size > max => Read::TooLarge,
            Err(detail) => Read::Malformed(detail),
            Ok(length) => {
                if let Some(state) = before.filter(|state| self.decoder.state() == Some(*state)) {
                    self.memos[memo].remember(block, state, head, length);
                }
                Read::Whole(length)
            }
        })
    }

    /// A block on a stream that is open.
    fn on_stream(
        &mut self,
        id: StreamId,
        block: Whole<'_>,
        head: &mut Head,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        let receiving = self.streams.get(id).map_or(Receiving::Ended, |stream| stream.receiving);
        match receiving {
            Receiving::Head => self.response(id, block, head, out),
            Receiving::Content => self.trailers(id, block, head, out),
            Receiving::Unwanted => {
                self.skip(block)?;
                self.end(id);
                Ok(None)
            }
            Receiving::Ended => {
                self.skip(block)?;
                self.fail_stream(id, Fault::closed("a head behind the end of a stream"), out)
            }
        }
    }

    fn response(
        &mut self,
        id: StreamId,
        block: Whole<'_>,
        head: &mut Head,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        let length = match self.read(block.octets, Kind::Response, head)? {
            Read::Whole(length) => length,
            Read::TooLarge => return self.fail_stream_with(id, too_large(self.role), out),
            Read::Malformed(detail) => return self.fail_stream(id, Fault::protocol(detail), out),
        };
        let Some(stream) = self.streams.get(id) else { return Ok(None) };
        let token = stream.token;
        if head.is_interim() {
            if block.end {
                return self.fail_stream(id, Fault::protocol("an interim response ends the stream"), out);
            }
            self.budget.control(EMPTY)?;
            return Ok(Some(Event::Interim { stream: id, token }));
        }
        let status = head.status();
        stream.no_content = !stream.connect && (stream.no_content || matches!(status, 204 | 304));
        stream.content_left = match length {
            _ if stream.no_content => 0,
            Some(length) if !(stream.connect && status / 100 == 2) => length,
            _ => u64::MAX,
        };
        if block.end && !matches!(stream.content_left, 0 | u64::MAX) {
            let fault = Fault::protocol("no content although its length says so");
            return self.fail_stream(id, fault, out);
        }
        stream.receiving = Receiving::Content;
        if block.end {
            self.end(id);
        }
        Ok(Some(Event::Head { stream: id, token, end: block.end }))
    }

    fn trailers(
        &mut self,
        id: StreamId,
        block: Whole<'_>,
        head: &mut Head,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        let read = self.read(block.octets, Kind::Trailers, head)?;
        let Some(stream) = self.streams.get(id) else { return Ok(None) };
        let fault = match read {
            Read::TooLarge => return self.fail_stream_with(id, too_large(self.role), out),
            Read::Malformed(detail) => detail,
            Read::Whole(_) if !block.end => "trailers that do not end the stream",
            Read::Whole(_) if !matches!(stream.content_left, 0 | u64::MAX) => {
                "less content than its length says"
            }
            Read::Whole(_) => {
                let token = stream.token;
                self.end(id);
                return Ok(Some(Event::Trailers { stream: id, token }));
            }
        };
        self.fail_stream(id, Fault::protocol(fault), out)
    }

    /// The peer has sent everything.
    #[inline]
    pub(super) fn end(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(id) {
            stream.receiving = Receiving::Ended;
            self.settle(id);
        }
    }

    /// Whether responses to a request with this method have no content.
    pub(super) fn answers_without_content(head: &Head) -> bool {
        head.method() == Method::Head
    }
}

fn unreadable(error: crate::hpack::Error) -> Fault {
    use crate::hpack::Error;
    let detail = match error {
        Error::Truncated => "a header block ends inside a field",
        Error::IntegerTooLarge => "an integer in a header block is too large",
        Error::Huffman => "a string in a header block is not in the huffman code",
        Error::Index => "a header block refers to an entry that does not exist",
        Error::TableSize => "the header table's size is not one that was offered",
    };
    Fault { code: ErrorCode::COMPRESSION_ERROR, detail }
}
