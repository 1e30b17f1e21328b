// SPDX-License-Identifier: Apache-2.0
//! Header blocks to fields.

use super::{
    Error, Line, hash, huffman, integer, static_table,
    table::{self, Table},
};
use crate::{head::FieldName, octets};

/// Takes the fields of a block, in their order.
pub trait Sink {
    /// The next field. What it borrows is good until the next.
    fn field(&mut self, line: &Line<'_>);
}

/// What one direction of a connection remembers to read header blocks.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// The largest table that the peer may choose.
    limit: usize,
    /// The peer has to begin its next block with a new size (RFC 7541, section 4.2).
    must_shrink: bool,
    /// A literal field: its name, then its value.
    literal: Vec<u8>,
}

impl Decoder {
    /// A decoder whose peer keeps a table of at most `limit` octets, SETTINGS_HEADER_TABLE_SIZE.
    pub fn new(limit: usize) -> Decoder {
        let limit = limit.min(table::LARGEST);
        Decoder { table: Table::new(limit), limit, must_shrink: false, literal: Vec::new() }
    }

    /// Changes what the peer may keep; to be called once it has acknowledged the setting.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(table::LARGEST);
        self.must_shrink = self.table.max() > self.limit;
    }

    /// Reads a whole block, and gives its fields to `sink` as long as the list of them is not larger than
    /// `max_list` octets, counted as SETTINGS_MAX_HEADER_LIST_SIZE is (RFC 9113, section 6.5.2), before any
    /// is copied. Returns how large the list is; the fields behind the limit were read for the table's sake.
    ///
    /// # Errors
    /// The connection has to end with COMPRESSION_ERROR: what the peer refers to is no longer known.
    pub fn decode(&mut self, block: &[u8], max_list: usize, sink: &mut impl Sink) -> Result<usize, Error> {
        let mut at = self.size_updates(block)?;
        let mut fields = Fields { sink, size: 0, max_list };
        while let Some(&first) = block.get(at) {
            at = if first & 0x80 != 0 {
                self.indexed(block, at, &mut fields)?
            } else {
                self.literal(block, at, &mut fields)?
            };
        }
        Ok(fields.size)
    }

    /// The size updates at the beginning of a block: at most two are of use (RFC 7541, section 4.2).
    #[inline]
    fn size_updates(&mut self, block: &[u8]) -> Result<usize, Error> {
        let mut at = 0;
        for _ in 0..2 {
            if block.get(at).is_none_or(|first| first & 0xe0 != 0x20) {
                break;
            }
            let (size, after) = integer::decode(block, at, 5)?;
            if size > self.limit {
                return Err(Error::TableSize);
            }
            self.table.set_max(size);
            self.must_shrink = false;
            at = after;
        }
        if self.must_shrink { Err(Error::TableSize) } else { Ok(at) }
    }

    #[inline]
    fn indexed(&self, block: &[u8], at: usize, fields: &mut Fields<'_, impl Sink>) -> Result<usize, Error> {
        let (index, after) = integer::decode(block, at, 7)?;
        let line = self.line(index)?;
        fields.push(&line);
        Ok(after)
    }

    /// The field with an index, from either table.
    #[inline]
    fn line(&self, index: usize) -> Result<Line<'_>, Error> {
        if let Some(entry) = static_table::entry(index) {
            return Ok(Line { hash: entry.hash, ..Line::known(entry.known, entry.name, entry.value) });
        }
        let age = index.checked_sub(static_table::LEN + 1).ok_or(Error::Index)?;
        self.table.by_age(age).ok_or(Error::Index)
    }

    fn literal(
        &mut self,
        block: &[u8],
        at: usize,
        fields: &mut Fields<'_, impl Sink>,
    ) -> Result<usize, Error> {
        let first = block[at];
        // 01: with indexing; 001: a size update, which only begins a block; 0001: never; 0000: without.
        let (prefix, inserts) = match first >> 4 {
            4.. => (6, true),
            2.. => return Err(Error::TableSize),
            _ => (4, false),
        };
        let (index, at) = integer::decode(block, at, prefix)?;
        let mut literal = std::mem::take(&mut self.literal);
        literal.clear();
        let read = self.read_literal(block, at, index, &mut literal);
        self.literal = literal;
        let Literal { after, name, huffman, known, name_valid } = read?;
        let (name, value) = self.literal.split_at(name);
        let valid = name_valid && octets::is_value(value);
        let hash = if inserts { hash(name, value) } else { 0 };
        let sensitive = first & 0xf0 == 0x10;
        let line = Line { name, value, huffman, hash, known, valid, sensitive };
        fields.push(&line);
        if inserts {
            self.table.insert(&line);
        }
        Ok(after)
    }

    /// Appends name and value of a literal field to `literal`.
    #[inline]
    fn read_literal<'a>(
        &self,
        block: &'a [u8],
        mut at: usize,
        index: usize,
        literal: &mut Vec<u8>,
    ) -> Result<Literal<'a>, Error> {
        let (known, name_valid) = if index == 0 {
            (at, _) = string(block, at, literal)?;
            (FieldName::of(literal), is_name(literal))
        } else {
            let line = self.line(index)?;
            literal.extend_from_slice(line.name);
            // The name may be fine where the field was not.
            (line.known, line.valid || is_name(line.name))
        };
        let name = literal.len();
        let (after, huffman) = string(block, at, literal)?;
        Ok(Literal { after, name, huffman, known, name_valid })
    }
}

/// A literal field as it was read.
struct Literal<'a> {
    /// Where the next field begins.
    after: usize,
    /// Octets of the name.
    name: usize,
    /// The value as it came, if it was coded.
    huffman: &'a [u8],
    known: FieldName,
    name_valid: bool,
}

/// Whether it is a field name without capital letters (RFC 9113, section 8.2.1), or a pseudo-field's. Stricter than
/// the RFC asks for: what is no token cannot go on over HTTP/1.1.
fn is_name(name: &[u8]) -> bool {
    let rest = name.strip_prefix(b":").unwrap_or(name);
    octets::is_token(rest) && !rest.iter().any(u8::is_ascii_uppercase)
}

/// Reads a string (RFC 7541, section 5.2), appends its text; returns where it ends and its Huffman octets.
#[inline]
fn string<'a>(block: &'a [u8], at: usize, text: &mut Vec<u8>) -> Result<(usize, &'a [u8]), Error> {
    let coded = block.get(at).ok_or(Error::Truncated)? & 0x80 != 0;
    let (length, start) = integer::decode(block, at, 7)?;
    let end = start + length;
    let octets = block.get(start..end).ok_or(Error::Truncated)?;
    if coded {
        huffman::decode(octets, text)?;
        return Ok((end, octets));
    }
    text.extend_from_slice(octets);
    Ok((end, &[]))
}

/// The sink, and what may still go there.
struct Fields<'s, S> {
    sink: &'s mut S,
    size: usize,
    max_list: usize,
}

impl<S: Sink> Fields<'_, S> {
    #[inline]
    fn push(&mut self, line: &Line<'_>) {
        self.size = self.size.saturating_add(line.name.len() + line.value.len() + table::ENTRY_OVERHEAD);
        if self.size <= self.max_list {
            self.sink.field(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_in_lower_case() {
        for name in ["a", "x-request-id", "!#$%&'*+-.^_`|~09az", ":path"] {
            assert!(is_name(name.as_bytes()), "{name}");
        }
        for name in ["", ":", "Host", "a b", "a:b", "::path", "a\0", "n\u{e9}", "a\r\nb", "\x7f", "a,"] {
            assert!(!is_name(name.as_bytes()), "{name:?}");
        }
    }
}
