// SPDX-License-Identifier: Apache-2.0
//! The way to endpoints: which one takes a request, and the connections to it.

pub(crate) mod balance;
pub(crate) mod clock;
pub(crate) mod connection;
pub(crate) mod dial;
pub(crate) mod output;
pub(crate) mod pool;
pub(crate) mod retry_budget;
pub(crate) mod sockets;
pub(crate) mod spoken;
pub(crate) mod timeout;
pub(crate) mod wheel;
