// SPDX-License-Identifier: Apache-2.0
//! What a worker says about requests and connections that have ended: records of fixed size in a ring of
//! its own. The worker copies numbers, addresses and a text or two; whoever reads finds names for them.
//! Nothing is allocated for a record, and nothing of it is freed on another thread.
//!
//! A record takes one slot. Texts that it has no room for follow in further slots. A name that many records
//! share (a route rule, a policy) is written once into a slot of its own, and records refer to it by number
//! until the number gets another meaning, which stands in the ring too.

mod read;
mod slot;
mod write;

use std::sync::Arc;

use rtrb::RingBuffer;
use tokio::sync::Notify;

pub(crate) use self::{
    read::Pile,
    slot::{RequestLine, Spoken},
    write::{Asked, Shared},
};
pub use self::{
    read::{Named, Records},
    slot::Ended,
    write::Recorder,
};

/// A ring for at least this many slots of 256 bytes, and its two ends: one for the worker, and one for
/// whoever wants the records. `full` is notified when half of it is taken.
pub fn ring(slots: usize, full: Arc<Notify>) -> (Recorder, Records) {
    // The longest record, and names for it, have to find room in an empty ring.
    let (producer, consumer) = RingBuffer::new(slots.max(slot::MOST_SLOTS));
    let lost = Arc::default();
    (Recorder::new(producer, full, Arc::clone(&lost)), Records::new(consumer, lost))
}

#[cfg(test)]
mod tests;
