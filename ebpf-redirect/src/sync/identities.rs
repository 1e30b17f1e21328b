// SPDX-License-Identifier: Apache-2.0
//! The table of identities as it is in the kernel, and which numbers it has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use imbl::OrdMap;
use weft_ebpf_common::{
    identity::FIRST_ALLOCATED,
    layout::{ANY_IDENTITY, Address},
};

use crate::bpf::Prefix;

/// Identities by prefix.
#[derive(Debug, Default)]
pub(super) struct Identities {
    numbers: BTreeMap<Prefix<Address>, u32>,
    /// How many prefixes have each number.
    users: HashMap<u32, usize>,
}

impl Identities {
    pub(super) fn get(&self, key: &Prefix<Address>) -> Option<&u32> {
        self.numbers.get(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Prefix<Address>> {
        self.numbers.keys()
    }

    /// Notes what a prefix has now.
    pub(super) fn set(&mut self, key: Prefix<Address>, number: Option<u32>) {
        let old = match number {
            Some(number) => {
                *self.users.entry(number).or_default() += 1;
                self.numbers.insert(key, number)
            }
            None => self.numbers.remove(&key),
        };
        if let Some(old) = old
            && let Some(count) = self.users.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&old);
            }
        }
    }

    /// Whether a packet can be from or to somebody with this number. The reserved ones are not only those of
    /// prefixes, and one stands for all.
    pub(super) fn is_in_use(&self, number: u32) -> bool {
        number < FIRST_ALLOCATED || number == ANY_IDENTITY || self.users.contains_key(&number)
    }

    /// The numbers that are in use before, and that are once these prefixes are as they should be.
    pub(super) fn in_use_after(
        &self,
        touched: &BTreeSet<Prefix<Address>>,
        desired: &OrdMap<Prefix<Address>, u32>,
    ) -> impl Fn(u32) -> bool {
        let mut change: HashMap<u32, isize> = HashMap::new();
        for key in touched {
            if let Some(old) = self.numbers.get(key) {
                *change.entry(*old).or_default() -= 1;
            }
            if let Some(new) = desired.get(key) {
                *change.entry(*new).or_default() += 1;
            }
        }
        move |number| {
            let now = self.users.get(&number).copied().unwrap_or(0).cast_signed();
            let fixed = number < FIRST_ALLOCATED || number == ANY_IDENTITY;
            fixed || now + change.get(&number).copied().unwrap_or(0) > 0
        }
    }
}

impl FromIterator<(Prefix<Address>, u32)> for Identities {
    fn from_iter<T: IntoIterator<Item = (Prefix<Address>, u32)>>(entries: T) -> Identities {
        let mut identities = Identities::default();
        entries.into_iter().for_each(|(key, number)| identities.set(key, Some(number)));
        identities
    }
}
