// SPDX-License-Identifier: Apache-2.0
//! The head of a message, or its trailers: names and values as ranges of one buffer.
//!
//! One [`Head`] is cleared and filled again for each message of a connection, so that its buffers are
//! allocated once. Where the fields that a proxy needs stand is noted while they are pushed, so that
//! nobody searches for them.

/// A part of a head's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    at: u32,
    len: u32,
}
