// SPDX-License-Identifier: Apache-2.0
//! A deadline that moves later at every sign of life, without touching the wheel each time.

use crate::upstream::wheel::{Deadline, Wheel};

/// When nobody waits.
const NEVER: u64 = u64::MAX;

/// When somebody's patience ends.
#[derive(Debug)]
pub(crate) struct Timeout {
    /// In nanoseconds since the start of the process.
    at: u64,
    /// The deadline that is set.
    set: Option<Deadline>,
    /// When that is: at `at` or before.
    set_at: u64,
}

impl Default for Timeout {
    fn default() -> Timeout {
        Timeout { at: NEVER, set: None, set_at: NEVER }
    }
}

impl Timeout {
    /// Ends at `at` from now on.
    pub(crate) fn until<K: Copy>(&mut self, at: u64, wheel: &mut Wheel<K>, key: K) {
        self.at = at;
        if self.set_at > at {
            wheel.clear(&mut self.set);
            self.set(wheel, key);
        }
    }

    /// Nobody waits.
    pub(crate) fn never(&mut self) {
        self.at = NEVER;
    }

    /// The deadline that was set has passed: whether patience has ended, too. If not, it is set again.
    pub(crate) fn passed<K: Copy>(&mut self, now: u64, wheel: &mut Wheel<K>, key: K) -> bool {
        (self.set, self.set_at) = (None, NEVER);
        let ended = self.at <= now;
        if ended {
            self.at = NEVER;
        } else if self.at != NEVER {
            self.set(wheel, key);
        }
        ended
    }

    /// Takes the deadline out of the wheel, before whoever has it is gone.
    pub(crate) fn clear<K: Copy>(&mut self, wheel: &mut Wheel<K>) {
        (self.at, self.set_at) = (NEVER, NEVER);
        wheel.clear(&mut self.set);
    }

    fn set<K: Copy>(&mut self, wheel: &mut Wheel<K>, key: K) {
        (self.set, self.set_at) = (Some(wheel.set(self.at, key)), self.at);
    }
}
