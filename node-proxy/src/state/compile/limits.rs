// SPDX-License-Identifier: Apache-2.0
//! Rate limits by what they hold back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use weft_ir::{Changes, RateLimitTarget, ResourceKey};

use crate::route::ratelimit::RateLimiter;

/// The limits of the last state. One that has not changed keeps its buckets.
#[derive(Debug, Default)]
pub(super) struct Limits {
    by_target: HashMap<RateLimitTarget, BTreeMap<ResourceKey, Arc<RateLimiter>>>,
}

impl Limits {
    /// Follows a change; yields what is held back by other limits now.
    pub(super) fn update(&mut self, changes: &Changes) -> Vec<RateLimitTarget> {
        let mut touched = Vec::new();
        for (old, new) in changes.rate_limits().filter(|(old, new)| old != new) {
            if let Some(old) = old
                && let Some(known) = self.by_target.get_mut(&old.target)
            {
                known.remove(&old.key());
                if known.is_empty() {
                    self.by_target.remove(&old.target);
                }
                touched.push(old.target.clone());
            }
            if let Some(new) = new {
                let limiter = Arc::new(RateLimiter::new(new.clone()));
                self.by_target.entry(new.target.clone()).or_default().insert(new.key(), limiter);
                touched.push(new.target.clone());
            }
        }
        touched
    }

    /// The limits on a target, in the order of their keys.
    pub(super) fn on(&self, target: &RateLimitTarget) -> Vec<Arc<RateLimiter>> {
        self.by_target.get(target).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }
}

/// Whether both are the same limits.
pub(super) fn same(a: &[Arc<RateLimiter>], b: &[Arc<RateLimiter>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}
