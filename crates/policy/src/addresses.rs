// SPDX-License-Identifier: Apache-2.0
//! Which identity an address has.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_ebpf_common::identity;
use weft_ir::{IdentityNumber, Peer, Snapshot};

/// Numbers that a node can give to prefixes: 24 bits below the scope bit (Cilium's layout).
const LOCAL_NUMBERS: u32 = identity::LOCAL_SCOPE - 1;

/// The identity of every address, found by the longest prefix.
///
/// Workloads have the identity of their labels; this node is `host`, other nodes `remote-node` (or
/// `kube-apiserver`, where the API server runs there), their ingress addresses `ingress`. A host-network
/// workload has its node's identity, since its packets cannot be told from the node's. The rest of the
/// pod CIDRs is `unknown`, prefixes that policies name have a number of this node, and all else is `world`.
#[derive(Debug, Default, PartialEq)]
pub struct AddressTable {
    hosts: HashMap<IpAddr, IdentityNumber>,
    // Longest first; one entry per length and family that occurs.
    prefixes: Vec<Prefixes>,
}

#[derive(Debug, PartialEq)]
struct Prefixes {
    length: u8,
    ipv6: bool,
    identities: HashMap<IpNet, IdentityNumber>,
}

impl AddressTable {
    pub(crate) fn build(
        snapshot: &Snapshot,
        node: &str,
        own: &[IpAddr],
        numbers: &PrefixNumbers,
    ) -> AddressTable {
        let mut table = AddressTable { hosts: hosts(snapshot, node), prefixes: Vec::new() };
        for address in own.iter().map(IpAddr::to_canonical) {
            table.hosts.entry(address).or_insert(IdentityNumber(identity::HOST));
        }
        // Both are always there: one table for both families (the kernel's) would else give an IPv4 address
        // to a rule about `::/0`.
        let mut prefixes = BTreeMap::from(
            [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]
                .map(|all| (all, IdentityNumber(identity::WORLD))),
        );
        prefixes.extend(numbers.iter());
        for cidr in pod_cidrs(snapshot) {
            prefixes.insert(cidr, IdentityNumber(identity::UNKNOWN));
        }
        for (prefix, number) in prefixes {
            table.insert(prefix, number);
        }
        table.prefixes.sort_by_key(|prefixes| std::cmp::Reverse(prefixes.length));
        table
    }

    /// The identity of an address. An IPv4 address written as IPv6 is the IPv4 address.
    pub fn identity_of(&self, address: IpAddr) -> IdentityNumber {
        let address = address.to_canonical();
        if let Some(number) = self.hosts.get(&address) {
            return *number;
        }
        if address.is_loopback() {
            // Only the node itself can have one, whatever a prefix like 0.0.0.0/0 says.
            return IdentityNumber(identity::HOST);
        }
        let families = self.prefixes.iter().filter(|prefixes| prefixes.ipv6 == address.is_ipv6());
        for prefixes in families {
            let found = IpNet::new(address, prefixes.length)
                .ok()
                .and_then(|network| prefixes.identities.get(&network.trunc()));
            if let Some(number) = found {
                return *number;
            }
        }
        IdentityNumber(identity::WORLD)
    }

    /// Every prefix (single addresses included) and its identity, in no order. The longest counts; those of
    /// length 0 are always among them.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, IdentityNumber)> {
        let hosts = self.hosts.iter().map(|(address, number)| (IpNet::from(*address), *number));
        let prefixes = self.prefixes.iter().flat_map(|prefixes| &prefixes.identities);
        hosts.chain(prefixes.map(|(prefix, number)| (*prefix, *number)))
    }

    fn insert(&mut self, prefix: IpNet, number: IdentityNumber) {
        let (length, ipv6) = (prefix.prefix_len(), prefix.addr().is_ipv6());
        let same = |prefixes: &&mut Prefixes| prefixes.length == length && prefixes.ipv6 == ipv6;
        match self.prefixes.iter_mut().find(same) {
            Some(prefixes) => {
                prefixes.identities.insert(prefix, number);
            }
            None => {
                let identities = HashMap::from([(prefix, number)]);
                self.prefixes.push(Prefixes { length, ipv6, identities });
            }
        }
    }
}

/// The numbers that this node has given to prefixes, kept from state to state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PrefixNumbers {
    numbers: BTreeMap<IpNet, IdentityNumber>,
    last: u32,
}

