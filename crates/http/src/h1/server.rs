// SPDX-License-Identifier: Apache-2.0
//! The server's end of a connection: requests in, responses out, one at a time.
//!
//! The bytes of a pipeline stay with the caller until the response before them is finished, so that
//! nothing is held here. What may follow a response is decided when its head is written, since that has to
//! say whether the connection stays.

use weft_ebpf_common::reason::Reason;

use super::{
    Event, Length, Limits, Received,
    content::Decoder,
    fields::Framing,
    parse,
    scan::Scan,
    write::{self, Encoder, Plan},
};
use crate::{
    error::{Error, Scope},
    head::{Head, Method, Scheme, Version},
};

/// The state machine of a connection from a client.
#[derive(Debug)]
pub struct Server {
    limits: Limits,
    scheme: Scheme,
    reading: Reading,
    writing: Writing,
    scan: Scan,
    request: Request,
    /// The peer sends nothing more.
    ended: bool,
    /// The caller wants no further request.
    leaving: bool,
}

/// What the machine has to remember of the current request.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    plan: Plan,
    is_connect: bool,
    offers_upgrade: bool,
    /// The client waits for `100 Continue` and has not got it.
    wants_continue: bool,
}

#[derive(Clone, Copy, Debug)]
enum Reading {
    /// The next request; whether an empty line before it was skipped.
    Head {
        skipped: bool,
    },
    Content(Decoder),
    /// The request was read to its end, and its response is not finished.
    Ended,
    /// The response is finished, and so many bytes of the request may still be read away.
    Drain(Decoder, u64),
    /// Whatever comes is the tunnel's.
    Tunnel,
    /// Nothing more is read.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    /// There is no request to respond to.
    Idle,
    Head,
    Content(Encoder),
}

impl Server {
    /// A connection on which nothing was read. `scheme` is that of requests, which do not say it.
    pub fn new(limits: Limits, scheme: Scheme) -> Server {
        Server {
            limits,
            scheme,
            reading: Reading::Head { skipped: false },
            writing: Writing::Idle,
            scan: Scan::default(),
            request: Request::default(),
            ended: false,
            leaving: false,
        }
    }

