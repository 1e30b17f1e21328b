// SPDX-License-Identifier: Apache-2.0
//! What can go wrong on the wire, with the `Reason` that names it.

use http::StatusCode;
use weft_ebpf_common::reason::Reason;

use crate::body::Body;

/// A request that the codec answered (or a connection that it closed) without asking the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct ProtocolError {
    /// Why, as flow records and metrics show it.
    pub reason: Reason,
    /// The answer; none when the connection was closed or the stream reset without one.
    pub status: Option<StatusCode>,
    /// Which rule was broken.
    pub detail: &'static str,
}

impl ProtocolError {
    pub(crate) const fn new(reason: Reason, status: StatusCode, detail: &'static str) -> Self {
        ProtocolError { reason, status: Some(status), detail }
    }

    pub(crate) const fn silent(reason: Reason, detail: &'static str) -> Self {
        ProtocolError { reason, status: None, detail }
    }

    pub(crate) const fn bad_request(detail: &'static str) -> Self {
        ProtocolError::new(Reason::BadRequest, StatusCode::BAD_REQUEST, detail)
    }
}

/// Whether a failed request may be sent again to another connection or backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The backend never saw the request (nothing was sent, or REFUSED_STREAM, or above GOAWAY's last stream).
    Safe,
    /// A reused connection was closed before the first byte of a response: retry if the method is
    /// idempotent (RFC 9110 section 9.2.2).
    IfIdempotent,
    /// The backend may have acted on it.
    No,
}

/// An upstream that did not deliver the head of a response.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct UpstreamError {
    /// `UpstreamConnectFailed`, `UpstreamReset`, `UpstreamProtocol`, `UpstreamTimeout`, or the reason
    /// of the request's own body.
    pub reason: Reason,
    /// What was wrong.
    pub detail: &'static str,
    /// Whether the request may be sent again.
    pub retry: Retry,
    /// The body, if nothing of it was taken: it can be sent again as it is.
    pub unsent_body: Option<Body>,
}
