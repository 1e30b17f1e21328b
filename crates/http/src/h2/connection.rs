// SPDX-License-Identifier: Apache-2.0
//! One connection: its state, and what comes in, frame by frame.

use std::collections::VecDeque;

use super::{
    block,
    budget::Budget,
    config::{Config, DEFAULT_TABLE, DEFAULT_WINDOW, Role},
    error::{ErrorCode, Failure, Fault},
    frame::{self, Frame, HEADER_LEN, Header, MAX_PAYLOAD, PREFACE, flag, kind},
    memo::{Memo, Written},
    streams::{StreamId, Streams, Tombs},
};
use crate::{
    error::Scope,
    head::Head,
    hpack::{Decoder, Encoder},
};

mod content;
mod control;
mod heads;
mod life;
mod send;
#[cfg(test)]
mod tests;

pub use life::Pending;
pub use send::{OpenError, SendError};

/// Octets waiting to be written from which on content is no longer accepted: it waits where it is, as for the
/// peer's window.
pub const OUTPUT_FOR_CONTENT: usize = 64 << 10;

/// Octets waiting to be written from which on nothing more is read: who does not read what we answer is not
/// answered more. Far above [`OUTPUT_FOR_CONTENT`], so that two sides that have much to send never wait for each
/// other.
pub const OUTPUT_LIMIT: usize = 256 << 10;

/// Frames of one header block: nghttp2 allows 8 continuations (`NGHTTP2_DEFAULT_MAX_CONTINUATIONS`), and twice
/// as many leave room for the largest lists in small pieces.
pub(crate) const MAX_CONTINUATIONS: u32 = 16;

/// Streams that a client opens before the server said how many it takes: what RFC 9113, section 6.5.2,
/// recommends as the least.
const STREAMS_UNTIL_TOLD: u32 = 100;

/// What came from the peer. A stream that ended, by `end`, [`Trailers`](Event::Trailers) or
/// [`Reset`](Event::Reset), sends nothing more; `token` is what the user attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A request (its token is 0), or the final response. The head that was given has it. `end`: that is all.
    Head { stream: StreamId, token: u32, end: bool },
    /// An interim response is in the head; another response follows.
    Interim { stream: StreamId, token: u32 },
    /// A request that nobody will get, for the access record. With a stream it may be answered; without, the
    /// stream was reset. The head has what was read of it.
    Rejected { stream: Option<StreamId>, failure: Failure },
    /// Content. It counts against the windows until it is released.
    Data { stream: StreamId, token: u32, content: &'a [u8], end: bool },
    /// Trailers are in the head; that is all.
    Trailers { stream: StreamId, token: u32 },
    /// The stream is gone, by the peer or by its fault. `unprocessed`: the server did nothing for it, so that
    /// the request can be sent again (RFC 9113, section 8.7).
    Reset { stream: StreamId, token: u32, failure: Failure, unprocessed: bool },
    /// Content that was not accepted would be, now.
    Window { stream: StreamId, token: u32 },
    /// The peer takes no further streams. The ones that it never looked at follow as resets.
    GoAway { code: ErrorCode },
    /// The connection broke: what waits to be written is the last. Its streams are still listed.
    Closed { failure: Failure },
}

/// What [`Connection::receive`] did.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Octets of the input that are done with.
    pub consumed: usize,
    /// What came. None: everything that is there as a whole is done with.
    pub event: Option<Event<'a>>,
}

/// One end of a connection.
///
/// The contract: read into a buffer of at least [`READ_BUFFER`](super::READ_BUFFER) octets; call
/// [`receive`](Connection::receive) with what is there until it gives no event, dropping what was consumed; act on
/// each event before the next call, since its content and the head are good until then; write `out`; call
/// `receive` again when something was read, or, with an empty input, when `out` was written and content waits.
/// Content that was accepted by nobody yet stays with its owner, who asks again at [`Event::Window`].
///
/// A stream is gone once both sides have ended it and what was handed out of it is released; whoever has no use
/// for the rest of one resets it. Content should go out in pieces as large as they came, not cut smaller: peers end
/// connections on which many small frames come. A client waits for the handshake ([`Pending::handshake`]) before
/// it opens more than one stream: before that it does not know how many the server takes.
///
/// A stream is found by the [`StreamId`] that came with it; of one that is gone the methods say so, or do
/// nothing. All memory is bounded by [`Config`], the output by [`OUTPUT_LIMIT`] and what the user sends.
/// Deadlines are the user's: [`pending`](Connection::pending) says what the peer owes, and octets that are not
/// consumed are of a frame that is not whole.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Config,
    phase: Phase,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    tombs: Tombs,
    budget: Budget,
    block: Block,
    /// The last head, and the last trailers, that came.
    memos: [Memo; 2],
    /// The last head, and the last trailers, that went out.
    written: [Written; 2],
    /// The DATA frame that is under way.
    content: Option<Content>,
    peer: Peer,
    /// Octets of content that we may send on all streams.
    send_window: i32,
    /// Octets of content that the peer may send on all streams.
    receive_window: u32,
    /// Octets that were released and not yet given back to the peer.
    credit: u32,
    /// Streams with content that the connection's window or the output did not take, in the order in which
    /// their turn comes.
    line: VecDeque<StreamId>,
    /// The highest number of a stream that the peer opened.
    last_peer: u32,
    /// The number of the next stream that we open.
    next: u32,
    closing: Closing,
    /// Settings of ours that the peer did not acknowledge.
    settings_sent: u32,
    /// A PING of ours that the peer did not answer.
    pinged: bool,
    /// The last call took everything that there was.
    turn_over: bool,
}

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client's preface is not there.
    Preface,
    /// The peer's SETTINGS are not there.
    Settings,
    Open,
    Closed,
}

