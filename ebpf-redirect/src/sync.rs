// SPDX-License-Identifier: Apache-2.0
//! Brings the real tables to the desired ones, in an order that opens no hole.
//!
//! First everything is written that something else will point to: identities, new policy sets, new
//! lists of backends. Then services and workloads are switched over, each by one write of one entry.
//! What nothing points to any more goes last.
//!
//! What is looked at is what differs from the tables that the kernel was brought to last. At the start,
//! and after a write that failed, the real tables are read, and every entry is compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use imbl::{OrdMap, ordmap::DiffItem};
use weft_ebpf_common::layout::{Address, SERVICE_KEPT, Service, ServiceKey, WORKLOAD_BRIDGED, Workload};

use crate::{
    bpf::Prefix,
    desired::{Desired, DesiredService, DesiredWorkload, ServiceName},
};

mod identities;
mod in_place;
mod known;
mod tables;

pub(crate) use known::Known;
pub use tables::SyncError;
pub(crate) use tables::{Tables, Write};

use tables::Writer;

/// Where a workload hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host-side device; 0 where only the bridge is known, not yet the port.
    pub ifindex: u32,
    /// The bridge or other device that it is a port of.
    pub bridge: Option<u32>,
}

/// Names of services by the number in events and counters.
pub type ServiceNumbers = OrdMap<u32, ServiceName>;

/// What a synchronisation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries written.
    pub written: usize,
    /// Entries removed.
    pub removed: usize,
    /// Established connections are decided again: all, or those of the addresses that are concerned.
    pub recheck: bool,
}

/// Brings the maps to `desired`, from `last`, which they were brought to before; all is compared where
/// there is none. Workloads without a place are left out.
///
/// # Errors
/// Names the table; what was written so far is safe to keep. `known` is then to be read anew, and the
/// next call goes on from there.
pub(crate) fn synchronise<T: Tables>(
    tables: &T,
    known: &mut Known,
    last: Option<&Desired>,
    desired: &Desired,
    places: &BTreeMap<IpAddr, Place>,
) -> Result<Changes, SyncError> {
    let mut writer = Writer::new(tables);
    let prefixes = touched(last.map(|last| &last.identities), &desired.identities, known.identities.keys());
    let services = touched(last.map(|last| &last.services), &desired.services, known.services.keys());
    let plans = in_place::plan(known, last, desired, places, &prefixes);
    plans.iter().try_for_each(|plan| plan.begin(&mut writer, known))?;
    let old_identities = write_identities(&mut writer, known, desired, prefixes)?;
    write_services(&mut writer, known, desired, services)?;
    write_workloads(&mut writer, known, last, desired, places)?;
    for key in old_identities {
        writer.write(Write::Identity(key, None))?;
        known.identities.set(key, None);
    }
    plans.iter().try_for_each(|plan| plan.end(&mut writer))?;
    // Of what an earlier process or a write that failed has changed, nobody may have been told.
    writer.tell(last.is_none())?;
    known.sweep(&mut writer)?;
    Ok(writer.changes)
}

/// The keys that may have to be written.
fn touched<'a, K: Ord + Copy + 'a, V: PartialEq + Clone>(
    last: Option<&'a OrdMap<K, V>>,
    desired: &'a OrdMap<K, V>,
    known: impl Iterator<Item = &'a K>,
) -> BTreeSet<K> {
    let key = |item: DiffItem<'_, '_, K, V>| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => *key,
        DiffItem::Update { new: (key, _), .. } => *key,
    };
    match last {
        Some(last) => last.diff(desired).map(key).collect(),
        None => desired.keys().chain(known).copied().collect(),
    }
}

