// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 (RFC 9112), and HTTP/1.0 from clients: one state machine for each end of a connection.
//!
//! A [`Server`] reads requests and writes responses, a [`Client`] the other way round. Both read by
//! `receive`, which is called with the bytes that are there until it gives no event, and says how many
//! of them it has used up; what is left is an incomplete line or head, or the next request of a pipeline,
//! and is given again with what follows it. Both write by appending to a buffer of the caller's.
//!
//! A head is parsed in one pass over the bytes where they were read. Only a head that comes in pieces is
//! looked through for its end first, so that one that comes byte by byte costs no more than twice one that
//! comes whole, and pieces never change what comes out.

mod client;
mod content;
mod fields;
mod parse;
mod phrase;
mod scan;
mod server;
mod write;

pub use client::{Client, Retry};
pub use server::Server;

/// Limits of a connection, for both roles. Every number bounds what a peer can make the proxy hold or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole head, first line included; more is answered with 431 (RFC 6585, section 5).
    pub head_bytes: usize,
    /// Bytes of a request target; more is answered with 414 (RFC 9110, section 15.5.15).
    pub target_bytes: usize,
    /// Fields in one head or trailer section; more is answered with 431.
    pub fields: usize,
    /// Bytes of a trailer section; more ends the connection.
    pub trailer_bytes: usize,
    /// Bytes of a request's content that nobody wanted, read so that the connection can be kept.
    pub drain_bytes: u64,
    /// Whether CONNECT comes to the caller, who refuses it or makes it a tunnel. Otherwise it is answered
    /// with 501.
    pub connect: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_bytes: 64 << 10,
            target_bytes: 16 << 10,
            fields: 128,
            trailer_bytes: 16 << 10,
            drain_bytes: 256 << 10,
            connect: false,
        }
    }
}

/// What the bytes of a connection gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The head of the next message, in the head that was given. A client's may be interim, and then
    /// another follows.
    Head,
    /// A piece of content.
    Data(&'a [u8]),
    /// The end of the message, with trailers, in the head that was given.
    Trailers,
    /// The end of the message.
    End,
}

/// What is known of the length of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many bytes; 0 also where there is no content.
    Bytes(u64),
    /// Its end will tell.
    Unknown,
}

/// What of a message was used up, and what it gave.
pub type Received<'a> = (usize, Option<Event<'a>>);

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle connection costs its machine and nothing else: neither holds a buffer.
    #[test]
    fn a_machine_is_small() {
        assert!(size_of::<Server>() <= 192, "{} bytes", size_of::<Server>());
        assert!(size_of::<Client>() <= 192, "{} bytes", size_of::<Client>());
    }
}
