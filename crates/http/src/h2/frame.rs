// SPDX-License-Identifier: Apache-2.0
//! Frames (RFC 9113, sections 4 and 6): the rules of their lengths, streams and flags, and how they are written.

use super::error::{ErrorCode, Fault};

/// What a client sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Octets of a frame's header.
pub(crate) const HEADER_LEN: usize = 9;

/// The largest payload that is received and sent: the smallest that RFC 9113, section 4.2, lets anybody choose.
/// Larger frames gain nothing where content is handed on in the pieces in which it comes.
pub const MAX_PAYLOAD: usize = 16_384;

/// The largest window (RFC 9113, section 6.9.1).
pub(crate) const MAX_WINDOW: u32 = (1 << 31) - 1;

pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// A frame's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Header {
    #[inline]
    pub(crate) fn parse(octets: &[u8; HEADER_LEN]) -> Header {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = *octets;
        Header {
            length: usize::from(l2) << 16 | usize::from(l1) << 8 | usize::from(l0),
            kind,
            flags,
            stream: u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]),
        }
    }

    #[inline]
    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A frame other than DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Headers { block: &'a [u8] },
    Continuation { block: &'a [u8] },
    Priority,
    Reset { code: ErrorCode },
    Settings { ack: bool, entries: &'a [[u8; 6]] },
    Ping { ack: bool, payload: [u8; 8] },
    GoAway { last: u32, code: ErrorCode },
    WindowUpdate { increment: u32 },
    Unknown,
}

/// Reads a frame that is there as a whole. Every error here ends the connection, those too that RFC 9113 would
/// let end the stream alone (section 5.4.2).
#[inline]
pub(crate) fn parse<'a>(header: Header, payload: &'a [u8]) -> Result<Frame<'a>, Fault> {
    match header.kind {
        kind::HEADERS => headers(header, payload),
        kind::WINDOW_UPDATE => {
            let increment = u32::from_be_bytes(exactly(payload)?) & MAX_WINDOW;
            Ok(Frame::WindowUpdate { increment })
        }
        kind::CONTINUATION => on_stream(header, Frame::Continuation { block: payload }),
        kind::RST_STREAM => {
            let code = ErrorCode(u32::from_be_bytes(exactly(payload)?));
            on_stream(header, Frame::Reset { code })
        }
        kind::PRIORITY => {
            let octets: [u8; 5] = exactly(payload)?;
            depends_on_other(header, &octets)?;
            on_stream(header, Frame::Priority)
        }
        kind::SETTINGS => on_connection(header, settings(header, payload)?),
        kind::PING => {
            let ack = header.has(flag::ACK);
            on_connection(header, Frame::Ping { ack, payload: exactly(payload)? })
        }
        kind::GOAWAY => on_connection(header, go_away(payload)?),
        kind::PUSH_PROMISE => Err(Fault::protocol("a push that nobody asked for")),
        _ => Ok(Frame::Unknown),
    }
}

fn exactly<const N: usize>(payload: &[u8]) -> Result<[u8; N], Fault> {
    payload.try_into().map_err(|_error| Fault::size("a frame has not the size that it must have"))
}

#[inline]
fn on_stream<'a>(header: Header, frame: Frame<'a>) -> Result<Frame<'a>, Fault> {
    if header.stream == 0 {
        Err(Fault::protocol("a frame of a stream without its number"))
    } else {
        Ok(frame)
    }
}

fn on_connection<'a>(header: Header, frame: Frame<'a>) -> Result<Frame<'a>, Fault> {
    if header.stream == 0 { Ok(frame) } else { Err(Fault::protocol("a frame of the connection on a stream")) }
}

#[inline]
fn headers<'a>(header: Header, mut block: &'a [u8]) -> Result<Frame<'a>, Fault> {
    if header.flags & (flag::PADDED | flag::PRIORITY) != 0 {
        block = without_padding(header, block)?;
        if header.has(flag::PRIORITY) {
            let (priority, rest) =
                block.split_first_chunk().ok_or(Fault::size("a frame is too small for its priority"))?;
            depends_on_other(header, priority)?;
            block = rest;
        }
    }
    on_stream(header, Frame::Headers { block })
}

fn without_padding(header: Header, payload: &[u8]) -> Result<&[u8], Fault> {
    if !header.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) =
        payload.split_first().ok_or(Fault::size("a frame is too small for its padding"))?;
    let length =
        rest.len().checked_sub(usize::from(padding)).ok_or(Fault::protocol("more padding than payload"))?;
    Ok(&rest[..length])
}

/// Priorities mean nothing to us; one that makes a stream depend on itself is an error nonetheless (RFC 7540,
/// section 5.3.1).
fn depends_on_other(header: Header, priority: &[u8; 5]) -> Result<(), Fault> {
    let [s3, s2, s1, s0, _weight] = *priority;
    if u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]) == header.stream {
        return Err(Fault::protocol("a stream depends on itself"));
    }
    Ok(())
}

