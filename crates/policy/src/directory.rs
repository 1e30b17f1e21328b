// SPDX-License-Identifier: Apache-2.0
//! Who is behind an address: the one table that the kernel, the proxy and the flows use.
//!
//! Single addresses have claims (`claims` says who wins); all else is found by the longest prefix: the rest
//! of the pods' networks (`networks`) is `unknown`, prefixes that policies name have a number of this node
//! (`prefixes`), and the rest is `world`. A host-network pod claims nothing: its packets cannot be told from
//! its node's.
//!
//! A directory never changes. The next one shares with it what a change does not touch, and costs as much as
//! the change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use imbl::{OrdMap, ordmap::DiffItem};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_ebpf_common::identity;
use weft_ir::{Changed, Changes, IdentityNumber, Node, Peer, Policy, Resource, Snapshot, stream::Position};

mod claims;
mod networks;
mod party;
mod prefixes;
mod services;
#[cfg(test)]
mod tests;

pub use networks::{Guess, PodNetworks};
pub use party::{Party, Place, WorkloadRef};

pub(crate) use prefixes::PrefixNumbers;

use claims::{Claim, Entry, Judge, can_be_claimed};
use networks::{apiservers, claimed, is_apiserver};
use prefixes::{PrefixMap, is_mapped};
use services::Services;

use crate::counted::Counted;

/// Who is behind each address, in one state, as seen from one node. A clone shares everything with the
/// original.
#[derive(Clone, Debug)]
pub struct Directory {
    node: Arc<str>,
    position: Position,
    /// This node, once the state knows it.
    this: Option<Arc<Node>>,
    /// Addresses of this node's devices.
    devices: BTreeSet<IpAddr>,
    addresses: OrdMap<IpAddr, Arc<Entry>>,
    prefixes: PrefixMap<Party>,
    networks: PodNetworks,
    apiserver: Counted<IpAddr>,
    wanted: Counted<IpNet>,
    numbers: PrefixNumbers,
    services: Services,
    labels: OrdMap<IdentityNumber, Arc<[Arc<str>]>>,
}

