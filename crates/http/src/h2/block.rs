// SPDX-License-Identifier: Apache-2.0
//! From a head to the fields of a header block, and which of them are worth a place in the table.

use crate::{
    head::{Field, FieldName, Head, Kind, Method, Scheme, Version},
    hpack::{Encoder, Indexing, Line},
};

/// Octets that each field adds to the size of a list (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The size of the list of a head's fields as SETTINGS_MAX_HEADER_LIST_SIZE counts it, in octets.
pub(crate) fn list_size(head: &Head) -> usize {
    let start: usize = match head.kind() {
        Kind::Request => {
            let parts = [head.method_text(), head.target(), head.authority().unwrap_or_default()];
            // The names of five pseudo-fields have 40 letters, the longer scheme 5.
            45 + 5 * FIELD_OVERHEAD + parts.iter().map(|part| part.len()).sum::<usize>()
        }
        Kind::Response => b":status200".len() + FIELD_OVERHEAD,
        Kind::Trailers => 0,
    };
    let field = |(name, value): (&[u8], &[u8])| name.len() + value.len() + FIELD_OVERHEAD;
    start + head.iter().map(field).sum::<usize>()
}

/// A bound of [`list_size`] that needs no look at each field.
#[inline]
pub(crate) fn list_size_at_most(head: &Head) -> usize {
    // The text holds whatever is not counted here for the pseudo-fields.
    45 + FIELD_OVERHEAD * (5 + head.pushed()) + head.text().len()
}

/// Appends a head as a header block. Fields that belong to a connection of HTTP/1.1 are left out.
pub(crate) fn write(head: &Head, encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.begin(out);
    match head.kind() {
        Kind::Request => request(head, encoder, out),
        Kind::Response => status(head.status(), encoder, out),
        Kind::Trailers => {}
    }
    // What came over HTTP/2 has its names in lower case already.
    let lower = head.version() == Version::Http2;
    for field in head.fields() {
        write_field(head, field, lower, encoder, out);
    }
}

fn request(head: &Head, encoder: &mut Encoder, out: &mut Vec<u8>) {
    match head.method() {
        // Entries of the static table (RFC 7541, appendix A), as are those below.
        Method::Get => out.push(0x82),
        Method::Post => out.push(0x83),
        _ => encoder.field(&Line::plain(b":method", head.method_text()), Indexing::Insert, out),
    }
    let tunnel = head.method() == Method::Connect && head.protocol().is_none();
    if !tunnel {
        out.push(if head.scheme() == Scheme::Http { 0x86 } else { 0x87 });
        match head.target() {
            b"/" => out.push(0x84),
            target => Encoder::literal(4, target, out),
        }
    }
    if let Some(authority) = head.authority() {
        encoder.field(&Line::plain(b":authority", authority), Indexing::Insert, out);
    }
    if let Some(protocol) = head.protocol() {
        encoder.field(&Line::plain(b":protocol", protocol), Indexing::Insert, out);
    }
}

fn status(status: u16, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let entry = match status {
        200 => 0x88,
        204 => 0x89,
        206 => 0x8a,
        304 => 0x8b,
        400 => 0x8c,
        404 => 0x8d,
        500 => 0x8e,
        _ => {
            let digit = |power: u16| b'0' + (status / power % 10) as u8;
            let text = [digit(100), digit(10), digit(1)];
            return encoder.field(&Line::plain(b":status", &text), Indexing::Insert, out);
        }
    };
    out.push(entry);
}

#[inline]
fn write_field(head: &Head, field: &Field, lower: bool, encoder: &mut Encoder, out: &mut Vec<u8>) {
    // Most fields came over HTTP/2 and went out before, as they are.
    let as_before = lower && field.hash != 0 && !field.is_sensitive();
    if as_before && matches!(CHOICES[field.known as usize], Choice::Insert | Choice::AsItCame) {
        let (name, value, hash, known) = (head.name(field), head.value(field), field.hash, field.known);
        let line = Line { name, value, huffman: &[], hash, known };
        if encoder.sent_before(&line, out) {
            return;
        }
    }
    write_other(head, field, lower, encoder, out);
}

fn write_other(head: &Head, field: &Field, lower: bool, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let mut line = Line {
        name: head.name(field),
        value: head.value(field),
        huffman: field.huffman.of(head.text()),
        hash: field.hash,
        known: field.known,
    };
    let indexing = match CHOICES[field.known as usize] {
        Choice::LeaveOut => return,
        Choice::Te if !allows_trailers(line.value) => return,
        _ if field.is_sensitive() => Indexing::Never,
        Choice::Insert => Indexing::Insert,
        Choice::Without => Indexing::Without,
        // A hash says that its sender gave it a place. HTTP/1.1 has no say in it.
        Choice::AsItCame if lower && field.hash == 0 => Indexing::Without,
        Choice::AsItCame => Indexing::Insert,
        Choice::Te => {
            line.value = b"trailers";
            Indexing::Insert
        }
    };
    if lower {
        return encoder.field(&line, indexing, out);
    }
    match field.known {
        FieldName::Other if line.name.iter().any(u8::is_ascii_uppercase) => {
            let name = line.name.to_ascii_lowercase();
            encoder.field(&Line { name: &name, ..line }, indexing, out);
        }
        FieldName::Other => encoder.field(&line, indexing, out),
        known => encoder.field(&Line { name: known.text().as_bytes(), ..line }, indexing, out),
    }
}

/// Whether `te` says that trailers are welcome, which is all that it may say in HTTP/2 (RFC 9113, section
/// 8.2.2).
fn allows_trailers(te: &[u8]) -> bool {
    te.split(|octet| *octet == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// What is done with a field by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Insert,
    Without,
    /// Insert or not, as its sender did.
    AsItCame,
    Te,
    /// It does not go onto HTTP/2 at all.
    LeaveOut,
}

/// The choice for each known name.
///
/// Values that are new with each message would only drive others out. Secrets stay out of a table that clients
/// share: how well one compresses would tell others what it is (RFC 7541, section 7.1).
const CHOICES: [Choice; FieldName::ALL.len() + 1] = {
    use FieldName as Name;
    let mut choices = [Choice::AsItCame; FieldName::ALL.len() + 1];
    let mut at = 0;
    while at < FieldName::ALL.len() {
        let name = FieldName::ALL[at];
        choices[name as usize] = match name {
            Name::ContentLength
            | Name::Date
            | Name::Location
            | Name::XRequestId
            | Name::Traceparent
            | Name::Tracestate
            | Name::GrpcMessage
            | Name::GrpcTimeout
            | Name::XForwardedFor
            | Name::Forwarded
            | Name::SecWebsocketKey
            | Name::SecWebsocketAccept
            | Name::Cookie
            | Name::SetCookie
            | Name::Authorization
            | Name::ProxyAuthorization => Choice::Without,
            Name::Te => Choice::Te,
            Name::Host => Choice::LeaveOut,
            name if name.is_connection_specific() => Choice::LeaveOut,
            _ => Choice::Insert,
        };
        at += 1;
    }
    choices
};