fn settings<'a>(header: Header, payload: &'a [u8]) -> Result<Frame<'a>, Fault> {
    let ack = header.has(flag::ACK);
    match payload.as_chunks::<6>() {
        (entries, []) if !ack || entries.is_empty() => Ok(Frame::Settings { ack, entries }),
        _ => Err(Fault::size("settings are not of a size that they can have")),
    }
}

fn go_away(payload: &[u8]) -> Result<Frame<'_>, Fault> {
    let (last, rest) = payload.split_first_chunk().ok_or(Fault::size("a goaway without its last stream"))?;
    let code = rest.first_chunk().ok_or(Fault::size("a goaway without its code"))?;
    let last = u32::from_be_bytes(*last) & MAX_WINDOW;
    Ok(Frame::GoAway { last, code: ErrorCode(u32::from_be_bytes(*code)) })
}

/// Appends a frame's header.
#[inline]
pub(crate) fn write_header(length: usize, kind: u8, flags: u8, stream: u32, out: &mut Vec<u8>) {
    let [_, l2, l1, l0] = (length as u32).to_be_bytes();
    let [s3, s2, s1, s0] = stream.to_be_bytes();
    out.extend_from_slice(&[l2, l1, l0, kind, flags, s3, s2, s1, s0]);
}

/// Appends a DATA frame.
#[inline]
pub(crate) fn write_data(stream: u32, content: &[u8], end: bool, out: &mut Vec<u8>) {
    let flags = if end { flag::END_STREAM } else { 0 };
    write_header(content.len(), kind::DATA, flags, stream, out);
    out.extend_from_slice(content);
}

/// Appends the frames of a header block that `write` appends; more than one if it is longer than a frame.
#[inline]
pub(crate) fn write_block(stream: u32, end: bool, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let end = if end { flag::END_STREAM } else { 0 };
    let start = out.len();
    write_header(0, kind::HEADERS, flag::END_HEADERS | end, stream, out);
    write(out);
    let length = out.len() - start - HEADER_LEN;
    if length > MAX_PAYLOAD {
        return split_block(stream, end, out, start);
    }
    let [.., l1, l0] = length.to_be_bytes();
    out[start + 1] = l1;
    out[start + 2] = l0;
}

#[cold]
fn split_block(stream: u32, end: u8, out: &mut Vec<u8>, start: usize) {
    let block = out.split_off(start);
    let block = &block[HEADER_LEN..];
    let (first, mut rest) = block.split_at(MAX_PAYLOAD);
    write_header(first.len(), kind::HEADERS, end, stream, out);
    out.extend_from_slice(first);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        let flags = if after.is_empty() { flag::END_HEADERS } else { 0 };
        write_header(piece.len(), kind::CONTINUATION, flags, stream, out);
        out.extend_from_slice(piece);
        rest = after;
    }
}

