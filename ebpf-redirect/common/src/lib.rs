// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What the kernel programs and user space must agree on: reasons, verdicts, identity numbers, map layouts.
//!
//! This crate never allocates, never touches the kernel and depends on nothing.
//! Read [`reason`] first, then [`identity`], [`verdict`] and [`layout`].
#![no_std]

pub mod connection;
pub mod identity;
pub mod layout;
pub mod reason;
pub mod verdict;

pub use reason::Reason;
pub use verdict::{Action, Verdict};