/// Writes identities; returns those that must go.
fn write_identities<T: Tables>(
    writer: &mut Writer<'_, T>,
    known: &mut Known,
    desired: &Desired,
    touched: BTreeSet<Prefix<Address>>,
) -> Result<Vec<Prefix<Address>>, SyncError> {
    let mut old = Vec::new();
    for key in touched {
        let number = desired.identities.get(&key);
        if known.identities.get(&key) == number {
            continue;
        }
        // An address that was somebody else's, or part of a prefix, must not keep what that one had.
        writer.concern(key);
        match number {
            Some(number) => {
                writer.write(Write::Identity(key, Some(*number)))?;
                known.identities.set(key, Some(*number));
            }
            None => old.push(key),
        }
    }
    Ok(old)
}

fn write_services<T: Tables>(
    writer: &mut Writer<'_, T>,
    known: &mut Known,
    desired: &Desired,
    touched: BTreeSet<ServiceKey>,
) -> Result<(), SyncError> {
    let mut old = Vec::new();
    for key in touched {
        let value = match desired.services.get(&key) {
            Some(Some(service)) => service_value(writer, known, &key, service)?,
            Some(None) => Service::default(),
            None => {
                old.extend(known.services.contains_key(&key).then_some(key));
                continue;
            }
        };
        if known.services.get(&key) != Some(&value) {
            writer.write(Write::Service(key, Some(value)))?;
            known.enter_service(key, value);
        }
    }
    for key in old {
        writer.write(Write::Service(key, None))?;
        known.remove_service(&key);
    }
    Ok(())
}

/// The entry of a service. Its backends are in their table before it points to them.
fn service_value<T: Tables>(
    writer: &mut Writer<'_, T>,
    known: &mut Known,
    key: &ServiceKey,
    service: &DesiredService,
) -> Result<Service, SyncError> {
    Ok(Service {
        id: known.ids.number(writer, &service.name, known.services.get(key))?,
        list: known.lists.number(writer, &service.backends)?,
        backends: u32::try_from(service.backends.len()).unwrap_or(u32::MAX),
        flags: if service.kept { SERVICE_KEPT } else { 0 },
    })
}

/// Workloads are of this node, and so few that all are looked at.
fn write_workloads<T: Tables>(
    writer: &mut Writer<'_, T>,
    known: &mut Known,
    last: Option<&Desired>,
    desired: &Desired,
    places: &BTreeMap<IpAddr, Place>,
) -> Result<(), SyncError> {
    let mut next = known.workloads.values().map(|workload| workload.id).max().unwrap_or(0);
    let mut wanted = BTreeSet::new();
    for (address, workload) in &desired.workloads {
        let Some(place) = places.get(address) else { continue };
        let key = Address::from(*address);
        wanted.insert(key);
        let old = known.workloads.get(&key).copied();
        let before = last.and_then(|last| last.workloads.get(address)).zip(old);
        let policy = match before {
            Some((before, old)) if before.has_policy_of(workload) => old.policy,
            _ => known.sets.number(writer, &workload.policy)?,
        };
        let id = old.map_or_else(
            || {
                next += 1;
                next
            },
            |old| old.id,
        );
        let value = workload_value(workload, place, id, policy);
        if old != Some(value) {
            writer.write(Write::Workload(key, Some(value)))?;
            known.enter_workload(key, value);
            // Nor may it go on with the connections of who had its address before.
            writer.concern(Prefix { length: 128, data: key });
        }
    }
    let old: Vec<Address> = known.workloads.keys().filter(|key| !wanted.contains(key)).copied().collect();
    for key in old {
        writer.write(Write::Workload(key, None))?;
        known.remove_workload(&key);
    }
    Ok(())
}

fn workload_value(workload: &DesiredWorkload, place: &Place, id: u32, policy: u32) -> Workload {
    let bridged = if place.bridge.is_some() { WORKLOAD_BRIDGED } else { 0 };
    Workload {
        id,
        ifindex: place.ifindex,
        identity: workload.identity,
        policy,
        flags: workload.flags | bridged,
        egress: workload.egress,
        ingress: workload.ingress,
    }
}

#[cfg(test)]
mod tests;
