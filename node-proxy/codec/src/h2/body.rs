// SPDX-License-Identifier: Apache-2.0
//! Content on HTTP/2 streams, in and out, within the windows of both.

use std::{
    cell::Cell,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use weft_ebpf_common::reason::Reason;

use crate::{
    body::{Body, BodyError, BodySource, Frame},
    headers::Headers,
    timer::Timer,
};

/// Which end of the proxy a stream belongs to: names whose fault an error is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Upstream,
}

impl Side {
    fn error(self, error: &h2::Error) -> BodyError {
        let malformed = error.is_library() || error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
        match self {
            Side::Client if malformed => {
                BodyError { reason: Reason::BadRequest, detail: "the request's stream broke the protocol" }
            }
            Side::Client => BodyError { reason: Reason::ClientReset, detail: "the client reset the stream" },
            Side::Upstream if malformed => BodyError {
                reason: Reason::UpstreamProtocol,
                detail: "the response's stream broke the protocol",
            },
            Side::Upstream => {
                BodyError { reason: Reason::UpstreamReset, detail: "the server reset the stream" }
            }
        }
    }

    const fn timeout(self) -> BodyError {
        match self {
            Side::Client => {
                BodyError { reason: Reason::RequestTimeout, detail: "the client stopped inside the body" }
            }
            Side::Upstream => BodyError {
                reason: Reason::UpstreamTimeout,
                detail: "the server stopped inside the response",
            },
        }
    }
}

/// The receiving half of a stream.
struct Receiver {
    stream: RecvStream,
    side: Side,
    length: Option<u64>,
    data_ended: bool,
    ended: bool,
    timer: Timer,
    timeout: Duration,
}

impl Receiver {
    fn new(stream: RecvStream, side: Side, length: Option<u64>, timeout: Duration) -> Self {
        Receiver { stream, side, length, data_ended: false, ended: false, timer: Timer::default(), timeout }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let polled = self.poll_stream(cx);
        if polled.is_ready() {
            self.timer.clear();
        } else if self.timer.poll_expired(cx, self.timeout) {
            return Poll::Ready(Some(Err(self.side.timeout())));
        }
        polled
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    if let Some(length) = &mut self.length {
                        *length = length.saturating_sub(bytes.len() as u64);
                    }
                    // The bytes are on their way to the other end, whose own window holds them back.
                    if let Err(error) = self.stream.flow_control().release_capacity(bytes.len()) {
                        return Poll::Ready(Some(Err(self.side.error(&error))));
                    }
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::Data(bytes))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.side.error(&error)))),
                None => self.data_ended = true,
            }
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.ended = true;
        Poll::Ready(match trailers {
            Ok(Some(map)) => Some(Ok(Frame::Trailers(Headers::from_map(map)))),
            Ok(None) => None,
            Err(error) => Some(Err(self.side.error(&error))),
        })
    }

    fn is_end(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }
}

/// The content of a request that a client sends.
pub(super) struct H2RequestBody {
    receiver: Receiver,
    received: Rc<Cell<u64>>,
}

impl H2RequestBody {
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        timeout: Duration,
        received: Rc<Cell<u64>>,
    ) -> Self {
        H2RequestBody { receiver: Receiver::new(stream, Side::Client, length, timeout), received }
    }
}

impl BodySource for H2RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let polled = self.receiver.poll_frame(cx);
        if let Poll::Ready(Some(Ok(Frame::Data(bytes)))) = &polled {
            self.received.set(self.received.get() + bytes.len() as u64);
        }
        polled
    }

    fn content_length(&self) -> Option<u64> {
        self.receiver.length
    }

    fn is_end(&self) -> bool {
        self.receiver.is_end()
    }
}

/// Counts one stream for as long as the request or its response lives.
pub(super) struct OpenStream {
    open: Rc<Cell<usize>>,
}

impl OpenStream {
    pub(super) fn new(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        OpenStream { open: open.clone() }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.open.set(self.open.get().saturating_sub(1));
    }
}

/// The content of a response that an upstream sends; sends the rest of the request meanwhile.
pub(super) struct H2ResponseBody {
    receiver: Receiver,
    upload: Option<Box<Sender>>,
    _open: OpenStream,
}

impl H2ResponseBody {
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        timeout: Duration,
        upload: Option<Box<Sender>>,
        open: OpenStream,
    ) -> Self {
        H2ResponseBody {
            receiver: Receiver::new(stream, Side::Upstream, length, timeout),
            upload,
            _open: open,
        }
    }
}