/// Appends a RST_STREAM frame.
pub(crate) fn write_reset(stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
    write_header(4, kind::RST_STREAM, 0, stream, out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Appends a SETTINGS frame.
pub(crate) fn write_settings(entries: &[(u16, u32)], out: &mut Vec<u8>) {
    write_header(entries.len() * 6, kind::SETTINGS, 0, 0, out);
    for (name, value) in entries {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends the acknowledgement of settings.
pub(crate) fn write_settings_ack(out: &mut Vec<u8>) {
    write_header(0, kind::SETTINGS, flag::ACK, 0, out);
}

/// Appends a PING frame.
pub(crate) fn write_ping(ack: bool, payload: [u8; 8], out: &mut Vec<u8>) {
    write_header(8, kind::PING, if ack { flag::ACK } else { 0 }, 0, out);
    out.extend_from_slice(&payload);
}

/// Appends a GOAWAY frame; `debug` is for whoever reads a trace.
pub(crate) fn write_go_away(last: u32, code: ErrorCode, debug: &str, out: &mut Vec<u8>) {
    write_header(8 + debug.len(), kind::GOAWAY, 0, 0, out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug.as_bytes());
}

/// Appends a WINDOW_UPDATE frame.
pub(crate) fn write_window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    write_header(4, kind::WINDOW_UPDATE, 0, stream, out);
    out.extend_from_slice(&increment.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as it would be received.
    fn read(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<String, ErrorCode> {
        let header = Header { length: payload.len(), kind, flags, stream };
        parse(header, payload).map(|frame| format!("{frame:?}")).map_err(|fault| fault.code)
    }

    #[test]
    fn every_frame_has_the_length_that_it_must_have() {
        for (kind, good) in
            [(kind::PRIORITY, 5), (kind::RST_STREAM, 4), (kind::PING, 8), (kind::WINDOW_UPDATE, 4)]
        {
            let stream = u32::from(kind != kind::PING);
            for length in 0..20 {
                let payload = vec![0; length];
                let read = read(kind, 0, stream, &payload);
                if length == good {
                    assert!(read.is_ok(), "{kind} {length}");
                } else {
                    assert_eq!(read, Err(ErrorCode::FRAME_SIZE_ERROR), "{kind} {length}");
                }
            }
        }
        for length in 0..20 {
            let settings = read(kind::SETTINGS, 0, 0, &vec![0; length]);
            assert_eq!(settings.is_ok(), length % 6 == 0, "{length}");
            assert_eq!(read(kind::SETTINGS, flag::ACK, 0, &vec![0; length]).is_ok(), length == 0, "{length}");
            assert_eq!(read(kind::GOAWAY, 0, 0, &vec![0; length]).is_ok(), length >= 8, "{length}");
        }
    }

    #[test]
    fn frames_of_a_stream_have_its_number_and_others_have_none() {
        let of_a_stream =
            [(kind::HEADERS, 0), (kind::PRIORITY, 5), (kind::RST_STREAM, 4), (kind::CONTINUATION, 0)];
        for (kind, length) in of_a_stream {
            let payload = vec![0x7f; length];
            assert!(read(kind, 0, 1, &payload).is_ok(), "{kind}");
            assert_eq!(read(kind, 0, 0, &payload), Err(ErrorCode::PROTOCOL_ERROR), "{kind}");
        }
        for (kind, length) in [(kind::SETTINGS, 0), (kind::PING, 8), (kind::GOAWAY, 8)] {
            let payload = vec![0; length];
            assert!(read(kind, 0, 0, &payload).is_ok(), "{kind}");
            assert_eq!(read(kind, 0, 1, &payload), Err(ErrorCode::PROTOCOL_ERROR), "{kind}");
        }
        assert_eq!(read(kind::PUSH_PROMISE, 0, 1, &[0; 4]), Err(ErrorCode::PROTOCOL_ERROR));
        assert!(read(0xee, 0xff, 0, b"anything").is_ok());
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let block = |block: &[u8]| Ok(format!("{:?}", Frame::Headers { block }));
        assert_eq!(read(kind::HEADERS, flag::PADDED, 1, b"\x02ab\0\0"), block(b"ab"));
        assert_eq!(read(kind::HEADERS, flag::PRIORITY, 1, b"\0\0\0\x03\xffab"), block(b"ab"));
        let both = flag::PADDED | flag::PRIORITY;
        assert_eq!(read(kind::HEADERS, both, 1, b"\x01\0\0\0\x03\xffab\0"), block(b"ab"));
        assert_eq!(read(kind::HEADERS, flag::PADDED, 1, b"\x03ab"), Err(ErrorCode::PROTOCOL_ERROR));
        assert_eq!(read(kind::HEADERS, flag::PADDED, 1, b""), Err(ErrorCode::FRAME_SIZE_ERROR));
        assert_eq!(read(kind::HEADERS, flag::PRIORITY, 1, b"\0\0\0\0"), Err(ErrorCode::FRAME_SIZE_ERROR));
        let itself = b"\x80\0\0\x01\xffab";
        assert_eq!(read(kind::HEADERS, flag::PRIORITY, 1, itself), Err(ErrorCode::PROTOCOL_ERROR));
        assert_eq!(read(kind::PRIORITY, 0, 1, &itself[..5]), Err(ErrorCode::PROTOCOL_ERROR));
    }

    #[test]
    fn a_long_block_goes_on_in_continuations() {
        for length in [0, 10, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD, 3 * MAX_PAYLOAD + 5] {
            let block: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut out = Vec::new();
            write_block(7, true, &mut out, |out| out.extend_from_slice(&block));
            let (mut rest, mut read, mut frames) = (&out[..], Vec::new(), Vec::new());
            while let Some((header, after)) = rest.split_first_chunk() {
                let header = Header::parse(header);
                assert_eq!(header.stream, 7);
                read.extend_from_slice(&after[..header.length]);
                frames.push((header.kind, header.flags));
                rest = &after[header.length..];
            }
            assert_eq!(read, block);
            assert_eq!(frames.len(), length.div_ceil(MAX_PAYLOAD).max(1));
            assert_eq!((frames[0].0, frames[0].1 & flag::END_STREAM), (kind::HEADERS, flag::END_STREAM));
            for (at, (kind, flags)) in frames.iter().enumerate() {
                assert_eq!(flags & flag::END_HEADERS != 0, at == frames.len() - 1);
                assert_eq!(*kind == kind::CONTINUATION, at > 0);
            }
        }
    }
}
