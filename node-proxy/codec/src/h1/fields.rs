// SPDX-License-Identifier: Apache-2.0
//! The field lines of a head or trailer section, and what of them decides framing.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderName, StatusCode, Version};
use weft_ebpf_common::reason::Reason;

use super::scan::{self, HEAD_TOO_LARGE};
use crate::{error::ProtocolError, headers::Block};

/// How the content of a message is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Bytes(u64),
    Chunked,
    /// Neither field: none for a request, until the connection ends for a response.
    Unsaid,
}

/// The fields of one section, with what the codec itself needs of them.
pub(super) struct Fields {
    pub(super) block: Block,
    pub(super) host: Option<Range<usize>>,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    says_keep_alive: bool,
    says_upgrade: bool,
    upgrade: Option<Range<usize>>,
    pub(super) expects_continue: bool,
    /// Fields that `Connection` names besides the well-known options.
    nominated: Vec<Range<usize>>,
}

impl Fields {
    pub(super) fn parse(wire: Bytes, from: usize, max_fields: usize) -> Result<Fields, ProtocolError> {
        let mut fields = Fields {
            block: Block::new(wire.clone(), 16.min(max_fields)),
            host: None,
            content_length: None,
            chunked: false,
            close: false,
            says_keep_alive: false,
            says_upgrade: false,
            upgrade: None,
            expects_continue: false,
            nominated: Vec::new(),
        };
        let mut at = from;
        let mut count = 0;
        while wire.get(at..at + 2) != Some(b"\r\n") {
            count += 1;
            if count > max_fields {
                return Err(HEAD_TOO_LARGE);
            }
            let (name, value, next) = field_line(&wire, at)?;
            at = next;
            fields.take(&wire, name, value)?;
        }
        Ok(fields)
    }

    fn take(&mut self, wire: &Bytes, name: Range<usize>, value: Range<usize>) -> Result<(), ProtocolError> {
        let text = &wire[value.clone()];
        let special = Special::of(&wire[name.clone()]);
        match special {
            Special::None => {}
            Special::Expect => self.expects_continue |= text.eq_ignore_ascii_case(b"100-continue"),
            Special::ContentLength => {
                if self.content_length.is_some() {
                    return Err(ProtocolError::bad_request("content-length is given twice"));
                }
                self.content_length = Some(decimal(text)?);
            }
            Special::TransferEncoding => return self.take_transfer_encoding(text),
            Special::Host => {
                if self.host.replace(value).is_some() {
                    return Err(ProtocolError::bad_request("host is given twice"));
                }
                return Ok(());
            }
            Special::Connection => {
                self.take_connection(wire, value);
                return Ok(());
            }
            Special::Upgrade => {
                if self.upgrade.replace(value).is_some() {
                    return Err(ProtocolError::bad_request("upgrade is given twice"));
                }
                return Ok(());
            }
            Special::Te if !text.eq_ignore_ascii_case(b"trailers") => return Ok(()),
            Special::Te => {}
            Special::Hop => return Ok(()),
        }
        let is_length = matches!(special, Special::ContentLength);
        if self.block.push(name, value, is_length) { Ok(()) } else { Err(HEAD_TOO_LARGE) }
    }

    fn take_transfer_encoding(&mut self, text: &[u8]) -> Result<(), ProtocolError> {
        if self.chunked {
            return Err(ProtocolError::bad_request("transfer-encoding is given twice"));
        }
        if text.eq_ignore_ascii_case(b"chunked") {
            self.chunked = true;
            return Ok(());
        }
        let mut codings = text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let chunked_last = codings.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        let others_are_tokens = codings.all(|coding| {
            !coding.is_empty()
                && coding.iter().copied().all(scan::is_token)
                && !coding.eq_ignore_ascii_case(b"chunked")
        });
        // RFC 9112 section 6.1: a coding that is not understood is answered with 501.
        if chunked_last && others_are_tokens {
            return Err(ProtocolError::new(
                Reason::BadRequest,
                StatusCode::NOT_IMPLEMENTED,
                "transfer-encoding other than chunked",
            ));
        }
        Err(ProtocolError::bad_request("transfer-encoding does not end with one chunked"))
    }

