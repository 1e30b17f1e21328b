// SPDX-License-Identifier: Apache-2.0
//! The pause before the next try: exponential, with jitter, so that nodes do not come all at once.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);

/// Another process has this node's stream: who looks into it needs minutes.
const CONTESTED: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The stream has worked: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next pause: between half and the whole of a time that doubles.
    pub(super) fn next(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        jittered(whole)
    }

    /// The pause after the controller has said that another process speaks as this node: between one and two
    /// minutes.
    pub(super) fn contested(&mut self) -> Duration {
        self.failures = 0;
        jittered(CONTESTED)
    }
}

/// Between half and the whole of a time.
pub(super) fn jittered(whole: Duration) -> Duration {
    // Every RandomState has keys of its own: what it makes of nothing is as good as random here.
    let random = RandomState::new().hash_one(0) % 1024;
    whole / 2 + whole / 2 * u32::try_from(random).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_a_limit_and_starts_again() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..100).map(|_| backoff.next()).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST);
        assert!(pauses[20..].iter().all(|pause| *pause >= LONGEST / 2 && *pause <= LONGEST));
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
