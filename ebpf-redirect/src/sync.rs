// SPDX-License-Identifier: Apache-2.0
//! Brings the real tables to the desired ones, in an order that opens no hole.
//!
//! First everything is written that something else will point to: identities, new policy sets, new
//! lists of backends. Then services and workloads are switched over, each by one write of one entry.
//! What nothing points to any more goes last.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    sync::Arc,
};

use weft_ebpf_common::layout::{
    Address, BackendKey, Endpoint, SERVICE_KEPT, Service, ServiceCounters, ServiceKey, WORKLOAD_BRIDGED,
    Workload,
};

use crate::{
    bpf::Prefix,
    desired::{Desired, PolicyEntries, ServiceName},
    maps::Maps,
};

/// Where a workload hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host-side device; 0 where only the bridge is known, not yet the port.
    pub ifindex: u32,
    /// The bridge or other device that it is a port of.
    pub bridge: Option<u32>,
}

/// Numbers that were given out, as far as user space needs them to read the kernel's records.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Services by the number in events and counters.
    pub services: BTreeMap<u32, ServiceName>,
}

/// What a synchronisation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries written.
    pub written: usize,
    /// Entries removed.
    pub removed: usize,
    /// Established flows are decided again.
    pub recheck: bool,
}

/// A table that could not be brought to the desired state.
#[derive(Debug, thiserror::Error)]
#[error("kernel table {table}: {source}")]
pub struct SyncError {
    table: &'static str,
    source: io::Error,
}

fn failed(table: &'static str) -> impl FnOnce(io::Error) -> SyncError {
    move |source| SyncError { table, source }
}

/// Brings the maps to `desired`. Workloads without a place are left out.
///
/// # Errors
/// Names the table; what was written so far is safe to keep, and the next call goes on from there.
pub fn synchronise(
    maps: &Maps,
    desired: &Desired,
    places: &BTreeMap<IpAddr, Place>,
) -> Result<(Changes, Numbers), SyncError> {
    let mut changes = Changes::default();
    let old_identities = write_identities(maps, desired, &mut changes)?;
    let sets = PolicySets::write(maps, desired, &mut changes)?;
    let (lists, numbers) = write_services(maps, desired, &mut changes)?;
    write_workloads(maps, desired, places, &sets, &mut changes)?;
    for key in old_identities {
        maps.identities.remove(&key).map_err(failed("identities"))?;
        changes.removed += 1;
    }
    // After the last change that a decision depends on, or it would be made with what is about to go.
    if changes.recheck {
        next_epoch(maps)?;
    }
    sets.remove_old(maps, &mut changes)?;
    remove_old_backends(maps, &lists, &mut changes)?;
    Ok((changes, numbers))
}

/// Makes every established flow be decided again at its next packet.
fn next_epoch(maps: &Maps) -> Result<(), SyncError> {
    let mut config = maps.config.lookup(&0).map_err(failed("config"))?.unwrap_or_default();
    config.epoch = config.epoch.wrapping_add(1);
    maps.config.update(&0, &config).map_err(failed("config"))
}

/// Writes identities; returns those that must go.
fn write_identities(
    maps: &Maps,
    desired: &Desired,
    changes: &mut Changes,
) -> Result<Vec<Prefix<Address>>, SyncError> {
    let real: BTreeMap<_, _> = maps.identities.entries().map_err(failed("identities"))?.into_iter().collect();
    for (key, number) in &desired.identities {
        if real.get(key) == Some(number) {
            continue;
        }
        maps.identities.update(key, number).map_err(failed("identities"))?;
        changes.written += 1;
        // An address that was somebody else's, or part of a prefix, must not keep what that one had.
        changes.recheck |= !real.is_empty();
    }
    let old: Vec<_> = real.into_keys().filter(|key| !desired.identities.contains_key(key)).collect();
    changes.recheck |= !old.is_empty();
    Ok(old)
}

/// Policy entries by set. A set never changes: workloads move from one to another.
struct PolicySets {
    numbers: BTreeMap<Arc<PolicyEntries>, u32>,
    old: BTreeMap<u32, PolicyEntries>,
}

