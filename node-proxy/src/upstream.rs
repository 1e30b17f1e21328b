// SPDX-License-Identifier: Apache-2.0
//! The way to endpoints: which one takes a request, and the connections to it.

pub(crate) mod balance;
pub(crate) mod clock;
pub(crate) mod dial;
pub(crate) mod pool;
pub(crate) mod retry_budget;
pub(crate) mod sockets;
