// SPDX-License-Identifier: Apache-2.0
//! Identity numbers: which set of labels has which number.
//!
//! The table is an input of the translation. Its owner keeps it (in a file or as objects) and says
//! what time it is.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use weft_ir::IdentityNumber;

/// Labels as `source:key` to value.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// The first number that is given; those below are Cilium's reserved ones.
pub const FIRST: u32 = 256;
/// One more than the last number that is given: from here on numbers are local to a node.
pub const END: u32 = 1 << 24;
/// How long a number that nobody uses is kept from others, in seconds.
pub const HOLD_SECONDS: u64 = 3_600;

/// The table of identities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Saved", try_from = "Saved")]
pub struct Identities {
    by_labels: BTreeMap<Labels, Entry>,
    by_number: BTreeMap<u32, Labels>,
    next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    number: u32,
    /// Since when nobody uses it, in seconds since 1970.
    released: Option<u64>,
    /// Whether the running translation uses it.
    used: bool,
}

/// Every number is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all identity numbers are taken: pods have more than {} different sets of labels", END - FIRST)]
pub struct Exhausted;

/// A saved table that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTable {
    /// Two sets of labels have one number.
    #[error("identity {0} appears twice in the saved table")]
    Twice(u32),
    /// A number that is never given.
    #[error("identity {0} is out of range in the saved table")]
    Range(u32),
}

impl Identities {
    /// Starts a translation: nothing is used yet, and what was free for an hour is forgotten.
    /// `now` is in seconds since 1970.
    pub fn begin(&mut self, now: u64) {
        let by_number = &mut self.by_number;
        self.by_labels.retain(|_, entry| {
            entry.used = false;
            let expired = entry.released.is_some_and(|since| now >= since.saturating_add(HOLD_SECONDS));
            if expired {
                by_number.remove(&entry.number);
            }
            !expired
        });
    }

    /// The number of these labels: the one that they have, or a new one.
    pub fn number(&mut self, labels: &Labels) -> Result<IdentityNumber, Exhausted> {
        if let Some(entry) = self.by_labels.get_mut(labels) {
            entry.used = true;
            entry.released = None;
            return Ok(IdentityNumber(entry.number));
        }
        let number = self.free_number()?;
        self.next = number + 1;
        self.by_number.insert(number, labels.clone());
        self.by_labels.insert(labels.clone(), Entry { number, released: None, used: true });
        Ok(IdentityNumber(number))
    }

    /// Ends a translation: what was not asked for is released at `now`, in seconds since 1970.
    pub fn finish(&mut self, now: u64) {
        for entry in self.by_labels.values_mut() {
            if !entry.used && entry.released.is_none() {
                entry.released = Some(now);
            }
        }
    }

    /// The identities in use, in the order of their labels.
    pub fn used(&self) -> impl Iterator<Item = (IdentityNumber, &Labels)> {
        let used = self.by_labels.iter().filter(|(_, entry)| entry.used);
        used.map(|(labels, entry)| (IdentityNumber(entry.number), labels))
    }

    /// The first free number from `next` on, starting again at [`FIRST`] behind the last.
    fn free_number(&self) -> Result<u32, Exhausted> {
        let next = self.next.clamp(FIRST, END);
        let free = |number: &u32| !self.by_number.contains_key(number);
        (next..END).find(free).or_else(|| (FIRST..next).find(free)).ok_or(Exhausted)
    }
}

/// The form in which the table is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Saved {
    next: u32,
    identities: Vec<SavedEntry>,
}

#[derive(Clone, Serialize, Deserialize)]
struct SavedEntry {
    number: u32,
    labels: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    released: Option<u64>,
}

impl From<Identities> for Saved {
    fn from(table: Identities) -> Saved {
        let entry = |(labels, entry): (Labels, Entry)| SavedEntry {
            number: entry.number,
            labels,
            released: entry.released,
        };
        Saved { next: table.next, identities: table.by_labels.into_iter().map(entry).collect() }
    }
}

impl TryFrom<Saved> for Identities {
    type Error = InvalidTable;

    fn try_from(saved: Saved) -> Result<Identities, InvalidTable> {
        let mut table = Identities { next: saved.next, ..Identities::default() };
        for entry in saved.identities {
            if !(FIRST..END).contains(&entry.number) {
                return Err(InvalidTable::Range(entry.number));
            }
            if table.by_number.insert(entry.number, entry.labels.clone()).is_some() {
                return Err(InvalidTable::Twice(entry.number));
            }
            let value = Entry { number: entry.number, released: entry.released, used: false };
            table.by_labels.insert(entry.labels, value);
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(app: &str) -> Labels {
        BTreeMap::from([("k8s:app".into(), app.into())])
    }

    #[test]
    fn a_number_is_kept_for_an_hour_and_not_given_to_others() {
        let mut table = Identities::default();
        table.begin(0);
        assert_eq!(table.number(&labels("a")), Ok(IdentityNumber(256)));
        assert_eq!(table.number(&labels("b")), Ok(IdentityNumber(257)));
        table.finish(0);
        table.begin(10);
        table.number(&labels("b")).unwrap();
        table.finish(10);
        table.begin(3_609);
        assert_eq!(table.number(&labels("c")), Ok(IdentityNumber(258)));
        assert_eq!(table.number(&labels("a")), Ok(IdentityNumber(256)));
        table.finish(3_609);
    }

    #[test]
    fn a_number_comes_back_after_an_hour_once_the_others_are_used_up() {
        let mut table = Identities { next: END, ..Identities::default() };
        table.begin(0);
        assert_eq!(table.number(&labels("a")), Ok(IdentityNumber(256)));
        table.finish(0);
        table.begin(1);
        table.finish(1);
        table.begin(3_601);
        table.next = END;
        assert_eq!(table.number(&labels("b")), Ok(IdentityNumber(256)));
    }

    #[test]
    fn the_table_survives_being_saved() {
        let mut table = Identities::default();
        table.begin(0);
        table.number(&labels("a")).unwrap();
        table.finish(0);
        table.begin(5);
        table.finish(5);
        let text = serde_json::to_string(&table).unwrap();
        let mut read: Identities = serde_json::from_str(&text).unwrap();
        read.begin(6);
        assert_eq!(read.number(&labels("b")), Ok(IdentityNumber(257)));
        assert_eq!(read.number(&labels("a")), Ok(IdentityNumber(256)));
        let twice = text.replace("\"identities\":[", "\"identities\":[{\"number\":256,\"labels\":{}},");
        assert!(serde_json::from_str::<Identities>(&twice).is_err());
    }
}