impl PolicySets {
    fn write(maps: &Maps, desired: &Desired, changes: &mut Changes) -> Result<PolicySets, SyncError> {
        let mut old: BTreeMap<u32, PolicyEntries> = BTreeMap::new();
        for (mut key, verdict) in maps.policy.entries().map_err(failed("policy"))? {
            let set = std::mem::take(&mut key.data.set);
            old.entry(set).or_default().insert(key, verdict);
        }
        let mut next = old.keys().next_back().copied().unwrap_or(0);
        for (_, workload) in maps.workloads.entries().map_err(failed("workloads"))? {
            next = next.max(workload.policy);
        }
        let mut known: BTreeMap<PolicyEntries, u32> =
            old.iter().map(|(set, entries)| (entries.clone(), *set)).collect();
        let mut numbers = BTreeMap::new();
        for workload in desired.workloads.values() {
            if numbers.contains_key(&workload.policy) {
                continue;
            }
            // Set 0 is empty for ever.
            let set = if workload.policy.is_empty() {
                0
            } else if let Some(set) = known.remove(&*workload.policy) {
                old.remove(&set);
                set
            } else {
                next += 1;
                write_set(maps, next, &workload.policy, changes)?;
                next
            };
            numbers.insert(workload.policy.clone(), set);
        }
        Ok(PolicySets { numbers, old })
    }

    fn number(&self, entries: &Arc<PolicyEntries>) -> u32 {
        self.numbers.get(entries).copied().unwrap_or(0)
    }

    fn remove_old(self, maps: &Maps, changes: &mut Changes) -> Result<(), SyncError> {
        for (set, entries) in self.old {
            for mut key in entries.into_keys() {
                key.data.set = set;
                maps.policy.remove(&key).map_err(failed("policy"))?;
                changes.removed += 1;
            }
        }
        Ok(())
    }
}

fn write_set(maps: &Maps, set: u32, entries: &PolicyEntries, changes: &mut Changes) -> Result<(), SyncError> {
    for (key, verdict) in entries {
        let mut key = *key;
        key.data.set = set;
        maps.policy.update(&key, verdict).map_err(failed("policy"))?;
        changes.written += 1;
    }
    Ok(())
}

/// Lists of backends in use after the switch, by number.
type Lists = BTreeSet<u32>;

fn write_services(
    maps: &Maps,
    desired: &Desired,
    changes: &mut Changes,
) -> Result<(Lists, Numbers), SyncError> {
    let real: HashMap<ServiceKey, Service> =
        maps.services.entries().map_err(failed("services"))?.into_iter().collect();
    let mut lists = BackendLists::read(maps)?;
    let mut ids = ServiceIds::of(&real, desired);
    let mut used = Lists::new();
    for (key, service) in &desired.services {
        let (id, new) = ids.number(&service.name);
        if new {
            let zero = ServiceCounters::default();
            maps.service_counters.set_all(&id, zero).map_err(failed("service counters"))?;
        }
        let list = lists.number(maps, &service.backends, changes)?;
        used.insert(list);
        let value = Service {
            id,
            list,
            backends: u32::try_from(service.backends.len()).unwrap_or(u32::MAX),
            flags: if service.kept { SERVICE_KEPT } else { 0 },
        };
        put_service(maps, key, &value, real.get(key), changes)?;
    }
    for address in &desired.service_addresses {
        let key = ServiceKey { address: (*address).into(), ..ServiceKey::default() };
        put_service(maps, &key, &Service::default(), real.get(&key), changes)?;
    }
    for key in real.keys().filter(|key| !wants(desired, key)) {
        maps.services.remove(key).map_err(failed("services"))?;
        changes.removed += 1;
    }
    let numbers = Numbers { services: ids.given };
    for id in maps.service_counters.keys().map_err(failed("service counters"))? {
        if !numbers.services.contains_key(&id) {
            maps.service_counters.remove(&id).map_err(failed("service counters"))?;
        }
    }
    Ok((used, numbers))
}

fn wants(desired: &Desired, key: &ServiceKey) -> bool {
    if key.port_be == 0 && key.protocol == 0 {
        desired.service_addresses.contains(&key.address.ip())
    } else {
        desired.services.contains_key(key)
    }
}

fn put_service(
    maps: &Maps,
    key: &ServiceKey,
    value: &Service,
    real: Option<&Service>,
    changes: &mut Changes,
) -> Result<(), SyncError> {
    if real != Some(value) {
        maps.services.update(key, value).map_err(failed("services"))?;
        changes.written += 1;
    }
    Ok(())
}

