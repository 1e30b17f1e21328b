// SPDX-License-Identifier: Apache-2.0
//! A deadline that moves later at every sign of life, without touching the wheel each time.

use crate::upstream::wheel::{Deadline, Wheel};

/// When somebody's patience ends.
#[derive(Debug, Default)]
pub(crate) struct Timeout {
    /// In nanoseconds since the start of the process; nothing while nobody waits.
    at: Option<u64>,
    /// The deadline that is set, and when: at `at` or before.
    set: Option<(Deadline, u64)>,
}

impl Timeout {
    /// Ends at `at` from now on.
    pub(crate) fn until<K: Copy>(&mut self, at: u64, wheel: &mut Wheel<K>, key: K) {
        self.at = Some(at);
        if self.set.as_ref().is_some_and(|(_, set)| *set <= at) {
            return;
        }
        self.clear_set(wheel);
        self.set = Some((wheel.set(at, key), at));
    }

    /// Nobody waits.
    pub(crate) fn never(&mut self) {
        self.at = None;
    }

    /// The deadline that was set has passed: whether patience has ended, too. If not, it is set again.
    pub(crate) fn passed<K: Copy>(&mut self, now: u64, wheel: &mut Wheel<K>, key: K) -> bool {
        self.set = None;
        match self.at {
            None => false,
            Some(at) if at <= now => {
                self.at = None;
                true
            }
            Some(at) => {
                self.set = Some((wheel.set(at, key), at));
                false
            }
        }
    }

    /// Takes the deadline out of the wheel, before whoever has it is gone.
    pub(crate) fn clear<K: Copy>(&mut self, wheel: &mut Wheel<K>) {
        self.at = None;
        self.clear_set(wheel);
    }

    fn clear_set<K: Copy>(&mut self, wheel: &mut Wheel<K>) {
        let mut set = self.set.take().map(|(deadline, _)| deadline);
        wheel.clear(&mut set);
    }
}