impl BodySource for H2ResponseBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        // How the request ended is for the server to judge: its response is what counts here.
        if let Some(upload) = &mut self.upload
            && upload.poll_send(cx).is_ready()
        {
            self.upload = None;
        }
        self.receiver.poll_frame(cx)
    }

    fn content_length(&self) -> Option<u64> {
        self.receiver.length
    }

    fn is_end(&self) -> bool {
        self.receiver.is_end()
    }
}

/// The sending half of a stream, with the body that feeds it.
pub(super) struct Sender {
    stream: SendStream<Bytes>,
    body: Body,
    side: Side,
    /// Taken from the body, waiting for window.
    waiting: Bytes,
    touched: bool,
    pub(super) sent: u64,
    timer: Timer,
    timeout: Duration,
}

impl Sender {
    pub(super) fn new(stream: SendStream<Bytes>, body: Body, side: Side, timeout: Duration) -> Self {
        Sender {
            stream,
            body,
            side,
            waiting: Bytes::new(),
            touched: false,
            sent: 0,
            timer: Timer::default(),
            timeout,
        }
    }

    /// Sends what the windows allow; ready at the end of the body. On an error of the body the stream is reset.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            if !self.waiting.is_empty() {
                match ready!(self.poll_waiting(cx)) {
                    Ok(true) => return Poll::Ready(Ok(())),
                    Ok(false) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
                continue;
            }
            let frame = ready!(self.body.poll_frame(cx));
            self.touched = true;
            let sent = match frame {
                Some(Ok(Frame::Data(bytes))) => {
                    self.waiting = bytes;
                    continue;
                }
                Some(Ok(Frame::Trailers(trailers))) => {
                    let mut map = trailers.into_map();
                    // Framing means nothing in a trailer section (RFC 9110 section 6.5.1).
                    map.remove(http::header::CONTENT_LENGTH);
                    self.stream.send_trailers(map)
                }
                None => self.stream.send_data(Bytes::new(), true),
                Some(Err(error)) => {
                    self.stream.send_reset(reset_code(error.reason));
                    return Poll::Ready(Err(error));
                }
            };
            return Poll::Ready(sent.map_err(|error| self.side.error(&error)));
        }
    }

    /// Sends of `waiting` what the window allows; true if that was the end of the body.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        self.stream.reserve_capacity(self.waiting.len());
        let mut capacity = self.stream.capacity();
        if capacity == 0 {
            capacity = match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(capacity))) => capacity,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.side.error(&error))),
                Poll::Ready(None) => return Poll::Ready(Err(self.closed())),
                Poll::Pending if self.timer.poll_expired(cx, self.timeout) => {
                    self.stream.send_reset(h2::Reason::CANCEL);
                    return Poll::Ready(Err(self.stalled()));
                }
                Poll::Pending => return Poll::Pending,
            };
        }
        self.timer.clear();
        let piece = self.waiting.split_to(capacity.min(self.waiting.len()));
        let last = self.waiting.is_empty() && self.body.is_end();
        self.sent += piece.len() as u64;
        let sent = self.stream.send_data(piece, last);
        Poll::Ready(sent.map(|()| last).map_err(|error| self.side.error(&error)))
    }

    fn closed(&self) -> BodyError {
        match self.side {
            Side::Client => BodyError { reason: Reason::ClientReset, detail: "the client closed the stream" },
            Side::Upstream => {
                BodyError { reason: Reason::UpstreamReset, detail: "the server closed the stream" }
            }
        }
    }

    fn stalled(&self) -> BodyError {
        match self.side {
            Side::Client => BodyError { reason: Reason::ClientReset, detail: "the client stopped reading" },
            Side::Upstream => {
                BodyError { reason: Reason::UpstreamTimeout, detail: "the server stopped reading" }
            }
        }
    }

    /// Ready when the peer reset the stream.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_reason| ())
    }

    /// The body, if nothing of it was taken.
    pub(super) fn into_untouched(self) -> Option<Body> {
        (!self.touched).then_some(self.body)
    }
}

/// The code that tells the peer why its message ends here (RFC 9113 section 7).
fn reset_code(reason: Reason) -> h2::Reason {
    match reason {
        Reason::ClientReset | Reason::RequestTimeout => h2::Reason::CANCEL,
        Reason::BadRequest => h2::Reason::PROTOCOL_ERROR,
        _ => h2::Reason::INTERNAL_ERROR,
    }
}
