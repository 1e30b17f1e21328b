// SPDX-License-Identifier: Apache-2.0
//! The content of a request on its way to the server.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use weft_ebpf_common::reason::Reason;

use super::{encode::Encoder, failure::Failure, wire::Output};
use crate::{
    body::{Body, BodyError, Frame},
    timer::Timer,
};

/// The content of a request that is being sent.
pub(super) struct Upload {
    body: Body,
    encoder: Encoder,
    touched: bool,
    /// Waits for `100 Continue`, until the timer passes.
    held: Option<Timer>,
}

impl Upload {
    pub(super) fn new(body: Body, encoder: Encoder, held: bool) -> Self {
        Upload { body, encoder, touched: false, held: held.then(Timer::default) }
    }

    /// Pushes pieces while there is room; true at the end of the body.
    pub(super) fn poll_push(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Output,
        patience: Duration,
    ) -> Result<bool, Failure> {
        if let Some(timer) = &mut self.held {
            if !timer.poll_expired(cx, patience) {
                return Ok(false);
            }
            self.held = None;
        }
        while out.has_room() {
            let frame = match self.body.poll_frame(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(frame) => frame,
            };
            self.touched = true;
            let written = match frame {
                Some(Ok(Frame::Data(bytes))) => {
                    let fits = self.encoder.data(out, bytes);
                    if fits && !self.body.is_end() {
                        continue;
                    }
                    fits && self.encoder.finish(out, None)
                }
                Some(Ok(Frame::Trailers(trailers))) => self.encoder.finish(out, Some(&trailers)),
                None => self.encoder.finish(out, None),
                Some(Err(error)) => return Err(Failure::Body(error)),
            };
            return match written {
                true => Ok(true),
                false => Err(Failure::Body(LENGTH_DIFFERS)),
            };
        }
        Ok(false)
    }

    /// The server wants the body.
    pub(super) fn release(&mut self) {
        self.held = None;
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The body, if nothing of it was taken.
    pub(super) fn into_untouched(self) -> Option<Body> {
        (!self.touched).then_some(self.body)
    }
}

const LENGTH_DIFFERS: BodyError =
    BodyError { reason: Reason::BadRequest, detail: "the request's content is not as long as announced" };
