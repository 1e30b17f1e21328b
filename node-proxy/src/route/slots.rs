// SPDX-License-Identifier: Apache-2.0
//! Small numbers for things that live longer than one state: a worker keeps what it measured about an
//! endpoint or a cluster in a plain array, and finds it without hashing.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

/// A number, and how often it was given to somebody new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    /// The position; small, because numbers are used again.
    pub(crate) index: u32,
    /// Grows whenever the position gets a new owner; starts with 1.
    pub(crate) generation: u32,
}

/// Gives every key a slot, and the slots of keys that are gone to new ones.
#[derive(Debug)]
pub(crate) struct Slots<K> {
    by_key: HashMap<K, Slot>,
    free: Vec<Slot>,
    next: u32,
}

impl<K> Default for Slots<K> {
    fn default() -> Self {
        Slots { by_key: HashMap::new(), free: Vec::new(), next: 0 }
    }
}

impl<K: Eq + Hash + Clone> Slots<K> {
    /// The slot of the key, a new one if it has none.
    pub(crate) fn assign(&mut self, key: &K) -> Slot {
        if let Some(slot) = self.by_key.get(key) {
            return *slot;
        }
        let slot = match self.free.pop() {
            Some(slot) => Slot { generation: slot.generation.wrapping_add(1), ..slot },
            None => {
                let index = self.next;
                self.next += 1;
                Slot { index, generation: 1 }
            }
        };
        self.by_key.insert(key.clone(), slot);
        slot
    }

    /// Takes the slots of all keys that are not among these.
    pub(crate) fn retain(&mut self, live: &HashSet<K>) {
        let free = &mut self.free;
        self.by_key.retain(|key, slot| {
            let keep = live.contains(key);
            if !keep {
                free.push(*slot);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_slot_and_a_new_owner_is_told_apart() {
        let mut slots = Slots::default();
        let first = slots.assign(&"a");
        assert_eq!(slots.assign(&"a"), first);
        assert_ne!(slots.assign(&"b").index, first.index);
        slots.retain(&HashSet::from(["b"]));
        let next = slots.assign(&"c");
        assert_eq!(next, Slot { index: first.index, generation: first.generation + 1 });
    }
}
