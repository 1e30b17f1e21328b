// SPDX-License-Identifier: Apache-2.0
//! A persistent set that counts how often something was put in.

use imbl::OrdMap;

/// Things, each as long as it was put in more often than it was taken out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counted<T: Ord>(OrdMap<T, u32>);

impl<T: Ord + Clone> Counted<T> {
    /// Puts it in; whether it was not there before.
    pub(crate) fn add(&mut self, thing: T) -> bool {
        let count = self.0.entry(thing).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// Takes it out once; whether it is gone now.
    pub(crate) fn remove(&mut self, thing: &T) -> bool {
        match self.0.get_mut(thing) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            Some(_) => self.0.remove(thing).is_some(),
            None => false,
        }
    }

    pub(crate) fn contains(&self, thing: &T) -> bool {
        self.0.contains_key(thing)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.keys()
    }

    /// Those from the first to the last of a range, both included, in order.
    pub(crate) fn between(&self, first: T, last: T) -> impl DoubleEndedIterator<Item = &T> {
        self.0.range(first..=last).map(|(thing, _)| thing)
    }

    /// Whether both are the same object in memory.
    pub(crate) fn is_same(&self, other: &Counted<T>) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl<T: Ord> Default for Counted<T> {
    fn default() -> Counted<T> {
        Counted(OrdMap::default())
    }
}
