// SPDX-License-Identifier: Apache-2.0
//! Small numbers for things that live longer than one state: a worker keeps what it measured about an
//! endpoint or an upstream in a plain array, and finds it without hashing.

use std::{collections::HashMap, hash::Hash};

/// A number, and how often it was given to somebody new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    /// The position; small, because numbers are used again.
    pub(crate) index: u32,
    /// Grows whenever the position gets a new owner; starts with 1.
    pub(crate) generation: u32,
}

/// Gives every key a slot for as long as somebody holds it, and the slots of keys that are gone to new ones.
#[derive(Debug)]
pub(crate) struct Slots<K> {
    by_key: HashMap<K, Held>,
    /// Keys that nobody held at some time since the last [`Slots::settle`].
    idle: Vec<K>,
    free: Vec<Slot>,
    next: u32,
}

#[derive(Debug)]
struct Held {
    slot: Slot,
    holders: u32,
}

impl<K> Default for Slots<K> {
    fn default() -> Self {
        Slots { by_key: HashMap::new(), idle: Vec::new(), free: Vec::new(), next: 0 }
    }
}

impl<K: Eq + Hash + Clone> Slots<K> {
    /// The slot of the key, a new one if it has none; one more holds it.
    pub(crate) fn hold(&mut self, key: &K) -> Slot {
        if let Some(held) = self.by_key.get_mut(key) {
            held.holders += 1;
            return held.slot;
        }
        let slot = match self.free.pop() {
            Some(slot) => Slot { generation: slot.generation.wrapping_add(1), ..slot },
            None => {
                let index = self.next;
                self.next += 1;
                Slot { index, generation: 1 }
            }
        };
        self.by_key.insert(key.clone(), Held { slot, holders: 1 });
        slot
    }

    /// One holder fewer.
    pub(crate) fn release(&mut self, key: &K) {
        let Some(held) = self.by_key.get_mut(key) else { return };
        held.holders = held.holders.saturating_sub(1);
        if held.holders == 0 {
            self.idle.push(key.clone());
        }
    }

    /// Takes the slots of keys that nobody holds, once a state is complete: in it no slot has two owners.
    pub(crate) fn settle(&mut self) {
        for key in self.idle.drain(..) {
            if self.by_key.get(&key).is_some_and(|held| held.holders == 0)
                && let Some(held) = self.by_key.remove(&key)
            {
                self.free.push(held.slot);
            }
        }
    }

    /// How many keys have a slot.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_slot_and_a_new_owner_is_told_apart() {
        let mut slots = Slots::default();
        let first = slots.hold(&"a");
        assert_eq!(slots.hold(&"a"), first);
        assert_ne!(slots.hold(&"b").index, first.index);
        slots.release(&"a");
        slots.settle();
        assert_eq!(slots.hold(&"a"), first, "somebody still held it");
        slots.release(&"a");
        slots.release(&"a");
        assert_ne!(slots.hold(&"d").index, first.index, "not before the state is complete");
        slots.settle();
        let next = slots.hold(&"c");
        assert_eq!(next, Slot { index: first.index, generation: first.generation + 1 });
    }
}
