// SPDX-License-Identifier: Apache-2.0
//! One coarse deadline that moves later without touching the runtime's timer.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that most of the time is cleared before it passes. The runtime's timer is made at the
/// first wait and re-armed only when it fires too early or must fire sooner.
#[derive(Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    deadline: Option<Instant>,
    waker: Option<Waker>,
}

impl Timer {
    /// The wait is over; the next [`poll_expired`](Self::poll_expired) starts a new one.
    pub(crate) fn clear(&mut self) {
        self.deadline = None;
    }

    /// Whether `timeout` has passed since the first call after [`clear`](Self::clear). Wakes the task
    /// when it has.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>, timeout: Duration) -> bool {
        let deadline = match self.deadline {
            Some(deadline) => deadline,
            None => *self.deadline.insert(Instant::now() + timeout),
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
            self.waker = None;
        }
        if !sleep.is_elapsed() && self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return false;
        }
        while sleep.as_mut().poll(cx).is_ready() {
            self.waker = None;
            if sleep.deadline() >= deadline || Instant::now() >= deadline {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        self.waker = Some(cx.waker().clone());
        false
    }
}
