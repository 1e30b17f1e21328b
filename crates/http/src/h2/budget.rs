// SPDX-License-Identifier: Apache-2.0
//! What a peer may make us do that is of no use to anybody.
//!
//! Each attack on HTTP/2 of the last years makes one side work, or write, for frames that cost the other
//! nothing. So a connection has two budgets. What is of no use by itself takes from them; what serves
//! somebody, a request that was answered or content that was carried, gives back. They know no time: a
//! client that is slow is not cut off, and one that is fast gains nothing.
//!
//! | attack | taken from | ended after |
//! |---|---|---|
//! | rapid reset, CVE-2023-44487 | resets | [`RESETS`] streams |
//! | made you reset, CVE-2025-8671 | resets | [`RESETS`] streams |
//! | lists of fields that are too large, small as their blocks may be (HPACK bombs) | resets | [`RESETS`] requests |
//! | PING, SETTINGS, priority, CVE-2019-9512, -9513, -9515 | control | [`CONTROL`] frames |
//! | reset of streams that are gone, CVE-2019-9514; unknown frames | control | [`CONTROL`] frames |
//! | empty DATA and padding, CVE-2019-9518, RUSTSEC-2026-0258 | control | [`CONTROL`] / [`EMPTY`] frames |
//! | small window updates, content in crumbs, CVE-2019-9511, -9517 | control | [`CONTROL`] frames |
//! | CONTINUATION, CVE-2024-27316 and its kin | the block's own bounds | `MAX_CONTINUATIONS` frames |
//! | interim responses without end | control | [`CONTROL`] / [`EMPTY`] responses |

use super::error::Fault;

/// Streams that may end early before the connection does: Envoy looks at a connection after as many
/// (`overload.premature_reset_total_stream_count`, 500).
pub const RESETS: u32 = 500;

/// Frames without use before the connection ends: as many control frames may wait in Envoy
/// (`max_outbound_control_frames`, 1,000).
pub const CONTROL: u32 = 1000;

/// What an empty frame costs: it is of less use than any other. Envoy allows one in a row
/// (`max_consecutive_inbound_frames_with_empty_payload`); a hundred is what a careless sender gets here.
pub(crate) const EMPTY: u32 = 10;

/// What a request that was answered gives back: Envoy allows 100 priority frames for each stream
/// (`max_inbound_priority_frames_per_stream`).
const REQUEST: u32 = 100;

/// What content that was carried gives back, each frame: Envoy allows ten window updates for one
/// (`max_inbound_window_update_frames_per_data_frame_sent`).
const CONTENT: u32 = 10;

/// What a read gives back: a PING for a connection on which nothing happens, and whatever it answers, may
/// come for good. Who sends one at a time pays more for it than we do.
const TURN: u32 = 2;

/// The least content, in octets, that is of use: less costs more in frames than it carries.
const SMALLEST: usize = 64;

/// What is left of the budgets of one connection.
#[derive(Debug)]
pub(crate) struct Budget {
    resets: u32,
    control: u32,
    /// Pieces of content that were sent since the last frame was received and that take from `control` then:
    /// whoever sends is not the one to blame.
    crumbs: u32,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { resets: RESETS, control: CONTROL, crumbs: 0 }
    }
}

impl Budget {
    /// A stream ended early, by the peer or because of it.
    pub(crate) fn reset(&mut self) -> Result<(), Fault> {
        self.resets =
            self.resets.checked_sub(1).ok_or(Fault::calm("too many streams ended before their answer"))?;
        Ok(())
    }

    /// A frame that is of no use to a message.
    #[inline]
    pub(crate) fn control(&mut self, cost: u32) -> Result<(), Fault> {
        let cost = cost.saturating_add(std::mem::take(&mut self.crumbs));
        self.control =
            self.control.checked_sub(cost).ok_or(Fault::calm("too many frames that carry nothing"))?;
        Ok(())
    }

    /// A request was answered as a whole.
    #[inline]
    pub(crate) fn answered(&mut self) {
        self.resets = RESETS.min(self.resets + 1);
        self.earn(REQUEST);
    }

    /// Content was carried.
    #[inline]
    pub(crate) fn carried(&mut self) {
        self.earn(CONTENT);
    }

    /// Content was sent: so little that it costs more than it carries where the peer's window wanted it so.
    #[inline]
    pub(crate) fn sent(&mut self, octets: usize, cut_by_window: bool) {
        if cut_by_window && octets < SMALLEST {
            self.crumbs = self.crumbs.saturating_add(1);
        } else {
            self.earn(CONTENT);
        }
    }

    /// All that was read is handled.
    #[inline]
    pub(crate) fn turn(&mut self) {
        self.earn(TURN);
    }

    #[inline]
    fn earn(&mut self, amount: u32) {
        self.control = CONTROL.min(self.control + amount);
    }
}
