// SPDX-License-Identifier: Apache-2.0
//! Identity numbers: which set of labels has which number.
//!
//! The table is an input of the translation. Its owner keeps it (in a file or as objects) and says
//! what time it is.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use weft_ir::{Identity, IdentityNumber, Resource};

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
    by_labels: BTreeMap<Arc<Labels>, u32>,
    by_number: BTreeMap<u32, Entry>,
    next: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    /// The resource that nodes get.
    identity: Arc<Resource>,
    labels: Arc<Labels>,
    /// Since when nobody uses it, in seconds since 1970.
    released: Option<u64>,
    /// Whether the running translation uses it.
    used: bool,
}

impl Entry {
    fn new(number: u32, labels: Arc<Labels>, released: Option<u64>, used: bool) -> Entry {
        let identity = Identity { number: IdentityNumber(number), labels: Labels::clone(&labels) };
        Entry { identity: Arc::new(Resource::Identity(identity)), labels, released, used }
    }
}

/// Every number is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all identity numbers are taken: pods have more than {} different sets of labels", END - FIRST)]
pub struct Exhausted;

/// A saved table that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTable {
    /// Two sets of labels have one number, or the same labels are there twice.
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
        let by_labels = &mut self.by_labels;
        self.by_number.retain(|_, entry| {
            entry.used = false;
            let expired = entry.released.is_some_and(|since| now >= since.saturating_add(HOLD_SECONDS));
            if expired {
                by_labels.remove(&entry.labels);
            }
            !expired
        });
    }

    /// The number of these labels: the one that they have, or a new one.
    pub fn number(&mut self, labels: &Labels) -> Result<IdentityNumber, Exhausted> {
        let number = match self.by_labels.get(labels) {
            Some(number) => *number,
            None => {
                let number = self.free_number()?;
                let labels = Arc::new(labels.clone());
                self.next = number + 1;
                self.by_labels.insert(labels.clone(), number);
                self.by_number.insert(number, Entry::new(number, labels, None, true));
                number
            }
        };
        if let Some(entry) = self.by_number.get_mut(&number) {
            entry.used = true;
            entry.released = None;
        }
        Ok(IdentityNumber(number))
    }

    /// The identity of a number, as it is given to nodes.
    pub(crate) fn identity(&self, number: IdentityNumber) -> Option<&Arc<Resource>> {
        self.by_number.get(&number.0).map(|entry| &entry.identity)
    }

    /// Uses a number once more, where it still is that of this very identity.
    pub(crate) fn reuse(&mut self, number: IdentityNumber, identity: &Arc<Resource>) -> bool {
        match self.by_number.get_mut(&number.0) {
            Some(entry) if Arc::ptr_eq(&entry.identity, identity) => {
                entry.used = true;
                entry.released = None;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Ends a translation: what was not asked for is released at `now`, in seconds since 1970.
    pub fn finish(&mut self, now: u64) {
        for entry in self.by_number.values_mut() {
            if !entry.used && entry.released.is_none() {
                entry.released = Some(now);
            }
        }
    }

    /// The identities in use, in the order of their numbers.
    pub fn used(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_number.values().filter(|entry| entry.used).map(|entry| &entry.identity)
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
        let entry = |(labels, number): (Arc<Labels>, u32)| SavedEntry {
            number,
            released: table.by_number.get(&number).and_then(|entry| entry.released),
            labels: Arc::unwrap_or_clone(labels),
        };
        Saved { next: table.next, identities: table.by_labels.into_iter().map(entry).collect() }
    }
}

impl TryFrom<Saved> for Identities {
    type Error = InvalidTable;

    fn try_from(saved: Saved) -> Result<Identities, InvalidTable> {
        let mut table = Identities { next: saved.next, ..Identities::default() };
        for SavedEntry { number, labels, released } in saved.identities {
            if !(FIRST..END).contains(&number) {
                return Err(InvalidTable::Range(number));
            }
            let labels = Arc::new(labels);
            let entry = Entry::new(number, labels.clone(), released, false);
            let again = table.by_number.insert(number, entry).is_some();
            if again || table.by_labels.insert(labels, number).is_some() {
                return Err(InvalidTable::Twice(number));
            }
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
