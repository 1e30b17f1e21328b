// SPDX-License-Identifier: Apache-2.0
//! How much and how long peers are borne. Every number bounds what one can make the proxy hold.

use std::time::Duration;

use weft_http::{h1, h2};

/// Limits and deadlines of the connections of one worker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Limits of HTTP/1.1, for clients and endpoints.
    pub h1: h1::Limits,
    /// Limits of HTTP/2, for clients and endpoints.
    pub h2: h2::Config,
    /// Time from the first byte of a head to its last; then 408 (RFC 9110, section 15.5.9).
    pub head_timeout: Duration,
    /// Time that a client's connection may wait for the next request; then it is closed.
    pub idle_timeout: Duration,
    /// Longest silence inside content that is being read, on a connection of HTTP/1.1 and a stream of HTTP/2;
    /// then 408 for a request. nginx allows as long (`client_body_timeout`). On HTTP/2, a gRPC call and a
    /// request whose response has begun may be silent for the time of a relay, since either end may speak then.
    pub content_timeout: Duration,
    /// Longest time without progress while writing.
    pub write_timeout: Duration,
    /// How long an idle connection to an endpoint is kept: less than the 60 s and more after which common
    /// servers close.
    pub keep_timeout: Duration,
    /// Silence after which a relay ends: two hours, as the kernel's own default for established flows
    /// without keep-alive (tcp_keepalive_time).
    pub relay_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            h1: h1::Limits::default(),
            h2: h2::Config::default(),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            content_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            keep_timeout: Duration::from_secs(50),
            relay_timeout: Duration::from_secs(7200),
        }
    }
}

impl Limits {
    /// Nanoseconds for which a client may read what it was told before its connection is cut.
    pub(crate) const LINGER: u64 = 2_000_000_000;
    /// Reads of what a client still sends then, 4 KiB each, at a time.
    pub(crate) const LINGER_READS: usize = 64;
}
