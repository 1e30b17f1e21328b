// SPDX-License-Identifier: Apache-2.0
//! A response's body that has to be complete in time.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::{Sleep, sleep_until};
use weft_codec::body::{Body, BodyError, BodySource, Frame};
use weft_ebpf_common::reason::Reason;

struct Deadline {
    body: Body,
    sleep: Pin<Box<Sleep>>,
}

/// The body, cut with `UpstreamTimeout` if it is not complete at the deadline.
pub(crate) fn body_until(body: Body, deadline: Instant) -> Body {
    let sleep = Box::pin(sleep_until(deadline.into()));
    Body::from_source(Box::new(Deadline { body, sleep }))
}

impl BodySource for Deadline {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.body.poll_frame(cx) {
            Poll::Pending if self.sleep.as_mut().poll(cx).is_ready() => {
                let detail = "the response was not complete within the route's timeout";
                Poll::Ready(Some(Err(BodyError { reason: Reason::UpstreamTimeout, detail })))
            }
            polled => polled,
        }
    }

    fn content_length(&self) -> Option<u64> {
        self.body.content_length()
    }

    fn is_end(&self) -> bool {
        self.body.is_end()
    }
}
