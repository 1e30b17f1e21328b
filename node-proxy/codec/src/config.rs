// SPDX-License-Identifier: Apache-2.0
//! Limits and deadlines of the wire layer. Every number bounds what a peer can make the proxy hold.

use std::time::Duration;

/// Limits of an HTTP/1.1 connection, for both roles.
#[derive(Clone, Debug)]
pub struct H1Config {
    /// Bytes of a whole head, first line included; more is answered with 431 (RFC 6585 section 5).
    pub max_head_bytes: usize,
    /// Bytes of a request target; more is answered with 414 (RFC 9110 section 15.5.15).
    pub max_target_bytes: usize,
    /// Fields in one head; more is answered with 431.
    pub max_headers: usize,
    /// Bytes of a trailer section; more ends the connection.
    pub max_trailer_bytes: usize,
    /// Time from the first byte of a head to its last; then 408 (RFC 9110 section 15.5.9).
    pub head_timeout: Duration,
    /// Time that a connection may wait for the next request; then it is closed.
    pub idle_timeout: Duration,
    /// Longest silence inside a body that is being read.
    pub body_timeout: Duration,
    /// Longest time without progress while writing to the peer.
    pub write_timeout: Duration,
    /// Bytes of a request body that nobody wanted, read so that the connection can be kept.
    pub max_drain_bytes: u64,
    /// Time that a client waits for `100 Continue` before it sends the body anyway (RFC 9110 section 10.1.1).
    pub continue_timeout: Duration,
}

impl Default for H1Config {
    fn default() -> Self {
        H1Config {
            max_head_bytes: 64 * 1024,
            max_target_bytes: 16 * 1024,
            max_headers: 128,
            max_trailer_bytes: 16 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            max_drain_bytes: 256 * 1024,
            continue_timeout: Duration::from_secs(1),
        }
    }
}

/// Limits of an HTTP/2 connection, for both roles.
#[derive(Clone, Debug)]
pub struct H2Config {
    /// Streams that the peer may have open (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub max_concurrent_streams: u32,
    /// Bytes that the peer may send on one stream before we read them (SETTINGS_INITIAL_WINDOW_SIZE).
    pub stream_window_bytes: u32,
    /// Bytes that the peer may send on the connection before we read them.
    pub connection_window_bytes: u32,
    /// Largest frame payload that we accept (SETTINGS_MAX_FRAME_SIZE).
    pub max_frame_bytes: u32,
    /// Bytes of a decoded header list (SETTINGS_MAX_HEADER_LIST_SIZE).
    pub max_header_list_bytes: u32,
    /// Bytes that one stream may hold for a peer that does not read.
    pub max_send_buffer_bytes: usize,
    /// Streams reset by the peer before we accepted them; more ends the connection (CVE-2023-44487).
    pub max_pending_reset_streams: usize,
    /// Streams that we reset because of the peer's errors; more ends the connection (CVE-2025-8671).
    pub max_local_error_resets: usize,
    /// Time that a server connection without streams is kept.
    pub idle_timeout: Duration,
    /// Longest silence inside a body that is being read, and longest wait for window while writing.
    pub body_timeout: Duration,
    /// Time that the handshake may take (the peer's preface and SETTINGS).
    pub handshake_timeout: Duration,
}

impl Default for H2Config {
    fn default() -> Self {
        H2Config {
            max_concurrent_streams: 256,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            max_frame_bytes: 16 * 1024,
            max_header_list_bytes: 64 * 1024,
            max_send_buffer_bytes: 256 * 1024,
            max_pending_reset_streams: 20,
            max_local_error_resets: 1024,
            idle_timeout: Duration::from_secs(300),
            body_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// What [`serve_connection`](crate::serve::serve_connection) accepts and for how long it waits.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Limits of HTTP/1.1 connections.
    pub h1: H1Config,
    /// Limits of HTTP/2 connections.
    pub h2: H2Config,
    /// Which protocols the listener speaks.
    pub protocols: Protocols,
    /// The scheme of requests that do not say it themselves (`https` behind TLS).
    pub scheme: http::uri::Scheme,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            h1: H1Config::default(),
            h2: H2Config::default(),
            protocols: Protocols::Sniff,
            scheme: http::uri::Scheme::HTTP,
        }
    }
}

/// The protocols of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2 if the connection starts with its preface (RFC 9113 section 3.4), else HTTP/1.1.
    Sniff,
    /// Only HTTP/1.1 (ALPN said `http/1.1`).
    Http1,
    /// Only HTTP/2 (ALPN said `h2`, or appProtocol `kubernetes.io/h2c`).
    Http2,
}
