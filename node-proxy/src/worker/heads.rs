// SPDX-License-Identifier: Apache-2.0
//! Heads that nobody uses: filled again, so that their buffers are allocated once.

use weft_http::head::Head;

/// Heads that a worker keeps for messages to come; each has a few KiB of buffers.
const KEPT: usize = 256;

/// Heads that nobody uses.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "a head is large, and is moved by its pointer")]
pub(crate) struct Heads(Vec<Box<Head>>);

impl Heads {
    /// A head to be filled.
    pub(crate) fn lend(&mut self) -> Box<Head> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes one back.
    pub(crate) fn take_back(&mut self, mut head: Box<Head>) {
        if self.0.len() < KEPT {
            head.clear();
            self.0.push(head);
        }
    }
}
