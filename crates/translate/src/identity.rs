// SPDX-License-Identifier: Apache-2.0
//! Identity numbers: which set of labels has which number.
//!
//! The table is an input of the translation, and what becomes of it is a list of records: whoever owns it
//! keeps them (in a file or as objects) before any node hears of a number, and says what time it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use weft_ir::{Identity, IdentityNumber};

/// Labels as `source:key` to value.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// The first number that is given; those below are Cilium's reserved ones.
pub const FIRST: u32 = 256;
/// One more than the last number that is given: from here on numbers are local to a node.
pub const END: u32 = 1 << 24;
/// How long a number that nobody uses is kept from others, in seconds.
pub(crate) const HOLD_SECONDS: u64 = 3_600;

/// The table of identities.
#[derive(Debug, Default)]
pub struct Identities {
    by_labels: HashMap<Arc<Labels>, u32>,
    by_number: BTreeMap<u32, Entry>,
    /// Numbers that nobody uses, by the second since when.
    released: BTreeSet<(u64, u32)>,
    /// Numbers of an earlier run that were in use, and that nobody has asked for in this one.
    unclaimed: BTreeSet<u32>,
    /// Numbers whose use may be another than nodes were told.
    touched: BTreeSet<u32>,
    /// What is not yet kept.
    records: Vec<IdentityRecord>,
    next: u32,
}

#[derive(Debug)]
struct Entry {
    labels: Arc<Labels>,
    /// How many pods have it.
    users: u32,
    /// Since when nobody uses it, in seconds since 1970.
    released: Option<u64>,
    /// Whether nodes were told of it.
    told: bool,
}

/// What happened to a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdentityRecord {
    /// It is that of these labels.
    Given {
        /// The number.
        number: u32,
        /// The labels.
        labels: Arc<Labels>,
    },
    /// Nobody uses it any more.
    Released {
        /// The number.
        number: u32,
        /// Since when, in seconds since 1970.
        at: u64,
    },
    /// It is used again, for the same labels.
    Taken {
        /// The number.
        number: u32,
    },
    /// It may be given to others.
    Forgotten {
        /// The number.
        number: u32,
    },
}

/// How the identities in use are different from what nodes were told.
#[derive(Debug, Default)]
pub(crate) struct IdentityChanges {
    pub(crate) new: Vec<Identity>,
    pub(crate) gone: Vec<Identity>,
}

/// Every number is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all identity numbers are taken: pods have more than {} different sets of labels", END - FIRST)]
pub struct Exhausted;

/// Records that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTable {
    /// Two sets of labels have one number, or the same labels are there twice.
    #[error("identity {0} is given twice")]
    Twice(u32),
    /// A number that is never given.
    #[error("identity {0} is out of range")]
    Range(u32),
    /// Something happened to a number that was not given.
    #[error("identity {0} was not given")]
    NotGiven(u32),
}

