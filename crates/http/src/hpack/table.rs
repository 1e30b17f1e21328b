// SPDX-License-Identifier: Apache-2.0
//! The dynamic table (RFC 7541, sections 2.3.2 and 4): a ring of entries over one text.
//!
//! Entries are numbered from 0 on, for good, so that an encoder can remember where a field is. Their text lies
//! in one buffer of at most twice the table's size: what was evicted is cut off from its front when it has
//! become as much as what is left, so that a byte moves at most once for each byte that is inserted.

use std::collections::VecDeque;

use super::Entry;
use crate::head::FieldName;

/// What an entry costs besides its text (RFC 7541, section 4.1).
pub(crate) const ENTRY_OVERHEAD: usize = 32;

/// The largest table that is kept, in octets as RFC 7541 counts them: lengths are kept in 16 bits.
pub(crate) const LARGEST: usize = 65_535;

/// A field that can be referred to by its number.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Where the name begins, counted from the first byte ever inserted; the value follows it.
    at: u32,
    hash: u32,
    name: u16,
    value: u16,
    known: FieldName,
    valid: bool,
}

/// What is known of an entry beside its text.
#[derive(Clone, Copy)]
pub(crate) struct New {
    pub(crate) hash: u32,
    pub(crate) known: FieldName,
    pub(crate) valid: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: VecDeque<Slot>,
    text: Vec<u8>,
    /// The position, counted as in [`Slot::at`], of the first byte of `text`.
    base: u32,
    /// Octets in the table, as RFC 7541 counts them.
    size: usize,
    max: usize,
    /// The number of the next entry.
    next: u32,
    /// Insertions and changes of the size.
    state: u32,
}

impl Table {
    /// An empty table of at most `max` octets; nothing is allocated before the first entry.
    pub(crate) fn new(max: usize) -> Table {
        Table { max: max.min(LARGEST), ..Table::default() }
    }

    /// The size that it may have, in octets.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Entries that it has.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A number that is another one whenever the table has changed.
    #[inline]
    pub(crate) fn state(&self) -> u32 {
        self.state
    }

    /// The number that the next entry gets.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Changes how large it may be, and evicts what no longer fits.
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max.min(LARGEST);
        self.state = self.state.wrapping_add(1);
        self.evict(0);
    }

    /// The entry that was inserted `age` entries before the newest.
    #[inline]
    pub(crate) fn by_age(&self, age: usize) -> Option<Entry<'_>> {
        let at = self.slots.len().checked_sub(age)?.checked_sub(1)?;
        let slot = self.slots.get(at)?;
        let start = slot.at.wrapping_sub(self.base) as usize;
        let name = usize::from(slot.name);
        let text = self.text.get(start..start + name + usize::from(slot.value))?;
        let (hash, known, valid) = (slot.hash, slot.known, slot.valid);
        Some(Entry { text, name, huffman: &[], hash, known, valid, sensitive: false })
    }

    /// How many entries were inserted after the one with this number, if it is still here.
    #[inline]
    pub(crate) fn age(&self, number: u32) -> Option<usize> {
        let age = self.next.wrapping_sub(number).wrapping_sub(1) as usize;
        (age < self.slots.len()).then_some(age)
    }

    /// Inserts a field; one that is larger than the table empties it (RFC 7541, section 4.4).
    pub(crate) fn insert(&mut self, name: &[u8], value: &[u8], entry: New) {
        let New { hash, known, valid } = entry;
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.state = self.state.wrapping_add(1);
        self.evict(size);
        if size > self.max {
            return;
        }
        self.make_room(name.len() + value.len());
        let at = self.base.wrapping_add(self.text.len() as u32);
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        let (name, value) = (name.len() as u16, value.len() as u16);
        self.slots.push_back(Slot { at, hash, name, value, known, valid });
        self.size += size;
        self.next = self.next.wrapping_add(1);
    }

    /// Evicts the oldest until `more` octets fit, or nothing is left.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.max {
            let Some(slot) = self.slots.pop_front() else { return };
            self.size -= usize::from(slot.name) + usize::from(slot.value) + ENTRY_OVERHEAD;
        }
    }

    /// Cuts off evicted text once it is as much as the text that is left.
    fn make_room(&mut self, more: usize) {
        let dead =
            self.slots.front().map_or(self.text.len(), |oldest| oldest.at.wrapping_sub(self.base) as usize);
        if dead > 0 && dead >= (self.text.len() - dead + more) {
            self.text.drain(..dead);
            self.base = self.base.wrapping_add(dead as u32);
        }
        let need = self.text.len() + more;
        if need > self.text.capacity() {
            let doubled = (2 * need).min(2 * self.max);
            self.text.reserve_exact(doubled - self.text.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: New = New { hash: 1, known: FieldName::Other, valid: true };

    fn texts(table: &Table) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (0..table.len())
            .map(|age| table.by_age(age).unwrap())
            .map(|entry| (text(entry.name()), text(entry.value())))
            .collect()
    }

    #[test]
    fn the_oldest_are_evicted_by_size() {
        // Each entry is 32 + 1 + 9 octets: two fit into 100.
        let mut table = Table::new(100);
        for (name, value) in [(b"a", b"111111111"), (b"b", b"222222222"), (b"c", b"333333333")] {
            table.insert(name, value, NEW);
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(texts(&table), [pair("c", "333333333"), pair("b", "222222222")]);
        assert_eq!((table.age(0), table.age(1), table.age(2), table.age(3)), (None, Some(1), Some(0), None));
        table.set_max(83);
        assert_eq!(texts(&table), [pair("c", "333333333")]);
        table.insert(b"name", &[b'v'; 100], NEW);
        assert_eq!((table.len(), table.size), (0, 0), "a field larger than the table empties it");
    }

    #[test]
    fn the_text_stays_below_twice_the_size_and_is_never_mixed_up() {
        let mut table = Table::new(4096);
        for number in 0..20_000_u32 {
            let value = number.to_string().repeat(1 + (number % 57) as usize);
            table.insert(b"name", value.as_bytes(), NEW);
            assert!(table.text.capacity() <= 2 * 4096, "{}", table.text.capacity());
            let (newest, oldest) = (table.by_age(0).unwrap(), table.by_age(table.len() - 1).unwrap());
            assert_eq!(newest.value(), value.as_bytes());
            let first = number + 1 - table.len() as u32;
            assert_eq!(oldest.value(), first.to_string().repeat(1 + (first % 57) as usize).as_bytes());
            assert_eq!(table.age(first), Some(table.len() - 1));
        }
        assert!(table.by_age(table.len()).is_none());
    }
}
