// SPDX-License-Identifier: Apache-2.0
//! Fields to header blocks.

use super::{
    Entry, Line, hash, huffman, integer, static_table,
    table::{self, New, Table},
};
use crate::head::FieldName;

/// The largest table that an encoder keeps, whatever its peer offers: the default of
/// SETTINGS_HEADER_TABLE_SIZE (RFC 9113, section 6.5.2). It is paid for by each connection.
pub const LARGEST_TABLE: usize = 4096;

/// Where an encoder looks for a field or a name: one entry each, found by hash. Twice the entries that a
/// table of 4,096 octets can have.
const BUCKETS: usize = 256;

/// How a field goes into a block when no table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// It is put into the table.
    Insert,
    /// It is not worth a place in the table.
    Without,
    /// Nobody on the way may put it into a table (RFC 7541, section 7.1.3).
    Never,
}

/// What one direction of a connection remembers to write header blocks.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Numbers of entries by the hash of the field, and by that of the name. A number may be stale, or of
    /// something else with the same hash: what it leads to is compared.
    buckets: Vec<u32>,
    /// The smallest size that the table had since the last block, where it was changed.
    resized_to: Option<usize>,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder { table: Table::new(LARGEST_TABLE), buckets: Vec::new(), resized_to: None }
    }
}

impl Encoder {
    /// Obeys the peer's SETTINGS_HEADER_TABLE_SIZE, in octets.
    pub fn set_limit(&mut self, limit: usize) {
        let max = limit.min(LARGEST_TABLE);
        if max != self.table.max() {
            self.table.set_max(max);
            self.resized_to = Some(self.resized_to.map_or(max, |smallest| smallest.min(max)));
        }
    }

    /// A number that is another one whenever the table has changed: under the same one, the same fields become the
    /// same octets. None while the next block has to say the table's size.
    #[inline]
    pub fn state(&self) -> Option<u32> {
        self.resized_to.is_none().then(|| self.table.state())
    }

    /// Begins a block: says how large the table is, where that has changed (RFC 7541, section 4.2).
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(smallest) = self.resized_to.take() {
            if smallest < self.table.max() {
                integer::encode(smallest, 5, 0x20, out);
            }
            integer::encode(self.table.max(), 5, 0x20, out);
        }
    }

    /// Appends a field. Its name is in lower case; a hash of 0 stands for one that is not known.
    #[inline]
    pub fn field(&mut self, line: &Line<'_>, indexing: Indexing, out: &mut Vec<u8>) {
        match indexing {
            Indexing::Insert => self.indexed(line, out),
            Indexing::Without => self.without(line, out),
            Indexing::Never => literal(4, 0x10, self.find_name(line), line, out),
        }
    }

    /// Appends a field whose hash is known if our table has it; says whether it does.
    #[inline]
    pub fn sent_before(&mut self, line: &Line<'_>, out: &mut Vec<u8>) -> bool {
        let index = self.find_entry(line.hash, |entry| entry.is(line));
        if let Some(index) = index {
            integer::encode(index, 7, 0x80, out);
        }
        index.is_some()
    }

    /// Appends a field that no table will have, with the name of an entry of the static table.
    #[inline]
    pub fn literal(name: usize, value: &[u8], out: &mut Vec<u8>) {
        integer::encode(name, 4, 0, out);
        string(value, 0, out);
    }

    #[inline]
    fn indexed(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        let hash = if line.hash == 0 { hash(line.name, line.value) } else { line.hash };
        match self.find(hash, line) {
            Some(index) => integer::encode(index, 7, 0x80, out),
            None => self.insert(hash, line, out),
        }
    }

    fn without(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        let name = self.find_name(line);
        if name.is_none() && line.known != FieldName::Other {
            // The first of a name that comes again and again: its value is worth nothing, but its name is.
            return self.insert(hash(line.name, line.value), line, out);
        }
        literal(4, 0, name, line, out);
    }

    /// The index of exactly this field.
    #[inline]
    fn find(&self, hash: u32, line: &Line<'_>) -> Option<usize> {
        self.find_entry(hash, |entry| entry.is(line)).or_else(|| static_table::find(hash, line))
    }

    /// The index of an entry with this name.
    #[inline]
    fn find_name(&self, line: &Line<'_>) -> Option<usize> {
        let known = static_table::name(line.known);
        if known.is_some() {
            return known;
        }
        let hash = hash(line.name, b"");
        self.find_entry(hash, |entry| entry.name() == line.name)
            .or_else(|| static_table::find_name(hash, line.name))
    }

    #[inline]
    fn find_entry(&self, hash: u32, same: impl Fn(&Entry<'_>) -> bool) -> Option<usize> {
        let number = *self.buckets.get(hash as usize % BUCKETS)?;
        let age = self.table.age(number)?;
        let entry = self.table.by_age(age)?;
        same(&entry).then_some(static_table::LEN + 1 + age)
    }

    /// Appends a field that no table has, and puts it into ours, unless it would drive out most of it.
    #[cold]
    fn insert(&mut self, field: u32, line: &Line<'_>, out: &mut Vec<u8>) {
        let index = self.find_name(line);
        let size = line.name.len() + line.value.len() + table::ENTRY_OVERHEAD;
        if size > self.table.max() / 2 {
            return literal(4, 0, index, line, out);
        }
        literal(6, 0x40, index, line, out);
        self.buckets.resize(BUCKETS, 0);
        let number = self.table.next();
        self.table.insert(line.name, line.value, New { hash: field, known: line.known, valid: true });
        let name = hash(line.name, b"");
        self.buckets[name as usize % BUCKETS] = number;
        self.buckets[field as usize % BUCKETS] = number;
    }
}

/// Writes a literal. A value that came in Huffman code goes on as it came; any other goes as it is: coding it
/// costs both sides more than the octets that it saves.
#[inline]
fn literal(prefix: u32, pattern: u8, name: Option<usize>, line: &Line<'_>, out: &mut Vec<u8>) {
    integer::encode(name.unwrap_or(0), prefix, pattern, out);
    if name.is_none() {
        let coded = huffman::encoded_len(line.name);
        if coded < line.name.len() {
            integer::encode(coded, 7, 0x80, out);
            huffman::encode(line.name, out);
        } else {
            string(line.name, 0, out);
        }
    }
    if line.huffman.is_empty() { string(line.value, 0, out) } else { string(line.huffman, 0x80, out) }
}

#[inline]
fn string(octets: &[u8], pattern: u8, out: &mut Vec<u8>) {
    integer::encode(octets.len(), 7, pattern, out);
    out.extend_from_slice(octets);
}
