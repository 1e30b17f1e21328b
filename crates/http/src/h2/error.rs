// SPDX-License-Identifier: Apache-2.0
//! What goes wrong on an HTTP/2 connection, with the code that says so on the wire.

use weft_ebpf_common::reason::Reason;

use super::Role;
use crate::error::{Error, Scope};

/// An error code (RFC 9113, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// Nothing went wrong.
    pub const NO_ERROR: ErrorCode = ErrorCode(0);
    /// A rule of the protocol was broken, and no other code names it.
    pub const PROTOCOL_ERROR: ErrorCode = ErrorCode(1);
    /// Something failed that the peer has no part in.
    pub const INTERNAL_ERROR: ErrorCode = ErrorCode(2);
    /// More was sent than a window allowed.
    pub const FLOW_CONTROL_ERROR: ErrorCode = ErrorCode(3);
    /// A frame came for a stream that had ended.
    pub const STREAM_CLOSED: ErrorCode = ErrorCode(5);
    /// A frame has not the size that it must have.
    pub const FRAME_SIZE_ERROR: ErrorCode = ErrorCode(6);
    /// Nothing was done for the stream: the request may be sent again.
    pub const REFUSED_STREAM: ErrorCode = ErrorCode(7);
    /// The stream is no longer wanted.
    pub const CANCEL: ErrorCode = ErrorCode(8);
    /// A header block cannot be read.
    pub const COMPRESSION_ERROR: ErrorCode = ErrorCode(9);
    /// A tunnel's other side failed.
    pub const CONNECT_ERROR: ErrorCode = ErrorCode(10);
    /// The peer causes more work than it has use of.
    pub const ENHANCE_YOUR_CALM: ErrorCode = ErrorCode(11);
}

/// An error of a connection or a stream: its code, and what it means for the messages on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error} (code {})", code.0)]
pub struct Failure {
    /// What was or is sent to the peer, or came from it.
    pub code: ErrorCode,
    /// Why, as records show it.
    pub error: Error,
}

/// A rule that the peer broke, before it is known whether the peer is a client or an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ErrorCode,
    pub(crate) detail: &'static str,
}

impl Fault {
    pub(crate) const fn protocol(detail: &'static str) -> Fault {
        Fault { code: ErrorCode::PROTOCOL_ERROR, detail }
    }

    pub(crate) const fn size(detail: &'static str) -> Fault {
        Fault { code: ErrorCode::FRAME_SIZE_ERROR, detail }
    }

    pub(crate) const fn flow(detail: &'static str) -> Fault {
        Fault { code: ErrorCode::FLOW_CONTROL_ERROR, detail }
    }

    pub(crate) const fn closed(detail: &'static str) -> Fault {
        Fault { code: ErrorCode::STREAM_CLOSED, detail }
    }

    pub(crate) const fn calm(detail: &'static str) -> Fault {
        Fault { code: ErrorCode::ENHANCE_YOUR_CALM, detail }
    }

    /// What it means for us as `role`.
    pub(crate) fn failure(self, role: Role, scope: Scope) -> Failure {
        let error = match role {
            Role::Server => Error::bad_request(self.detail),
            Role::Client => Error::upstream(self.detail),
        };
        Failure { code: self.code, error: Error { scope, ..error } }
    }
}

/// That the peer ended a stream with this code.
pub(crate) fn reset_by_peer(code: ErrorCode, role: Role) -> Failure {
    let (reason, status, detail) = match role {
        Role::Server => (Reason::ClientReset, None, "the client reset the stream"),
        Role::Client => (Reason::UpstreamReset, Some(502), "the server reset the stream"),
    };
    Failure { code, error: Error { reason, status, scope: Scope::Message, detail } }
}

/// That the server is closing the connection and never looked at a stream.
pub(crate) fn not_processed(code: ErrorCode) -> Failure {
    let detail = "the server closes the connection and did not take the request";
    let error = Error { reason: Reason::UpstreamReset, status: Some(502), scope: Scope::Message, detail };
    Failure { code, error }
}

/// That a head is larger than our limit for the list of its fields.
pub(crate) fn too_large(role: Role) -> Failure {
    let error = match role {
        Role::Server => Error {
            scope: Scope::Message,
            ..Error::new(Reason::HeadersTooLarge, 431, "the header list is larger than allowed")
        },
        Role::Client => {
            Error { scope: Scope::Message, ..Error::upstream("the header list is larger than allowed") }
        }
    };
    Failure { code: ErrorCode::CANCEL, error }
}
