// SPDX-License-Identifier: Apache-2.0
//! The objects of one text, in as little memory as a file with one object needs.

use std::sync::Arc;

use weft_api::object::ObjectKey;

use super::entry::Content;

/// An object of a text.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) line: u32,
    pub(super) content: Content,
    /// What of it has no effect, and the line.
    pub(super) note: Option<(u32, Arc<str>)>,
    /// It is of an earlier text: whoever names the object now is believed instead.
    pub(super) kept: bool,
}

/// Objects in the order of their keys, each once or, wrongly, several times in the order of the text.
#[derive(Debug, Default)]
pub(super) struct Objects(Vec<(ObjectKey, Found)>);

impl Objects {
    /// Adds one; until [`Objects::sort`] it is not found by its key.
    pub(super) fn push(&mut self, key: ObjectKey, found: Found) {
        self.0.push((key, found));
    }

    /// Adds those of the next document.
    pub(super) fn append(&mut self, mut other: Objects) {
        self.0.append(&mut other.0);
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Has all count as those of an earlier text.
    pub(super) fn outdate(&mut self) {
        self.0.iter_mut().for_each(|(_, found)| found.kept = true);
    }

    /// Puts all in their order.
    pub(super) fn sort(&mut self) {
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.0.shrink_to_fit();
    }

    /// Each key once.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.chunk_by(|(a, _), (b, _)| a == b).filter_map(|same| Some(&same.first()?.0))
    }

    /// All of one key.
    pub(super) fn of(&self, key: &ObjectKey) -> impl Iterator<Item = &Found> {
        let first = self.0.partition_point(|(other, _)| other < key);
        self.0[first..].iter().take_while(move |(other, _)| other == key).map(|(_, found)| found)
    }

    /// Takes those of another text that this one does not name, and tells whether there are any.
    pub(super) fn keep(&mut self, old: Objects) -> bool {
        let before = self.0.len();
        let mut kept: Vec<_> = old.0.into_iter().filter(|(key, _)| self.of(key).next().is_none()).collect();
        kept.iter_mut().for_each(|(_, found)| found.kept = true);
        self.0.extend(kept);
        self.sort();
        self.0.len() > before
    }
}
