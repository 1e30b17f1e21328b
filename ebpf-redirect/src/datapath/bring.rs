// SPDX-License-Identifier: Apache-2.0
//! Brings the kernel to the desired tables, and devices to their hooks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use imbl::ordset::DiffItem;
use weft_ir::ObjectName;

use super::{Applied, Datapath, DatapathError, Ownerless, roles};
use crate::{
    desired::{Desired, DesiredWorkload},
    error::LoadError,
    firewall::{self, Exempt},
    hook::DeviceHook,
    network::{Found, Kind, Link, Look},
    sync::{Known, synchronise},
};

/// The device of NodeLocal DNSCache, which has the address of the cluster's DNS service beside its own.
const LOCAL_DNS_DEVICE: &str = "nodelocaldns";

/// The node's devices as they were found last.
#[derive(Clone, Debug)]
pub(super) struct Devices {
    links: BTreeMap<u32, Link>,
    /// The addresses of the node's own.
    own: Vec<IpAddr>,
    /// Those at which NodeLocal DNSCache answers.
    dns: BTreeSet<IpAddr>,
    /// Where workloads hang.
    found: Found,
    /// Those over which a route leads to more than one machine.
    out: BTreeSet<u32>,
    /// Bridges that are not the pods'.
    foreign: BTreeSet<u32>,
}

impl Devices {
    /// Whether every workload is where one of its name and address was found for the last tables.
    fn hold(&self, last: Option<&Desired>, desired: &Desired) -> bool {
        let Some(last) = last else { return false };
        let same = |(ip, workload): (&IpAddr, &DesiredWorkload)| {
            self.found.places.contains_key(ip)
                && last.workloads.get(ip).is_some_and(|known| known.name == workload.name)
        };
        desired.workloads.len() == last.workloads.len() && desired.workloads.iter().all(same)
    }

    /// The ports behind which workloads were found that are still the same ones.
    fn sure(&self, last: &Desired, desired: &Desired) -> BTreeMap<IpAddr, u32> {
        let name = |tables: &Desired, ip: &IpAddr| Some(tables.workloads.get(ip)?.name.clone());
        let known = self.found.places.iter().filter(|(_, place)| place.ifindex != 0);
        let same = known.filter(|(ip, _)| name(last, ip).is_some() && name(last, ip) == name(desired, ip));
        same.map(|(ip, place)| (*ip, place.ifindex)).collect()
    }

    fn ownerless(&self, desired: &Desired) -> Vec<Ownerless> {
        let name =
            |port: &u32| self.links.get(port).map_or_else(|| port.to_string(), |link| link.name.clone());
        let open = self.found.places.iter().filter(|(_, place)| place.ifindex == 0);
        let told = open.filter_map(|(address, _)| {
            let claimed = self.found.claimed.get(address);
            Some(Ownerless {
                pod: desired.workloads.get(address)?.name.clone(),
                address: *address,
                claimed_by: claimed.map(|ports| ports.iter().map(name).collect()).unwrap_or_default(),
            })
        });
        told.collect()
    }
}

/// What the kernel has, as this process wrote it.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) known: Known,
    tables: Desired,
    devices: Devices,
}

impl Brought {
    /// The pods behind devices.
    pub(super) fn pods_behind(&self, devices: BTreeSet<u32>) -> BTreeSet<ObjectName> {
        let behind = self.devices.found.places.iter().filter(|(_, place)| devices.contains(&place.ifindex));
        behind.filter_map(|(address, _)| Some(self.tables.workloads.get(address)?.name.clone())).collect()
    }

    /// The devices of the node.
    pub(super) fn links(&self) -> &BTreeMap<u32, Link> {
        &self.devices.links
    }
}

/// Addresses and ports that came to be kept, and those that no longer are.
#[derive(Debug, Default)]
struct KeptChange {
    added: BTreeSet<(IpAddr, u16)>,
    removed: BTreeSet<(IpAddr, u16)>,
}

