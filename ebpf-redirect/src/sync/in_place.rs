// SPDX-License-Identifier: Apache-2.0
//! Policy sets that change in place: an identity that comes or goes costs its own entries, not the set.
//!
//! A workload must see either its old policy or its new one. Entries of an identity that no address has are
//! seen by no packet, so these can come before the first address does, and go after the last one. Where
//! anything else of a set changes, another set takes its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use weft_ebpf_common::{
    Verdict,
    layout::{Address, PolicyKey},
};

use super::{
    Known, Place, SyncError, Tables,
    tables::{Write, Writer},
};
use crate::{
    bpf::Prefix,
    desired::{Desired, PolicyEntries},
};

/// A set that changes in place.
#[derive(Debug)]
pub(super) struct InPlace {
    set: u32,
    entries: Arc<PolicyEntries>,
    added: Vec<(Prefix<PolicyKey>, Verdict)>,
    removed: Vec<Prefix<PolicyKey>>,
}

/// What the workloads that have a set want of it.
enum Wanted<'a> {
    /// As it is, or not the same.
    Nothing,
    One(&'a Arc<PolicyEntries>),
}

/// The sets that can change in place.
pub(super) fn plan(
    known: &Known,
    last: Option<&Desired>,
    desired: &Desired,
    places: &BTreeMap<IpAddr, Place>,
    touched: &BTreeSet<Prefix<Address>>,
) -> Vec<InPlace> {
    let mut wanted: BTreeMap<u32, Wanted<'_>> = BTreeMap::new();
    for (address, workload) in desired.workloads.iter().filter(|(address, _)| places.contains_key(address)) {
        let Some(old) = known.workloads.get(&Address::from(*address)).filter(|old| old.policy != 0) else {
            continue;
        };
        let before = last.and_then(|last| last.workloads.get(address));
        let changed = !before.is_some_and(|before| before.has_policy_of(workload));
        let wants = wanted.entry(old.policy).or_insert(Wanted::One(&workload.policy));
        let same = matches!(wants, Wanted::One(policy) if Arc::ptr_eq(policy, &workload.policy) || *policy == &workload.policy);
        if !changed || !same {
            *wants = Wanted::Nothing;
        }
    }
    let after = known.identities.in_use_after(touched, &desired.identities);
    let plans = wanted.into_iter().filter_map(|(set, wanted)| match wanted {
        Wanted::One(entries) => {
            let old = known.sets.entries(set)?;
            let is_new = !entries.is_empty() && !known.sets.has(entries);
            let plan = InPlace::of(set, old, entries);
            let unseen = plan.added.iter().all(|(key, _)| !known.identities.is_in_use(key.data.identity))
                && plan.removed.iter().all(|key| !after(key.data.identity));
            (is_new && unseen).then_some(plan)
        }
        Wanted::Nothing => None,
    });
    plans.collect()
}

impl InPlace {
    /// What makes one of the other. An entry that says something else is one that goes and one that comes.
    fn of(set: u32, old: &PolicyEntries, new: &Arc<PolicyEntries>) -> InPlace {
        let is_in = |entries: &PolicyEntries, key, verdict| entries.get(key) == Some(verdict);
        let added = new.iter().filter(|(key, verdict)| !is_in(old, key, verdict));
        let removed = old.iter().filter(|(key, verdict)| !is_in(new, key, verdict));
        InPlace {
            set,
            added: added.map(|(key, verdict)| (*key, *verdict)).collect(),
            removed: removed.map(|(key, _)| *key).collect(),
            entries: Arc::clone(new),
        }
    }

    /// Before an address has one of the identities that came.
    pub(super) fn begin<T: Tables>(
        &self,
        writer: &mut Writer<'_, T>,
        known: &mut Known,
    ) -> Result<(), SyncError> {
        for (key, verdict) in &self.added {
            writer.write(Write::Policy(self.key(key), Some(*verdict)))?;
        }
        known.sets.replace(self.set, Arc::clone(&self.entries));
        Ok(())
    }

    /// After no address has one of the identities that went.
    pub(super) fn end<T: Tables>(&self, writer: &mut Writer<'_, T>) -> Result<(), SyncError> {
        for key in self.removed.iter().filter(|key| !self.entries.contains_key(key)) {
            writer.write(Write::Policy(self.key(key), None))?;
        }
        Ok(())
    }

    fn key(&self, key: &Prefix<PolicyKey>) -> Prefix<PolicyKey> {
        Prefix { data: PolicyKey { set: self.set, ..key.data }, ..*key }
    }
}
