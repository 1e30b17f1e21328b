// SPDX-License-Identifier: Apache-2.0
//! Content that was read and that the other end's flow control does not take yet.

use weft_http::head::Head;

/// What waits, and how it goes on behind it.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// Nothing follows what is held.
    pub(super) ended: bool,
    /// What follows it, instead of an end without.
    pub(super) trailers: Option<Box<Head>>,
}

impl Held {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes that wait.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Holds more.
    pub(super) fn add(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// So many of them were taken.
    pub(super) fn taken(&mut self, count: usize) {
        if count >= self.bytes.len() {
            self.bytes = Vec::new();
        } else {
            self.bytes.drain(..count);
        }
    }
}