impl Datapath {
    /// Brings the kernel from what it was brought to last, if that is known, else from what is found.
    /// `look` says that devices, addresses or routes may not be what they were.
    pub(super) async fn bring(
        &mut self,
        desired: &mut Desired,
        look: bool,
    ) -> Result<Applied, DatapathError> {
        // What fails below leaves nothing that is known.
        let (known, last, seen) = match self.brought.take() {
            Some(Brought { known, tables, devices }) => (known, Some(tables), Some(devices)),
            None => (Known::read(&self.maps)?, None, None),
        };
        let (devices, there) = match seen {
            Some(devices) if !look && devices.hold(last.as_ref(), desired) => (devices, None),
            seen => {
                let there = self.programs.attached()?;
                let is_same = |port: &u32| there.contains(&(DeviceHook::FromPod, *port));
                let sure = last.as_ref().zip(seen.as_ref());
                let mut sure = sure.map(|(last, seen)| seen.sure(last, desired)).unwrap_or_default();
                let mut before = if last.is_none() { known.devices().collect() } else { BTreeMap::new() };
                // Another device with the index of one that was found has not its hook.
                sure.retain(|_, port| is_same(port));
                before.retain(|_, port| is_same(port));
                let devices = self.find_devices(desired, sure, before).await?;
                self.remember_pods(&devices, &there, last.is_none());
                (devices, Some(there))
            }
        };
        let moved = there.is_some();
        desired.set_device_addresses(&devices.own);
        desired.set_local_dns(&devices.dns);
        self.exempt(last.as_ref(), desired).await?;
        match &last {
            Some(last) if !moved => self.route_changed(last, desired, &devices.own).await?,
            _ => self.network.route_kept(desired, &devices.own).await?,
        }
        if moved {
            self.look_at_rules().await;
            // Before workloads get the devices, so that their connections find these in the table.
            let hooks = self.hooks(&devices);
            self.settle_short(&devices.links, &hooks)?;
        }
        let mut known = known;
        self.learn_foreign(last.as_ref(), desired)?;
        let changes = synchronise(&self.maps, &mut known, last.as_ref(), desired, &devices.found.places)?;
        self.numbers = known.service_numbers().clone();
        if let Some(there) = there {
            self.attach_devices(&devices, &there)?;
        }
        let unattached =
            desired.workloads.keys().filter(|ip| !devices.found.places.contains_key(ip)).copied();
        let applied = Applied {
            revision: desired.revision(),
            changes,
            unattached: unattached.collect(),
            ownerless: devices.ownerless(desired),
            unowned: self.unowned(&devices.links),
        };
        self.brought = Some(Brought { known, tables: desired.clone(), devices });
        Ok(applied)
    }

    async fn find_devices(
        &self,
        desired: &Desired,
        sure: BTreeMap<IpAddr, u32>,
        before: BTreeMap<IpAddr, u32>,
    ) -> Result<Devices, DatapathError> {
        let links = self.network.links().await?;
        let addresses = self.network.addresses().await?;
        let of_dns = |index: &u32| links.get(index).is_some_and(|link| link.name == LOCAL_DNS_DEVICE);
        let dns = addresses.iter().filter(|(index, _)| of_dns(index));
        let dns: BTreeSet<IpAddr> = dns.flat_map(|(_, addresses)| addresses).copied().collect();
        let is_inside = |address: &IpAddr| desired.cluster().any(|prefix| prefix.contains(address));
        let is_foreign = |index: &u32| {
            let mut all = addresses.get(index).into_iter().flatten().filter(|address| is_global(address));
            desired.cluster().next().is_some() && all.clone().next().is_some() && !all.any(is_inside)
        };
        let bridges = links.iter().filter(|(_, link)| link.kind == Kind::Bridge).map(|(index, _)| *index);
        let foreign = bridges.filter(is_foreign).collect();
        let own: BTreeSet<IpAddr> = addresses.into_values().flatten().collect();
        let own: Vec<IpAddr> = own.into_iter().collect();
        let workloads =
            desired.workloads.iter().map(|(address, workload)| (*address, &workload.name)).collect();
        let results = &self.config.cni_results;
        let found = self.network.find(&Look { workloads, links: &links, sure, before, results }).await?;
        let out = self.network.leading_on().await?;
        Ok(Devices { links, own, dns, found, out, foreign })
    }

    /// The firewall's table: only its elements where nothing but kept ports changed.
    async fn exempt(&self, last: Option<&Desired>, desired: &Desired) -> Result<(), DatapathError> {
        if let Some(last) = last
            && desired.has_cluster_of(last)
        {
            let KeptChange { added, removed } = kept_change(last, desired);
            let nothing = added.is_empty() && removed.is_empty();
            // Where somebody else removed the table, it is written anew.
            if nothing || firewall::change(&added, &removed).await.is_ok() {
                return Ok(());
            }
        }
        let exempt =
            Exempt { cluster: desired.cluster().collect(), kept: desired.kept.iter().copied().collect() };
        Ok(firewall::apply(&self.config, &exempt).await?)
    }