/// A header block whose end has not come.
#[derive(Debug, Default)]
struct Block {
    /// 0: there is none.
    stream: u32,
    end_stream: bool,
    frames: u32,
    octets: Vec<u8>,
}

/// What is left of a DATA frame.
#[derive(Clone, Copy, Debug)]
struct Content {
    /// None: nobody wants it.
    stream: Option<StreamId>,
    left: usize,
    padding: usize,
    end: bool,
}

/// What the peer allows.
#[derive(Debug)]
struct Peer {
    max_streams: u32,
    initial_window: i32,
    max_header_list: usize,
    extended_connect: bool,
}

/// How the connection comes to its end in order.
#[derive(Debug, Default)]
struct Closing {
    /// We said that we want to end.
    begun: bool,
    /// We said which of the peer's streams was the last.
    last: Option<u32>,
    /// The peer said which of our streams was the last that it will look at.
    peer_last: Option<u32>,
    /// Streams behind that one have to be reported.
    report: bool,
}

/// What one step did: octets of the input that it took, and what came.
type Step<'a> = (usize, Option<Event<'a>>);

impl Connection {
    /// The server's end; appends what it sends first.
    pub fn server(config: &Config, out: &mut Vec<u8>) -> Connection {
        Connection::new(Role::Server, Phase::Preface, config, out)
    }

    /// The client's end, which speaks HTTP/2 from the start (prior knowledge, or chosen by ALPN); appends what it
    /// sends first.
    pub fn client(config: &Config, out: &mut Vec<u8>) -> Connection {
        out.extend_from_slice(PREFACE);
        Connection::new(Role::Client, Phase::Settings, config, out)
    }

    fn new(role: Role, phase: Phase, config: &Config, out: &mut Vec<u8>) -> Connection {
        let config = config.bounded();
        config.write(role, out);
        frame::write_window_update(0, config.connection_window - DEFAULT_WINDOW, out);
        Connection {
            role,
            phase,
            decoder: Decoder::new(DEFAULT_TABLE as usize),
            encoder: Encoder::default(),
            streams: Streams::default(),
            tombs: Tombs::default(),
            budget: Budget::default(),
            block: Block::default(),
            memos: Default::default(),
            written: Default::default(),
            content: None,
            peer: Peer {
                max_streams: STREAMS_UNTIL_TOLD,
                initial_window: DEFAULT_WINDOW as i32,
                max_header_list: usize::MAX,
                extended_connect: false,
            },
            send_window: DEFAULT_WINDOW as i32,
            receive_window: config.connection_window,
            credit: 0,
            line: VecDeque::new(),
            last_peer: 0,
            next: 1,
            closing: Closing::default(),
            settings_sent: 1,
            pinged: false,
            turn_over: false,
            config,
        }
    }