impl Directory {
    /// What the node of this name knows before its first state.
    pub fn empty(node: &str) -> Directory {
        let mut directory = Directory {
            node: node.into(),
            position: Position::default(),
            this: None,
            devices: BTreeSet::new(),
            addresses: OrdMap::default(),
            prefixes: PrefixMap::default(),
            networks: PodNetworks::default(),
            apiserver: Counted::default(),
            wanted: Counted::default(),
            numbers: PrefixNumbers::default(),
            services: Services::default(),
            labels: OrdMap::default(),
        };
        let mut edit = Edit::of(&mut directory);
        // Both families, always: one table for both (the kernel's) would else give an IPv4 address to a rule
        // about `::/0`.
        edit.prefixes.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default()), loopback()]);
        edit.claim(Ipv6Addr::LOCALHOST.into(), Claim::Device);
        edit.finish();
        directory
    }

    /// The directory of a state.
    pub fn build(snapshot: &Snapshot, node: &str) -> Directory {
        Directory::empty(node).next(snapshot, &Changes::between(&Snapshot::default(), snapshot))
    }

    /// The directory of the next state, which differs from this one's by `changes`.
    pub fn next(&self, snapshot: &Snapshot, changes: &Changes) -> Directory {
        let mut next = self.clone();
        next.position = snapshot.position();
        let mut edit = Edit::of(&mut next);
        changes.iter().for_each(|changed| edit.note(changed));
        edit.finish();
        next
    }

    /// The same directory, and its later versions, on a node whose devices have these addresses: what no
    /// object has is `host`, also inside of a pods' network (a bridge, a tunnel, `docker0`).
    pub fn with_device_addresses(&self, devices: &[IpAddr]) -> Directory {
        let devices: BTreeSet<IpAddr> = claimed(devices).collect();
        let mut next = self.clone();
        let before = std::mem::replace(&mut next.devices, devices.clone());
        let mut edit = Edit::of(&mut next);
        before.difference(&devices).for_each(|address| edit.unclaim(*address, &Claim::Device));
        devices.difference(&before).for_each(|address| edit.claim(*address, Claim::Device));
        edit.finish();
        next
    }

    /// Who is behind an address. An IPv4 address written as IPv6 is the IPv4 address.
    pub fn find(&self, address: IpAddr) -> &Party {
        const WORLD: &Party = &Party {
            identity: IdentityNumber(identity::WORLD),
            place: Place::Outside,
            workload: None,
            claimants: None,
        };
        let address = address.to_canonical();
        match self.addresses.get(&address) {
            Some(entry) => &entry.party,
            None => self.prefixes.find(address).unwrap_or(WORLD),
        }
    }

    /// Every prefix (single addresses included) and its identity, in no order: the longest counts. Those of
    /// length 0 are always among them, and none is of an IPv4 address written as IPv6.
    pub fn identities(&self) -> impl Iterator<Item = (IpNet, IdentityNumber)> {
        let single = self.addresses.iter().map(|(address, entry)| (IpNet::from(*address), &entry.party));
        let prefixes = self.prefixes.iter().map(|(prefix, party)| (*prefix, party));
        single.chain(prefixes).map(|(prefix, party)| (prefix, party.identity))
    }

    /// What [`Directory::identities`] yields differently from `old`, an earlier version: each prefix with
    /// the identity that it has now, or nothing where it is gone.
    pub fn changes_since<'a>(
        &'a self,
        old: &'a Directory,
    ) -> impl Iterator<Item = (IpNet, Option<IdentityNumber>)> + 'a {
        let single = old.addresses.diff(&self.addresses).filter_map(|item| {
            changed(item, |entry| entry.party.identity).map(|(address, now)| (IpNet::from(*address), now))
        });
        let prefixes = old.prefixes.values().diff(self.prefixes.values());
        let prefixes = prefixes.filter_map(|item| changed(item, |party| party.identity));
        single.chain(prefixes.map(|(prefix, now)| (*prefix, now)))
    }

    /// Whether the devices' addresses are those of this node's devices already.
    pub fn has_device_addresses(&self, devices: &[IpAddr]) -> bool {
        claimed(devices).collect::<BTreeSet<_>>() == self.devices
    }

    /// The networks of pods, and the addresses of pods that are in none of them.
    pub fn cluster(&self) -> impl Iterator<Item = IpNet> {
        self.networks.iter()
    }

    /// Whether [`Directory::cluster`] is what it was in `old`, an earlier version. May say no where it is.
    pub fn has_cluster_of(&self, old: &Directory) -> bool {
        self.networks.is_same(&old.networks)
    }

    /// The pods whose network is a guess, if there are any.
    pub fn guess(&self) -> Option<Guess> {
        self.networks.guess()
    }

    /// The service (`namespace/name`) at an address and port; the protocol is an IP protocol number.
    pub fn service(&self, address: IpAddr, port: u16, protocol: u8) -> Option<&Arc<str>> {
        self.services.find(address.to_canonical(), port, protocol)
    }

    /// The labels of a workload's identity, each as `source:key=value`.
    pub fn labels(&self, number: IdentityNumber) -> Option<&Arc<[Arc<str>]>> {
        self.labels.get(&number)
    }

    /// The name of this node.
    pub fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// Which state it is of.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The address of this node and family from which traffic of a Gateway goes onward: an ingress address,
    /// else the node's own.
    pub fn ingress_address(&self, ipv6: bool) -> Option<IpAddr> {
        let this = self.this.as_ref()?;
        claimed_in_order(&this.ingress_addresses, ipv6).or_else(|| claimed_in_order(&this.addresses, ipv6))
    }

    /// This node's own address of the family.
    pub fn node_address(&self, ipv6: bool) -> Option<IpAddr> {
        claimed_in_order(&self.this.as_ref()?.addresses, ipv6)
    }

    /// This node's own addresses.
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.this.iter().flat_map(|node| &node.addresses).map(IpAddr::to_canonical)
    }

    /// Numbers of the prefixes that policies name.
    pub(crate) fn numbers(&self) -> &PrefixNumbers {
        &self.numbers
    }

    /// Whether an API server has the address.
    pub(crate) fn is_apiserver(&self, address: IpAddr) -> bool {
        self.apiserver.contains(&address)
    }

    /// Whether an API server runs on this node.
    pub(crate) fn apiserver_is_local(&self) -> bool {
        self.node_addresses().any(|address| self.is_apiserver(address))
    }

    /// Whether the API servers are those of `old`, an earlier version, on this node and elsewhere.
    pub(crate) fn has_apiservers_of(&self, old: &Directory) -> bool {
        self.apiserver.is_same(&old.apiserver) && self.apiserver_is_local() == old.apiserver_is_local()
    }

    /// The identity of a prefix, where it has one of its own.
    fn prefix_identity(&self, prefix: &IpNet) -> Option<IdentityNumber> {
        if *prefix == loopback() {
            return Some(IdentityNumber(identity::HOST));
        }
        if self.networks.contains(prefix) {
            return Some(IdentityNumber(identity::UNKNOWN));
        }
        let world = (prefix.prefix_len() == 0).then_some(IdentityNumber(identity::WORLD));
        self.numbers.number_of(prefix).or(world)
    }

    /// Whether policies may have a number for the prefix. CIDR rules never match pods, and nobody else has
    /// the host's loopback addresses.
    fn can_have_number(&self, prefix: &IpNet) -> bool {
        self.wanted.contains(prefix)
            && !is_mapped(prefix)
            && !loopback().contains(prefix)
            && prefix.addr() != IpAddr::from(Ipv6Addr::LOCALHOST)
            && !self.networks.covers(prefix)
    }
}

