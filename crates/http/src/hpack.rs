// SPDX-License-Identifier: Apache-2.0
//! HPACK (RFC 7541): fields as HTTP/2 sends them.
//!
//! What an intermediary does with most fields is to pass them on. So a field carries the hash by which the
//! other side's encoder finds it in its tables, and a literal value the Huffman octets that it came in. An
//! entry of the dynamic table is checked and hashed once, when it is inserted.

mod check;
mod decoder;
mod encoder;
mod hash;
mod huffman;
mod integer;
mod static_table;
mod table;

#[cfg(test)]
mod tests;

pub use decoder::{Decoder, Sink};
pub use encoder::{Encoder, Indexing, LARGEST_TABLE};
pub use hash::hash;

/// The largest table that a decoder keeps, in octets as RFC 7541 counts them.
pub const LARGEST_DECODER_TABLE: u32 = table::LARGEST as u32;

use crate::head::FieldName;

/// One field to be written.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The name, in lower case.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The value in Huffman code, as it came; empty where it did not.
    pub huffman: &'a [u8],
    /// The [`hash`] of name and value; 0 where nobody has made it.
    pub hash: u32,
    /// Which of the known names it has.
    pub known: FieldName,
}

impl<'a> Line<'a> {
    /// A field of which no more is known.
    #[inline]
    pub fn plain(name: &'a [u8], value: &'a [u8]) -> Line<'a> {
        Line { name, value, huffman: &[], hash: 0, known: FieldName::Other }
    }
}

/// One field that was read.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The name, and behind it the value.
    text: &'a [u8],
    /// Octets of the name.
    name: usize,
    /// The value in Huffman code, as it came; empty where it did not.
    pub huffman: &'a [u8],
    /// The [`hash`] of name and value; 0 where it is in no table.
    pub hash: u32,
    /// Which of the known names it has.
    pub known: FieldName,
    /// Whether name and value are of a field, or of a pseudo-field, that may be (RFC 9113, sections 8.2.1 and
    /// 8.3): characters, and the forms of `:path` and `:authority`.
    pub valid: bool,
    /// Nobody on the way may put it into a table (RFC 7541, section 7.1.3).
    pub sensitive: bool,
}

impl<'a> Entry<'a> {
    /// The name.
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        self.text.get(..self.name).unwrap_or_default()
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        self.text.get(self.name..).unwrap_or_default()
    }

    /// The name and, directly behind it, the value.
    #[inline]
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    #[inline]
    fn is(&self, line: &Line<'_>) -> bool {
        // Names of the list that are the same need no comparison.
        let same_name = self.known == line.known
            && (self.known != FieldName::Other || (self.name == line.name.len() && self.name() == line.name));
        same_name && self.value() == line.value
    }
}

/// Why a block cannot be read. Each ends the connection with COMPRESSION_ERROR (RFC 9113, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The block ends inside a field.
    #[error("the header block ends inside a field")]
    Truncated,
    /// An integer is larger than any that is allowed, or padded.
    #[error("an integer in the header block is too large")]
    IntegerTooLarge,
    /// A string breaks the rules of the Huffman code.
    #[error("a string in the header block is not in the huffman code")]
    Huffman,
    /// No table has an entry with this index.
    #[error("the header block refers to an entry that does not exist")]
    Index,
    /// The table's size changes to more than was offered, at a wrong place, or not although it has to.
    #[error("the header table's size is not one that was offered")]
    TableSize,
}
