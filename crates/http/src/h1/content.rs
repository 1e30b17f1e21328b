// SPDX-License-Identifier: Apache-2.0
//! Takes the content of a message out of the bytes of a connection.

use super::{
    Event, Limits, Received, parse,
    scan::{HEAD_TOO_LARGE, Scan},
};
use crate::{error::Error, head::Head, octets};

/// Where the content of the current message stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decoder {
    /// Read to its end, or there is none.
    Done,
    /// So many bytes are to come.
    Length(u64),
    /// Chunked (RFC 9112, section 7.1).
    Chunked(Chunked),
    /// All until the connection ends (responses only).
    UntilClose,
}

impl Decoder {
    pub(super) fn length(bytes: u64) -> Decoder {
        if bytes == 0 { Decoder::Done } else { Decoder::Length(bytes) }
    }

    pub(super) fn chunked() -> Decoder {
        Decoder::Chunked(Chunked::default())
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Decoder::Done)
    }

    /// Bytes that are still to come, if known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self {
            Decoder::Done => Some(0),
            Decoder::Length(bytes) => Some(*bytes),
            Decoder::Chunked(_) | Decoder::UntilClose => None,
        }
    }

    /// The next piece of the input. Trailers go into `head`, which is not touched without any.
    #[inline]
    pub(super) fn receive<'a>(
        &mut self,
        input: &'a [u8],
        head: &mut Head,
        limits: &Limits,
    ) -> Result<Received<'a>, Error> {
        let received = match self {
            Decoder::Done => return Ok((0, Some(Event::End))),
            Decoder::Length(remaining) => {
                let n = input.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= n as u64;
                if *remaining == 0 {
                    *self = Decoder::Done;
                }
                return Ok((n, (n > 0).then(|| Event::Data(&input[..n]))));
            }
            Decoder::UntilClose => {
                return Ok((input.len(), (!input.is_empty()).then_some(Event::Data(input))));
            }
            Decoder::Chunked(chunked) => chunked.receive(input, head, limits)?,
        };
        if matches!(received.1, Some(Event::End | Event::Trailers)) {
            *self = Decoder::Done;
        }
        Ok(received)
    }
}

/// The place in chunked content.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of the current size line that were searched for its end.
    searched: usize,
    /// Bytes of chunk extensions so far (RFC 9112, section 7.1.1, asks for a limit).
    extension_bytes: usize,
    scan: Scan,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

/// Longest size line: 15 digits and a short extension.
const MAX_SIZE_LINE: usize = 256;
/// Extension bytes in one message; nobody has a use for more.
const MAX_EXTENSION_BYTES: usize = 4096;

impl Chunked {
    fn receive<'a>(
        &mut self,
        input: &'a [u8],
        head: &mut Head,
        limits: &Limits,
    ) -> Result<Received<'a>, Error> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match &mut self.state {
                State::Size => match self.size_line(rest)? {
                    None => return Ok((at, None)),
                    Some((len, size)) => {
                        at += len;
                        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                    }
                },
                State::Data(remaining) => {
                    let n = rest.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                    if n == 0 {
                        return Ok((at, None));
                    }
                    *remaining -= n as u64;
                    if *remaining == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok((at + n, Some(Event::Data(&rest[..n]))));
                }
                State::DataEnd => {
                    if !b"\r\n".starts_with(&rest[..rest.len().min(2)]) {
                        return Err(Error::bad_request("chunk data is not followed by CRLF"));
                    }
                    if rest.len() < 2 {
                        return Ok((at, None));
                    }
                    at += 2;
                    self.state = State::Size;
                }
                State::Trailers => {
                    let (len, event) = self.trailers(rest, head, limits)?;
                    return Ok((at + len, event));
                }
            }
        }
    }

    /// The bytes of the size line and the size that it gives, if it is complete.
    fn size_line(&mut self, input: &[u8]) -> Result<Option<(usize, u64)>, Error> {
        const TOO_LONG: Error = Error::bad_request("a chunk size line is too long");
        let unsearched = input.get(self.searched..).unwrap_or_default();
        let Some(found) = memchr::memchr(b'\n', unsearched) else {
            self.searched = input.len();
            return if self.searched > MAX_SIZE_LINE { Err(TOO_LONG) } else { Ok(None) };
        };
        let end = self.searched + found;
        if end > MAX_SIZE_LINE {
            return Err(TOO_LONG);
        }
        let line = match &input[..end] {
            [line @ .., b'\r'] => line,
            _ => return Err(Error::bad_request("a chunk size line ends with a bare LF")),
        };
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let extension = &line[digits..];
        if digits == 0 || digits > 15 {
            return Err(Error::bad_request("a chunk size is not a hexadecimal number"));
        }
        if !extension.is_empty() && (extension[0] != b';' || octets::value_len(extension) != extension.len())
        {
            let detail = "a chunk size is followed by something other than an extension";
            return Err(Error::bad_request(detail));
        }
        self.extension_bytes += extension.len();
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(Error::bad_request("chunk extensions are too long"));
        }
        self.searched = 0;
        let size = line[..digits].iter().fold(0u64, |size, digit| size << 4 | u64::from(hex(*digit)));
        Ok(Some((end + 1, size)))
    }

    fn trailers<'a>(
        &mut self,
        input: &'a [u8],
        head: &mut Head,
        limits: &Limits,
    ) -> Result<Received<'a>, Error> {
        if let Some([b'\r', b'\n']) = input.get(..2) {
            return Ok((2, Some(Event::End)));
        }
        if input.is_empty() {
            return Ok((0, None));
        }
        let read = parse::section(&mut self.scan, &limits.of_trailers(), input, head, |input, head| {
            parse::trailers(input, head, limits)
        });
        match read {
            Ok(None) => Ok((0, None)),
            Ok(Some((len, ()))) => {
                Ok((len, Some(if head.is_empty() { Event::End } else { Event::Trailers })))
            }
            Err(HEAD_TOO_LARGE) => Err(Error::bad_request("the trailer section is too large")),
            Err(error) => Err(error),
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests;