    /// Takes the next event out of the input: how many bytes of it were used up, and what they gave. Call
    /// it until it gives nothing, also after each response, with what is left and whatever follows that.
    ///
    /// `head` is filled by [`Event::Head`] and [`Event::Trailers`], and may be any other one while neither
    /// was given: nothing of an incomplete head is kept in it.
    ///
    /// After an error the connection ends: [`refuse`](Self::refuse) answers, where something can be.
    pub fn receive<'a>(&mut self, input: &'a [u8], head: &mut Head) -> Result<Received<'a>, Error> {
        let received = match &mut self.reading {
            Reading::Head { .. } => self.receive_head(input, head),
            Reading::Content(decoder) => {
                let received = decoder.receive(input, head, &self.limits);
                match received {
                    Ok((_, Some(Event::Data(_)))) => self.request.wants_continue = false,
                    Ok((_, Some(_))) => self.reading = Reading::Ended,
                    Ok((_, None)) if self.ended => return self.received_end().map(|()| (0, None)),
                    _ => {}
                }
                received
            }
            Reading::Drain(..) => {
                let at = self.drain(input, head);
                match self.reading {
                    // What is left is of the next request.
                    Reading::Head { .. } if at < input.len() => {
                        self.receive_head(&input[at..], head).map(|(used, event)| (at + used, event))
                    }
                    _ => return Ok((at, None)),
                }
            }
            Reading::Ended | Reading::Tunnel | Reading::Closed => return Ok((0, None)),
        };
        if received.is_err() {
            self.reading = Reading::Closed;
        }
        received
    }

    fn receive_head<'a>(&mut self, input: &'a [u8], head: &mut Head) -> Result<Received<'a>, Error> {
        let mut at = 0;
        if let (Reading::Head { skipped: false }, Some([b'\r', b'\n'])) = (self.reading, input.get(..2)) {
            // One empty line before a request is ignored (RFC 9112, section 2.2).
            self.reading = Reading::Head { skipped: true };
            self.scan = Scan::default();
            at = 2;
        }
        let rest = &input[at..];
        if rest.is_empty() {
            if self.ended {
                self.reading = Reading::Closed;
            }
            return Ok((at, None));
        }
        let (limits, scheme) = (&self.limits, self.scheme);
        let read = parse::section(&mut self.scan, &limits.of_request(), rest, head, |input, head| {
            parse::request(input, head, limits, scheme)
        })?;
        let Some((len, outline)) = read else {
            return if self.ended { Err(CLOSED_IN_HEAD) } else { Ok((at, None)) };
        };
        let decoder = match outline.framing {
            Framing::Unsaid => Decoder::Done,
            Framing::Bytes(bytes) => Decoder::length(bytes),
            Framing::Chunked => Decoder::chunked(),
        };
        self.request = Request {
            plan: Plan {
                is_head: head.method() == Method::Head,
                version: head.version(),
                close: !outline.keep_alive,
            },
            is_connect: head.method() == Method::Connect,
            offers_upgrade: head.upgrade().is_some(),
            wants_continue: outline.expects_continue && !decoder.is_done(),
        };
        self.reading = Reading::Content(decoder);
        self.writing = Writing::Head;
        Ok((at + len, Some(Event::Head)))
    }

    /// Reads away what is left of a request that was answered; how much of the input that was.
    fn drain(&mut self, input: &[u8], head: &mut Head) -> usize {
        let mut at = 0;
        while let Reading::Drain(decoder, budget) = &mut self.reading {
            match decoder.receive(&input[at..], head, &self.limits) {
                Ok((used, Some(Event::Data(data)))) if data.len() as u64 <= *budget => {
                    *budget -= data.len() as u64;
                    at += used;
                }
                Ok((used, None)) => {
                    if self.ended {
                        self.reading = Reading::Closed;
                    }
                    return at + used;
                }
                Ok((used, Some(Event::End | Event::Trailers))) => {
                    at += used;
                    self.reading = Reading::Head { skipped: false };
                }
                // Too much, or malformed: its response is gone already.
                Ok(_) | Err(_) => self.reading = Reading::Closed,
            }
        }
        at
    }

    /// The peer sends nothing more, and the input that is left gave no event. A client that closed its side
    /// only still waits for its answers.
    pub fn received_end(&mut self) -> Result<(), Error> {
        self.ended = true;
        match &self.reading {
            Reading::Head { .. } if self.scan.has_begun() => {
                self.reading = Reading::Closed;
                Err(CLOSED_IN_HEAD)
            }
            Reading::Content(decoder) if !decoder.is_done() => {
                self.reading = Reading::Closed;
                Err(CLOSED_IN_CONTENT)
            }
            Reading::Head { .. } | Reading::Drain(..) => {
                self.reading = Reading::Closed;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What is known of the length of what is left of the current request's content.
    pub fn content_length(&self) -> Length {
        match &self.reading {
            Reading::Content(decoder) => decoder.remaining().map_or(Length::Unknown, Length::Bytes),
            _ => Length::Bytes(0),
        }
    }

    /// Whether the client waits for `100 Continue` before it sends its content. Once content came, it does
    /// not.
    pub fn expects_continue(&self) -> bool {
        self.request.wants_continue && self.writing == Writing::Head
    }

    /// Tells a client that waits for it to send its content; nothing to one that does not.
    pub fn send_continue(&mut self, out: &mut Vec<u8>) {
        if self.expects_continue() {
            self.request.wants_continue = false;
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Writes the head of the response to the current request. An interim one leaves the final one to come;
    /// 101 to an offer, and 2xx to CONNECT, make the connection a tunnel. `length` is that of the content:
    /// for HEAD and 304 the one that it would have, as far as the head does not say it.
    pub fn send_head(&mut self, head: &Head, length: Length, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.writing != Writing::Head {
            return Err(misuse("a response that no request waits for"));
        }
        match head.status() {
            101 => return self.switch(head, out),
            100..=199 => {
                self.send_interim(head, out);
                return Ok(());
            }
            200..=299 if self.request.is_connect => {
                write::bare(head, out);
                self.become_tunnel();
                return Ok(());
            }
            0 => return Err(misuse("a response without status")),
            _ => {}
        }
        let mut plan = self.request.plan;
        // What follows a CONNECT that is refused may be meant for a tunnel, and is no request.
        plan.close |= self.leaving || self.request.is_connect || !self.can_drain();
        let encoder = write::response(&mut plan, head, length, out);
        self.request.plan.close = plan.close;
        // An interim response may not follow the final one.
        self.request.wants_continue = false;
        self.writing = Writing::Content(encoder);
        Ok(())
    }

    /// An HTTP/1.0 client knows no interim responses (RFC 9110, section 15.2).
    fn send_interim(&mut self, head: &Head, out: &mut Vec<u8>) {
        if self.request.plan.version == Version::Http11 {
            write::bare(head, out);
            self.request.wants_continue &= head.status() != 100;
        }
    }

    fn switch(&mut self, head: &Head, out: &mut Vec<u8>) -> Result<(), Error> {
        let complete = match &self.reading {
            Reading::Content(decoder) => decoder.is_done(),
            reading => matches!(reading, Reading::Ended),
        };
        if !self.request.offers_upgrade || head.upgrade().is_none() || !complete {
            return Err(Error { scope: Scope::Message, ..Error::upstream("a switch that nobody offered") });
        }
        write::bare(head, out);
        self.become_tunnel();
        Ok(())
    }

    fn become_tunnel(&mut self) {
        self.reading = Reading::Tunnel;
        self.writing = Writing::Idle;
    }

    /// Whether the rest of the request may be read away, so that the connection can be kept.
    fn can_drain(&self) -> bool {
        match &self.reading {
            Reading::Ended => true,
            Reading::Content(decoder) => {
                let small = decoder.remaining().is_none_or(|rest| rest <= self.limits.drain_bytes);
                // A client that waits for 100 may or may not send its content: nobody can tell what comes
                // next.
                small && (decoder.is_done() || !self.request.wants_continue)
            }
            _ => false,
        }
    }

    /// Writes a piece of the response's content; nothing for a response that has none, such as one to HEAD.
    /// Errs if it is more than was announced: the connection has to be cut.
    pub fn send_data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(behind) = self.open_data(data.len(), out)? {
            out.extend_from_slice(data);
            out.extend_from_slice(behind);
        }
        Ok(())
    }

    /// Writes what stands before a piece of this many bytes, which the caller then writes, and then what is
    /// returned. None: it is not to be written at all.
    pub fn open_data(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<Option<&'static [u8]>, Error> {
        match &mut self.writing {
            Writing::Content(Encoder::None) => Ok(None),
            Writing::Content(encoder) => encoder.open(bytes, out).map(Some).ok_or_else(|| self.cut()),
            _ => Err(misuse("content without the head of a response")),
        }
    }

    /// Ends the response with trailers, which only chunked content can have.
    pub fn send_trailers(&mut self, trailers: &Head, out: &mut Vec<u8>) -> Result<(), Error> {
        self.end(Some(trailers), out)
    }

    /// Ends the response. Errs if less was written than announced: the connection has to be cut.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.end(None, out)
    }

    fn end(&mut self, trailers: Option<&Head>, out: &mut Vec<u8>) -> Result<(), Error> {
        match &mut self.writing {
            Writing::Content(encoder) => {
                if !encoder.finish(trailers, out) {
                    return Err(self.cut());
                }
            }
            _ => return Err(misuse("the end of a response that was not begun")),
        }
        self.writing = Writing::Idle;
        self.reading = match self.reading {
            _ if self.request.plan.close => Reading::Closed,
            Reading::Content(Decoder::Done) | Reading::Ended => Reading::Head { skipped: false },
            Reading::Content(decoder) => Reading::Drain(decoder, self.limits.drain_bytes),
            other => other,
        };
        Ok(())
    }

    /// The response's content is not as long as was announced.
    fn cut(&mut self) -> Error {
        self.writing = Writing::Idle;
        self.reading = Reading::Closed;
        let detail = "the response's content is not as long as announced";
        Error { reason: Reason::UpstreamReset, status: None, scope: Scope::Connection, detail }
    }

    /// Answers a request that could not be read, where it has no response yet and the error has a status.
    /// The connection is to be closed then: what follows cannot be trusted.
    pub fn refuse(&mut self, error: &Error, out: &mut Vec<u8>) {
        self.reading = Reading::Closed;
        let begun = matches!(self.writing, Writing::Content(_));
        self.writing = Writing::Idle;
        let mut head = Head::new();
        if let Some(status) = error.status
            && !begun
            && head.start_response(status).is_ok()
        {
            // Not to a HEAD either: a reader that cannot be understood is told where the answer ends.
            let mut plan = Plan { is_head: false, version: Version::Http11, close: true };
            write::response(&mut plan, &head, Length::Bytes(0), out);
        }
    }

    /// Takes no further request: the response that is under way, or the next one, says so.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Whether the connection is to be closed once everything was written.
    pub fn wants_close(&self) -> bool {
        self.writing == Writing::Idle
            && match self.reading {
                Reading::Closed => true,
                Reading::Head { .. } => self.leaving && !self.scan.has_begun(),
                _ => false,
            }
    }

    /// Whether the connection waits for a request of which nothing came.
    pub fn is_idle(&self) -> bool {
        matches!(self.reading, Reading::Head { .. }) && !self.scan.has_begun()
    }

    /// Whether the connection is a tunnel: what comes is no longer HTTP, nor is what is left of the input.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.reading, Reading::Tunnel)
    }
}

const CLOSED_IN_HEAD: Error = closed("the client closed inside a head");
const CLOSED_IN_CONTENT: Error = closed("the client closed inside the content");

/// Nobody is left to be answered.
const fn closed(detail: &'static str) -> Error {
    Error { reason: Reason::ClientReset, status: None, scope: Scope::Connection, detail }
}

/// What a correct caller does not do; the request it does it to is lost, not the process.
pub(super) const fn misuse(detail: &'static str) -> Error {
    Error::new(Reason::Internal, 500, detail)
}
