// SPDX-License-Identifier: Apache-2.0
//! What is in the tables that only this process writes. Read once; from then on a synchronisation
//! touches what differs, however large the tables are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use weft_ebpf_common::layout::{
    Address, BackendKey, Endpoint, Service, ServiceCounters, ServiceKey, Workload,
};

use super::{Changes, SyncError, failed};
use crate::{
    bpf::Prefix,
    desired::{PolicyEntries, ServiceName},
    maps::Maps,
};

/// The tables' entries. After a failed write it is to be read anew.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) identities: BTreeMap<Prefix<Address>, u32>,
    pub(super) sets: PolicySets,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    pub(super) ids: ServiceIds,
    pub(super) lists: BackendLists,
    pub(super) workloads: BTreeMap<Address, Workload>,
}

impl Known {
    /// Reads the tables.
    ///
    /// # Errors
    /// Names the table.
    pub(crate) fn read(maps: &Maps) -> Result<Known, SyncError> {
        let workloads: BTreeMap<_, _> =
            maps.workloads.entries().map_err(failed("workloads"))?.into_iter().collect();
        let services: BTreeMap<_, _> =
            maps.services.entries().map_err(failed("services"))?.into_iter().collect();
        Ok(Known {
            identities: maps.identities.entries().map_err(failed("identities"))?.into_iter().collect(),
            sets: PolicySets::read(maps, &workloads)?,
            ids: ServiceIds::read(maps, &services)?,
            lists: BackendLists::read(maps)?,
            services,
            workloads,
        })
    }

    /// The device of each address, as far as it is known.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (std::net::IpAddr, u32)> {
        self.workloads.iter().map(|(address, workload)| (address.ip(), workload.ifindex))
    }
}

/// Policy entries by set. A set never changes: workloads move from one to another.
#[derive(Debug)]
pub(super) struct PolicySets {
    numbers: BTreeMap<Arc<PolicyEntries>, u32>,
    next: u32,
}

impl PolicySets {
    fn read(maps: &Maps, workloads: &BTreeMap<Address, Workload>) -> Result<PolicySets, SyncError> {
        let mut sets: BTreeMap<u32, PolicyEntries> = BTreeMap::new();
        for (mut key, verdict) in maps.policy.entries().map_err(failed("policy"))? {
            let set = std::mem::take(&mut key.data.set);
            sets.entry(set).or_default().insert(key, verdict);
        }
        let used = workloads.values().map(|workload| workload.policy);
        let next = sets.keys().copied().chain(used).max().unwrap_or(0);
        let numbers = sets.into_iter().map(|(set, entries)| (Arc::new(entries), set)).collect();
        Ok(PolicySets { numbers, next })
    }

    /// The number of a set; written if it is not there. The empty set is number 0.
    pub(super) fn number(
        &mut self,
        maps: &Maps,
        entries: &Arc<PolicyEntries>,
        changes: &mut Changes,
    ) -> Result<u32, SyncError> {
        if entries.is_empty() {
            return Ok(0);
        }
        if let Some(set) = self.numbers.get(entries) {
            return Ok(*set);
        }
        self.next += 1;
        for (key, verdict) in &**entries {
            let mut key = *key;
            key.data.set = self.next;
            maps.policy.update(&key, verdict).map_err(failed("policy"))?;
            changes.written += 1;
        }
        self.numbers.insert(entries.clone(), self.next);
        Ok(self.next)
    }

    /// Removes the sets that are not in use.
    pub(super) fn keep(
        &mut self,
        maps: &Maps,
        used: &BTreeSet<u32>,
        changes: &mut Changes,
    ) -> Result<(), SyncError> {
        let old: Vec<_> = self.numbers.extract_if(.., |_, set| !used.contains(set)).collect();
        for (entries, set) in old {
            for mut key in entries.keys().copied() {
                key.data.set = set;
                maps.policy.remove(&key).map_err(failed("policy"))?;
                changes.removed += 1;
            }
        }
        Ok(())
    }
}

/// Numbers of services, kept over restarts.
#[derive(Debug)]
pub(super) struct ServiceIds {
    numbers: HashMap<ServiceName, u32>,
    taken: BTreeSet<u32>,
    counted: BTreeSet<u32>,
    next: u32,
}

