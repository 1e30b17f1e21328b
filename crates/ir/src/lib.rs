// SPDX-License-Identifier: Apache-2.0
//! The IR: the one versioned state that the controller publishes and every node applies.
//!
//! A resource is a small value with a readable key; children name their parents. The crate does no
//! I/O and reads no clock: [`publish`] and [`subscribe`] are state machines that others feed.
//!
//! Read `types` first, then [`wire`], [`stream`], [`publish`], [`subscribe`], [`persist`].

mod digest;
pub mod persist;
pub mod publish;
mod state;
pub mod stream;
pub mod subscribe;
mod types;
pub mod wire;

pub use digest::{Branch, Digest};
pub use state::{Changed, Changes, Snapshot};
pub use types::*;
