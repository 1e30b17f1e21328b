// SPDX-License-Identifier: Apache-2.0
//! The head of a message, or its trailers: names and values as ranges of one buffer.
//!
//! One [`Head`] is cleared and filled again for each message of a connection, so that its buffers are
//! allocated once. Where the fields that a proxy needs stand is noted while they are pushed, so that
//! nobody searches for them. `Host` and `:authority` are both in [`Head::authority`] and never among the
//! fields; fields that belong to one connection are never there either.

mod edit;
mod name;
mod start;

pub use edit::{Lines, Values};
pub use name::{FieldName, InvalidName, InvalidValue, Name, Value};
pub use start::{InvalidStart, Kind, Method, Scheme, Version};
pub(crate) use start::{Start, Target};

/// A part of a head's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    at: u32,
    len: u32,
}

impl Span {
    /// The part from `start` to before `end`, which is not before `start`. Both are at most [`MAX_TEXT`] for
    /// whatever a head holds.
    #[inline]
    pub(crate) fn new(start: usize, end: usize) -> Span {
        Span { at: start as u32, len: end.wrapping_sub(start) as u32 }
    }

    /// Whether it holds nothing, which is how a part that was not given is noted.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(crate) fn start(self) -> usize {
        self.at as usize
    }

    #[inline]
    pub(crate) fn end(self) -> usize {
        self.at as usize + self.len as usize
    }

    #[inline]
    pub(crate) fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start()..self.end()).unwrap_or_default()
    }
}

/// One field, as ranges of its head's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
    /// The Huffman code of the value as it came over HTTP/2; empty if it did not come in that code.
    pub(crate) huffman: Span,
    /// Of the lower-cased name and the value, for tables of HTTP/2; 0 while it was not computed.
    pub(crate) hash: u32,
    pub(crate) known: FieldName,
    pub(crate) flags: u8,
}

impl Field {
    /// A line as HTTP/1.1 writes it stands in the text, from the name to a line end behind the value.
    pub(crate) const LINE: u8 = 1;
    /// No table of HTTP/2 may remember it (RFC 7541, section 7.1.3).
    pub(crate) const SENSITIVE: u8 = 2;
    const REMOVED: u8 = 4;

    /// A field that stands in the text as a line of HTTP/1.1 does.
    #[inline]
    pub(crate) fn line(name: Span, value: Span, known: FieldName) -> Field {
        Field { name, value, known, flags: Field::LINE, ..Field::default() }
    }

    /// The same for nobody but [`Head::remove_nominated`].
    pub(crate) fn hidden(self) -> Field {
        Field { flags: Field::REMOVED, ..self }
    }

    /// Which of the known names it has.
    pub fn known(&self) -> FieldName {
        self.known
    }

    /// Whether no table of HTTP/2 may remember it.
    pub fn is_sensitive(&self) -> bool {
        self.flags & Field::SENSITIVE != 0
    }

    #[inline]
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    fn is_live(&self) -> bool {
        self.flags & Field::REMOVED == 0
    }
}

/// Bytes of text that a head can hold, whatever is added to it: far above what the limits of a connection
/// let in.
pub const MAX_TEXT: usize = 16 << 20;
/// Fields that a head can hold, removed ones included.
pub const MAX_FIELDS: usize = u16::MAX as usize - 1;
/// Bytes of text, and fields, that a cleared head keeps room for.
const KEPT_TEXT: usize = 16 << 10;
const KEPT_FIELDS: usize = 256;

/// A head that would hold more than [`MAX_TEXT`] bytes or [`MAX_FIELDS`] fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the head is larger than one can be")]
pub struct TooLarge;

/// The head of a request or a response, or the trailers of either.
#[derive(Debug)]
pub struct Head {
    text: Vec<u8>,
    fields: Vec<Field>,
    /// The position of the first field of each known name, and one; 0 without any.
    first: [u16; name::COUNT],
    pub(crate) start: Start,
}

impl Default for Head {
    fn default() -> Self {
        Head { text: Vec::new(), fields: Vec::new(), first: [0; name::COUNT], start: Start::default() }
    }
}

impl Clone for Head {
    fn clone(&self) -> Self {
        Head { text: self.text.clone(), fields: self.fields.clone(), first: self.first, start: self.start }
    }

    /// Keeps the buffers that are there.
    fn clone_from(&mut self, source: &Self) {
        self.text.clone_from(&source.text);
        self.fields.clone_from(&source.fields);
        self.first = source.first;
        self.start = source.start;
    }
}

impl Head {
    /// Trailers without any field: what every head begins as.
    pub fn new() -> Head {
        Head::default()
    }