impl Identities {
    /// The table after these records.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn replay(records: impl IntoIterator<Item = IdentityRecord>) -> Result<Identities, InvalidTable> {
        let mut table = Identities::default();
        for record in records {
            table.replay_one(record)?;
        }
        let in_use = table.by_number.iter().filter(|(_, entry)| entry.released.is_none());
        table.unclaimed = in_use.map(|(number, _)| *number).collect();
        Ok(table)
    }

    fn replay_one(&mut self, record: IdentityRecord) -> Result<(), InvalidTable> {
        match record {
            IdentityRecord::Given { number, .. } if !(FIRST..END).contains(&number) => {
                return Err(InvalidTable::Range(number));
            }
            IdentityRecord::Given { number, labels } => {
                if self.by_number.contains_key(&number) || self.by_labels.contains_key(&labels) {
                    return Err(InvalidTable::Twice(number));
                }
                self.add(number, labels);
            }
            IdentityRecord::Released { number, at } => {
                let entry = self.by_number.get_mut(&number).ok_or(InvalidTable::NotGiven(number))?;
                if let Some(earlier) = entry.released.replace(at) {
                    self.released.remove(&(earlier, number));
                }
                self.released.insert((at, number));
            }
            IdentityRecord::Taken { number } => {
                let entry = self.by_number.get_mut(&number).ok_or(InvalidTable::NotGiven(number))?;
                if let Some(since) = entry.released.take() {
                    self.released.remove(&(since, number));
                }
            }
            IdentityRecord::Forgotten { number } => {
                let entry = self.by_number.remove(&number).ok_or(InvalidTable::NotGiven(number))?;
                self.by_labels.remove(&entry.labels);
                self.released.retain(|(_, other)| *other != number);
            }
        }
        Ok(())
    }

    /// How many numbers are given or held.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether no number is given or held.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// The fewest records that lead to this table.
    pub fn shortest(&self) -> impl Iterator<Item = IdentityRecord> {
        self.by_number.iter().flat_map(|(&number, entry)| {
            let given = IdentityRecord::Given { number, labels: entry.labels.clone() };
            let released = entry.released.map(|at| IdentityRecord::Released { number, at });
            [Some(given), released].into_iter().flatten()
        })
    }

    /// What happened since this was asked last. Nodes may hear of it once it is kept.
    pub(crate) fn take_records(&mut self) -> Vec<IdentityRecord> {
        std::mem::take(&mut self.records)
    }

    /// One more pod has these labels: their number, which is a new one where they have none.
    pub(crate) fn hold(&mut self, labels: Labels) -> Result<IdentityNumber, Exhausted> {
        let number = match self.by_labels.get(&labels) {
            Some(number) => *number,
            None => {
                let number = self.free_number()?;
                let labels = Arc::new(labels);
                self.records.push(IdentityRecord::Given { number, labels: labels.clone() });
                self.add(number, labels);
                number
            }
        };
        if let Some(entry) = self.by_number.get_mut(&number) {
            entry.users += 1;
            if entry.users == 1 {
                self.touched.insert(number);
                self.unclaimed.remove(&number);
            }
            if let Some(since) = entry.released.take() {
                self.released.remove(&(since, number));
                self.records.push(IdentityRecord::Taken { number });
            }
        }
        Ok(IdentityNumber(number))
    }

    /// A pod has this number no more.
    pub(crate) fn release(&mut self, number: IdentityNumber) {
        if let Some(entry) = self.by_number.get_mut(&number.0) {
            entry.users = entry.users.saturating_sub(1);
            if entry.users == 0 {
                self.touched.insert(number.0);
            }
        }
    }

    /// Forgets what nobody used for an hour. `now` is in seconds since 1970.
    pub(crate) fn expire(&mut self, now: u64) {
        while let Some((since, number)) = self.released.first().copied()
            && now >= since.saturating_add(HOLD_SECONDS)
        {
            self.released.remove(&(since, number));
            if let Some(entry) = self.by_number.remove(&number) {
                self.by_labels.remove(&entry.labels);
            }
            self.records.push(IdentityRecord::Forgotten { number });
        }
    }

    /// Ends a translation at `now`, in seconds since 1970: what nobody uses any more is released.
    pub(crate) fn settle(&mut self, now: u64) -> IdentityChanges {
        let mut changes = IdentityChanges::default();
        let mut touched = std::mem::take(&mut self.touched);
        touched.append(&mut self.unclaimed);
        for number in touched {
            let Some(entry) = self.by_number.get_mut(&number) else { continue };
            let used = entry.users > 0;
            let identity =
                || Identity { number: IdentityNumber(number), labels: Labels::clone(&entry.labels) };
            match (used, entry.told) {
                (true, false) => changes.new.push(identity()),
                (false, true) => changes.gone.push(identity()),
                (true, true) | (false, false) => {}
            }
            entry.told = used;
            if !used && entry.released.is_none() {
                entry.released = Some(now);
                self.released.insert((now, number));
                self.records.push(IdentityRecord::Released { number, at: now });
            }
        }
        changes
    }

    fn add(&mut self, number: u32, labels: Arc<Labels>) {
        self.by_labels.insert(labels.clone(), number);
        self.by_number.insert(number, Entry { labels, users: 0, released: None, told: false });
        self.next = number + 1;
    }

    /// The first free number from `next` on, starting again at [`FIRST`] behind the last.
    fn free_number(&self) -> Result<u32, Exhausted> {
        let next = self.next.clamp(FIRST, END);
        let free = |number: &u32| !self.by_number.contains_key(number);
        (next..END).find(free).or_else(|| (FIRST..next).find(free)).ok_or(Exhausted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(app: &str) -> Labels {
        BTreeMap::from([("k8s:app".into(), app.into())])
    }

    fn numbers(changes: &IdentityChanges) -> (Vec<u32>, Vec<u32>) {
        let numbers = |changes: &[Identity]| changes.iter().map(|identity| identity.number.0).collect();
        (numbers(&changes.new), numbers(&changes.gone))
    }

    #[test]
    fn a_number_is_kept_for_an_hour_and_not_given_to_others() {
        let mut table = Identities::default();
        let a = table.hold(labels("a")).unwrap();
        assert_eq!(a, IdentityNumber(256));
        assert_eq!(table.hold(labels("b")), Ok(IdentityNumber(257)));
        assert_eq!(numbers(&table.settle(0)), (vec![256, 257], vec![]));
        table.release(a);
        assert_eq!(numbers(&table.settle(10)), (vec![], vec![256]));
        table.expire(3_609);
        assert_eq!(table.hold(labels("c")), Ok(IdentityNumber(258)));
        assert_eq!(table.hold(labels("a")), Ok(IdentityNumber(256)));
        assert_eq!(numbers(&table.settle(3_609)), (vec![256, 258], vec![]));
    }

    #[test]
    fn a_number_comes_back_after_an_hour_once_the_others_are_used_up() {
        let mut table = Identities { next: END, ..Identities::default() };
        let a = table.hold(labels("a")).unwrap();
        assert_eq!(a, IdentityNumber(256));
        table.settle(0);
        table.release(a);
        table.settle(1);
        table.expire(3_600);
        assert_eq!(table.len(), 1);
        table.expire(3_601);
        table.next = END;
        assert_eq!(table.hold(labels("b")), Ok(IdentityNumber(256)));
    }

    #[test]
    fn what_is_released_and_taken_at_once_is_no_news() {
        let mut table = Identities::default();
        let a = table.hold(labels("a")).unwrap();
        table.settle(0);
        table.take_records();
        table.release(a);
        assert_eq!(table.hold(labels("a")), Ok(a));
        assert_eq!(numbers(&table.settle(1)), (vec![], vec![]));
        assert_eq!(table.take_records(), []);
    }

    #[test]
    fn the_table_survives_a_restart() {
        let mut table = Identities::default();
        let a = table.hold(labels("a")).unwrap();
        table.hold(labels("b")).unwrap();
        table.settle(0);
        table.release(a);
        table.settle(5);
        let (log, shortest) = (table.take_records(), table.shortest().collect::<Vec<_>>());
        for records in [log, shortest] {
            let mut read = Identities::replay(records.clone()).unwrap();
            assert_eq!(read.hold(labels("c")), Ok(IdentityNumber(258)));
            assert_eq!(read.hold(labels("b")), Ok(IdentityNumber(257)));
            assert_eq!(read.hold(labels("a")), Ok(IdentityNumber(256)));
            let mut twice = records;
            twice.push(IdentityRecord::Given { number: 256, labels: Arc::new(labels("d")) });
            assert_eq!(Identities::replay(twice).unwrap_err(), InvalidTable::Twice(256));
        }
    }

    #[test]
    fn what_nobody_asks_for_after_a_restart_is_held_for_an_hour_from_then_on() {
        let given = IdentityRecord::Given { number: 300, labels: Arc::new(labels("a")) };
        let mut table = Identities::replay([given]).unwrap();
        assert_eq!(numbers(&table.settle(100)), (vec![], vec![]), "nodes of this run know nothing of it");
        assert_eq!(table.take_records(), [IdentityRecord::Released { number: 300, at: 100 }]);
        table.expire(3_699);
        assert_eq!(table.len(), 1);
        table.expire(3_700);
        assert!(table.is_empty());
        assert_eq!(table.take_records(), [IdentityRecord::Forgotten { number: 300 }]);
    }
}
