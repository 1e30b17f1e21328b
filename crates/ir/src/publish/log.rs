// SPDX-License-Identifier: Apache-2.0
//! What the last commits touched.

use std::collections::VecDeque;

use crate::ResourceKey;

/// The keys that the last commits touched, oldest first.
#[derive(Debug, Default)]
pub(super) struct Log {
    commits: VecDeque<(u64, Vec<ResourceKey>)>,
    keys: usize,
    /// The newest revision that is no longer in the log.
    floor: u64,
}

/// A log of this many keys is kept however small the state is.
const MIN_KEYS: usize = 4096;

impl Log {
    /// Adds a commit, and drops the oldest while the log is longer than the state: from there on a
    /// snapshot is the shorter way to catch up.
    pub(super) fn push(&mut self, revision: u64, touched: Vec<ResourceKey>, state_len: usize) {
        self.keys += touched.len();
        self.commits.push_back((revision, touched));
        while self.keys + self.commits.len() > state_len.max(MIN_KEYS) {
            let Some((revision, touched)) = self.commits.pop_front() else { break };
            self.keys -= touched.len();
            self.floor = revision;
        }
    }

    /// Whether everything after this revision is in the log.
    pub(super) fn reaches(&self, revision: u64) -> bool {
        revision >= self.floor
    }

    /// What was touched after a revision, oldest first.
    pub(super) fn since(&self, revision: u64) -> impl Iterator<Item = &ResourceKey> {
        let start = self.commits.partition_point(|(at, _)| *at <= revision);
        self.commits.range(start..).flat_map(|(_, touched)| touched)
    }
}
