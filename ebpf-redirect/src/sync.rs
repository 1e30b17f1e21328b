// SPDX-License-Identifier: Apache-2.0
//! Brings the real tables to the desired ones, in an order that opens no hole.
//!
//! First everything is written that something else will point to: identities, new policy sets, new
//! lists of backends. Then services and workloads are switched over, each by one write of one entry.
//! What nothing points to any more goes last.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use weft_ebpf_common::layout::{Address, SERVICE_KEPT, Service, ServiceKey, WORKLOAD_BRIDGED, Workload};

use crate::{
    bpf::Prefix,
    desired::{Desired, ServiceName},
    maps::Maps,
};

mod known;

pub(crate) use known::Known;

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

/// Numbers of what is in use after the switch.
type Used = BTreeSet<u32>;

/// Brings the maps to `desired`. Workloads without a place are left out.
///
/// # Errors
/// Names the table; what was written so far is safe to keep. `known` is then to be read anew, and the
/// next call goes on from there.
pub(crate) fn synchronise(
    maps: &Maps,
    known: &mut Known,
    desired: &Desired,
    places: &BTreeMap<IpAddr, Place>,
) -> Result<(Changes, Numbers), SyncError> {
    let mut changes = Changes::default();
    let old_identities = write_identities(maps, known, desired, &mut changes)?;
    let (lists, numbers) = write_services(maps, known, desired, &mut changes)?;
    let sets = write_workloads(maps, known, desired, places, &mut changes)?;
    for key in old_identities {
        maps.identities.remove(&key).map_err(failed("identities"))?;
        known.identities.remove(&key);
        changes.removed += 1;
    }
    // After the last change that a decision depends on, or it would be made with what is about to go.
    if changes.recheck {
        next_epoch(maps)?;
    }
    known.sets.keep(maps, &sets, &mut changes)?;
    known.lists.keep(maps, &lists, &mut changes)?;
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
    known: &mut Known,
    desired: &Desired,
    changes: &mut Changes,
) -> Result<Vec<Prefix<Address>>, SyncError> {
    let first = known.identities.is_empty();
    for (key, number) in &desired.identities {
        if known.identities.get(key) == Some(number) {
            continue;
        }
        maps.identities.update(key, number).map_err(failed("identities"))?;
        known.identities.insert(*key, *number);
        changes.written += 1;
        // An address that was somebody else's, or part of a prefix, must not keep what that one had.
        changes.recheck |= !first;
    }
    let old: Vec<_> =
        known.identities.keys().filter(|key| !desired.identities.contains_key(key)).copied().collect();
    changes.recheck |= !old.is_empty();
    Ok(old)
}

fn write_services(
    maps: &Maps,
    known: &mut Known,
    desired: &Desired,
    changes: &mut Changes,
) -> Result<(Used, Numbers), SyncError> {
    let mut used = Used::new();
    let mut numbers = Numbers::default();
    for (key, service) in &desired.services {
        let id = known.ids.number(maps, &service.name, known.services.get(key))?;
        numbers.services.insert(id, service.name.clone());
        let list = known.lists.number(maps, &service.backends, changes)?;
        used.insert(list);
        let value = Service {
            id,
            list,
            backends: u32::try_from(service.backends.len()).unwrap_or(u32::MAX),
            flags: if service.kept { SERVICE_KEPT } else { 0 },
        };
        put_service(maps, known, key, &value, changes)?;
    }
    for address in &desired.service_addresses {
        let key = ServiceKey { address: (*address).into(), ..ServiceKey::default() };
        put_service(maps, known, &key, &Service::default(), changes)?;
    }
    for (key, _) in known.services.extract_if(.., |key, _| !wants(desired, key)) {
        maps.services.remove(&key).map_err(failed("services"))?;
        changes.removed += 1;
    }
    known.ids.keep(maps, &numbers.services)?;
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
    known: &mut Known,
    key: &ServiceKey,
    value: &Service,
    changes: &mut Changes,
) -> Result<(), SyncError> {
    if known.services.get(key) != Some(value) {
        maps.services.update(key, value).map_err(failed("services"))?;
        known.services.insert(*key, *value);
        changes.written += 1;
    }
    Ok(())
}

fn write_workloads(
    maps: &Maps,
    known: &mut Known,
    desired: &Desired,
    places: &BTreeMap<IpAddr, Place>,
    changes: &mut Changes,
) -> Result<Used, SyncError> {
    let mut next = known.workloads.values().map(|workload| workload.id).max().unwrap_or(0);
    let (mut wanted, mut used) = (BTreeSet::new(), Used::new());
    for (address, workload) in &desired.workloads {
        let Some(place) = places.get(address) else { continue };
        let key = Address::from(*address);
        wanted.insert(key);
        let old = known.workloads.get(&key).copied();
        let policy = known.sets.number(maps, &workload.policy, changes)?;
        used.insert(policy);
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
            policy,
            flags: workload.flags | if place.bridge.is_some() { WORKLOAD_BRIDGED } else { 0 },
            egress: workload.egress,
            ingress: workload.ingress,
        };
        if old != Some(value) {
            maps.workloads.update(&key, &value).map_err(failed("workloads"))?;
            known.workloads.insert(key, value);
            changes.written += 1;
            changes.recheck |= old.is_some();
        }
    }
    for (key, _) in known.workloads.extract_if(.., |key, _| !wanted.contains(key)) {
        maps.workloads.remove(&key).map_err(failed("workloads"))?;
        changes.removed += 1;
    }
    Ok(used)
}