impl PrefixNumbers {
    /// Numbers for the prefixes that the state needs. A prefix keeps its number; a number that became
    /// free is not given again before all others were used.
    pub(crate) fn renew(&self, snapshot: &Snapshot) -> PrefixNumbers {
        let wanted = wanted_prefixes(snapshot);
        let mut numbers: BTreeMap<IpNet, IdentityNumber> = self
            .numbers
            .iter()
            .filter(|(prefix, _)| wanted.contains(prefix))
            .map(|(p, n)| (*p, *n))
            .collect();
        let mut used: BTreeSet<u32> = numbers.values().map(|number| number.0).collect();
        let mut last = self.last;
        for prefix in wanted {
            // Beyond 16 million prefixes the rest stays `world`, which no CIDR rule allows.
            if numbers.contains_key(&prefix) || used.len() as u64 >= u64::from(LOCAL_NUMBERS) {
                continue;
            }
            let number = loop {
                last = last % LOCAL_NUMBERS + 1;
                if used.insert(identity::LOCAL_SCOPE | last) {
                    break identity::LOCAL_SCOPE | last;
                }
            };
            numbers.insert(prefix, IdentityNumber(number));
        }
        PrefixNumbers { numbers, last }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNet, IdentityNumber)> {
        self.numbers.iter().map(|(prefix, number)| (*prefix, *number))
    }
}

/// The prefixes that policies name, exceptions included, and the API server's addresses outside of the
/// cluster. Nothing inside a pod CIDR: CIDR rules never match pods. No IPv4 prefix written as IPv6 either:
/// packets have one family, and such a prefix matches none.
fn wanted_prefixes(snapshot: &Snapshot) -> BTreeSet<IpNet> {
    let mut wanted = BTreeSet::new();
    for policy in snapshot.policies() {
        let sections = [&policy.ingress, &policy.egress];
        let rules = sections.iter().flat_map(|section| section.allow.iter().chain(&section.deny));
        for peer in rules.flat_map(|rule| &rule.peers) {
            if let Peer::Cidr { cidr, except } = peer {
                wanted.insert(cidr.trunc());
                wanted.extend(except.iter().map(IpNet::trunc));
            }
        }
    }
    wanted.extend(apiserver_addresses(snapshot).into_iter().map(IpNet::from));
    let pods: Vec<IpNet> = pod_cidrs(snapshot).collect();
    wanted.retain(|prefix| !is_mapped(prefix) && !pods.iter().any(|pod| pod.contains(prefix)));
    wanted
}

fn is_mapped(prefix: &IpNet) -> bool {
    let IpNet::V6(prefix) = prefix else { return false };
    prefix.prefix_len() >= 96 && prefix.addr().to_ipv4_mapped().is_some()
}

fn pod_cidrs(snapshot: &Snapshot) -> impl Iterator<Item = IpNet> {
    snapshot.mesh_defaults().into_iter().flat_map(|defaults| &defaults.pod_cidrs).map(IpNet::trunc)
}

/// The addresses behind the service `default/kubernetes`, which every API server keeps itself.
pub(crate) fn apiserver_addresses(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for slice in snapshot.endpoints() {
        if &*slice.name.namespace == "default" && &*slice.service == "kubernetes" {
            addresses.extend(slice.endpoints.iter().map(|endpoint| endpoint.address.to_canonical()));
        }
    }
    addresses
}

/// Single addresses. What comes later wins: workloads, then ingress addresses, then the nodes' own.
fn hosts(snapshot: &Snapshot, local: &str) -> HashMap<IpAddr, IdentityNumber> {
    let mut hosts = HashMap::new();
    for workload in snapshot.workloads() {
        if workload.host_network {
            continue;
        }
        for address in &workload.addresses {
            let before = hosts.insert(address.to_canonical(), workload.identity);
            if before.is_some_and(|before| before != workload.identity) {
                // Two workloads claim the address, so neither can be trusted to have it.
                hosts.insert(address.to_canonical(), IdentityNumber(identity::UNKNOWN));
            }
        }
    }
    for address in snapshot.nodes().flat_map(|node| &node.ingress_addresses) {
        hosts.insert(address.to_canonical(), IdentityNumber(identity::INGRESS));
    }
    let apiserver = apiserver_addresses(snapshot);
    for node in snapshot.nodes() {
        for address in node.addresses.iter().map(IpAddr::to_canonical) {
            let number = if &*node.name == local {
                identity::HOST
            } else if apiserver.contains(&address) {
                identity::KUBE_APISERVER
            } else {
                identity::REMOTE_NODE
            };
            hosts.insert(address, IdentityNumber(number));
        }
    }
    hosts
}

/// Whether the API server runs on the node of this name.
pub(crate) fn apiserver_is_local(snapshot: &Snapshot, node: &str) -> bool {
    let apiserver = apiserver_addresses(snapshot);
    let mut own = snapshot.nodes().filter(|found| &*found.name == node).flat_map(|found| &found.addresses);
    own.any(|address| apiserver.contains(&address.to_canonical()))
}

/// The label that Cilium gives to a prefix: `cidr:` and the prefix, with `-` for `:`.
pub(crate) fn prefix_label(prefix: IpNet) -> Arc<str> {
    format!("cidr:{}", prefix.to_string().replace(':', "-")).into()
}

#[cfg(test)]
mod tests;
