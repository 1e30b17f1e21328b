// SPDX-License-Identifier: Apache-2.0
//! What answers the requests of a listener.

use std::future::Future;

use weft_ebpf_common::reason::Reason;

use crate::{
    error::ProtocolError,
    message::{Request, Response},
};

/// Answers requests.
pub trait Handler: 'static {
    /// The answer to one request. Dropped when the client is gone.
    fn call(&self, request: Request) -> impl Future<Output = Response>;

    /// Hears of a request that the codec answered itself, or of a connection that it closed for it.
    fn on_protocol_error(&self, error: &ProtocolError);
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Requests that reached the handler.
    pub requests: u64,
    /// None: an end that both sides can expect (closed by the client between requests, idle, drained).
    pub failure: Option<Reason>,
}