    async fn route_changed(
        &self,
        last: &Desired,
        desired: &Desired,
        own: &[IpAddr],
    ) -> Result<(), DatapathError> {
        let KeptChange { added, removed } = kept_change(last, desired);
        let touched: BTreeSet<IpAddr> =
            added.into_iter().chain(removed).map(|(address, _)| address).collect();
        for address in touched.into_iter().filter(|address| last.keeps(*address) != desired.keeps(*address)) {
            match desired.keeps(address) {
                true => self.network.keep(address, desired, own).await?,
                false => self.network.forget_kept(address).await?,
            }
        }
        Ok(())
    }

    /// Closes a new device that looks like a pod's, before anything else is looked at.
    pub(super) fn close(&mut self, index: u32, link: &Link) {
        let known =
            self.desired.revision() == 0 || self.attached.iter().any(|(_, attached)| *attached == index);
        if known || link.controller.is_some() || !roles::is_like_a_pods(link, &self.config.pod_devices) {
            return;
        }
        for hook in roles::UNOWNED {
            match self.programs.attach_device(hook, index) {
                Ok(()) => drop(self.attached.insert((hook, index))),
                Err(LoadError::Attach { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => tracing::error!(device = link.name, %error, "a new pod's device is open"),
            }
        }
    }

    /// The pods' devices of which it is not known whose they are, and for how long.
    fn unowned(&mut self, links: &BTreeMap<u32, Link>) -> BTreeMap<String, Duration> {
        let now = Instant::now();
        let closed = self.attached.iter().filter(|(hook, _)| *hook == DeviceHook::FromUnowned);
        let since = |index: &u32| (*index, self.unowned.get(index).copied().unwrap_or(now));
        self.unowned = closed.map(|(_, index)| since(index)).collect();
        let named = self.unowned.iter().filter_map(|(index, since)| Some((links.get(index)?, since)));
        named.map(|(link, since)| (link.name.clone(), now - *since)).collect()
    }

    /// Notes which devices are pods', and forgets those that are gone: another one with the index has no hooks of
    /// ours. Of ports the first look goes by what an earlier process has closed.
    fn remember_pods(&mut self, devices: &Devices, there: &BTreeSet<(DeviceHook, u32)>, first: bool) {
        let has = |hook, index: u32| there.contains(&(hook, index));
        self.were_pods
            .retain(|index| has(DeviceHook::FromPod, *index) || has(DeviceHook::FromUnowned, *index));
        let pairs = devices.links.iter().filter(|(_, link)| link.kind == Kind::Veth);
        let pods = pairs.filter(|(index, link)| {
            let ours = link.controller.is_some_and(|bridge| !devices.foreign.contains(&bridge));
            has(DeviceHook::FromPod, **index) || first && ours && has(DeviceHook::FromUnowned, **index)
        });
        self.were_pods.extend(pods.map(|(index, _)| *index));
    }

    fn hooks(&self, devices: &Devices) -> BTreeSet<(DeviceHook, u32)> {
        let node = roles::Node {
            links: &devices.links,
            places: &devices.found.places,
            names: &self.config.pod_devices,
            out: &devices.out,
            foreign: &devices.foreign,
            were_pods: &self.were_pods,
        };
        node.hooks()
    }

    /// Each device gets the hooks of its role: new ones before old ones go.
    fn attach_devices(
        &mut self,
        devices: &Devices,
        there: &BTreeSet<(DeviceHook, u32)>,
    ) -> Result<(), LoadError> {
        let wanted = self.hooks(devices);
        // Each attachment waits for the kernel's readers: one per hook and process, not one per change.
        // What others took away in the meantime (a filter, a queueing discipline) comes back.
        let done = |hook: &(DeviceHook, u32)| self.attached.contains(hook) && there.contains(hook);
        for (hook, index) in wanted.iter().filter(|hook| !done(hook)) {
            match self.programs.attach_device(*hook, *index) {
                // It went away since we looked; that is a change of its own.
                Err(LoadError::Attach { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
                done => done?,
            }
        }
        for (hook, index) in there.difference(&wanted) {
            self.programs.detach_device(*hook, *index)?;
        }
        self.attached = wanted;
        Ok(())
    }
}

/// Whether an address is more than one of its link.
fn is_global(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

fn kept_change(last: &Desired, desired: &Desired) -> KeptChange {
    let mut change = KeptChange::default();
    for item in last.kept.diff(&desired.kept) {
        match item {
            DiffItem::Add(new) => change.added.insert(*new),
            DiffItem::Remove(old) => change.removed.insert(*old),
        };
    }
    change
}
