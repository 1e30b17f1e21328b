// SPDX-License-Identifier: Apache-2.0
//! The client's end of a connection: requests out, responses in, one at a time.

use weft_ebpf_common::reason::Reason;

use super::{
    Event, Length, Limits, Received,
    content::Decoder,
    fields::Framing,
    parse,
    scan::Scan,
    server::misuse,
    write::{self, Encoder},
};
use crate::{
    error::{Error, Scope},
    head::{FieldName, Head, Method},
};

/// Whether a request whose connection ended may be sent again, to another connection or backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The server never saw the request.
    Safe,
    /// A reused connection was closed before the first byte of a response: if the method is idempotent
    /// (RFC 9110, section 9.2.2).
    IfIdempotent,
    /// The server may have acted on it.
    No,
}

/// The state machine of a connection to a server.
#[derive(Debug)]
pub struct Client {
    limits: Limits,
    reading: Reading,
    /// None: the whole request was written.
    writing: Option<Encoder>,
    scan: Scan,
    request: Request,
    /// Requests that were answered.
    answered: u64,
}

/// What the machine has to remember of the current request.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    is_head: bool,
    is_connect: bool,
    offer: Offer,
    /// The content waits for `100 Continue`.
    waits: bool,
    /// The server accepts another request after this response.
    keep_alive: bool,
    interim: usize,
    /// Something of a response came.
    heard: bool,
}

/// What the request offers to switch to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Offer {
    #[default]
    None,
    WebSocket,
    Other,
}

#[derive(Clone, Copy, Debug)]
enum Reading {
    /// Nothing was asked.
    Idle,
    Head,
    Content(Decoder),
    Tunnel,
    Closed,
}

/// Interim responses before a final one; a server has no reason to send more.
const MAX_INTERIM: usize = 16;

impl Client {
    /// A connection on which nothing was sent.
    pub fn new(limits: Limits) -> Client {
        Client {
            limits,
            reading: Reading::Idle,
            writing: None,
            scan: Scan::default(),
            request: Request::default(),
            answered: 0,
        }
    }

    /// Writes the head of a request. With `Expect: 100-continue` among its fields, and content,
    /// [`waits_for_continue`](Self::waits_for_continue) tells when to send that.
    pub fn send_head(&mut self, head: &Head, length: Length, out: &mut Vec<u8>) -> Result<(), Error> {
        if !self.is_idle() {
            return Err(misuse("a request on a connection that carries another"));
        }
        if head.method_text().is_empty() || head.protocol().is_some() {
            return Err(misuse("a request that has no form in HTTP/1.1"));
        }
        let encoder = write::request(head, length, out);
        let expects = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
        self.request = Request {
            is_head: head.method() == Method::Head,
            is_connect: head.method() == Method::Connect,
            offer: match head.upgrade() {
                None => Offer::None,
                Some(offer) if offer.eq_ignore_ascii_case(b"websocket") => Offer::WebSocket,
                Some(_) => Offer::Other,
            },
            waits: encoder != Encoder::None && head.known(FieldName::Expect).is_some_and(expects),
            ..Request::default()
        };
        self.writing = (encoder != Encoder::None).then_some(encoder);
        self.reading = Reading::Head;
        Ok(())
    }

    /// Whether the content of the request should wait for the server's word, or for as long as the caller
    /// is willing to (RFC 9110, section 10.1.1).
    pub fn waits_for_continue(&self) -> bool {
        self.request.waits
    }

    /// Whether more of the request is to be written.
    pub fn wants_content(&self) -> bool {
        self.writing.is_some()
    }

