// SPDX-License-Identifier: Apache-2.0
//! Byte classes, and the search for the end of a head.

use weft_ebpf_common::reason::Reason;

use crate::error::ProtocolError;

/// Finds the end of a head line by line; remembers what it has seen, so that a head that arrives
/// byte by byte costs no more than one that arrives whole.
#[derive(Default)]
pub(crate) struct HeadScan {
    /// Bytes that were searched for a line end.
    scanned: usize,
    /// Where the current line starts.
    line: usize,
    /// Complete lines, without the empty one at the end.
    lines: usize,
}

impl HeadScan {
    /// The bytes of the section, with the empty line that ends it; none if it is not complete.
    /// Errs at once on a line that ends with a bare LF (RFC 9112 section 2.2).
    pub(crate) fn section_len(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        while let Some(found) = memchr::memchr(b'\n', &buf[self.scanned..]) {
            let end = self.scanned + found;
            if end == self.line || buf[end - 1] != b'\r' {
                return Err(ProtocolError::bad_request("a line ends with a bare LF"));
            }
            let empty = end - 1 == self.line;
            self.scanned = end + 1;
            self.line = end + 1;
            if empty {
                *self = HeadScan::default();
                return Ok(Some(end + 1));
            }
            self.lines += 1;
        }
        self.scanned = buf.len();
        Ok(None)
    }

    /// Refuses a head that is already too large, while it is still incomplete.
    pub(crate) fn check_limits(
        &self,
        buffered: usize,
        max_head: usize,
        max_target: usize,
        max_fields: usize,
    ) -> Result<(), ProtocolError> {
        // A method of at most MAX_METHOD_BYTES, two spaces and the version surround the target.
        if self.lines == 0 && buffered > max_target + MAX_METHOD_BYTES + 12 {
            return Err(TARGET_TOO_LONG);
        }
        if buffered > max_head || self.lines > max_fields + 1 {
            return Err(HEAD_TOO_LARGE);
        }
        Ok(())
    }
}

/// Longest method that is looked at; the registered ones have at most 17 bytes (RFC 9110 section 16.1.2).
pub(crate) const MAX_METHOD_BYTES: usize = 32;

pub(crate) const TARGET_TOO_LONG: ProtocolError = ProtocolError::new(
    Reason::UriTooLong,
    http::StatusCode::URI_TOO_LONG,
    "the request target is longer than allowed",
);

pub(crate) const HEAD_TOO_LARGE: ProtocolError = ProtocolError::new(
    Reason::HeadersTooLarge,
    http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "the header section is larger than allowed",
);

/// Whether the byte may stand in a token (RFC 9110 section 5.6.2).
pub(crate) const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether the byte may stand in a request target: visible ASCII, and no fragment (the `http` crate
/// would cut one off silently; a client never sends one, RFC 9112 section 3.2).
pub(crate) const fn is_target(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'#'
}

/// The number of bytes before the first that may not stand in a field value: a control other than
/// HTAB (RFC 9110 section 5.5). Eight bytes at a time.
pub(crate) fn value_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        let below_space = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let del = word ^ (ONES * 0x7f);
        let is_del = del.wrapping_sub(ONES) & !del & HIGH;
        let found = below_space | is_del;
        if found == 0 {
            at += 8;
            continue;
        }
        at += (found.trailing_zeros() / 8) as usize;
        if bytes[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    while at < bytes.len() && ((bytes[at] >= 0x20 && bytes[at] != 0x7f) || bytes[at] == b'\t') {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_found_wherever_it_is_split() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for split in 0..head.len() {
            let mut scan = HeadScan::default();
            let first = scan.section_len(&head[..split]).expect("strict line ends");
            let found = first.or_else(|| scan.section_len(head).expect("strict line ends"));
            assert_eq!(found, Some(head.len() - 4), "split at {split}");
        }
    }

    #[test]
    fn a_value_ends_at_the_first_control_byte() {
        for length in 0..40 {
            for control in [0, b'\r', b'\n', 0x1f, 0x7f] {
                let mut bytes = vec![b'\xe9'; length];
                if length > 3 {
                    bytes[3] = b'\t';
                }
                bytes.push(control);
                bytes.extend_from_slice(b"more than eight bytes");
                assert_eq!(value_len(&bytes), length);
            }
        }
    }
}
