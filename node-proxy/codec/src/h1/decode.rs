// SPDX-License-Identifier: Apache-2.0
//! Takes the content of a message out of the bytes of a connection.

use bytes::{Buf, Bytes, BytesMut};

use super::{parse, scan, scan::HeadScan};
use crate::{config::H1Config, headers::Headers};

/// Where the content of the current message stands.
pub(crate) enum Decoder {
    /// Read to its end, or there is none.
    Done,
    /// So many bytes are to come.
    Length(u64),
    /// Chunked (RFC 9112 section 7.1).
    Chunked(Box<Chunked>),
    /// All until the connection ends (responses only).
    UntilClose,
}

/// What the buffered bytes gave.
pub(crate) enum Decoded {
    /// Read more and ask again.
    NeedMore,
    /// A piece of content.
    Data(Bytes),
    /// The end, with trailers.
    Trailers(Headers),
    /// The end.
    End,
}

impl Decoder {
    pub(crate) fn length(bytes: u64) -> Decoder {
        if bytes == 0 { Decoder::Done } else { Decoder::Length(bytes) }
    }

    pub(crate) fn chunked() -> Decoder {
        Decoder::Chunked(Box::new(Chunked {
            state: ChunkState::Size,
            line: 0,
            extension_bytes: 0,
            scan: HeadScan::default(),
        }))
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Decoder::Done)
    }

    /// Bytes that are still to come, if known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self {
            Decoder::Done => Some(0),
            Decoder::Length(bytes) => Some(*bytes),
            Decoder::Chunked(_) | Decoder::UntilClose => None,
        }
    }

    /// Takes the next piece out of `buf`. Errs on malformed chunks, naming the rule.
    pub(crate) fn decode(&mut self, buf: &mut BytesMut, config: &H1Config) -> Result<Decoded, &'static str> {
        let decoded = match self {
            Decoder::Done => return Ok(Decoded::End),
            Decoder::Length(remaining) => {
                let n = (buf.len() as u64).min(*remaining);
                if n == 0 {
                    return Ok(Decoded::NeedMore);
                }
                *remaining -= n;
                let data = take(buf, n as usize);
                if *remaining == 0 {
                    *self = Decoder::Done;
                }
                return Ok(Decoded::Data(data));
            }
            Decoder::UntilClose if buf.is_empty() => return Ok(Decoded::NeedMore),
            Decoder::UntilClose => return Ok(Decoded::Data(take(buf, buf.len()))),
            Decoder::Chunked(chunked) => chunked.decode(buf, config)?,
        };
        if matches!(decoded, Decoded::End | Decoded::Trailers(_)) {
            *self = Decoder::Done;
        }
        Ok(decoded)
    }
}

/// Takes bytes out of the buffer, and with the last ones the buffer itself.
pub(crate) fn take(buf: &mut BytesMut, n: usize) -> Bytes {
    if n == buf.len() { std::mem::take(buf).freeze() } else { buf.split_to(n).freeze() }
}

pub(crate) struct Chunked {
    state: ChunkState,
    /// Bytes of the current size line that were searched for its end.
    line: usize,
    /// Bytes of chunk extensions so far (RFC 9112 section 7.1.1 asks for a limit).
    extension_bytes: usize,
    scan: HeadScan,
}

enum ChunkState {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

/// Longest size line: 16 digits and a short extension.
const MAX_SIZE_LINE: usize = 256;
/// Extension bytes in one message; nobody has a use for more.
const MAX_EXTENSION_BYTES: usize = 4096;

impl Chunked {
    fn decode(&mut self, buf: &mut BytesMut, config: &H1Config) -> Result<Decoded, &'static str> {
        loop {
            match &mut self.state {
                ChunkState::Size => match self.size_line(buf)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(0) => self.state = ChunkState::Trailers,
                    Some(size) => self.state = ChunkState::Data(size),
                },
                ChunkState::Data(remaining) => {
                    let n = (buf.len() as u64).min(*remaining);
                    if n == 0 {
                        return Ok(Decoded::NeedMore);
                    }
                    *remaining -= n;
                    if *remaining == 0 {
                        self.state = ChunkState::DataEnd;
                    }
                    return Ok(Decoded::Data(take(buf, n as usize)));
                }
                ChunkState::DataEnd => {
                    if !buf.is_empty() && !b"\r\n".starts_with(&buf[..buf.len().min(2)]) {
                        return Err("chunk data is not followed by CRLF");
                    }
                    if buf.len() < 2 {
                        return Ok(Decoded::NeedMore);
                    }
                    buf.advance(2);
                    self.state = ChunkState::Size;
                }
                ChunkState::Trailers => return self.trailers(buf, config),
            }
        }
    }

    fn size_line(&mut self, buf: &mut BytesMut) -> Result<Option<u64>, &'static str> {
        let Some(found) = memchr::memchr(b'\n', &buf[self.line..]) else {
            self.line = buf.len();
            return if self.line > MAX_SIZE_LINE { Err("a chunk size line is too long") } else { Ok(None) };
        };
        let end = self.line + found;
        if end > MAX_SIZE_LINE {
            return Err("a chunk size line is too long");
        }
        let line = match &buf[..end] {
            [line @ .., b'\r'] => line,
            _ => return Err("a chunk size line ends with a bare LF"),
        };
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let extension = &line[digits..];
        if digits == 0 || digits > 15 {
            return Err("a chunk size is not a hexadecimal number");
        }
        if !extension.is_empty() && (extension[0] != b';' || scan::value_len(extension) != extension.len()) {
            return Err("a chunk size is followed by something other than an extension");
        }
        self.extension_bytes += extension.len();
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err("chunk extensions are too long");
        }
        let size = line[..digits].iter().fold(0u64, |size, digit| size << 4 | u64::from(hex(*digit)));
        buf.advance(end + 1);
        self.line = 0;
        Ok(Some(size))
    }

    fn trailers(&mut self, buf: &mut BytesMut, config: &H1Config) -> Result<Decoded, &'static str> {
        match self.scan.section_len(buf).map_err(|error| error.detail)? {
            None if buf.len() > config.max_trailer_bytes => Err("the trailer section is too large"),
            None => Ok(Decoded::NeedMore),
            Some(2) => {
                buf.advance(2);
                Ok(Decoded::End)
            }
            Some(len) if len > config.max_trailer_bytes => Err("the trailer section is too large"),
            Some(len) => {
                let section = take(buf, len);
                let trailers = parse::trailers(section, config.max_headers).map_err(|error| error.detail)?;
                Ok(if trailers.is_empty() { Decoded::End } else { Decoded::Trailers(trailers) })
            }
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