impl ServiceIds {
    fn read(maps: &Maps, services: &BTreeMap<ServiceKey, Service>) -> Result<ServiceIds, SyncError> {
        let counted = maps.service_counters.keys().map_err(failed("service counters"))?;
        Ok(ServiceIds {
            numbers: HashMap::new(),
            taken: BTreeSet::new(),
            counted: counted.into_iter().collect(),
            next: services.values().map(|service| service.id).max().unwrap_or(0),
        })
    }

    /// The number of a service: the one that it has, else the one that its address had before this
    /// process knew names, else a new one, with counters at zero.
    pub(super) fn number(
        &mut self,
        maps: &Maps,
        name: &ServiceName,
        before: Option<&Service>,
    ) -> Result<u32, SyncError> {
        if let Some(id) = self.numbers.get(name) {
            return Ok(*id);
        }
        let free = |id: &u32| self.counted.contains(id) && !self.taken.contains(id);
        let id = match before.map(|service| service.id).filter(free) {
            Some(id) => id,
            None => self.make(maps)?,
        };
        self.numbers.insert(name.clone(), id);
        self.taken.insert(id);
        Ok(id)
    }

    fn make(&mut self, maps: &Maps) -> Result<u32, SyncError> {
        self.next += 1;
        let zero = ServiceCounters::default();
        maps.service_counters.set_all(&self.next, zero).map_err(failed("service counters"))?;
        self.counted.insert(self.next);
        Ok(self.next)
    }

    /// Forgets the services that are not there any more.
    pub(super) fn keep(&mut self, maps: &Maps, given: &BTreeMap<u32, ServiceName>) -> Result<(), SyncError> {
        self.numbers.retain(|_, id| given.contains_key(id));
        self.taken.retain(|id| given.contains_key(id));
        for id in self.counted.extract_if(.., |id| !given.contains_key(id)) {
            maps.service_counters.remove(&id).map_err(failed("service counters"))?;
        }
        Ok(())
    }
}

/// Lists of backends by what they hold. A list never changes: services move from one to another.
#[derive(Debug)]
pub(super) struct BackendLists {
    numbers: HashMap<Vec<Endpoint>, u32>,
    /// Entries of lists that were left half written.
    stray: Vec<BackendKey>,
    next: u32,
}

impl BackendLists {
    fn read(maps: &Maps) -> Result<BackendLists, SyncError> {
        let mut real: BTreeMap<u32, BTreeMap<u32, Endpoint>> = BTreeMap::new();
        for (key, backend) in maps.backends.entries().map_err(failed("backends"))? {
            real.entry(key.list).or_default().insert(key.slot, backend);
        }
        let next = real.keys().next_back().copied().unwrap_or(0);
        let (mut numbers, mut stray) = (HashMap::new(), Vec::new());
        for (list, slots) in real {
            if slots.keys().copied().eq(0..slots.len() as u32) {
                numbers.insert(slots.into_values().collect(), list);
            } else {
                stray.extend(slots.into_keys().map(|slot| BackendKey { list, slot }));
            }
        }
        Ok(BackendLists { numbers, stray, next })
    }

    /// The number of a list; written if it is not there. The empty list is number 0.
    pub(super) fn number(
        &mut self,
        maps: &Maps,
        backends: &[Endpoint],
        changes: &mut Changes,
    ) -> Result<u32, SyncError> {
        if backends.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.numbers.get(backends) {
            return Ok(*number);
        }
        self.next += 1;
        for (slot, backend) in (0..).zip(backends) {
            let key = BackendKey { list: self.next, slot };
            maps.backends.update(&key, backend).map_err(failed("backends"))?;
            changes.written += 1;
        }
        self.numbers.insert(backends.to_vec(), self.next);
        Ok(self.next)
    }

    /// Removes the lists that are not in use.
    pub(super) fn keep(
        &mut self,
        maps: &Maps,
        used: &BTreeSet<u32>,
        changes: &mut Changes,
    ) -> Result<(), SyncError> {
        let old = self.numbers.extract_if(|_, list| !used.contains(list));
        let old = old.flat_map(|(backends, list)| {
            (0..backends.len() as u32).map(move |slot| BackendKey { list, slot })
        });
        for key in old.chain(self.stray.drain(..)) {
            maps.backends.remove(&key).map_err(failed("backends"))?;
            changes.removed += 1;
        }
        Ok(())
    }
}
