// SPDX-License-Identifier: Apache-2.0
//! The field lines of a section, and what of them decides framing and the connection.

use weft_ebpf_common::reason::Reason;

use super::scan::HEAD_TOO_LARGE;
use crate::{
    error::Error,
    head::{Field, FieldName, Head, Span, Version},
    octets,
};

/// How the content of a message is delimited (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Neither field: none for a request, until the connection ends for a response.
    Unsaid,
    Bytes(u64),
    Chunked,
}

/// What the fields of one section say about its message and connection. Fields of the connection are
/// noted here and nowhere else: they never reach the head.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) host: Option<Span>,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrades: bool,
    upgrade: Option<Span>,
    pub(super) expects_continue: bool,
    /// Options of `Connection` that name fields.
    nominated: usize,
}

/// Fields that `Connection` may name, besides the well-known options; nobody has a use for more, and each
/// is looked for among all fields.
const MAX_NOMINATED: usize = 32;

impl Said {
    /// Reads field lines from `at` to the empty line that ends the section; where that ends. Their ranges
    /// are those of `input`, which the caller copies into the head.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        mut at: usize,
        head: &mut Head,
        max_fields: usize,
    ) -> Result<usize, Error> {
        let mut room = max_fields;
        loop {
            let line = input.get(at..).ok_or(NO_NAME)?;
            if let [b'\r', b'\n', ..] = line {
                return Ok(at + 2);
            }
            let (field, len) = field_line(line, at)?;
            room = room.checked_sub(1).ok_or(HEAD_TOO_LARGE)?;
            at += len;
            if !decides(field.known) || self.take(input, &field, head)? {
                push(head, field)?;
            }
        }
    }

    /// Notes what a field says; whether it goes on.
    fn take(&mut self, input: &[u8], field: &Field, head: &mut Head) -> Result<bool, Error> {
        let text = field.value.of(input);
        match field.known {
            FieldName::Expect => self.expects_continue |= text.eq_ignore_ascii_case(b"100-continue"),
            FieldName::ContentLength => {
                let length =
                    octets::decimal(text).ok_or(Error::bad_request("content-length is not a number"))?;
                if self.content_length.replace(length).is_some() {
                    return Err(Error::bad_request("content-length is given twice"));
                }
            }
            FieldName::TransferEncoding => {
                self.take_transfer_encoding(text)?;
                return Ok(false);
            }
            FieldName::Host => {
                if self.host.replace(field.value).is_some() {
                    return Err(Error::bad_request("host is given twice"));
                }
                return Ok(false);
            }
            FieldName::Connection => {
                self.take_connection(text, *field, head)?;
                return Ok(false);
            }
            FieldName::Upgrade => {
                if self.upgrade.replace(field.value).is_some() {
                    return Err(Error::bad_request("upgrade is given twice"));
                }
                return Ok(false);
            }
            FieldName::Te => return Ok(text.eq_ignore_ascii_case(b"trailers")),
            _ => return Ok(!field.known.is_connection_specific()),
        }
        Ok(true)
    }

    fn take_transfer_encoding(&mut self, text: &[u8]) -> Result<(), Error> {
        if self.chunked {
            return Err(Error::bad_request("transfer-encoding is given twice"));
        }
        if text.eq_ignore_ascii_case(b"chunked") {
            self.chunked = true;
            return Ok(());
        }
        let mut codings = text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let chunked_last = codings.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        let others_are_tokens =
            codings.all(|coding| octets::is_token(coding) && !coding.eq_ignore_ascii_case(b"chunked"));
        // RFC 9112, section 6.1: a coding that is not understood is answered with 501.
        if chunked_last && others_are_tokens {
            return Err(Error::new(Reason::BadRequest, 501, "transfer-encoding other than chunked"));
        }
        Err(Error::bad_request("transfer-encoding does not end with one chunked"))
    }

    fn take_connection(&mut self, text: &[u8], field: Field, head: &mut Head) -> Result<(), Error> {
        let before = self.nominated;
        for option in options(text) {
            match option {
                b"close" | b"Close" => self.close = true,
                _ if option.eq_ignore_ascii_case(b"close") => self.close = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                _ if option.eq_ignore_ascii_case(b"upgrade") => self.upgrades = true,
                _ if is_nominated(option) => self.nominated += 1,
                _ => {}
            }
        }
        if self.nominated > MAX_NOMINATED {
            return Err(Error::bad_request("connection names more fields than anybody needs"));
        }
        // Kept unseen until all fields are there, to remove those that it names.
        if self.nominated > before { push(head, field.hidden()) } else { Ok(()) }
    }

    /// Removes what `Connection` names (RFC 9110, section 7.6.1), once the text is in the head.
    pub(super) fn remove_nominated(&self, head: &mut Head) {
        if self.nominated > 0 {
            head.remove_nominated(|value| options(value).filter(|option| is_nominated(option)));
        }
    }

    pub(super) fn framing(&self) -> Result<Framing, Error> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err(Error::bad_request("both content-length and transfer-encoding are given")),
            (Some(bytes), false) => Ok(Framing::Bytes(bytes)),
            (None, true) => Ok(Framing::Chunked),
            (None, false) => Ok(Framing::Unsaid),
        }
    }

    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// What `Upgrade` says, if `Connection` names it (RFC 9110, section 7.8).
    pub(super) fn upgrade(&self) -> Option<Span> {
        self.upgrade.filter(|span| self.upgrades && !span.is_empty())
    }
}

