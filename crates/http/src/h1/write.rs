// SPDX-License-Identifier: Apache-2.0
//! Writes heads and frames content, with framing of our own.

mod lines;

use lines::LengthLine;

use super::{Length, phrase::phrase};
use crate::head::{FieldName, Head, Method, Version};

/// How content is delimited for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoder {
    /// There is none.
    None,
    /// So many bytes are still to be written.
    Length(u64),
    Chunked,
    /// The end of the connection ends it.
    UntilClose,
}

impl Encoder {
    /// Writes what stands before a piece of this many bytes; what stands behind it. None if it is more than was
    /// announced: the message cannot be completed.
    #[must_use]
    pub(super) fn open(&mut self, bytes: usize, out: &mut Vec<u8>) -> Option<&'static [u8]> {
        match self {
            Encoder::None if bytes > 0 => return None,
            Encoder::Length(remaining) => *remaining = remaining.checked_sub(bytes as u64)?,
            // A chunk without content would end it.
            Encoder::Chunked if bytes > 0 => {
                lines::number(out, bytes as u64, 16);
                out.extend_from_slice(b"\r\n");
                return Some(b"\r\n");
            }
            Encoder::None | Encoder::Chunked | Encoder::UntilClose => {}
        }
        Some(b"")
    }

    /// Ends the content. False if less was written than announced.
    #[must_use]
    pub(super) fn finish(&mut self, trailers: Option<&Head>, out: &mut Vec<u8>) -> bool {
        let complete = match self {
            Encoder::None | Encoder::UntilClose => true,
            Encoder::Length(remaining) => *remaining == 0,
            Encoder::Chunked => {
                out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    lines::write(trailers, LengthLine::Omit, out);
                }
                out.extend_from_slice(b"\r\n");
                true
            }
        };
        *self = Encoder::None;
        complete
    }
}

/// Writes a request head, and says how its content has to be framed.
pub(super) fn request(head: &Head, length: Length, out: &mut Vec<u8>) -> Encoder {
    let authority = head.authority().unwrap_or_default();
    out.extend_from_slice(head.method_text());
    out.push(b' ');
    out.extend_from_slice(if head.method() == Method::Connect { authority } else { head.target() });
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(authority);
    out.extend_from_slice(b"\r\n");
    let encoder = match length {
        Length::Bytes(0) => {
            // A method that usually has content says that it has none (RFC 9110, section 8.6).
            let said = head.method().expects_content() || head.has(FieldName::ContentLength);
            let said = said && head.method() != Method::Connect;
            lines::write(head, if said { LengthLine::Exactly(0) } else { LengthLine::Omit }, out);
            Encoder::None
        }
        Length::Bytes(bytes) => {
            lines::write(head, LengthLine::Exactly(bytes), out);
            Encoder::Length(bytes)
        }
        Length::Unknown => {
            lines::write(head, LengthLine::Omit, out);
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Encoder::Chunked
        }
    };
    match (head.upgrade(), head.has(FieldName::Te)) {
        (Some(upgrade), false) => write_upgrade(b"connection: upgrade\r\nupgrade: ", upgrade, out),
        (Some(upgrade), true) => write_upgrade(b"connection: te, upgrade\r\nupgrade: ", upgrade, out),
        (None, true) => out.extend_from_slice(b"connection: te\r\n"),
        (None, false) => {}
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// What the writer of a response knows of its request and connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    pub(super) is_head: bool,
    pub(super) version: Version,
    pub(super) close: bool,
}

impl Plan {
    /// How the content is delimited; sets `close` where only that delimits it.
    fn encoder(&mut self, status: u16, length: Length) -> Encoder {
        if self.is_head || matches!(status, 204 | 304) {
            return Encoder::None;
        }
        match length {
            Length::Bytes(bytes) => Encoder::Length(bytes),
            Length::Unknown if self.version == Version::Http11 => Encoder::Chunked,
            Length::Unknown => {
                self.close = true;
                Encoder::UntilClose
            }
        }
    }
}

/// Writes the head of a final response, and says how its content has to be framed.
pub(super) fn response(plan: &mut Plan, head: &Head, length: Length, out: &mut Vec<u8>) -> Encoder {
    let encoder = plan.encoder(head.status(), length);
    write_status(head.status(), out);
    let line = match (encoder, length) {
        (Encoder::Length(bytes), _) => LengthLine::Exactly(bytes),
        (Encoder::Chunked | Encoder::UntilClose, _) => LengthLine::Omit,
        // RFC 9110, section 8.6: none with 204; with HEAD and 304 the length that GET would have.
        (Encoder::None, _) if head.status() == 204 => LengthLine::Omit,
        (Encoder::None, _) if head.has(FieldName::ContentLength) => LengthLine::AsItIs,
        (Encoder::None, Length::Bytes(bytes)) if plan.is_head && bytes > 0 => LengthLine::Exactly(bytes),
        (Encoder::None, _) => LengthLine::Omit,
    };
    lines::write(head, line, out);
    if encoder == Encoder::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if plan.close {
        out.extend_from_slice(b"connection: close\r\n");
    } else if plan.version == Version::Http10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// Writes a head without content and framing: an interim response, 101, or the 2xx of CONNECT.
pub(super) fn bare(head: &Head, out: &mut Vec<u8>) {
    write_status(head.status(), out);
    lines::write(head, LengthLine::Omit, out);
    if let (101, Some(upgrade)) = (head.status(), head.upgrade()) {
        write_upgrade(b"connection: upgrade\r\nupgrade: ", upgrade, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_status(status: u16, out: &mut Vec<u8>) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    lines::number(out, u64::from(status), 10);
    out.push(b' ');
    out.extend_from_slice(phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_upgrade(before: &[u8], protocols: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    out.extend_from_slice(protocols);
    out.extend_from_slice(b"\r\n");
}