/// The changes that lead from one directory to the next.
struct Edit<'a> {
    to: &'a mut Directory,
    claims: BTreeMap<IpAddr, Vec<Claim>>,
    wanted: BTreeSet<IpNet>,
    prefixes: BTreeSet<IpNet>,
}

impl<'a> Edit<'a> {
    fn of(to: &'a mut Directory) -> Edit<'a> {
        Edit { to, claims: BTreeMap::new(), wanted: BTreeSet::new(), prefixes: BTreeSet::new() }
    }

    fn note(&mut self, changed: &Changed) {
        self.to.networks.note(changed);
        // What is gone goes first: a claim is its object's, so that it takes away no other's.
        changed.old.iter().for_each(|resource| self.leave(resource));
        changed.new.iter().for_each(|resource| self.enter(resource));
    }

    fn enter(&mut self, resource: &Arc<Resource>) {
        match &**resource {
            Resource::Workload(workload) if !workload.host_network => {
                let Some(pod) = WorkloadRef::of(resource) else { return };
                claimed(&workload.addresses).for_each(|ip| self.claim(ip, Claim::Pod(pod.clone())));
            }
            Resource::Node(node) => {
                self.node_claims(node).into_iter().for_each(|(address, claim)| self.claim(address, claim));
                if node.name == self.to.node {
                    self.to.this = Some(Arc::new(node.clone()));
                }
            }
            Resource::Endpoints(slice) if is_apiserver(slice) => {
                for address in apiservers(slice) {
                    self.to.apiserver.add(address);
                    self.touch(address);
                    self.want(address.into());
                }
            }
            Resource::Policy(policy) => prefixes_of(policy).into_iter().for_each(|prefix| self.want(prefix)),
            Resource::Service(service) => self.to.services.enter(service),
            Resource::Identity(identity) => {
                let text = |(key, value)| Arc::from(format!("{key}={value}"));
                let texts = identity.labels.iter().map(text).collect();
                self.to.labels.insert(identity.number, texts);
            }
            _ => {}
        }
    }

    fn leave(&mut self, resource: &Arc<Resource>) {
        match &**resource {
            Resource::Workload(workload) if !workload.host_network => {
                let Some(pod) = WorkloadRef::of(resource) else { return };
                claimed(&workload.addresses).for_each(|ip| self.unclaim(ip, &Claim::Pod(pod.clone())));
            }
            Resource::Node(node) => {
                self.node_claims(node).iter().for_each(|(address, claim)| self.unclaim(*address, claim));
                if node.name == self.to.node {
                    self.to.this = None;
                }
            }
            Resource::Endpoints(slice) if is_apiserver(slice) => {
                for address in apiservers(slice) {
                    self.to.apiserver.remove(&address);
                    self.touch(address);
                    self.unwant(address.into());
                }
            }
            Resource::Policy(policy) => {
                prefixes_of(policy).into_iter().for_each(|prefix| self.unwant(prefix))
            }
            Resource::Service(service) => self.to.services.leave(service),
            Resource::Identity(identity) => {
                self.to.labels.remove(&identity.number);
            }
            _ => {}
        }
    }

    fn node_claims(&self, node: &Node) -> Vec<(IpAddr, Claim)> {
        let own = claimed(&node.addresses).map(|address| (address, Claim::Node(node.name.clone())));
        let ingress = claimed(&node.ingress_addresses);
        own.chain(ingress.map(|address| (address, Claim::Ingress(node.name.clone())))).collect()
    }

    fn want(&mut self, prefix: IpNet) {
        self.to.wanted.add(prefix);
        self.wanted.insert(prefix);
    }

    fn unwant(&mut self, prefix: IpNet) {
        self.to.wanted.remove(&prefix);
        self.wanted.insert(prefix);
    }

    /// The claims on an address, which is decided again.
    fn touch(&mut self, address: IpAddr) -> &mut Vec<Claim> {
        let addresses = &self.to.addresses;
        self.claims
            .entry(address)
            .or_insert_with(|| addresses.get(&address).map(|entry| entry.claims.clone()).unwrap_or_default())
    }

    fn claim(&mut self, address: IpAddr, claim: Claim) {
        self.touch(address).push(claim);
    }

    fn unclaim(&mut self, address: IpAddr, claim: &Claim) {
        self.touch(address).retain(|known| !known.is_of_same(claim));
    }

    fn finish(mut self) {
        let networks = self.to.networks.settle();
        if !networks.is_empty() {
            // What is inside of a network has no number, and what no longer is may need one.
            self.wanted.extend(self.to.wanted.iter().copied());
            self.prefixes.extend(networks);
        }
        self.number_prefixes();
        for prefix in std::mem::take(&mut self.prefixes) {
            self.set_prefix(prefix);
        }
        for (address, claims) in std::mem::take(&mut self.claims) {
            self.set_address(address, claims);
        }
    }

    fn number_prefixes(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        let (keep, free): (Vec<IpNet>, Vec<IpNet>) =
            wanted.into_iter().partition(|prefix| self.to.can_have_number(prefix));
        for prefix in free {
            if self.to.numbers.number_of(&prefix).is_some() {
                self.to.numbers.free(&prefix);
                self.prefixes.insert(prefix);
            }
        }
        for prefix in keep {
            if self.to.numbers.number_of(&prefix).is_none() {
                self.to.numbers.give(prefix);
                self.prefixes.insert(prefix);
            }
        }
    }

    fn set_prefix(&mut self, prefix: IpNet) {
        let number = self.to.prefix_identity(&prefix);
        if prefix.prefix_len() == prefix.max_prefix_len() {
            self.unclaim(prefix.addr(), &Claim::Prefix(IdentityNumber(0)));
            if let Some(number) = number {
                self.claim(prefix.addr(), Claim::Prefix(number));
            }
            return;
        }
        match number {
            Some(number) => self.to.prefixes.insert(prefix, Party::of_prefix(number)),
            None => drop(self.to.prefixes.remove(&prefix)),
        }
    }

    fn set_address(&mut self, address: IpAddr, claims: Vec<Claim>) {
        let judge = Judge { node: &self.to.node, apiserver: self.to.apiserver.contains(&address) };
        match judge.decide(&claims) {
            Some(party) => {
                let entry = Entry { claims, party };
                if self.to.addresses.get(&address).is_none_or(|known| **known != entry) {
                    self.to.addresses.insert(address, Arc::new(entry));
                }
            }
            None => drop(self.to.addresses.remove(&address)),
        }
    }
}

/// The prefixes that a policy names, exceptions included.
fn prefixes_of(policy: &Policy) -> BTreeSet<IpNet> {
    let sections = [&policy.ingress, &policy.egress];
    let rules = sections.iter().flat_map(|section| section.allow.iter().chain(&section.deny));
    let cidrs = rules.flat_map(|rule| &rule.peers).filter_map(|peer| match peer {
        Peer::Cidr { cidr, except } => Some(std::iter::once(cidr).chain(except)),
        _ => None,
    });
    cidrs.flatten().map(IpNet::trunc).collect()
}

/// The label that Cilium gives to a prefix: `cidr:` and the prefix, with `-` for `:`.
pub(crate) fn prefix_label(prefix: IpNet) -> Arc<str> {
    format!("cidr:{}", prefix.to_string().replace(':', "-")).into()
}

fn loopback() -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8))
}

fn claimed_in_order(addresses: &[IpAddr], ipv6: bool) -> Option<IpAddr> {
    let mut addresses = addresses.iter().map(IpAddr::to_canonical).filter(|address| can_be_claimed(*address));
    addresses.find(|address| address.is_ipv6() == ipv6)
}

/// The identity that a key has now, where it differs from the one that it had.
fn changed<'a, K, V>(
    item: DiffItem<'a, 'a, K, V>,
    identity: impl Fn(&V) -> IdentityNumber,
) -> Option<(&'a K, Option<IdentityNumber>)> {
    match item {
        DiffItem::Add(key, value) => Some((key, Some(identity(value)))),
        DiffItem::Update { old, new } => {
            (identity(old.1) != identity(new.1)).then(|| (new.0, Some(identity(new.1))))
        }
        DiffItem::Remove(key, _) => Some((key, None)),
    }
}
