// SPDX-License-Identifier: Apache-2.0
//! What can go wrong on the wire, with the `Reason` that names it.

use weft_ebpf_common::reason::Reason;

/// What a peer did that its protocol does not allow, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Error {
    /// Why, as flow records and metrics show it.
    pub reason: Reason,
    /// The status to answer with; none where nothing can be answered.
    pub status: Option<u16>,
    /// What else on the connection is lost by it.
    pub scope: Scope,
    /// Which rule was broken.
    pub detail: &'static str,
}

/// How much of a connection an error ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One message: the connection goes on.
    Message,
    /// Everything: what follows cannot be trusted. A status may still be answered.
    Connection,
}

impl Error {
    pub(crate) const fn new(reason: Reason, status: u16, detail: &'static str) -> Self {
        Error { reason, status: Some(status), scope: Scope::Connection, detail }
    }

    /// A request that breaks the protocol: 400.
    pub(crate) const fn bad_request(detail: &'static str) -> Self {
        Error::new(Reason::BadRequest, 400, detail)
    }

    /// An upstream that breaks the protocol: 502 for whoever waits for its answer.
    pub(crate) const fn upstream(detail: &'static str) -> Self {
        Error::new(Reason::UpstreamProtocol, 502, detail)
    }

    /// The first bytes of a connection, or a request, did not come in time (RFC 9110, section 15.5.9).
    pub const fn late(detail: &'static str) -> Self {
        Error::new(Reason::RequestTimeout, 408, detail)
    }

    /// A request for a tunnel that is not relayed (RFC 9110, section 15.6.2).
    pub const fn tunnel(detail: &'static str) -> Self {
        Error::new(Reason::TunnelUnsupported, 501, detail)
    }

    /// The same as the fault of an upstream, for rules that hold for both sides.
    pub(crate) fn of_upstream(self) -> Self {
        Error { scope: self.scope, ..Error::upstream(self.detail) }
    }
}
