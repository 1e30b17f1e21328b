// SPDX-License-Identifier: Apache-2.0
//! What is in the tables that only this process writes. Read once; from then on a synchronisation
//! touches what differs, however large the tables are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use weft_ebpf_common::{
    Verdict,
    layout::{Address, BackendKey, Endpoint, PolicyKey, Service, ServiceKey, Workload},
};

use super::{
    ServiceNumbers, SyncError,
    identities::Identities,
    tables::{Entries, Tables, Write, Writer},
};
use crate::{
    bpf::Prefix,
    desired::{PolicyEntries, ServiceName},
};

/// The tables' entries. After a failed write it is to be read anew.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) identities: Identities,
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
    pub(crate) fn read(tables: &impl Tables) -> Result<Known, SyncError> {
        let Entries { identities, policy, backends, counters, services, workloads } = tables.read()?;
        let mut known = Known {
            identities: identities.into_iter().collect(),
            sets: PolicySets::read(policy),
            services: BTreeMap::new(),
            ids: ServiceIds::read(counters),
            lists: BackendLists::read(backends),
            workloads: BTreeMap::new(),
        };
        services.into_iter().for_each(|(key, service)| known.enter_service(key, service));
        workloads.into_iter().for_each(|(key, workload)| known.enter_workload(key, workload));
        Ok(known)
    }

    /// The device of each address, as far as it is known.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (std::net::IpAddr, u32)> {
        self.workloads.iter().map(|(address, workload)| (address.ip(), workload.ifindex))
    }

    /// Names of services by their numbers.
    pub(crate) fn service_numbers(&self) -> &ServiceNumbers {
        &self.ids.names
    }

    /// Notes that a service is in its table.
    pub(super) fn enter_service(&mut self, key: ServiceKey, service: Service) {
        self.ids.users.hold(service.id);
        self.lists.users.hold(service.list);
        // Numbers in use are not given again, whatever is left of what they stand for.
        self.ids.next = self.ids.next.max(service.id);
        self.lists.next = self.lists.next.max(service.list);
        let old = self.services.insert(key, service);
        self.forget(old);
    }

    /// Notes that a service is no longer in its table.
    pub(super) fn remove_service(&mut self, key: &ServiceKey) {
        let old = self.services.remove(key);
        self.forget(old);
    }

    fn forget(&mut self, service: Option<Service>) {
        if let Some(service) = service {
            self.ids.users.release(service.id);
            self.lists.users.release(service.list);
        }
    }

    /// Notes that a workload is in its table.
    pub(super) fn enter_workload(&mut self, key: Address, workload: Workload) {
        self.sets.users.hold(workload.policy);
        self.sets.next = self.sets.next.max(workload.policy);
        if let Some(old) = self.workloads.insert(key, workload) {
            self.sets.users.release(old.policy);
        }
    }

    /// Notes that a workload is no longer in its table.
    pub(super) fn remove_workload(&mut self, key: &Address) {
        if let Some(old) = self.workloads.remove(key) {
            self.sets.users.release(old.policy);
        }
    }

    /// Removes what nothing points to.
    pub(super) fn sweep<T: Tables>(&mut self, writer: &mut Writer<'_, T>) -> Result<(), SyncError> {
        self.sets.sweep(writer)?;
        self.lists.sweep(writer)?;
        self.ids.sweep(writer)
    }
}

/// How many entries point to a number. 0 stands for nothing, and is never counted.
#[derive(Debug, Default)]
pub(super) struct Users {
    counts: HashMap<u32, usize>,
    /// Numbers to which nothing points.
    idle: BTreeSet<u32>,
}

impl Users {
    fn hold(&mut self, number: u32) {
        if number != 0 {
            *self.counts.entry(number).or_default() += 1;
            self.idle.remove(&number);
        }
    }

