// SPDX-License-Identifier: Apache-2.0
//! What became of connections and streams since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start. Each only grows.
#[derive(Debug, Default)]
pub struct StreamCounters {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed at once: their address has too many that are no node yet.
    pub crowded: Counter,
    /// Connections that ended before the TLS handshake was done, or took too long for it.
    pub handshakes_failed: Counter,
    /// Connections that did not open a stream in time.
    pub greetings_late: Counter,
    /// Requests with a wrong join token, or without a certificate where one is needed.
    pub unauthorized: Counter,
    /// Attempts to join that came too fast for their address.
    pub joins_throttled: Counter,
    /// Nodes that were given no certificate, or may not speak for the name that they want.
    pub refused: Counter,
    /// Streams of a node that has one already, and has answered on it.
    pub contested: Counter,
    /// Certificates issued.
    pub certificates: Counter,
    /// Streams that began with a hello.
    pub streams: Counter,
    /// Of those, streams of nodes that had been connected before.
    pub reconnects: Counter,
    /// Acknowledgements.
    pub acknowledged: Counter,
    /// Of those, acknowledgements that reject a resource.
    pub rejecting: Counter,
}

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
