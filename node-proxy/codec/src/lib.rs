// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 and HTTP/2 on the wire, for a proxy that runs one current-thread runtime per worker.
//!
//! The crate turns bytes into [`Request`](message::Request) and [`Response`](message::Response) and
//! back. It knows nothing of routes, policies or pools, and it never forwards what it could not parse
//! strictly: a message that two parsers could read differently is refused (RFC 9112 section 11.2).
//! No other crate of the proxy names `h2`, or sees framing (`Content-Length`, `Transfer-Encoding`),
//! connection-specific fields or pseudo-header fields: the codec takes them off on receipt and writes
//! its own when it sends.
//!
//! Reading order: [`message`], [`headers`], [`body`], [`handler`], then [`serve`] (what a listener
//! calls), [`h1`] and [`h2`] (what a dialer calls: [`h1::H1Upstream`], [`h2::H2Upstream`]).

pub mod body;
pub mod config;
pub mod drain;
pub mod error;
pub mod h1;
pub mod h2;
pub mod handler;
pub mod headers;
pub mod io;
pub mod message;
pub mod serve;
mod sniff;
mod timer;