fn push(head: &mut Head, field: Field) -> Result<(), Error> {
    // Our own bounds are below those of a head, whatever the limits say.
    head.push(field).ok().ok_or(HEAD_TOO_LARGE)
}

/// Whether a field of this name decides about framing or belongs to the connection.
#[inline]
fn decides(name: FieldName) -> bool {
    const SET: u64 = bit(FieldName::Te)
        | bit(FieldName::Host)
        | bit(FieldName::Expect)
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

fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether an option of `Connection` names a field that can be removed: not the framing of the message,
/// which is not for a sender to hide, and nothing that never goes on anyway.
fn is_nominated(option: &[u8]) -> bool {
    let name = FieldName::of(option);
    !option.is_empty() && (name == FieldName::Expect || !decides(name))
}

const NO_NAME: Error = Error::bad_request("a header line does not start with a name and a colon");
const CONTROL: Error = Error::bad_request("a control byte in the head");

/// The field line that starts here, which is `at` in the input, with its value without surrounding whitespace,
/// and its length. What it says of a line that is not complete does not count.
#[inline(always)]
fn field_line(line: &[u8], at: usize) -> Result<(Field, usize), Error> {
    let (known, name_len) = FieldName::of_line(line).ok_or(NO_NAME)?;
    let (name, value) = line.split_at_checked(name_len).ok_or(NO_NAME)?;
    // An empty name is also a folded line (RFC 9112, section 5.2); a space is refused by section 5.1.
    if known == FieldName::Other && !octets::is_token(name) {
        return Err(NO_NAME);
    }
    let [_colon, value @ ..] = value else { return Err(NO_NAME) };
    let value = match value {
        // As nearly everybody writes it.
        [b' ', rest @ ..] if !matches!(rest.first(), Some(b' ' | b'\t')) => rest,
        _ => &value[blanks(value.iter())..],
    };
    let len = octets::value_len(value);
    let Some((text, [b'\r', b'\n', rest @ ..])) = value.split_at_checked(len) else { return Err(CONTROL) };
    let start = at + line.len() - value.len();
    let name = Span::new(at, at + name_len);
    let len = line.len() - rest.len();
    if let [.., b' ' | b'\t'] = text {
        // Its line end is not behind the value.
        let end = start + text.len() - blanks(text.iter().rev());
        return Ok((Field { flags: 0, ..Field::line(name, Span::new(start, end), known) }, len));
    }
    Ok((Field::line(name, Span::new(start, start + text.len()), known), len))
}

fn blanks<'a>(bytes: impl Iterator<Item = &'a u8>) -> usize {
    bytes.take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}
