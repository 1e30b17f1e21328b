// SPDX-License-Identifier: Apache-2.0
//! The deadlines of one worker: a wheel of ticks, so that setting and clearing one costs the same however
//! many there are. Deadlines are kept to the tick, never early.

use slab::Slab;

/// Nanoseconds of one tick: 8 ms, far below any timeout that a user sets.
const TICK: u64 = 8_000_000;
/// Ticks of one round; what is further away stays in its place for more rounds.
const SLOTS: usize = 1024;
const WORDS: usize = SLOTS / 64;
const NONE: u32 = u32::MAX;

/// Names a deadline that was set and has neither passed nor been cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(u32);

#[derive(Debug)]
struct Node<K> {
    key: K,
    tick: u64,
    before: u32,
    after: u32,
}

/// Deadlines, each with what it is for.
#[derive(Debug)]
pub(crate) struct Wheel<K> {
    nodes: Slab<Node<K>>,
    first: Box<[u32; SLOTS]>,
    occupied: [u64; WORDS],
    /// Every tick up to this one was looked at.
    tick: u64,
}

impl<K: Copy> Wheel<K> {
    /// No deadlines; `now` is in nanoseconds.
    pub(crate) fn new(now: u64) -> Wheel<K> {
        Wheel { nodes: Slab::new(), first: Box::new([NONE; SLOTS]), occupied: [0; WORDS], tick: now / TICK }
    }

    /// Sets a deadline at `at` nanoseconds.
    pub(crate) fn set(&mut self, at: u64, key: K) -> Deadline {
        let tick = at.div_ceil(TICK).max(self.tick + 1);
        let slot = slot(tick);
        let after = self.first[slot];
        let number = self.nodes.insert(Node { key, tick, before: NONE, after }) as u32;
        if let Some(next) = self.nodes.get_mut(after as usize) {
            next.before = number;
        }
        self.first[slot] = number;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        Deadline(number)
    }

    /// Clears a deadline; takes it out of where it is kept, so that it is cleared once.
    pub(crate) fn clear(&mut self, deadline: &mut Option<Deadline>) {
        if let Some(Deadline(number)) = deadline.take() {
            self.remove(number);
        }
    }

    /// Takes the keys of all deadlines that have passed.
    pub(crate) fn expire(&mut self, now: u64, passed: &mut Vec<K>) {
        let until = now / TICK;
        // One round finds everything, however long it is ago.
        let from = self.tick.max(until.saturating_sub(SLOTS as u64));
        for tick in from + 1..=until {
            let slot = slot(tick);
            if self.occupied[slot / 64] & (1 << (slot % 64)) == 0 {
                continue;
            }
            let mut next = self.first[slot];
            while let Some(node) = self.nodes.get(next as usize) {
                let (number, key, passes) = (next, node.key, node.tick <= until);
                next = node.after;
                if passes {
                    passed.push(key);
                    self.remove(number);
                }
            }
        }
        self.tick = self.tick.max(until);
    }

    /// Nanoseconds until the next tick at which a deadline may pass; nothing without deadlines.
    pub(crate) fn wait(&self, now: u64) -> Option<u64> {
        let start = slot(self.tick + 1);
        let ahead = (0..=WORDS).find_map(|step| {
            let word = (start / 64 + step) % WORDS;
            let bits = match step {
                0 => self.occupied[word] & (u64::MAX << (start % 64)),
                _ => self.occupied[word],
            };
            (bits != 0).then(|| {
                let found = word * 64 + bits.trailing_zeros() as usize;
                (found + SLOTS - start) % SLOTS
            })
        })?;
        let at = (self.tick + 1 + ahead as u64) * TICK;
        Some(at.saturating_sub(now))
    }

    fn remove(&mut self, number: u32) {
        let Some(node) = self.nodes.try_remove(number as usize) else { return };
        if let Some(next) = self.nodes.get_mut(node.after as usize) {
            next.before = node.before;
        }
        if let Some(previous) = self.nodes.get_mut(node.before as usize) {
            previous.after = node.after;
            return;
        }
        let slot = slot(node.tick);
        self.first[slot] = node.after;
        if node.after == NONE {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }
}

fn slot(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_deadline_passes_at_its_tick_and_once() {
        let mut wheel = Wheel::new(0);
        let mut kept = Some(wheel.set(100 * SECOND, 'a'));
        let mut passed = Vec::new();
        wheel.expire(100 * SECOND - TICK, &mut passed);
        assert_eq!(passed, []);
        wheel.expire(100 * SECOND + TICK, &mut passed);
        assert_eq!(passed, ['a']);
        wheel.clear(&mut kept);
        wheel.expire(300 * SECOND, &mut passed);
        assert_eq!((passed.len(), wheel.wait(300 * SECOND)), (1, None));
    }

    proptest! {
        #[test]
        fn none_is_early_late_or_lost(
            steps in proptest::collection::vec((0_u64..30 * SECOND, 0_u64..3 * SECOND, any::<bool>()), 1..80),
        ) {
            let (mut wheel, mut now, mut open) = (Wheel::new(0), 0, Vec::new());
            for (number, (ahead, step, clear)) in steps.into_iter().enumerate() {
                open.push((now + ahead, number, Some(wheel.set(now + ahead, number))));
                if clear && let Some((_, _, mut deadline)) = open.pop() {
                    wheel.clear(&mut deadline);
                }
                let next = open.iter().map(|(at, _, _)| *at).min();
                if let (Some(at), Some(wait)) = (next, wheel.wait(now)) {
                    prop_assert!(now + wait <= at + 2 * TICK, "it would sleep past the next one");
                }
                now += step;
                let mut passed = Vec::new();
                wheel.expire(now, &mut passed);
                passed.sort_unstable();
                let due: Vec<usize> = open.iter().filter(|(at, _, _)| passed_by(*at, now)).map(|o| o.1).collect();
                prop_assert_eq!(&passed, &due);
                open.retain(|(_, number, _)| !passed.contains(number));
            }
            prop_assert_eq!(wheel.nodes.len(), open.len());
        }
    }

    fn passed_by(at: u64, now: u64) -> bool {
        at.div_ceil(TICK) <= now / TICK && now / TICK > 0
    }
}