/// Numbers of services, kept over restarts.
struct ServiceIds {
    known: BTreeMap<ServiceName, u32>,
    given: BTreeMap<u32, ServiceName>,
    next: u32,
}

impl ServiceIds {
    fn of(real: &HashMap<ServiceKey, Service>, desired: &Desired) -> ServiceIds {
        let mut known: BTreeMap<ServiceName, u32> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for (key, service) in &desired.services {
            let Some(real) = real.get(key) else { continue };
            if !known.contains_key(&service.name) && taken.insert(real.id) {
                known.insert(service.name.clone(), real.id);
            }
        }
        let next = real.values().map(|service| service.id).max().unwrap_or(0);
        ServiceIds { known, given: BTreeMap::new(), next }
    }

    /// The number of a service, and whether it is new.
    fn number(&mut self, name: &ServiceName) -> (u32, bool) {
        let (id, new) = match self.known.get(name) {
            Some(id) => (*id, false),
            None => {
                self.next += 1;
                self.known.insert(name.clone(), self.next);
                (self.next, true)
            }
        };
        self.given.insert(id, name.clone());
        (id, new)
    }
}

/// Lists of backends by what they hold. A list never changes: services move from one to another.
struct BackendLists {
    known: HashMap<Vec<Endpoint>, u32>,
    next: u32,
}

impl BackendLists {
    fn read(maps: &Maps) -> Result<BackendLists, SyncError> {
        let mut real: BTreeMap<u32, BTreeMap<u32, Endpoint>> = BTreeMap::new();
        for (key, backend) in maps.backends.entries().map_err(failed("backends"))? {
            real.entry(key.list).or_default().insert(key.slot, backend);
        }
        let next = real.keys().next_back().copied().unwrap_or(0);
        // A list with a gap was left half written: it is not used again.
        let whole = real.into_iter().filter(|(_, list)| list.keys().copied().eq(0..list.len() as u32));
        let known = whole.map(|(number, list)| (list.into_values().collect(), number)).collect();
        Ok(BackendLists { known, next })
    }

    /// The number of a list; written if it is not there. Empty lists are number 0.
    fn number(
        &mut self,
        maps: &Maps,
        backends: &[Endpoint],
        changes: &mut Changes,
    ) -> Result<u32, SyncError> {
        if backends.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.known.get(backends) {
            return Ok(*number);
        }
        self.next += 1;
        for (slot, backend) in (0..).zip(backends) {
            let key = BackendKey { list: self.next, slot };
            maps.backends.update(&key, backend).map_err(failed("backends"))?;
            changes.written += 1;
        }
        self.known.insert(backends.to_vec(), self.next);
        Ok(self.next)
    }
}

fn remove_old_backends(maps: &Maps, used: &Lists, changes: &mut Changes) -> Result<(), SyncError> {
    for key in maps.backends.keys().map_err(failed("backends"))? {
        if !used.contains(&key.list) {
            maps.backends.remove(&key).map_err(failed("backends"))?;
            changes.removed += 1;
        }
    }
    Ok(())
}

fn write_workloads(
    maps: &Maps,
    desired: &Desired,
    places: &BTreeMap<IpAddr, Place>,
    sets: &PolicySets,
    changes: &mut Changes,
) -> Result<(), SyncError> {
    let real: BTreeMap<Address, Workload> =
        maps.workloads.entries().map_err(failed("workloads"))?.into_iter().collect();
    let mut next = real.values().map(|workload| workload.id).max().unwrap_or(0);
    let mut wanted = BTreeSet::new();
    for (address, workload) in &desired.workloads {
        let Some(place) = places.get(address) else { continue };
        let key = Address::from(*address);
        wanted.insert(key);
        let old = real.get(&key);
        let id = old.map_or_else(
            || {
                next += 1;
                next
            },
            |old| old.id,
        );
        let value = Workload {
            id,
            ifindex: place.ifindex,
            identity: workload.identity,
            policy: sets.number(&workload.policy),
            flags: workload.flags | if place.bridge.is_some() { WORKLOAD_BRIDGED } else { 0 },
        };
        if old != Some(&value) {
            maps.workloads.update(&key, &value).map_err(failed("workloads"))?;
            changes.written += 1;
            changes.recheck |= old.is_some();
        }
    }
    for key in real.keys().filter(|key| !wanted.contains(key)) {
        maps.workloads.remove(key).map_err(failed("workloads"))?;
        changes.removed += 1;
    }
    Ok(())
}
