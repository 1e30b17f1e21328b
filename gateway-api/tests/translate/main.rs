// SPDX-License-Identifier: Apache-2.0
//! Objects of the Gateway API become resources and statuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod golden;
mod parts;
mod world;
