// SPDX-License-Identifier: Apache-2.0
//! Request bodies that can be sent again: what goes out is kept, up to a limit, until a try succeeds.
//!
//! Nothing is read ahead, so a streaming call is not held up. When more than the limit was read, or the
//! trailers, the kept part is given up and the body can no longer be sent again.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use weft_codec::body::{Body, BodyError, BodySource, Frame};

/// Bytes of one request's body that are kept for a retry.
const LIMIT: usize = 64 * 1024;

/// A body of which each try gets a copy.
#[derive(Clone, Debug)]
pub(crate) struct Replayable(Rc<RefCell<Kept>>);

#[derive(Debug)]
struct Kept {
    rest: Body,
    length: Option<u64>,
    frames: Vec<Bytes>,
    bytes: usize,
    /// The kept part is complete up to where `rest` continues.
    complete: bool,
}

struct Try {
    kept: Rc<RefCell<Kept>>,
    next: usize,
}

impl Replayable {
    /// Takes over a body.
    pub(crate) fn new(body: Body) -> Replayable {
        let length = body.content_length();
        Replayable(Rc::new(RefCell::new(Kept {
            rest: body,
            length,
            frames: Vec::new(),
            bytes: 0,
            complete: true,
        })))
    }

    /// The body from its first byte, if that is still kept. Only the last one handed out may be read.
    pub(crate) fn body(&self) -> Option<Body> {
        let complete = self.0.borrow().complete;
        complete.then(|| Body::from_source(Box::new(Try { kept: Rc::clone(&self.0), next: 0 })))
    }
}

impl BodySource for Try {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let kept = &mut *self.kept.borrow_mut();
        if let Some(frame) = kept.frames.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::Data(frame.clone()))));
        }
        let polled = kept.rest.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(Frame::Data(bytes))))
                if kept.complete && kept.bytes + bytes.len() <= LIMIT =>
            {
                kept.bytes += bytes.len();
                kept.frames.push(bytes.clone());
                self.next += 1;
            }
            Poll::Ready(Some(_)) => {
                kept.complete = false;
                kept.frames = Vec::new();
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn content_length(&self) -> Option<u64> {
        // Bodies are asked before they are read.
        self.kept.borrow().length
    }

    fn is_end(&self) -> bool {
        let kept = self.kept.borrow();
        self.next >= kept.frames.len() && kept.rest.is_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn content(mut body: Body) -> usize {
        let mut total = 0;
        while let Some(frame) = body.frame().await {
            match frame.expect("no error") {
                Frame::Data(bytes) => total += bytes.len(),
                Frame::Trailers(_) => panic!("there are no trailers"),
            }
        }
        total
    }

    #[tokio::test]
    async fn a_small_body_can_be_sent_again() {
        let body = Replayable::new(Body::full(Bytes::from(vec![0; LIMIT])));
        for _ in 0..3 {
            assert_eq!(content(body.body().expect("kept")).await, LIMIT);
        }
    }

    #[tokio::test]
    async fn a_body_that_was_read_in_part_is_sent_from_its_first_byte() {
        let inner = Replayable::new(Body::full(Bytes::from_static(b"abc")));
        let outer = Replayable::new(inner.body().expect("kept"));
        let mut first = outer.body().expect("kept");
        assert!(first.frame().await.is_some());
        drop(first);
        assert_eq!(content(outer.body().expect("kept")).await, 3);
    }

    #[tokio::test]
    async fn a_large_body_is_sent_once() {
        let body = Replayable::new(Body::full(Bytes::from(vec![0; LIMIT + 1])));
        assert_eq!(content(body.body().expect("kept")).await, LIMIT + 1);
        assert!(body.body().is_none());
    }
}
