// SPDX-License-Identifier: Apache-2.0
//! The networks that pods have their addresses from: an address in one of them that nobody has is unknown,
//! never `world`.
//!
//! The administrator's word (`--pod-cidr`) is the only one where it is given. Else they are learnt from two
//! sources, neither of which is complete:
//!
//! - `spec.podCIDRs` of the Nodes. Many CNIs ignore it, but the range was given to the cluster, so that
//!   nobody outside should have an address in it.
//! - The pods: the smallest prefix that holds those of one neighbourhood, which is inside of whatever
//!   network their addresses were given out from. A neighbourhood that holds a machine's address too is one
//!   that pods share with machines (AWS VPC CNI, a bridge to the nodes' network): nothing is learnt there,
//!   since a machine that would be unknown could no longer reach anything.
//!
//! What is learnt from pods says nothing of the addresses around, so it is reported as a guess.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;
use weft_ir::{Changed, Changes, Endpoints, Resource, ResourceKey};

use super::{
    claims::can_be_claimed,
    prefixes::{PrefixMap, canonical},
};
use crate::counted::Counted;

/// Pods whose addresses have this many leading bits in common are thought to be of one network: no network
/// of a cloud is larger than this (AWS: a VPC's block is at most /16, and /56 in IPv6).
const NEIGHBOURHOOD: (u8, u8) = (16, 56);
/// Addresses are given out in blocks of at least this length (Calico's defaults, the smallest in use).
const BLOCK: (u8, u8) = (26, 122);

/// The networks of pods, as far as they are known. A clone shares everything with the original.
#[derive(Clone, Debug, Default)]
pub struct PodNetworks {
    configured: BTreeSet<IpNet>,
    hints: Outside,
    learnt: OrdMap<IpNet, IpNet>,
    /// What counts: the configured ones, or the hints and what was learnt.
    networks: Outside,
    pods: Counted<IpAddr>,
    machines: Counted<IpAddr>,
    touched: BTreeSet<IpNet>,
    changed: BTreeSet<IpNet>,
}

/// A pod's address in a network that nobody named: that other addresses of the network are unknown, not
/// `world`, is at best a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guess {
    /// The least of the addresses.
    pub pod: IpAddr,
    /// How many there are.
    pub pods: usize,
    /// The network that is thought to be the pods'; nothing where machines have addresses around it.
    pub network: Option<IpNet>,
}

/// Prefixes, how often each was added, and the pods that are in none of them.
#[derive(Clone, Debug, Default)]
struct Outside {
    prefixes: PrefixMap<u32>,
    pods: OrdSet<IpAddr>,
}

impl PodNetworks {
    /// Follows a change of the state.
    pub fn update(&mut self, changes: &Changes) {
        for changed in changes {
            self.note(changed);
        }
        self.settle();
    }

    /// The pods whose network is a guess, if there are any.
    pub fn guess(&self) -> Option<Guess> {
        let pod = *self.hints.pods.get_min().filter(|_| self.configured.is_empty())?;
        let network = self.learnt.get(&neighbourhood(pod)).copied();
        Some(Guess { pod, pods: self.hints.pods.len(), network })
    }

    /// Notes one change; [`PodNetworks::settle`] draws the conclusions.
    pub(super) fn note(&mut self, changed: &Changed) {
        // What is new goes in first, so that what stays is not touched.
        changed.new.iter().for_each(|resource| self.enter(resource));
        changed.old.iter().for_each(|resource| self.leave(resource));
        if changed.new.is_none() && changed.key == ResourceKey::MeshDefaults {
            self.configure(&[]);
        }
    }

    /// Learns from what was noted; yields the networks that are new or gone.
    pub(super) fn settle(&mut self) -> BTreeSet<IpNet> {
        for around in std::mem::take(&mut self.touched) {
            let (before, now) = (self.learnt.get(&around).copied(), self.learn(&around));
            if before == now {
                continue;
            }
            match now {
                Some(network) => self.learnt.insert(around, network),
                None => self.learnt.remove(&around),
            };
            if self.configured.is_empty() {
                now.iter().for_each(|network| self.add(*network));
                before.iter().for_each(|network| self.remove(network));
            }
        }
        std::mem::take(&mut self.changed)
    }