    /// Forgets everything but the room of its buffers.
    pub fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        if self.text.capacity() > KEPT_TEXT {
            self.text.shrink_to(KEPT_TEXT);
        }
        if self.fields.capacity() > KEPT_FIELDS {
            self.fields.shrink_to(KEPT_FIELDS);
        }
        self.first = [0; name::COUNT];
        self.start = Start::default();
    }

    /// The first value of a name of the list: one read, no search.
    #[inline]
    pub fn known(&self, name: FieldName) -> Option<&[u8]> {
        self.first_known(name).map(|at| self.value(&self.fields[at]))
    }

    /// Whether a field of this name of the list is there.
    #[inline]
    pub fn has(&self, name: FieldName) -> bool {
        self.first_known(name).is_some()
    }

    /// The first value of a name.
    pub fn get(&self, name: &Name) -> Option<&[u8]> {
        self.find(name).map(|at| self.value(&self.fields[at]))
    }

    /// Every value of a name, in order, one by one.
    pub fn values<'a>(&'a self, name: &'a Name) -> Values<'a> {
        Values::new(self, name)
    }

    /// Every value of a name that was not made a [`Name`] before, in order. Its case does not matter.
    #[inline]
    pub fn values_named<'a, 'n>(&'a self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let known = FieldName::of(name);
        let is_named = move |field: &&Field| {
            field.known == known && (known != FieldName::Other || self.name(field).eq_ignore_ascii_case(name))
        };
        // No field of this name stands before the first of the known, or of all others.
        let from = usize::from(self.first[known as usize]).checked_sub(1).unwrap_or(self.fields.len());
        let fields = self.fields.get(from..).unwrap_or_default().iter();
        fields.filter(|field| field.is_live()).filter(is_named).map(|field| self.value(field))
    }

    /// All values of a name as one list: a single one as it stands, several joined in `scratch`, cookies by
    /// `; ` (RFC 9113, section 8.2.3) and all others by `,` (RFC 9110, section 5.3).
    pub fn combined<'a>(&'a self, name: &'a Name, scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(first) };
        let between: &[u8] = if name.known() == FieldName::Cookie { b"; " } else { b"," };
        scratch.clear();
        scratch.extend_from_slice(first);
        for value in std::iter::once(second).chain(values) {
            scratch.extend_from_slice(between);
            scratch.extend_from_slice(value);
        }
        Some(scratch)
    }

    /// Names and values in order. Names that came over HTTP/1.1 keep their case.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields().map(|field| (self.name(field), self.value(field)))
    }

    /// The fields that are there, in order.
    #[inline]
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.is_live())
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.fields().count()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields().next().is_none()
    }

    /// Bytes of all names and values.
    pub fn size_bytes(&self) -> usize {
        self.fields().map(|field| field.name.len() + field.value.len()).sum()
    }

    /// The name of one of this head's fields.
    #[inline]
    pub fn name(&self, field: &Field) -> &[u8] {
        field.name.of(&self.text)
    }

    /// The value of one of this head's fields.
    #[inline]
    pub fn value(&self, field: &Field) -> &[u8] {
        field.value.of(&self.text)
    }

    /// Whether it was made of the same text in the same way: then whatever is made of it is the same, too.
    #[inline]
    pub(crate) fn is_made_as(&self, other: &Head) -> bool {
        self.text == other.text && self.fields == other.fields && self.start == other.start
    }

    /// The text that ranges point into.
    #[inline]
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The text, for decoders that append to it; what is there must stay.
    #[inline]
    pub(crate) fn text_mut(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Copies bytes behind the text.
    pub(crate) fn add_text(&mut self, bytes: &[u8]) -> Result<Span, TooLarge> {
        let at = self.text.len();
        if bytes.len() > MAX_TEXT - at.min(MAX_TEXT) {
            return Err(TooLarge);
        }
        self.text.extend_from_slice(bytes);
        Ok(Span::new(at, self.text.len()))
    }

    /// Adds a field whose text is there, or will be before anybody reads it.
    #[inline]
    pub(crate) fn push(&mut self, field: Field) -> Result<(), TooLarge> {
        let at = self.fields.len();
        if at >= MAX_FIELDS || field.value.end() > MAX_TEXT {
            return Err(TooLarge);
        }
        let first = &mut self.first[field.known as usize];
        if *first == 0 && field.is_live() {
            *first = at as u16 + 1;
        }
        self.fields.push(field);
        Ok(())
    }

    /// Fields that were pushed, removed ones included.
    #[inline]
    pub(crate) fn pushed(&self) -> usize {
        self.fields.len()
    }

    #[inline]
    fn first_known(&self, name: FieldName) -> Option<usize> {
        match name {
            FieldName::Other => None,
            known => usize::from(self.first[known as usize]).checked_sub(1),
        }
    }

    fn find(&self, name: &Name) -> Option<usize> {
        match name {
            Name::Known(known) => self.first_known(*known),
            // No field of another name stands before the first of them.
            Name::Other(_) => {
                let from = usize::from(self.first[FieldName::Other as usize]).checked_sub(1)?;
                (from..self.fields.len()).find(|at| self.is_named(*at, name))
            }
        }
    }

    /// Whether the field at this position is there and has this name.
    #[inline]
    fn is_named(&self, at: usize, name: &Name) -> bool {
        let Some(field) = self.fields.get(at) else { return false };
        field.is_live()
            && match name {
                Name::Known(known) => field.known == *known && *known != FieldName::Other,
                Name::Other(text) => {
                    field.known == FieldName::Other
                        && field.name.len() == text.len()
                        && self.name(field).eq_ignore_ascii_case(text)
                }
            }
    }
}

#[cfg(test)]
mod tests;