    /// Writes a piece of the request's content. Errs if it is more than was announced: the connection has
    /// to be closed.
    pub fn send_data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(behind) = self.open_data(data.len(), out)? {
            out.extend_from_slice(data);
            out.extend_from_slice(behind);
        }
        Ok(())
    }

    /// Writes what stands before a piece of this many bytes, which the caller then writes, and then what is
    /// returned. None: it is not to be written at all, since the server does not want it any more.
    pub fn open_data(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<Option<&'static [u8]>, Error> {
        let Some(encoder) = &mut self.writing else { return Ok(None) };
        self.request.waits = false;
        encoder.open(bytes, out).map(Some).ok_or_else(|| self.cut())
    }

    /// Ends the request with trailers, which only chunked content can have.
    pub fn send_trailers(&mut self, trailers: &Head, out: &mut Vec<u8>) -> Result<(), Error> {
        self.end(Some(trailers), out)
    }

    /// Ends the request. Errs if less was written than announced: the connection has to be closed.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.end(None, out)
    }

    fn end(&mut self, trailers: Option<&Head>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.request.waits = false;
        let complete = self.writing.take().is_none_or(|mut encoder| encoder.finish(trailers, out));
        if complete { Ok(()) } else { Err(self.cut()) }
    }

    fn cut(&mut self) -> Error {
        self.reading = Reading::Closed;
        let detail = "the request's content is not as long as announced";
        Error { scope: Scope::Message, ..Error::bad_request(detail) }
    }

    /// Takes the next event out of the input: how many bytes of it were used up, and what they gave. Call
    /// it until it gives nothing, also on a connection that waits for its next request: what comes then is
    /// an error, and the connection of no more use.
    ///
    /// `head` is filled by [`Event::Head`] and [`Event::Trailers`], and may be any other one while neither
    /// was given. After an error the connection ends.
    pub fn receive<'a>(&mut self, input: &'a [u8], head: &mut Head) -> Result<Received<'a>, Error> {
        let received = match &mut self.reading {
            Reading::Idle if input.is_empty() => return Ok((0, None)),
            Reading::Idle => Err(Error::upstream("bytes that answer no request")),
            Reading::Head if input.is_empty() => return Ok((0, None)),
            Reading::Head => self.receive_head(input, head),
            Reading::Content(decoder) => match decoder.receive(input, head, &self.limits) {
                Ok((used, Some(event @ (Event::End | Event::Trailers)))) => {
                    self.complete();
                    Ok((used, Some(event)))
                }
                other => other,
            },
            Reading::Tunnel | Reading::Closed => return Ok((0, None)),
        };
        received.map_err(|error| {
            self.reading = Reading::Closed;
            error.of_upstream()
        })
    }

    fn receive_head<'a>(&mut self, input: &'a [u8], head: &mut Head) -> Result<Received<'a>, Error> {
        self.request.heard = true;
        let limits = &self.limits;
        let read = parse::section(&mut self.scan, &limits.of_response(), input, head, |input, head| {
            parse::response(input, head, limits)
        })?;
        let Some((len, outline)) = read else { return Ok((0, None)) };
        let status = head.status();
        match status {
            101 => self.switch(head)?,
            100..=199 => self.take_interim(status)?,
            200..=299 if self.request.is_connect => self.reading = Reading::Tunnel,
            _ => {
                if self.request.waits {
                    // A final response to a request that waited: its content is not wanted (RFC 9110,
                    // section 10.1.1).
                    self.request.waits = false;
                    self.writing = None;
                    self.request.keep_alive = false;
                } else {
                    self.request.keep_alive = outline.keep_alive;
                }
                self.reading = Reading::Content(match outline.framing {
                    _ if self.request.is_head || matches!(status, 204 | 304) => Decoder::Done,
                    Framing::Bytes(bytes) => Decoder::length(bytes),
                    Framing::Chunked => Decoder::chunked(),
                    Framing::Unsaid => Decoder::UntilClose,
                });
            }
        }
        Ok((len, Some(Event::Head)))
    }

    /// A server may switch only to what was offered, and only once it has the whole request (RFC 9110,
    /// section 7.8).
    fn switch(&mut self, head: &Head) -> Result<(), Error> {
        let offered = match (self.request.offer, head.upgrade()) {
            (Offer::None, _) | (_, None) => false,
            (Offer::WebSocket, Some(answer)) => answer.eq_ignore_ascii_case(b"websocket"),
            (Offer::Other, Some(_)) => true,
        };
        if !offered || self.writing.is_some() {
            return Err(Error::upstream("the server switched protocols without being asked"));
        }
        self.reading = Reading::Tunnel;
        Ok(())
    }

    fn take_interim(&mut self, status: u16) -> Result<(), Error> {
        self.request.interim += 1;
        if self.request.interim > MAX_INTERIM {
            return Err(Error::upstream("the server sent too many interim responses"));
        }
        if status == 100 {
            self.request.waits = false;
        }
        Ok(())
    }

    /// The response was read to its end.
    fn complete(&mut self) {
        self.answered += 1;
        // A server that answers before it has the whole request may not read the rest.
        let reusable = self.request.keep_alive && self.writing.take().is_none();
        self.reading = if reusable { Reading::Idle } else { Reading::Closed };
    }

    /// The server sends nothing more, and the input that is left gave no event. That is the end of content
    /// without length, and the cut of any other.
    pub fn received_end(&mut self) -> Result<Option<Event<'static>>, Error> {
        let reading = std::mem::replace(&mut self.reading, Reading::Closed);
        let cut = |detail| Error { reason: Reason::UpstreamReset, ..Error::upstream(detail) };
        match reading {
            Reading::Content(Decoder::UntilClose | Decoder::Done) => {
                self.answered += 1;
                Ok(Some(Event::End))
            }
            Reading::Content(_) => Err(cut("the server closed inside the response")),
            Reading::Head => Err(cut("the server closed before its response")),
            Reading::Idle | Reading::Closed => Ok(None),
            Reading::Tunnel => {
                self.reading = Reading::Tunnel;
                Ok(None)
            }
        }
    }

    /// Whether the current request may be sent again, after the connection ended before its response.
    /// `sent`: whether the socket took any byte of it.
    pub fn retry(&self, sent: bool) -> Retry {
        match sent {
            _ if self.request.heard => Retry::No,
            false => Retry::Safe,
            true if self.answered > 0 => Retry::IfIdempotent,
            true => Retry::No,
        }
    }

    /// What is known of the length of what is left of the response's content.
    pub fn content_length(&self) -> Length {
        match &self.reading {
            Reading::Content(decoder) => decoder.remaining().map_or(Length::Unknown, Length::Bytes),
            _ => Length::Bytes(0),
        }
    }

    /// Requests that were answered to their end.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Whether the connection can carry a request: the last one and its response are complete.
    pub fn is_idle(&self) -> bool {
        matches!(self.reading, Reading::Idle)
    }

    /// Whether the connection is of no more use.
    pub fn wants_close(&self) -> bool {
        matches!(self.reading, Reading::Closed)
    }

    /// Whether the connection is a tunnel: what comes is no longer HTTP, nor is what is left of the input.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.reading, Reading::Tunnel)
    }
}