    /// Takes the next that came. Fills `head` where the event says so; answers of the connection itself are
    /// appended to `out`.
    pub fn receive<'a>(&mut self, input: &'a [u8], head: &mut Head, out: &mut Vec<u8>) -> Received<'a> {
        if std::mem::take(&mut self.turn_over) {
            self.budget.turn();
        }
        let mut consumed = 0;
        loop {
            if let Some(event) = self.due(out) {
                return Received { consumed, event: Some(event) };
            }
            if self.phase == Phase::Closed {
                return Received { consumed: input.len(), event: None };
            }
            if out.len() >= OUTPUT_LIMIT {
                break;
            }
            match self.step(&input[consumed..], head, out) {
                Ok((0, None)) => break,
                Ok((octets, None)) => consumed += octets,
                Ok((octets, event)) => return Received { consumed: consumed + octets, event },
                Err(fault) => {
                    let event = Some(self.fail(fault, out));
                    return Received { consumed: input.len(), event };
                }
            }
        }
        self.turn_over = true;
        Received { consumed, event: None }
    }

    /// The next frame, or what is there of a DATA frame.
    fn step<'a>(&mut self, input: &'a [u8], head: &mut Head, out: &mut Vec<u8>) -> Result<Step<'a>, Fault> {
        if let Some(content) = self.content {
            return Ok(self.go_on(content, input, out));
        }
        if self.phase == Phase::Preface {
            return self.preface(input);
        }
        let Some(octets) = input.first_chunk::<HEADER_LEN>() else { return Ok((0, None)) };
        let header = Header::parse(octets);
        self.check_order(header)?;
        if header.kind == kind::DATA {
            return self.data(header, &input[HEADER_LEN..], out);
        }
        let end = HEADER_LEN + header.length;
        let Some(payload) = input.get(HEADER_LEN..end) else { return Ok((0, None)) };
        let event = match frame::parse(header, payload)? {
            Frame::Headers { block } => self.headers(header, block, head, out)?,
            Frame::Continuation { block } => self.continuation(header, block, head, out)?,
            frame => self.control(header.stream, frame, out)?,
        };
        Ok((end, event))
    }

    fn preface<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Fault> {
        let there = input.len().min(PREFACE.len());
        if input[..there] != PREFACE[..there] {
            return Err(Fault::protocol("the connection does not begin with the preface of http/2"));
        }
        if there < PREFACE.len() {
            return Ok((0, None));
        }
        self.phase = Phase::Settings;
        Ok((there, None))
    }

    /// Whether a frame may come now.
    #[inline]
    fn check_order(&self, header: Header) -> Result<(), Fault> {
        if header.length > MAX_PAYLOAD {
            return Err(Fault::size("a frame is larger than allowed"));
        }
        if self.phase == Phase::Settings && (header.kind != kind::SETTINGS || header.has(flag::ACK)) {
            return Err(Fault::protocol("the connection does not begin with settings"));
        }
        let continues = header.kind == kind::CONTINUATION;
        if continues != (self.block.stream != 0) || (continues && header.stream != self.block.stream) {
            return Err(Fault::protocol("a header block is not followed by its continuation"));
        }
        Ok(())
    }

    /// What has become due without a frame of its own.
    #[inline]
    fn due(&mut self, out: &mut Vec<u8>) -> Option<Event<'static>> {
        if self.closing.report
            && let Some(event) = self.report_unprocessed(out)
        {
            return Some(event);
        }
        if self.line.is_empty() { None } else { self.serve_line(out) }
    }

    /// The connection cannot go on.
    #[cold]
    fn fail(&mut self, fault: Fault, out: &mut Vec<u8>) -> Event<'static> {
        self.phase = Phase::Closed;
        frame::write_go_away(self.last_peer, fault.code, fault.detail, out);
        Event::Closed { failure: fault.failure(self.role, Scope::Connection) }
    }

    /// A stream cannot go on because of what the peer did (RFC 9113, section 5.4.2).
    #[cold]
    fn fail_stream(
        &mut self,
        id: StreamId,
        fault: Fault,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        self.fail_stream_with(id, fault.failure(self.role, Scope::Message), out)
    }

    fn fail_stream_with(
        &mut self,
        id: StreamId,
        failure: Failure,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        if self.role == Role::Server {
            self.budget.reset()?;
        }
        let token = self.streams.get(id).map_or(0, |stream| stream.token);
        frame::write_reset(id.number, failure.code, out);
        self.forget(id, true, out);
        Ok(Some(Event::Reset { stream: id, token, failure, unprocessed: false }))
    }

    /// Removes a stream before its end; what of it is held no longer counts.
    fn forget(&mut self, id: StreamId, reset_by_us: bool, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get(id) else { return };
        let held = stream.held;
        if stream.in_line {
            self.line.retain(|other| *other != id);
        }
        self.streams.remove(id);
        self.tombs.add(id.number, reset_by_us);
        self.give_back(held, out);
    }

    /// Removes a stream if both sides are done with it, and nobody holds content of it.
    #[inline]
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id).filter(|stream| stream.is_ended()) else { return };
        let (held, refused) = (stream.held, stream.refused);
        if !refused {
            self.budget.answered();
        }
        self.tombs.add(id.number, false);
        if held == 0 {
            self.streams.remove(id);
        } else {
            self.streams.keep(id);
        }
    }

    /// Whether a stream with this number was never used by either side.
    fn is_idle(&self, number: u32) -> bool {
        let ours = (number % 2 == 1) == (self.role == Role::Client);
        if ours { number >= self.next } else { number > self.last_peer }
    }
}