    fn release(&mut self, number: u32) {
        let Some(count) = self.counts.get_mut(&number) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&number);
            self.idle.insert(number);
        }
    }

    /// A number to which nothing points yet.
    fn add(&mut self, number: u32) {
        self.idle.insert(number);
    }

    fn take_idle(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.idle)
    }
}

/// Policy entries by set. What a packet sees of a set never changes: workloads move from one to another.
#[derive(Debug)]
pub(super) struct PolicySets {
    numbers: BTreeMap<Arc<PolicyEntries>, u32>,
    sets: HashMap<u32, Arc<PolicyEntries>>,
    users: Users,
    next: u32,
}

impl PolicySets {
    fn read(entries: Vec<(Prefix<PolicyKey>, Verdict)>) -> PolicySets {
        let mut real: BTreeMap<u32, PolicyEntries> = BTreeMap::new();
        for (mut key, verdict) in entries {
            let set = std::mem::take(&mut key.data.set);
            real.entry(set).or_default().insert(key, verdict);
        }
        let mut sets = PolicySets {
            numbers: BTreeMap::new(),
            sets: HashMap::new(),
            users: Users::default(),
            next: real.keys().next_back().copied().unwrap_or(0),
        };
        for (set, entries) in real {
            sets.add(set, Arc::new(entries));
        }
        sets
    }

    fn add(&mut self, set: u32, entries: Arc<PolicyEntries>) {
        self.numbers.insert(Arc::clone(&entries), set);
        self.sets.insert(set, entries);
        self.users.add(set);
    }

    /// What a set holds.
    pub(super) fn entries(&self, set: u32) -> Option<&PolicyEntries> {
        self.sets.get(&set).map(|entries| &**entries)
    }

    /// Whether some set holds this.
    pub(super) fn has(&self, entries: &PolicyEntries) -> bool {
        self.numbers.contains_key(entries)
    }

    /// Notes that a set holds something else than before.
    pub(super) fn replace(&mut self, set: u32, entries: Arc<PolicyEntries>) {
        if let Some(old) = self.sets.insert(set, Arc::clone(&entries))
            && self.numbers.get(&old) == Some(&set)
        {
            self.numbers.remove(&old);
        }
        self.numbers.insert(entries, set);
    }

    /// The number of a set; written if it is not there. The empty set is number 0.
    pub(super) fn number<T: Tables>(
        &mut self,
        writer: &mut Writer<'_, T>,
        entries: &Arc<PolicyEntries>,
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
            writer.write(Write::Policy(key, Some(*verdict)))?;
        }
        self.add(self.next, Arc::clone(entries));
        Ok(self.next)
    }

    fn sweep<T: Tables>(&mut self, writer: &mut Writer<'_, T>) -> Result<(), SyncError> {
        for set in self.users.take_idle() {
            let Some(entries) = self.sets.remove(&set) else { continue };
            if self.numbers.get(&entries) == Some(&set) {
                self.numbers.remove(&entries);
            }
            for mut key in entries.keys().copied() {
                key.data.set = set;
                writer.write(Write::Policy(key, None))?;
            }
        }
        Ok(())
    }
}

/// Numbers of services, kept over restarts.
#[derive(Debug)]
pub(super) struct ServiceIds {
    numbers: HashMap<ServiceName, u32>,
    names: ServiceNumbers,
    /// Those that have counters.
    counted: BTreeSet<u32>,
    users: Users,
    next: u32,
}

impl ServiceIds {
    fn read(counted: Vec<u32>) -> ServiceIds {
        let mut ids = ServiceIds {
            numbers: HashMap::new(),
            names: ServiceNumbers::new(),
            next: counted.iter().max().copied().unwrap_or(0),
            counted: counted.into_iter().collect(),
            users: Users::default(),
        };
        ids.counted.iter().for_each(|id| ids.users.add(*id));
        ids
    }

