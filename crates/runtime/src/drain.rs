// SPDX-License-Identifier: Apache-2.0
//! Ending in order: work in progress is told, may finish, and is waited for until a deadline.

use std::{convert::Infallible, time::Duration};

use tokio::sync::{mpsc, watch};

/// A pair: the one who says when to end, and the ones who are to end.
pub fn channel() -> (DrainTrigger, DrainWatch) {
    let (signal, signalled) = watch::channel(false);
    let (alive, ended) = mpsc::channel(1);
    (DrainTrigger { signal, ended }, DrainWatch { signalled, _alive: alive })
}

/// Says when to end. Dropped without [`DrainTrigger::drain`], it says so as well.
#[derive(Debug)]
pub struct DrainTrigger {
    signal: watch::Sender<bool>,
    // Nothing is ever sent: the channel ends when every watch is gone.
    ended: mpsc::Receiver<Infallible>,
}

/// Whether everything ended in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// It did.
    Complete,
    /// The deadline came first; what was left is cut off by the caller's end.
    DeadlinePassed,
}

impl DrainTrigger {
    /// Tells every watch, and waits until all of them are dropped, at most for `deadline`.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        self.signal.send_replace(true);
        match tokio::time::timeout(deadline, self.ended.recv()).await {
            Ok(_) => Drained::Complete,
            Err(_) => Drained::DeadlinePassed,
        }
    }
}

/// Held by everything that must be waited for; a clone is waited for as well.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    signalled: watch::Receiver<bool>,
    _alive: mpsc::Sender<Infallible>,
}

impl DrainWatch {
    /// Waits until it is time to end. Returns at once when it already is. Safe to cancel.
    pub(crate) async fn signalled(&mut self) {
        // An error means that the trigger is gone, which ends everything too.
        drop(self.signalled.wait_for(|signalled| *signalled).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_every_clone() {
        let (trigger, watch) = channel();
        let mut other = watch.clone();
        let work = tokio::spawn(async move {
            other.signalled().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        });
        drop(watch);
        assert_eq!(trigger.drain(Duration::from_secs(10)).await, Drained::Complete);
        assert!(work.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_ends_at_the_deadline() {
        let (trigger, watch) = channel();
        let begin = tokio::time::Instant::now();
        assert_eq!(trigger.drain(Duration::from_secs(10)).await, Drained::DeadlinePassed);
        assert_eq!(begin.elapsed(), Duration::from_secs(10));
        watch.clone().signalled().await;
    }

    #[tokio::test]
    async fn a_dropped_trigger_signals() {
        let (trigger, mut watch) = channel();
        assert!(tokio::time::timeout(Duration::ZERO, watch.signalled()).await.is_err());
        drop(trigger);
        watch.signalled().await;
    }
}