    fn take_connection(&mut self, wire: &[u8], value: Range<usize>) {
        let mut at = value.start;
        for option in wire[value].split(|byte| *byte == b',') {
            let start = at + (option.len() - option.trim_ascii_start().len());
            at += option.len() + 1;
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.says_keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.says_upgrade = true;
            } else if !option.is_empty()
                && !matches!(Special::of(option), Special::ContentLength | Special::Te)
            {
                self.nominated.push(start..start + option.len());
            }
        }
    }

    pub(super) fn length(&self) -> Result<Length, ProtocolError> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => {
                Err(ProtocolError::bad_request("both content-length and transfer-encoding are given"))
            }
            (Some(bytes), false) => Ok(Length::Bytes(bytes)),
            (None, true) => Ok(Length::Chunked),
            (None, false) => Ok(Length::Unsaid),
        }
    }

    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.says_keep_alive)
    }

    pub(super) fn upgrade(&self, wire: &Bytes) -> Option<Bytes> {
        let range = self.upgrade.clone().filter(|range| self.says_upgrade && !range.is_empty())?;
        Some(wire.slice(range))
    }

    /// The fields that go on, without those that `Connection` names (RFC 9110 section 7.6.1).
    pub(super) fn end_to_end(mut self) -> Block {
        let wire = self.block.wire().clone();
        for nominated in self.nominated.drain(..) {
            if let Ok(name) = HeaderName::from_bytes(&wire[nominated]) {
                self.block.remove(name.as_str());
            }
        }
        self.block
    }
}

/// The fields that decide framing or belong to the connection.
enum Special {
    None,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Te,
    Expect,
    /// Only dropped.
    Hop,
}

impl Special {
    fn of(name: &[u8]) -> Special {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            2 if is(b"te") => Special::Te,
            4 if is(b"host") => Special::Host,
            6 if is(b"expect") => Special::Expect,
            7 if is(b"upgrade") => Special::Upgrade,
            10 if is(b"connection") => Special::Connection,
            10 if is(b"keep-alive") => Special::Hop,
            14 if is(b"content-length") => Special::ContentLength,
            16 if is(b"proxy-connection") => Special::Hop,
            17 if is(b"transfer-encoding") => Special::TransferEncoding,
            _ => Special::None,
        }
    }
}

/// One field line: its name, its value without surrounding whitespace, and where the next line starts.
fn field_line(wire: &[u8], at: usize) -> Result<(Range<usize>, Range<usize>, usize), ProtocolError> {
    let name_len = wire[at..].iter().position(|byte| !scan::is_token(*byte)).unwrap_or(0);
    // An empty name is also a folded line (RFC 9112 section 5.2); a space is refused by section 5.1.
    if name_len == 0 || wire[at + name_len] != b':' {
        return Err(ProtocolError::bad_request("a header line does not start with a name and a colon"));
    }
    let after = at + name_len + 1;
    let end = line_end(wire, after)?;
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut start = after;
    while start < end && is_blank(&wire[start]) {
        start += 1;
    }
    let mut stop = end;
    while stop > start && is_blank(&wire[stop - 1]) {
        stop -= 1;
    }
    Ok((at..at + name_len, start..stop, end + 2))
}

/// Digits only (RFC 9110 section 8.6): no sign, no list, no overflow.
fn decimal(text: &[u8]) -> Result<u64, ProtocolError> {
    const INVALID: ProtocolError = ProtocolError::bad_request("content-length is not a number");
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    text.iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|length| *length <= MAX_LENGTH)
        .ok_or(INVALID)
}

/// Lengths above the largest offset of a file cannot be meant, and leave room for sums.
const MAX_LENGTH: u64 = i64::MAX as u64;

/// Where the line that starts at `from` ends, before its CRLF. The line holds no control byte.
pub(super) fn line_end(head: &[u8], from: usize) -> Result<usize, ProtocolError> {
    let end = from + scan::value_len(&head[from..]);
    match head.get(end..end + 2) {
        Some(b"\r\n") => Ok(end),
        _ => Err(ProtocolError::bad_request("a control byte in the head")),
    }
}
