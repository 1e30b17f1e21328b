// SPDX-License-Identifier: Apache-2.0
//! Field lines, each copied out once; neighbours that stand as they were received are copied together.

use crate::{
    head::{Field, FieldName, Head, Version},
    octets,
};

/// What becomes of `Content-Length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LengthLine {
    /// It is not written.
    Omit,
    /// It is written as it stands, whatever it says.
    AsItIs,
    /// One line says this; the received one stays in its place if it does.
    Exactly(u64),
}

/// Writes the fields as lines. What belongs to one connection, and `Host`, is never written.
#[inline]
pub(super) fn write(head: &Head, mut length: LengthLine, out: &mut Vec<u8>) {
    let text = head.text();
    let mut cookies_joined = false;
    let mut run = 0..0;
    for field in head.fields() {
        if is_special(field.known) {
            match field.known {
                FieldName::ContentLength => match length {
                    LengthLine::Omit => continue,
                    LengthLine::AsItIs => {}
                    LengthLine::Exactly(bytes) if says(field.value.of(text), bytes) => {
                        // Another one would be one too many.
                        length = LengthLine::Omit;
                    }
                    LengthLine::Exactly(_) => continue,
                },
                // Crumbs of HTTP/2 become one field (RFC 9113, section 8.2.3).
                FieldName::Cookie if head.version() == Version::Http2 => {
                    if !std::mem::replace(&mut cookies_joined, true) {
                        out.extend_from_slice(&text[std::mem::take(&mut run)]);
                        write_cookies(head, out);
                    }
                    continue;
                }
                FieldName::Cookie => {}
                _ => continue,
            }
        }
        if !field.has(Field::LINE) {
            out.extend_from_slice(&text[std::mem::take(&mut run)]);
            line(field.name.of(text), field.value.of(text), out);
            continue;
        }
        let start = field.name.start();
        if run.end != start {
            out.extend_from_slice(&text[std::mem::replace(&mut run, start..start)]);
        }
        // The line end belongs to it.
        run.end = field.value.end() + 2;
    }
    out.extend_from_slice(&text[run]);
    if let LengthLine::Exactly(bytes) = length {
        out.extend_from_slice(b"content-length: ");
        number(out, bytes, 10);
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether the text is this number as anybody would write it, without zeros before it.
fn says(text: &[u8], number: u64) -> bool {
    octets::decimal(text) == Some(number) && (text[0] != b'0' || text.len() == 1)
}

/// Whether a field of this name is not just copied.
#[inline]
fn is_special(name: FieldName) -> bool {
    const SET: u64 = bit(FieldName::Host)
        | bit(FieldName::Cookie)
        | bit(FieldName::Upgrade)
        | bit(FieldName::Connection)
        | bit(FieldName::KeepAlive)
        | bit(FieldName::ContentLength)
        | bit(FieldName::ProxyConnection)
        | bit(FieldName::TransferEncoding);
    const fn bit(name: FieldName) -> u64 {
        1 << name as u64
    }
    SET & bit(name) != 0
}

fn write_cookies(head: &Head, out: &mut Vec<u8>) {
    let mut between: &[u8] = b"cookie: ";
    for field in head.fields().filter(|field| field.known == FieldName::Cookie) {
        out.extend_from_slice(between);
        out.extend_from_slice(head.value(field));
        between = b"; ";
    }
    out.extend_from_slice(b"\r\n");
}

fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes digits without the machinery of `fmt`. `base`: 10 or 16.
pub(super) fn number(out: &mut Vec<u8>, mut number: u64, base: u64) {
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
        for value in [0, 1, 9, 10, 15, 16, 255, 4096, u64::from(u32::MAX), u64::MAX] {
            let (mut decimal, mut hexadecimal) = (Vec::new(), Vec::new());
            number(&mut decimal, value, 10);
            number(&mut hexadecimal, value, 16);
            assert_eq!(decimal, value.to_string().as_bytes());
            assert_eq!(hexadecimal, format!("{value:x}").as_bytes());
        }
    }
}
