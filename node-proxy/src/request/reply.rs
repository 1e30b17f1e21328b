// SPDX-License-Identifier: Apache-2.0
//! Answers that the proxy gives itself: one place decides their status, their body and their form for
//! gRPC clients.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use weft_codec::{
    body::Body,
    message::{RequestHead, Response, ResponseHead},
};
use weft_ebpf_common::reason::Reason;

/// The body of a denial: Cilium's, with its line end.
const ACCESS_DENIED: &str = "Access denied\r\n";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Why.
    pub(crate) reason: Reason,
    /// When the client may try again.
    pub(crate) retry_after: Option<Duration>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal { reason, retry_after: None }
    }
}

impl Refusal {
    /// The answer. For a gRPC request: status 200 and the gRPC status in the head, which is where a
    /// client of a response without content looks (gRPC over HTTP/2, Trailers-Only).
    pub(crate) fn response(&self, grpc: bool) -> Response {
        let status = match self.reason.http_status() {
            0 => StatusCode::INTERNAL_SERVER_ERROR,
            number => StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let mut response = if grpc { self.grpc(status) } else { self.plain(status) };
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: sooner would be refused again (RFC 9110, section 10.2.3).
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.head.headers.set(&header::RETRY_AFTER, &HeaderValue::from(seconds.max(1)));
        }
        response
    }

    fn plain(&self, status: StatusCode) -> Response {
        let mut head = ResponseHead::new(status);
        head.headers.set(&header::CONTENT_TYPE, &HeaderValue::from_static("text/plain"));
        Response::new(head, Body::full(Bytes::from_static(self.text().as_bytes())))
    }

    fn grpc(&self, status: StatusCode) -> Response {
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers.set(&header::CONTENT_TYPE, &HeaderValue::from_static("application/grpc"));
        head.headers.set(&GRPC_STATUS, &HeaderValue::from(grpc_status(status)));
        head.headers.set(&GRPC_MESSAGE, &HeaderValue::from_static(self.text().trim_end()));
        Response::new(head, Body::empty())
    }

    fn text(&self) -> &'static str {
        match self.reason.http_status() {
            403 => ACCESS_DENIED,
            _ => self.reason.name(),
        }
    }
}

/// Whether a request is a gRPC call (`application/grpc`, with or without a `+proto` and the like).
pub(crate) fn is_grpc(head: &RequestHead) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some(value) = head.headers.get(&header::CONTENT_TYPE) else { return false };
    let (Some(start), next) = (value.get(..GRPC.len()), value.get(GRPC.len())) else { return false };
    start.eq_ignore_ascii_case(GRPC) && matches!(next, None | Some(b'+' | b';' | b' '))
}

/// The gRPC status of an HTTP status (grpc `doc/http-grpc-status-mapping.md`).
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn grpc_request(content_type: &'static str) -> RequestHead {
        let mut head = RequestHead::new(Method::POST, "/pkg.Service/Method".parse().expect("a target"), None);
        head.headers.set(&header::CONTENT_TYPE, &HeaderValue::from_static(content_type));
        head
    }

    #[test]
    fn a_denial_is_a_403_with_the_text_of_cilium() {
        let response = Refusal::from(Reason::HttpPolicyDenied).response(false);
        assert_eq!(response.head.status, 403);
        assert_eq!(response.body.content_length(), Some(15));
    }

    #[test]
    fn a_denied_grpc_call_gets_status_7_in_the_head() {
        let response = Refusal::from(Reason::HttpPolicyDenied).response(true);
        assert_eq!(response.head.status, 200);
        assert_eq!(response.head.headers.get(&GRPC_STATUS), Some(&b"7"[..]));
        assert_eq!(response.head.headers.get(&GRPC_MESSAGE), Some(&b"Access denied"[..]));
        assert!(response.body.is_end());
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        assert!(is_grpc(&grpc_request("application/grpc")));
        assert!(is_grpc(&grpc_request("application/grpc+proto")));
        assert!(!is_grpc(&grpc_request("application/grpc-web")));
        assert!(!is_grpc(&grpc_request("text/plain")));
    }

    #[test]
    fn the_wait_is_rounded_up_to_seconds() {
        let wait = Some(Duration::from_millis(1200));
        let response = Refusal { reason: Reason::RateLimited, retry_after: wait }.response(false);
        assert_eq!(response.head.status, 429);
        assert_eq!(response.head.headers.get(&header::RETRY_AFTER), Some(&b"2"[..]));
    }
}
