// SPDX-License-Identifier: Apache-2.0
//! Flows of several nodes in the order of their times.

use std::{collections::VecDeque, time::Duration};

use tokio::time::{Instant, sleep_until};
use weft_flow_export::Flow;

/// How long a flow of one node waits for earlier ones of other nodes while following.
const HOLD: Duration = Duration::from_millis(250);

/// Sorts what several nodes send. Without following, everything is sorted at the end; while following, a
/// flow waits for a moment, and one node alone is not held up at all.
pub(super) struct Merge {
    hold: Option<Duration>,
    waiting: Vec<(Instant, Flow)>,
    ready: VecDeque<Flow>,
}

impl Merge {
    pub(super) fn new(follow: bool, nodes: usize) -> Merge {
        let hold = follow.then_some(if nodes > 1 { HOLD } else { Duration::ZERO });
        Merge { hold, waiting: Vec::new(), ready: VecDeque::new() }
    }

    pub(super) fn push(&mut self, flow: Flow) {
        match self.hold {
            Some(Duration::ZERO) => self.ready.push_back(flow),
            _ => self.waiting.push((Instant::now(), flow)),
        }
    }

    /// Waits until a held flow may go; for ever when none is held.
    pub(super) async fn due(&mut self) {
        let oldest = self.waiting.iter().map(|(arrived, _)| *arrived).min();
        match (self.hold, oldest) {
            (Some(hold), Some(arrived)) => sleep_until(arrived + hold).await,
            _ => std::future::pending().await,
        }
        self.release();
    }

    /// Everything may go; with a limit, only the latest.
    pub(super) fn finish(&mut self, limit: Option<usize>) {
        self.waiting.sort_by_key(|(_, flow)| flow.time);
        let skip = self.waiting.len().saturating_sub(limit.unwrap_or(usize::MAX));
        self.ready.extend(self.waiting.drain(..).skip(skip).map(|(_, flow)| flow));
    }

    pub(super) fn pop(&mut self) -> Option<Flow> {
        self.ready.pop_front()
    }

    /// Lets those go that waited long enough, and with them everything that happened before.
    fn release(&mut self) {
        let Some(hold) = self.hold else { return };
        let now = Instant::now();
        let waited = self.waiting.iter().filter(|(arrived, _)| *arrived + hold <= now);
        let Some(until) = waited.map(|(_, flow)| flow.time).max() else { return };
        self.waiting.sort_by_key(|(_, flow)| flow.time);
        let count = self.waiting.partition_point(|(_, flow)| flow.time <= until);
        self.ready.extend(self.waiting.drain(..count).map(|(_, flow)| flow));
    }
}
