// SPDX-License-Identifier: Apache-2.0
//! What each worker counts. A worker is the only writer of its counters, so that counting is a plain
//! load and store; the sum over all workers is made when somebody asks.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use weft_ebpf_common::reason::Reason;
use weft_ir::stream::Position;

/// Upper bounds of the duration histogram, in microseconds; above the last is `+Inf`.
pub(crate) const DURATION_BOUNDS: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// The counters of one worker.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerMetrics {
    /// Requests by the class of their status, 1xx to 5xx; the first counts those without a status.
    pub(crate) requests: [AtomicU64; 6],
    /// Requests by duration: one bucket per bound and one above.
    pub(crate) durations: [AtomicU64; DURATION_BOUNDS.len() + 1],
    /// The sum of all durations, in microseconds.
    pub(crate) duration_sum: AtomicU64,
    /// Requests and connections that went on.
    pub(crate) allowed: AtomicU64,
    /// Requests and connections that did not, by the position of the reason in [`Reason::ALL`].
    pub(crate) refused: [AtomicU64; Reason::ALL.len()],
    /// Tries after the first.
    pub(crate) retries: AtomicU64,
    /// Client connections accepted.
    pub(crate) opened: AtomicU64,
    /// Client connections that are open.
    pub(crate) open: AtomicU64,
    /// Bytes of content received from clients.
    pub(crate) received: AtomicU64,
    /// Bytes of content sent to clients.
    pub(crate) sent: AtomicU64,
    /// The state that the worker serves.
    position: Mutex<Position>,
}

impl Default for WorkerMetrics {
    fn default() -> WorkerMetrics {
        let zero = || AtomicU64::new(0);
        WorkerMetrics {
            requests: std::array::from_fn(|_| zero()),
            durations: std::array::from_fn(|_| zero()),
            duration_sum: zero(),
            allowed: zero(),
            refused: std::array::from_fn(|_| zero()),
            retries: zero(),
            opened: zero(),
            open: zero(),
            received: zero(),
            sent: zero(),
            position: Mutex::default(),
        }
    }
}

impl WorkerMetrics {
    /// The worker serves this state from now on.
    pub(crate) fn serves(&self, position: Position) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    /// The state that the worker serves.
    pub(crate) fn position(&self) -> Position {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request: its status (0: none), its duration, why it was refused.
    pub(crate) fn request(&self, status: u16, nanos: u64, reason: Option<Reason>) {
        let class = usize::from(status / 100);
        add(self.requests.get(class).unwrap_or(&self.requests[0]), 1);
        let micros = nanos / 1000;
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < micros);
        add(&self.durations[bucket], 1);
        add(&self.duration_sum, micros);
        self.decision(reason);
    }

    /// Counts a decision.
    pub(crate) fn decision(&self, reason: Option<Reason>) {
        match reason.and_then(|reason| Reason::ALL.iter().position(|known| *known == reason)) {
            None => add(&self.allowed, 1),
            Some(index) => add(&self.refused[index], 1),
        }
    }
}

/// Adds to a counter of which the caller is the only writer.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

/// Takes from a counter of which the caller is the only writer.
pub(crate) fn subtract(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).saturating_sub(count), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_class_duration_and_reason() {
        let metrics = WorkerMetrics::default();
        metrics.request(429, 300_000, Some(Reason::RateLimited));
        metrics.request(200, 60_000_000_000, None);
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!(value(&metrics.requests[4]), 1);
        assert_eq!(value(&metrics.durations[1]), 1);
        assert_eq!(value(&metrics.durations[DURATION_BOUNDS.len()]), 1);
        assert_eq!(value(&metrics.allowed), 1);
        assert_eq!(metrics.refused.iter().map(value).sum::<u64>(), 1);
    }
}
