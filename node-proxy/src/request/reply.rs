// SPDX-License-Identifier: Apache-2.0
//! Answers that the proxy gives itself: one place decides their status, their body and their form for
//! gRPC clients.

use std::time::Duration;

use weft_ebpf_common::reason::Reason;
use weft_http::head::{FieldName, Head, InvalidStart, Name, TooLarge, Value};

/// The body of a denial: Cilium's, with its line end.
const ACCESS_DENIED: &str = "Access denied\r\n";

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

impl From<TooLarge> for Refusal {
    /// No head that a codec lets in comes near the bounds of one.
    fn from(_: TooLarge) -> Refusal {
        Reason::Internal.into()
    }
}

impl Refusal {
    /// Writes the answer over `head`, and yields its content. For a gRPC request: status 200 and the gRPC
    /// status in the head, which is where a client of a response without content looks (gRPC over HTTP/2,
    /// Trailers-Only).
    pub(crate) fn answer(&self, grpc: bool, head: &mut Head) -> &'static [u8] {
        let text = self.text().as_bytes();
        let status = match self.reason.http_status() {
            0 => 500,
            number => number,
        };
        let written = if grpc {
            grpc_head(status, text.trim_ascii_end(), head)
        } else {
            begin(status, Value::literal("text/plain"), head)
        };
        written.and_then(|()| self.say_when(head)).expect("invariant: a head that was cleared has room");
        if grpc { &[] } else { text }
    }

    /// Says when the client may try again: in whole seconds, rounded up, since sooner would be refused again
    /// (RFC 9110, section 10.2.3).
    fn say_when(&self, head: &mut Head) -> Result<(), InvalidStart> {
        let Some(wait) = self.retry_after else { return Ok(()) };
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        let mut digits = [0; 20];
        Ok(head.append(&FieldName::RetryAfter.into(), decimal(seconds.max(1), &mut digits))?)
    }

    fn text(&self) -> &'static str {
        match self.reason.http_status() {
            403 => ACCESS_DENIED,
            _ => self.reason.name(),
        }
    }
}

fn begin(status: u16, content_type: Value<'_>, head: &mut Head) -> Result<(), InvalidStart> {
    head.start_response(status)?;
    Ok(head.append(&FieldName::ContentType.into(), content_type)?)
}

fn grpc_head(status: u16, message: &'static [u8], head: &mut Head) -> Result<(), InvalidStart> {
    begin(200, Value::literal("application/grpc"), head)?;
    head.append(&FieldName::GrpcStatus.into(), Value::literal(grpc_status(status)))?;
    let message = Value::new(message).expect("invariant: names of reasons are plain text");
    Ok(head.append(&Name::Known(FieldName::GrpcMessage), message)?)
}

/// A number in digits, in the buffer.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> Value<'_> {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    Value::new(&digits[start..]).expect("invariant: digits are a value")
}

/// Whether a request is a gRPC call (`application/grpc`, with or without a `+proto` and the like).
pub(crate) fn is_grpc(head: &Head) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some(value) = head.known(FieldName::ContentType) else { return false };
    let (Some(start), next) = (value.get(..GRPC.len()), value.get(GRPC.len())) else { return false };
    start.eq_ignore_ascii_case(GRPC) && matches!(next, None | Some(b'+' | b';' | b' '))
}

/// The gRPC status of an HTTP status (grpc `doc/http-grpc-status-mapping.md`).
fn grpc_status(status: u16) -> &'static str {
    match status {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc_request(content_type: &'static str) -> Head {
        let mut head = Head::new();
        head.start_request(b"POST", b"/pkg.Service/Method", b"").expect("a request");
        head.append(&FieldName::ContentType.into(), Value::literal(content_type)).expect("room");
        head
    }

    /// An answer over a head that was used.
    fn answer(refusal: Refusal, grpc: bool) -> (Head, &'static [u8]) {
        let mut head = grpc_request("text/html");
        let content = refusal.answer(grpc, &mut head);
        (head, content)
    }

    #[test]
    fn a_denial_is_a_403_with_the_text_of_cilium() {
        let (head, content) = answer(Reason::HttpPolicyDenied.into(), false);
        assert_eq!((head.status(), content), (403, &b"Access denied\r\n"[..]));
        assert_eq!((head.known(FieldName::ContentType), head.len()), (Some(&b"text/plain"[..]), 1));
    }

    #[test]
    fn a_denied_grpc_call_gets_status_7_in_the_head() {
        let (head, content) = answer(Reason::HttpPolicyDenied.into(), true);
        assert_eq!((head.status(), content), (200, &b""[..]));
        let fields: Vec<_> = head.iter().collect();
        let wanted: [(&[u8], &[u8]); 3] = [
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"7"),
            (b"grpc-message", b"Access denied"),
        ];
        assert_eq!(fields, wanted);
    }

    #[test]
    fn every_reason_has_an_answer_in_both_forms() {
        for reason in (0..=u16::MAX).filter_map(Reason::from_number) {
            for grpc in [false, true] {
                let refusal = Refusal { reason, retry_after: Some(Duration::MAX) };
                let (head, content) = answer(refusal, grpc);
                assert!(head.status() == 200 || (400..=599).contains(&head.status()), "{reason}");
                assert_eq!((head.status() == 200, content.is_empty()), (grpc, grpc), "{reason}");
            }
        }
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        assert!(is_grpc(&grpc_request("application/grpc")));
        assert!(is_grpc(&grpc_request("application/grpc+proto")));
        assert!(is_grpc(&grpc_request("Application/gRPC; charset=utf-8")));
        assert!(!is_grpc(&grpc_request("application/grpc-web")));
        assert!(!is_grpc(&grpc_request("text/plain")));
        assert!(!is_grpc(&Head::new()));
    }

    #[test]
    fn the_wait_is_rounded_up_to_seconds() {
        for (wait, wanted) in [
            (Duration::from_millis(1200), &b"2"[..]),
            (Duration::ZERO, b"1"),
            (Duration::from_secs(90), b"90"),
        ] {
            let (head, _) = answer(Refusal { reason: Reason::RateLimited, retry_after: Some(wait) }, false);
            assert_eq!((head.status(), head.known(FieldName::RetryAfter)), (429, Some(wanted)));
        }
    }
}
