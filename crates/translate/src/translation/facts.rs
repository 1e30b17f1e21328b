// SPDX-License-Identifier: Apache-2.0
//! What objects say about others, collected by the others.

use std::collections::{BTreeMap, BTreeSet};

use weft_api::object::ObjectKey;

/// The facts that no single object holds.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The target of each rate limit, and when the limit was made.
    targets: BTreeMap<ObjectKey, (ObjectKey, i64)>,
    /// The rate limits of each target, those first that were made first.
    limits: BTreeMap<ObjectKey, BTreeSet<(i64, ObjectKey)>>,
}

impl Facts {
    /// Notes what a rate limit names now, and returns the targets for which that is news.
    pub(super) fn name_target(
        &mut self,
        limit: &ObjectKey,
        named: Option<(ObjectKey, i64)>,
    ) -> Vec<ObjectKey> {
        let before = self.targets.remove(limit);
        let same = before == named;
        if let Some((target, created)) = &before
            && let Some(limits) = self.limits.get_mut(target)
        {
            limits.remove(&(*created, limit.clone()));
            if limits.is_empty() {
                self.limits.remove(target);
            }
        }
        if let Some((target, created)) = &named {
            self.limits.entry(target.clone()).or_default().insert((*created, limit.clone()));
            self.targets.insert(limit.clone(), (target.clone(), *created));
        }
        if same {
            return Vec::new();
        }
        before.into_iter().chain(named).map(|(target, _)| target).collect()
    }

    /// The rate limit that holds: the oldest, then the first by name (GEP-713, conflict resolution).
    pub(super) fn rate_limit(&self, target: &ObjectKey) -> Option<&ObjectKey> {
        self.limits.get(target)?.first().map(|(_, limit)| limit)
    }
}