    /// The number of a service: the one that it has, else the one that its address had before this
    /// process knew names, else a new one, with counters at zero.
    pub(super) fn number<T: Tables>(
        &mut self,
        writer: &mut Writer<'_, T>,
        name: &ServiceName,
        before: Option<&Service>,
    ) -> Result<u32, SyncError> {
        if let Some(id) = self.numbers.get(name) {
            return Ok(*id);
        }
        let free = |id: &u32| self.counted.contains(id) && !self.names.contains_key(id);
        let id = match before.map(|service| service.id).filter(free) {
            Some(id) => id,
            None => self.make(writer)?,
        };
        self.numbers.insert(name.clone(), id);
        self.names.insert(id, name.clone());
        Ok(id)
    }

    fn make<T: Tables>(&mut self, writer: &mut Writer<'_, T>) -> Result<u32, SyncError> {
        self.next += 1;
        writer.write(Write::Counters(self.next, Some(())))?;
        self.counted.insert(self.next);
        self.users.add(self.next);
        Ok(self.next)
    }

    /// Forgets the services that are not there any more.
    fn sweep<T: Tables>(&mut self, writer: &mut Writer<'_, T>) -> Result<(), SyncError> {
        for id in self.users.take_idle() {
            if let Some(name) = self.names.remove(&id) {
                self.numbers.remove(&name);
            }
            if self.counted.remove(&id) {
                writer.write(Write::Counters(id, None))?;
            }
        }
        Ok(())
    }
}

/// Lists of backends by what they hold. A list never changes: services move from one to another.
#[derive(Debug)]
pub(super) struct BackendLists {
    numbers: HashMap<Arc<[Endpoint]>, u32>,
    lists: HashMap<u32, Arc<[Endpoint]>>,
    users: Users,
    /// Entries of lists that were left half written.
    stray: Vec<BackendKey>,
    next: u32,
}

impl BackendLists {
    fn read(backends: Vec<(BackendKey, Endpoint)>) -> BackendLists {
        let mut real: BTreeMap<u32, BTreeMap<u32, Endpoint>> = BTreeMap::new();
        for (key, backend) in backends {
            real.entry(key.list).or_default().insert(key.slot, backend);
        }
        let mut lists = BackendLists {
            numbers: HashMap::new(),
            lists: HashMap::new(),
            users: Users::default(),
            stray: Vec::new(),
            next: real.keys().next_back().copied().unwrap_or(0),
        };
        for (list, slots) in real {
            if slots.keys().copied().eq(0..slots.len() as u32) {
                lists.add(list, slots.into_values().collect());
            } else {
                lists.stray.extend(slots.into_keys().map(|slot| BackendKey { list, slot }));
            }
        }
        lists
    }

    fn add(&mut self, list: u32, backends: Arc<[Endpoint]>) {
        self.numbers.insert(Arc::clone(&backends), list);
        self.lists.insert(list, backends);
        self.users.add(list);
    }

    /// The number of a list; written if it is not there. The empty list is number 0.
    pub(super) fn number<T: Tables>(
        &mut self,
        writer: &mut Writer<'_, T>,
        backends: &[Endpoint],
    ) -> Result<u32, SyncError> {
        if backends.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.numbers.get(backends) {
            return Ok(*number);
        }
        self.next += 1;
        for (slot, backend) in (0..).zip(backends) {
            writer.write(Write::Backend(BackendKey { list: self.next, slot }, Some(*backend)))?;
        }
        self.add(self.next, backends.into());
        Ok(self.next)
    }

    fn sweep<T: Tables>(&mut self, writer: &mut Writer<'_, T>) -> Result<(), SyncError> {
        for key in self.stray.drain(..) {
            writer.write(Write::Backend(key, None))?;
        }
        for list in self.users.take_idle() {
            let Some(backends) = self.lists.remove(&list) else { continue };
            if self.numbers.get(&backends) == Some(&list) {
                self.numbers.remove(&backends);
            }
            for slot in 0..backends.len() as u32 {
                writer.write(Write::Backend(BackendKey { list, slot }, None))?;
            }
        }
        Ok(())
    }
}
