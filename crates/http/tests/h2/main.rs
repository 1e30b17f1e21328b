// SPDX-License-Identifier: Apache-2.0
//! HTTP/2 from outside: against the crate `h2` in both roles, in pieces, and with damage.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod against_h2;
mod damage;
mod ends;
mod exchange;
mod feed;
mod pieces;
