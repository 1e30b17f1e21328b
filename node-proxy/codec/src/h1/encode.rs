// SPDX-License-Identifier: Apache-2.0
//! Writes heads and frames content, with framing of our own.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode, Version};

use super::wire::Output;
use crate::{
    headers::Headers,
    message::{RequestHead, ResponseHead},
};

/// How content is delimited for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// There is none.
    None,
    /// So many bytes are still to be written.
    Length(u64),
    Chunked,
    /// The end of the connection ends it.
    UntilClose,
}

impl Encoder {
    /// Writes one piece. False if it is more than was announced: the message cannot be completed.
    #[must_use]
    pub(crate) fn data(&mut self, out: &mut Output, bytes: Bytes) -> bool {
        match self {
            Encoder::None => return true,
            Encoder::Length(remaining) => match remaining.checked_sub(bytes.len() as u64) {
                Some(rest) => *remaining = rest,
                None => return false,
            },
            Encoder::Chunked => {
                let tail = out.tail();
                write_number(tail, bytes.len() as u64, 16);
                tail.extend_from_slice(b"\r\n");
                out.push(bytes);
                out.tail().extend_from_slice(b"\r\n");
                return true;
            }
            Encoder::UntilClose => {}
        }
        out.push(bytes);
        true
    }

    /// Ends the content. False if less was written than announced.
    #[must_use]
    pub(crate) fn finish(&mut self, out: &mut Output, trailers: Option<&Headers>) -> bool {
        match self {
            Encoder::None | Encoder::UntilClose => true,
            Encoder::Length(remaining) => *remaining == 0,
            Encoder::Chunked => {
                let tail = out.tail();
                tail.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    trailers.write_lines(tail, false);
                }
                tail.extend_from_slice(b"\r\n");
                true
            }
        }
    }
}

/// Writes a request head. `length`: of the content, none if it must be chunked.
pub(crate) fn request(out: &mut Vec<u8>, head: &RequestHead, length: Option<u64>) -> Encoder {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    if let Some(authority) = &head.authority {
        out.extend_from_slice(authority.as_str().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    let encoder = match length {
        // A method that usually has content says that it has none (RFC 9110 section 8.6).
        Some(0) => {
            let expected = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
            let given = head.headers.contains(&CONTENT_LENGTH);
            write_fields(out, &head.headers, (expected || given).then_some(0));
            Encoder::None
        }
        Some(bytes) => {
            write_fields(out, &head.headers, Some(bytes));
            Encoder::Length(bytes)
        }
        None => {
            write_fields(out, &head.headers, None);
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Encoder::Chunked
        }
    };
    let te = head.headers.contains(&http::header::TE);
    match (&head.upgrade, te) {
        (Some(upgrade), _) => write_upgrade(out, upgrade),
        (None, true) => out.extend_from_slice(b"connection: te\r\n"),
        (None, false) => {}
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// What the writer of a response knows of its request and connection.
pub(crate) struct ResponsePlan {
    pub(crate) is_head: bool,
    pub(crate) version: Version,
    pub(crate) close: bool,
}

impl ResponsePlan {
    /// How the content is delimited; sets `close` where only that delimits it.
    pub(crate) fn encoder(&mut self, status: StatusCode, length: Option<u64>) -> Encoder {
        if self.is_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Encoder::None;
        }
        match length {
            Some(bytes) => Encoder::Length(bytes),
            None if self.version == Version::HTTP_11 => Encoder::Chunked,
            None => {
                self.close = true;
                Encoder::UntilClose
            }
        }
    }
}

/// Writes the head of a final response. `length`: of the content, if known.
pub(crate) fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    plan: &ResponsePlan,
    encoder: Encoder,
    length: Option<u64>,
) {
    write_status(out, head.status);
    match encoder {
        Encoder::Length(bytes) => write_fields(out, &head.headers, Some(bytes)),
        Encoder::Chunked => {
            write_fields(out, &head.headers, None);
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        Encoder::UntilClose => write_fields(out, &head.headers, None),
        // RFC 9110 section 8.6: none with 204; with HEAD and 304 the length that GET would have.
        Encoder::None if head.status == StatusCode::NO_CONTENT => write_fields(out, &head.headers, None),
        Encoder::None if head.headers.contains(&CONTENT_LENGTH) => head.headers.write_lines(out, true),
        Encoder::None => write_fields(out, &head.headers, length.filter(|bytes| plan.is_head && *bytes > 0)),
    }
    if plan.close {
        out.extend_from_slice(b"connection: close\r\n");
    } else if plan.version == Version::HTTP_10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a 101 head.
pub(crate) fn switching(out: &mut Vec<u8>, head: &ResponseHead) {
    write_status(out, StatusCode::SWITCHING_PROTOCOLS);
    head.headers.write_lines(out, false);
    if let Some(upgrade) = &head.upgrade {
        write_upgrade(out, upgrade);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_status(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_upgrade(out: &mut Vec<u8>, protocols: &[u8]) {
    out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
    out.extend_from_slice(protocols);
    out.extend_from_slice(b"\r\n");
}

/// Writes the fields with exactly this length; the received field stays in its place if it says the same.
fn write_fields(out: &mut Vec<u8>, headers: &Headers, length: Option<u64>) {
    let Some(length) = length else { return headers.write_lines(out, false) };
    let same = headers.says_length(length);
    headers.write_lines(out, same);
    if !same {
        out.extend_from_slice(b"content-length: ");
        write_number(out, length, 10);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes digits without the machinery of `fmt`. `base`: 10 or 16.
fn write_number(out: &mut Vec<u8>, mut number: u64, base: u64) {
    // Twenty digits hold any number of 64 bits.
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(number % base) as usize];
        number /= base;
        if number == 0 || at == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_fmt_writes_them() {
        for number in [0, 1, 9, 10, 15, 16, 255, 4096, u64::from(u32::MAX), u64::MAX] {
            let (mut decimal, mut hexadecimal) = (Vec::new(), Vec::new());
            write_number(&mut decimal, number, 10);
            write_number(&mut hexadecimal, number, 16);
            assert_eq!(decimal, number.to_string().as_bytes());
            assert_eq!(hexadecimal, format!("{number:x}").as_bytes());
        }
    }
}