    /// Whether all of the prefix is inside of one network of pods.
    pub(super) fn covers(&self, prefix: &IpNet) -> bool {
        self.networks.prefixes.covers(prefix)
    }

    /// Whether it is a network of pods.
    pub(super) fn contains(&self, prefix: &IpNet) -> bool {
        self.networks.prefixes.get(prefix).is_some()
    }

    /// The networks, and the addresses of pods that are in none.
    pub(super) fn iter(&self) -> impl Iterator<Item = IpNet> {
        let networks = self.networks.prefixes.iter().map(|(prefix, _)| *prefix);
        networks.chain(self.networks.pods.iter().map(|address| IpNet::from(*address)))
    }

    /// Whether nothing changed since `other`, of which this is a later version.
    pub(super) fn is_same(&self, other: &PodNetworks) -> bool {
        self.networks.pods.ptr_eq(&other.networks.pods)
            && self.networks.prefixes.values().ptr_eq(other.networks.prefixes.values())
    }

    fn enter(&mut self, resource: &Resource) {
        match resource {
            Resource::Workload(workload) if !workload.host_network => {
                for address in claimed(&workload.addresses) {
                    if self.pods.add(address) {
                        self.hints.add_pod(address);
                        self.networks.add_pod(address);
                        self.touched.insert(neighbourhood(address));
                    }
                }
            }
            Resource::Node(node) => {
                for network in node.pod_cidrs.iter().filter_map(usable) {
                    if self.hints.add(network, &self.pods) && self.configured.is_empty() {
                        self.add(network);
                    }
                }
                self.enter_machines(claimed(&node.addresses).chain(claimed(&node.ingress_addresses)));
            }
            Resource::Endpoints(slice) if is_apiserver(slice) => self.enter_machines(apiservers(slice)),
            Resource::MeshDefaults(defaults) => self.configure(&defaults.pod_cidrs),
            _ => {}
        }
    }

    fn leave(&mut self, resource: &Resource) {
        match resource {
            Resource::Workload(workload) if !workload.host_network => {
                for address in claimed(&workload.addresses) {
                    if self.pods.remove(&address) {
                        self.hints.pods.remove(&address);
                        self.networks.pods.remove(&address);
                        self.touched.insert(neighbourhood(address));
                    }
                }
            }
            Resource::Node(node) => {
                for network in node.pod_cidrs.iter().filter_map(usable) {
                    if self.hints.remove(&network, &self.pods) && self.configured.is_empty() {
                        self.remove(&network);
                    }
                }
                self.leave_machines(claimed(&node.addresses).chain(claimed(&node.ingress_addresses)));
            }
            Resource::Endpoints(slice) if is_apiserver(slice) => self.leave_machines(apiservers(slice)),
            _ => {}
        }
    }

    fn enter_machines(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            if self.machines.add(address) {
                self.touched.insert(neighbourhood(address));
            }
        }
    }

    fn leave_machines(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            if self.machines.remove(&address) {
                self.touched.insert(neighbourhood(address));
            }
        }
    }

    fn configure(&mut self, networks: &[IpNet]) {
        let before = self.sources();
        self.configured = networks.iter().filter_map(usable).collect();
        self.sources().into_iter().for_each(|network| self.add(network));
        before.iter().for_each(|network| self.remove(network));
    }

    /// Everything that counts, as often as it was found.
    fn sources(&self) -> Vec<IpNet> {
        if !self.configured.is_empty() {
            return self.configured.iter().copied().collect();
        }
        self.hints.prefixes.iter().map(|(prefix, _)| *prefix).chain(self.learnt.values().copied()).collect()
    }

    fn add(&mut self, network: IpNet) {
        if self.networks.add(network, &self.pods) {
            self.changed.insert(network);
        }
    }

    fn remove(&mut self, network: &IpNet) {
        if self.networks.remove(network, &self.pods) {
            self.changed.insert(*network);
        }
    }

    /// The smallest prefix that holds all pods of a neighbourhood, and the whole block of each.
    fn learn(&self, around: &IpNet) -> Option<IpNet> {
        if self.machines.between(around.network(), around.broadcast()).next().is_some() {
            return None;
        }
        let mut pods = self.pods.between(around.network(), around.broadcast());
        let first = *pods.next()?;
        let last = pods.next_back().copied().unwrap_or(first);
        let most = if first.is_ipv6() { BLOCK.1 } else { BLOCK.0 };
        prefix_of(first, common_bits(first, last).min(most))
    }
}

