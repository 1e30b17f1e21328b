// SPDX-License-Identifier: Apache-2.0
//! Header blocks to fields.

use super::{
    Entry, Error,
    check::{is_name, is_value},
    hash, huffman, integer, static_table,
    table::{self, New, Table},
};
use crate::head::FieldName;

/// Takes the fields of a block, in their order.
pub trait Sink {
    /// The next field. What it borrows is good until the next.
    fn field(&mut self, entry: &Entry<'_>);
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

    /// A number that is another one whenever the table has changed: under the same one, the same octets stand for
    /// the same fields. None while the peer has to change the table's size first.
    #[inline]
    pub fn state(&self) -> Option<u32> {
        (!self.must_shrink).then(|| self.table.state())
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
        match static_table::entry(index) {
            Some(entry) => fields.push(entry),
            None => fields.push(&self.dynamic(index)?),
        }
        Ok(after)
    }

    #[inline]
    fn dynamic(&self, index: usize) -> Result<Entry<'_>, Error> {
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
        let text = &self.literal[..];
        let (name_text, value) = text.split_at(name);
        let valid = name_valid && is_value(name_text, value);
        let hash = if inserts { hash(name_text, value) } else { 0 };
        let sensitive = first & 0xf0 == 0x10;
        fields.push(&Entry { text, name, huffman, hash, known, valid, sensitive });
        if inserts {
            self.table.insert(name_text, value, New { hash, known, valid });
        }
        Ok(after)
    }

    /// The name of an entry, and whether it may be one.
    #[inline]
    fn name(&self, index: usize) -> Result<(&[u8], FieldName, bool), Error> {
        if let Some(entry) = static_table::entry(index) {
            return Ok((entry.name(), entry.known, true));
        }
        let entry = self.dynamic(index)?;
        // The name may be fine where the field was not.
        Ok((entry.name(), entry.known, entry.valid || is_name(entry.name())))
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
            let (name, known, valid) = self.name(index)?;
            literal.extend_from_slice(name);
            (known, valid)
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
    fn push(&mut self, entry: &Entry<'_>) {
        self.size = self.size.saturating_add(entry.text.len() + table::ENTRY_OVERHEAD);
        if self.size <= self.max_list {
            self.sink.field(entry);
        }
    }
}
