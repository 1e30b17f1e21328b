// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 (RFC 9112), and HTTP/1.0 from clients.
//!
//! Each connection is one state machine that is polled by whoever reads or writes: no task, no channel
//! and no timer of its own for a request that does not wait.

mod client;
mod client_body;
mod client_conn;
mod decode;
mod encode;
mod failure;
mod fields;
mod parse;
mod scan;
mod server;
mod server_body;
mod upload;
mod wire;

pub use client_conn::{H1Upstream, Recycle};
pub(crate) use parse::{authority, is_host_and_port};
pub(crate) use scan::is_target;
pub(crate) use server::serve;