impl Outside {
    /// Adds a prefix; whether it was not there before.
    fn add(&mut self, prefix: IpNet, pods: &Counted<IpAddr>) -> bool {
        let count = self.prefixes.get(&prefix).copied().unwrap_or(0) + 1;
        self.prefixes.insert(prefix, count);
        if count == 1 {
            for pod in pods.between(prefix.network(), prefix.broadcast()) {
                self.pods.remove(pod);
            }
        }
        count == 1
    }

    /// Removes a prefix once; whether it is gone now.
    fn remove(&mut self, prefix: &IpNet, pods: &Counted<IpAddr>) -> bool {
        match self.prefixes.get(prefix).copied() {
            Some(count) if count > 1 => {
                self.prefixes.insert(*prefix, count - 1);
                false
            }
            Some(_) => {
                self.prefixes.remove(prefix);
                for pod in pods.between(prefix.network(), prefix.broadcast()) {
                    self.add_pod(*pod);
                }
                true
            }
            None => false,
        }
    }

    fn add_pod(&mut self, address: IpAddr) {
        if self.prefixes.find(address).is_none() {
            self.pods.insert(address);
        }
    }
}

/// The addresses that an object can claim, each once.
pub(super) fn claimed(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let unique: BTreeSet<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
    unique.into_iter().filter(|address| can_be_claimed(*address))
}

/// Whether it is a slice of the service `default/kubernetes`, which every API server keeps itself.
pub(super) fn is_apiserver(slice: &Endpoints) -> bool {
    &*slice.name.namespace == "default" && &*slice.service == "kubernetes"
}

/// The addresses of the API servers in a slice, each once.
pub(super) fn apiservers(slice: &Endpoints) -> impl Iterator<Item = IpAddr> + use<> {
    let addresses: Vec<IpAddr> = slice.endpoints.iter().map(|endpoint| endpoint.address).collect();
    claimed(&addresses).collect::<Vec<_>>().into_iter()
}

/// A network as the table has it; nothing where it is one of loopback addresses, which are always the host's.
fn usable(network: &IpNet) -> Option<IpNet> {
    Some(canonical(network)).filter(|network| !network.network().is_loopback())
}

fn neighbourhood(address: IpAddr) -> IpNet {
    let length = if address.is_ipv6() { NEIGHBOURHOOD.1 } else { NEIGHBOURHOOD.0 };
    prefix_of(address, length).unwrap_or_else(|| IpNet::from(address))
}

fn prefix_of(address: IpAddr, length: u8) -> Option<IpNet> {
    IpNet::new(address, length).ok().map(|prefix| prefix.trunc())
}

/// How many leading bits two addresses of one family have in common.
fn common_bits(one: IpAddr, other: IpAddr) -> u8 {
    let (bits, family) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => ((one.to_bits() ^ other.to_bits()).leading_zeros(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (leading(one, other), 128),
        _ => return 0,
    };
    bits.min(family) as u8
}

fn leading(one: Ipv6Addr, other: Ipv6Addr) -> u32 {
    (one.to_bits() ^ other.to_bits()).leading_zeros()
}
