// SPDX-License-Identifier: Apache-2.0
//! The content of a message, whatever carries it.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use weft_ebpf_common::reason::Reason;

use crate::{headers::Headers, io::RawStream};

/// A piece of a body.
#[derive(Debug)]
pub enum Frame {
    /// Content; never empty.
    Data(Bytes),
    /// The trailer section; the last frame.
    Trailers(Headers),
}

/// A body that could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct BodyError {
    /// Whose fault: `ClientReset`, `BadRequest`, `RequestTimeout` for a request's body,
    /// `UpstreamReset`, `UpstreamProtocol`, `UpstreamTimeout` for a response's.
    pub reason: Reason,
    /// What was wrong.
    pub detail: &'static str,
}

/// Where a body comes from that is not in memory: a connection, or the caller.
pub trait BodySource {
    /// The next frame; none at the end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;

    /// Bytes that are still to come, if known.
    fn content_length(&self) -> Option<u64>;

    /// Whether the next frame is known to be none.
    fn is_end(&self) -> bool;
}

/// The content of a message.
///
/// Dropping a body before its end does what its connection needs: an HTTP/2 stream is reset with
/// CANCEL, an HTTP/1.1 upstream is closed, an HTTP/1.1 client's rest is read up to
/// [`max_drain_bytes`](crate::config::H1Config::max_drain_bytes) or its connection is closed.
pub struct Body {
    kind: Kind,
}

enum Kind {
    Empty,
    Full(Bytes),
    Upgraded(RawStream),
    Source(Box<dyn BodySource>),
}

impl Body {
    /// No content.
    pub const fn empty() -> Self {
        Body { kind: Kind::Empty }
    }

    /// These bytes.
    pub fn full(bytes: Bytes) -> Self {
        Body { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) } }
    }

    /// A body that `source` produces.
    pub fn from_source(source: Box<dyn BodySource>) -> Self {
        Body { kind: Kind::Source(source) }
    }

    /// No content, and the raw stream of an upstream that answered 101.
    pub(crate) fn upgraded(stream: RawStream) -> Self {
        Body { kind: Kind::Upgraded(stream) }
    }

    /// The next frame; none at the end. Cancel safe.
    pub async fn frame(&mut self) -> Option<Result<Frame, BodyError>> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// As [`frame`](Self::frame).
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match &mut self.kind {
            Kind::Empty | Kind::Upgraded(_) => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::Data(bytes))))
            }
            Kind::Source(source) => source.poll_frame(cx),
        }
    }

    /// Bytes that are still to come, if known before they are read.
    pub fn content_length(&self) -> Option<u64> {
        match &self.kind {
            Kind::Empty | Kind::Upgraded(_) => Some(0),
            Kind::Full(bytes) => Some(bytes.len() as u64),
            Kind::Source(source) => source.content_length(),
        }
    }

    /// Whether nothing is to come, trailers included. False does not promise a frame.
    pub fn is_end(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Upgraded(_) => true,
            Kind::Full(_) => false,
            Kind::Source(source) => source.is_end(),
        }
    }

    /// A second body with the same content, if all of it is in memory: what a retry or a mirror sends.
    pub(crate) fn duplicate(&self) -> Option<Body> {
        match &self.kind {
            Kind::Empty => Some(Body::empty()),
            Kind::Full(bytes) => Some(Body::full(bytes.clone())),
            _ => None,
        }
    }

    /// Reads the whole content into memory. `Err` carries a body with what was read and the rest, if
    /// the content is longer than `limit` bytes or has trailers.
    pub async fn buffer(mut self, limit: usize) -> Result<Result<Bytes, Body>, BodyError> {
        let mut read: Vec<Bytes> = Vec::new();
        let mut total = 0;
        if self.content_length().is_some_and(|length| length > limit as u64) {
            return Ok(Err(self));
        }
        loop {
            match self.frame().await.transpose()? {
                None => break,
                Some(Frame::Data(bytes)) => {
                    total += bytes.len();
                    read.push(bytes);
                    if total > limit {
                        return Ok(Err(Replay::body(read, None, self)));
                    }
                }
                Some(Frame::Trailers(trailers)) => return Ok(Err(Replay::body(read, Some(trailers), self))),
            }
        }
        Ok(Ok(match read.len() {
            1 => read.swap_remove(0),
            _ => read.concat().into(),
        }))
    }

    /// The raw stream of an upstream that answered 101; the body itself otherwise.
    pub fn into_upgraded(self) -> Result<RawStream, Body> {
        match self.kind {
            Kind::Upgraded(stream) => Ok(stream),
            kind => Err(Body { kind }),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Body::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body::full(bytes)
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Upgraded(_) => "upgraded",
            Kind::Source(_) => "source",
        };
        f.debug_struct("Body").field("kind", &kind).field("content_length", &self.content_length()).finish()
    }
}

/// Frames that were read ahead, and then the rest of the body that they came from.
struct Replay {
    read: std::collections::VecDeque<Bytes>,
    trailers: Option<Headers>,
    rest: Body,
}

impl Replay {
    fn body(read: Vec<Bytes>, trailers: Option<Headers>, rest: Body) -> Body {
        Body::from_source(Box::new(Replay { read: read.into(), trailers, rest }))
    }
}

impl BodySource for Replay {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(bytes) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::Data(bytes))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::Trailers(trailers))));
        }
        self.rest.poll_frame(cx)
    }

    fn content_length(&self) -> Option<u64> {
        let read: usize = self.read.iter().map(Bytes::len).sum();
        // Trailers need chunked framing, so a body with trailers has no length.
        self.rest.content_length().filter(|_| self.trailers.is_none()).map(|rest| rest + read as u64)
    }

    fn is_end(&self) -> bool {
        self.read.is_empty() && self.trailers.is_none() && self.rest.is_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_replayed_from_its_first_byte() {
        let source =
            Replay::body(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cd")], None, Body::empty());
        let mut replay = source.buffer(3).await.expect("no error").expect_err("too long");
        assert_eq!(replay.content_length(), Some(4));
        let mut content = Vec::new();
        while let Some(frame) = replay.frame().await {
            match frame.expect("no error") {
                Frame::Data(bytes) => content.extend_from_slice(&bytes),
                Frame::Trailers(_) => panic!("there are no trailers"),
            }
        }
        assert_eq!(content, b"abcd");
    }

    #[tokio::test]
    async fn a_body_within_the_limit_becomes_bytes() {
        let source =
            Replay::body(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cd")], None, Body::empty());
        assert_eq!(source.buffer(4).await.expect("no error").expect("short"), "abcd");
    }
}
