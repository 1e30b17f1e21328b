// SPDX-License-Identifier: Apache-2.0
//! Header and trailer fields.
//!
//! Fields that came over HTTP/1.1 stay where they were received: one buffer, and 16 bytes of offsets
//! for each field. Fields that came over HTTP/2 stay in the map that `h2` made. Neither is converted
//! unless the other end speaks the other version.

use std::ops::Range;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue};

/// An ordered list of fields whose names are matched without regard to case.
#[derive(Clone)]
pub struct Headers {
    repr: Repr,
}

#[derive(Clone)]
enum Repr {
    Block(Block),
    /// `checked`: as `h2` received it, which refuses connection-specific fields, and without `Host`.
    Map {
        map: Box<HeaderMap>,
        checked: bool,
    },
}

impl Default for Headers {
    fn default() -> Self {
        Headers { repr: Repr::Block(Block::default()) }
    }
}

impl Headers {
    /// The first value of `name`.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        match &self.repr {
            Repr::Block(block) => block.find(name.as_str()).map(|at| block.value(&block.fields[at])),
            Repr::Map { map, .. } => map.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// Every value of `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> + 'a {
        let (block, map) = match &self.repr {
            Repr::Block(block) => (Some(block), None),
            Repr::Map { map, .. } => (None, Some(map)),
        };
        let wanted = name.as_str().as_bytes();
        let from_block = block.into_iter().flat_map(move |block| {
            let same = move |field: &&Field| block.name(field).eq_ignore_ascii_case(wanted);
            block.fields.iter().filter(same).map(|field| block.value(field))
        });
        let from_map = map.into_iter().flat_map(move |map| map.get_all(name)).map(HeaderValue::as_bytes);
        from_block.chain(from_map)
    }

    /// Whether a field of this name is there.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// Replaces every field of this name by one.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        match &mut self.repr {
            Repr::Block(block) => {
                block.remove(name.as_str());
                block.append(name.as_str().as_bytes(), value.as_bytes());
            }
            Repr::Map { map, checked } => {
                *checked &= Known::classify(name.as_str().as_bytes()) != Known::Connection;
                map.insert(name.clone(), value.clone());
            }
        }
    }

    /// Adds a field after those that are there.
    pub fn append(&mut self, name: &HeaderName, value: &HeaderValue) {
        match &mut self.repr {
            Repr::Block(block) => block.append(name.as_str().as_bytes(), value.as_bytes()),
            Repr::Map { map, checked } => {
                *checked &= Known::classify(name.as_str().as_bytes()) != Known::Connection;
                map.append(name.clone(), value.clone());
            }
        }
    }

    /// Removes every field of this name; says whether there was one.
    pub fn remove(&mut self, name: &HeaderName) -> bool {
        match &mut self.repr {
            Repr::Block(block) => block.remove(name.as_str()),
            Repr::Map { map, .. } => map.remove(name).is_some(),
        }
    }

    /// Names and values. Names that came over HTTP/1.1 keep their case.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (block, map) = match &self.repr {
            Repr::Block(block) => (Some(block), None),
            Repr::Map { map, .. } => (None, Some(map)),
        };
        let from_block = block
            .into_iter()
            .flat_map(|block| block.fields.iter().map(|field| (block.name(field), block.value(field))));
        let from_map = map
            .into_iter()
            .flat_map(|map| map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())));
        from_block.chain(from_map)
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Block(block) => block.fields.len(),
            Repr::Map { map, .. } => map.len(),
        }
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all names and values.
    pub fn size_bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Fields as `h2` received them, without `Host`.
    pub(crate) fn from_map(map: HeaderMap) -> Self {
        Headers { repr: Repr::Map { map: Box::new(map), checked: true } }
    }

    /// Whether there is one `Content-Length` and it says exactly this.
    pub(crate) fn says_length(&self, length: u64) -> bool {
        match &self.repr {
            Repr::Block(block) => {
                let mut given = block.fields.iter().filter(|field| field.known == Known::ContentLength);
                let first = given.next().is_some_and(|field| is_decimal(block.value(field), length));
                first && given.next().is_none()
            }
            Repr::Map { map, .. } => {
                let mut given = map.get_all(CONTENT_LENGTH).iter();
                let first = given.next().is_some_and(|value| is_decimal(value.as_bytes(), length));
                first && given.next().is_none()
            }
        }
    }

    pub(crate) fn from_block(block: Block) -> Self {
        Headers { repr: Repr::Block(block) }
    }

    /// As the map that `h2` takes; fields that HTTP/2 forbids and framing that does not agree are gone.
    pub(crate) fn into_map(self) -> HeaderMap {
        match self.repr {
            Repr::Map { map, checked: true } => *map,
            Repr::Map { mut map, .. } => {
                for name in &CONNECTION_SPECIFIC {
                    map.remove(name);
                }
                *map
            }
            Repr::Block(block) => block.into_map(),
        }
    }

    /// Writes the fields as HTTP/1.1 lines. Connection-specific fields and `Host` are never written;
    /// `Content-Length` only when `keep_length`.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>, keep_length: bool) {
        match &self.repr {
            Repr::Block(block) => block.write_lines(out, keep_length),
            Repr::Map { map, .. } => {
                for (name, value) in map.iter() {
                    match Known::classify(name.as_str().as_bytes()) {
                        Known::Connection => {}
                        Known::ContentLength if !keep_length => {}
                        Known::Other | Known::ContentLength => {
                            write_line(out, name.as_str().as_bytes(), value.as_bytes());
                        }
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        f.debug_list().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

/// Fields that belong to one connection (RFC 9113 section 8.2.2), and `Host`, which is the authority.
const CONNECTION_SPECIFIC: [HeaderName; 6] = [
    http::header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
    http::header::HOST,
];

/// The fields that the codec itself must recognise when it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Other,
    ContentLength,
    /// Never written as received.
    Connection,
}

impl Known {
    fn classify(name: &[u8]) -> Known {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        let connection = match name.len() {
            4 => is(b"host"),
            7 => is(b"upgrade"),
            10 => is(b"connection") || is(b"keep-alive"),
            14 if is(b"content-length") => return Known::ContentLength,
            16 => is(b"proxy-connection"),
            17 => is(b"transfer-encoding"),
            _ => false,
        };
        if connection { Known::Connection } else { Known::Other }
    }
}

/// Fields as offsets into the received bytes (`wire`) or into what was added later (`added`).
#[derive(Clone, Default)]
pub(crate) struct Block {
    wire: Bytes,
    added: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Clone, Copy)]
struct Field {
    name_at: u32,
    value_at: u32,
    value_len: u32,
    name_len: u16,
    known: Known,
    added: bool,
}

/// Room for what a Gateway and a few filters add.
const ADDED_FIELDS: usize = 4;
const ADDED_BYTES: usize = 128;

impl Block {
    /// An empty list over `wire`, which [`push`](Self::push) points into.
    pub(crate) fn new(wire: Bytes, capacity: usize) -> Self {
        Block { wire, added: Vec::new(), fields: Vec::with_capacity(capacity + ADDED_FIELDS) }
    }

    /// Adds the field at these ranges of the received bytes, which is not connection-specific;
    /// `is_length`: it is `Content-Length`. False if it is too large to be described.
    #[must_use]
    pub(crate) fn push(&mut self, name: Range<usize>, value: Range<usize>, is_length: bool) -> bool {
        let known = if is_length { Known::ContentLength } else { Known::Other };
        match Field::new(name, value, known, false) {
            Some(field) => {
                self.fields.push(field);
                true
            }
            None => false,
        }
    }

    /// The bytes behind the offsets that [`push`](Self::push) takes.
    pub(crate) fn wire(&self) -> &Bytes {
        &self.wire
    }

    fn append(&mut self, name: &[u8], value: &[u8]) {
        let at = self.added.len();
        let value_at = at + name.len();
        let known = Known::classify(name);
        // What does not fit 32 bits of offsets was never received either: a field of 4 GiB is left out.
        if let Some(field) = Field::new(at..value_at, value_at..value_at + value.len(), known, true) {
            if self.added.capacity() == 0 {
                self.added.reserve(ADDED_BYTES.max(name.len() + value.len()));
            }
            self.added.extend_from_slice(name);
            self.added.extend_from_slice(value);
            self.fields.push(field);
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        let wanted = name.as_bytes();
        self.fields.iter().position(|field| {
            usize::from(field.name_len) == wanted.len() && self.name(field).eq_ignore_ascii_case(wanted)
        })
    }

    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let Some(first) = self.find(name) else { return false };
        let mut fields = std::mem::take(&mut self.fields);
        let mut at = 0;
        fields.retain(|field| {
            let keep = at < first || !self.name(field).eq_ignore_ascii_case(name.as_bytes());
            at += 1;
            keep
        });
        self.fields = fields;
        true
    }

    fn name(&self, field: &Field) -> &[u8] {
        let at = field.name_at as usize;
        &self.buffer(field)[at..at + usize::from(field.name_len)]
    }

    fn value(&self, field: &Field) -> &[u8] {
        let at = field.value_at as usize;
        &self.buffer(field)[at..at + field.value_len as usize]
    }

    fn buffer(&self, field: &Field) -> &[u8] {
        if field.added { &self.added } else { &self.wire }
    }

    /// Neighbours in the received bytes are copied together, line ends included.
    fn write_lines(&self, out: &mut Vec<u8>, keep_length: bool) {
        let mut run: Option<Range<usize>> = None;
        for field in &self.fields {
            let skip = match field.known {
                Known::Other => false,
                Known::ContentLength => !keep_length,
                Known::Connection => true,
            };
            if skip {
                continue;
            }
            if field.added {
                flush_run(out, &self.wire, run.take());
                write_line(out, self.name(field), self.value(field));
                continue;
            }
            let start = field.name_at as usize;
            let end = field.value_at as usize + field.value_len as usize;
            run = match run {
                Some(run) if run.end + 2 == start => Some(run.start..end),
                previous => {
                    flush_run(out, &self.wire, previous);
                    Some(start..end)
                }
            };
        }
        flush_run(out, &self.wire, run);
    }

    fn into_map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.fields.len() + 2);
        for field in &self.fields {
            if field.known == Known::Connection {
                continue;
            }
            let value = if field.added {
                HeaderValue::from_bytes(self.value(field))
            } else {
                let at = field.value_at as usize;
                HeaderValue::from_maybe_shared(self.wire.slice(at..at + field.value_len as usize))
            };
            // Both were checked when the field was received or made; a field that fails is not passed on.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(self.name(field)), value) {
                map.append(name, value);
            }
        }
        map
    }
}

impl Field {
    fn new(name: Range<usize>, value: Range<usize>, known: Known, added: bool) -> Option<Field> {
        Some(Field {
            name_at: u32::try_from(name.start).ok()?,
            value_at: u32::try_from(value.start).ok()?,
            value_len: u32::try_from(value.len()).ok()?,
            name_len: u16::try_from(name.len()).ok()?,
            known,
            added,
        })
    }
}

fn flush_run(out: &mut Vec<u8>, wire: &[u8], run: Option<Range<usize>>) {
    if let Some(run) = run {
        out.extend_from_slice(&wire[run]);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether `text` is `number` in digits.
fn is_decimal(text: &[u8], number: u64) -> bool {
    text.iter().all(u8::is_ascii_digit)
        && text
            .iter()
            .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
            .is_some_and(|value| value == number && !text.is_empty())
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, SERVER};

    use super::*;

    fn block() -> Headers {
        let wire = Bytes::from_static(b"Accept: a\r\naccept:  b\r\nX-One: 1\r\nContent-Length: 3\r\n");
        let mut block = Block::new(wire, 4);
        assert!(block.push(0..6, 8..9, false));
        assert!(block.push(11..17, 20..21, false));
        assert!(block.push(23..28, 30..31, false));
        assert!(block.push(33..47, 49..50, true));
        Headers::from_block(block)
    }

    fn map() -> Headers {
        Headers::from_map(block().into_map())
    }

    #[test]
    fn names_are_matched_without_case_in_both_representations() {
        for headers in [block(), map()] {
            assert_eq!(headers.get(&ACCEPT), Some(&b"a"[..]));
            assert_eq!(headers.get_all(&ACCEPT).collect::<Vec<_>>(), [b"a", b"b"]);
            assert!(headers.contains(&HeaderName::from_static("x-one")));
            assert_eq!(headers.len(), 4);
        }
    }

    #[test]
    fn set_replaces_every_field_of_the_name() {
        for mut headers in [block(), map()] {
            headers.set(&ACCEPT, &HeaderValue::from_static("c"));
            headers.append(&ACCEPT, &HeaderValue::from_static("d"));
            assert_eq!(headers.get_all(&ACCEPT).collect::<Vec<_>>(), [b"c", b"d"]);
            assert!(headers.remove(&ACCEPT));
            assert!(!headers.remove(&ACCEPT));
            assert_eq!(headers.len(), 2);
        }
    }

    #[test]
    fn lines_are_written_in_order_without_framing() {
        let mut headers = block();
        headers.append(&SERVER, &HeaderValue::from_static("weft"));
        headers.append(&http::header::TRANSFER_ENCODING, &HeaderValue::from_static("chunked"));
        let mut out = Vec::new();
        headers.write_lines(&mut out, false);
        assert_eq!(out, b"Accept: a\r\naccept:  b\r\nX-One: 1\r\nserver: weft\r\n");
        headers.remove(&HeaderName::from_static("x-one"));
        out.clear();
        headers.write_lines(&mut out, true);
        assert_eq!(out, b"Accept: a\r\naccept:  b\r\nContent-Length: 3\r\nserver: weft\r\n");
        assert!(headers.contains(&CONTENT_LENGTH));
    }

    #[test]
    fn one_length_in_digits_says_it() {
        for headers in [block(), map()] {
            assert!(headers.says_length(3) && !headers.says_length(30));
            let mut twice = headers.clone();
            twice.append(&CONTENT_LENGTH, &HeaderValue::from_static("3"));
            assert!(!twice.says_length(3));
        }
        assert!(!is_decimal(b"", 0) && !is_decimal(b"+1", 1));
    }

    #[test]
    fn connection_specific_fields_never_reach_an_http2_map() {
        let mut headers = map();
        for name in &CONNECTION_SPECIFIC {
            headers.append(name, &HeaderValue::from_static("x"));
        }
        assert_eq!(headers.into_map().len(), 4);
    }
}
