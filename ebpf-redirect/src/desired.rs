// SPDX-License-Identifier: Apache-2.0
//! What the tables should hold for a state: plain values, computed without a look at the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use weft_ebpf_common::Verdict;
use weft_ebpf_common::layout::{
    ANY_IDENTITY, Address, EGRESS, Endpoint, INGRESS, POLICY_PREFIX, PolicyKey, ServiceKey,
    WORKLOAD_EGRESS_OPEN, WORKLOAD_INGRESS_OPEN,
};
use weft_ir::{ObjectName, Service, ServicePort, Snapshot, Workload};
use weft_policy::{
    DirectionPolicy, Directory, Party, Peer, PolicySet,
    capture::{self, ServiceView, Services},
};

use crate::bpf::Prefix;

/// A port of a service, whose connections are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Namespace and name.
    pub service: ObjectName,
    /// The service's port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// What is behind an address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// Whose it is.
    pub name: ServiceName,
    /// Where connections go, sorted.
    pub backends: Vec<Endpoint>,
    /// The address is kept, and connections go to the proxy.
    pub kept: bool,
}

/// Entries of one set: the key without the set's number, and the verdict.
pub type PolicyEntries = BTreeMap<Prefix<PolicyKey>, Verdict>;

/// A workload of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredWorkload {
    /// Namespace and name.
    pub name: ObjectName,
    /// Its identity.
    pub identity: u32,
    /// `WORKLOAD_*`, except what depends on the device.
    pub flags: u32,
    /// Its policy.
    pub policy: Arc<PolicyEntries>,
    /// What holds for what it sends where no entry says more.
    pub egress: Verdict,
    /// What holds for what it receives where no entry says more.
    pub ingress: Verdict,
}

/// The tables of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The state's revision.
    pub revision: u64,
    /// Services by address and port.
    pub services: BTreeMap<ServiceKey, DesiredService>,
    /// Addresses of services, whatever the port.
    pub service_addresses: BTreeSet<IpAddr>,
    /// Addresses with a port whose connections go to the proxy.
    pub kept_addresses: BTreeSet<IpAddr>,
    /// Workloads of this node by address.
    pub workloads: BTreeMap<IpAddr, DesiredWorkload>,
    /// Identities of addresses and prefixes.
    pub identities: BTreeMap<Prefix<Address>, u32>,
    /// Prefixes inside of the cluster, where the client's own address needs no translation.
    pub cluster: BTreeSet<IpNet>,
    /// The node's addresses as the state has them.
    pub node_addresses: Vec<IpAddr>,
}

impl Desired {
    /// Computes the tables of a node.
    pub fn compile(snapshot: &Snapshot, node: &str, policy: &PolicySet) -> Desired {
        let mut desired = Desired { revision: snapshot.revision, ..Desired::default() };
        services(snapshot, &mut desired);
        workloads(snapshot, node, policy, &mut desired);
        desired.set_identities(policy.directory());
        desired.cluster.extend(policy.directory().cluster());
        desired.node_addresses.extend(policy.directory().node_addresses());
        desired
    }

    /// Addresses and ports whose connections go to the proxy.
    pub fn kept_ports(&self) -> BTreeSet<(IpAddr, u16)> {
        let kept = self.services.iter().filter(|(_, service)| service.kept);
        kept.map(|(key, _)| (key.address.ip(), u16::from_be(key.port_be))).collect()
    }

    /// Takes over who has which address.
    pub fn set_identities(&mut self, directory: &Directory) {
        let identities = directory.identities();
        self.identities = identities.map(|(prefix, number)| (address_prefix(prefix), number.0)).collect();
    }
}

/// The key of a prefix in the table of identities.
pub fn address_prefix(prefix: IpNet) -> Prefix<Address> {
    let length = match prefix {
        IpNet::V4(prefix) => 96 + u32::from(prefix.prefix_len()),
        IpNet::V6(prefix) => u32::from(prefix.prefix_len()),
    };
    Prefix { length, data: Address::from(prefix.network()) }
}

fn services(snapshot: &Snapshot, desired: &mut Desired) {
    for (_, view) in Services::of(snapshot).iter() {
        let Some(service) = view.service() else { continue };
        desired.service_addresses.extend(&service.addresses);
        for port in &service.ports {
            service_port(service, port, view, desired);
        }
    }
}

fn service_port(service: &Service, port: &ServicePort, view: &ServiceView, desired: &mut Desired) {
    let protocol = port.protocol.number();
    let kept = view.capture(port).is_redirected();
    for address in &service.addresses {
        let key = ServiceKey { address: (*address).into(), port_be: port.port.to_be(), protocol, pad: 0 };
        let name = ServiceName { service: service.name.clone(), port: port.port, protocol };
        let backends = capture::backends(port, view.slices(), address.is_ipv6());
        let backends = backends.into_iter().map(backend).collect();
        desired.services.insert(key, DesiredService { name, backends, kept });
        if kept {
            desired.kept_addresses.insert(*address);
        }
    }
}

fn backend(address: SocketAddr) -> Endpoint {
    Endpoint { address: address.ip().into(), port_be: address.port().to_be(), pad: 0 }
}

fn workloads(snapshot: &Snapshot, node: &str, policy: &PolicySet, desired: &mut Desired) {
    let mut sets: BTreeMap<Arc<PolicyEntries>, ()> = BTreeMap::new();
    for workload in snapshot.workloads() {
        if *workload.node != *node || workload.host_network {
            continue;
        }
        for address in workload.addresses.iter().map(IpAddr::to_canonical) {
            let party = policy.directory().find(address);
            // What is the node's own is not the pod's.
            if party.is_local() {
                let made = desired_workload(workload, party, policy, &mut sets);
                desired.workloads.insert(address, made);
            }
        }
    }
}

fn desired_workload(
    workload: &Workload,
    party: &Party,
    policy: &PolicySet,
    sets: &mut BTreeMap<Arc<PolicyEntries>, ()>,
) -> DesiredWorkload {
    // An address that several pods claim has the closed policy of whom nobody knows.
    let endpoint = policy.endpoint(party.identity, &workload.ports);
    let mut entries = PolicyEntries::new();
    entries_of(&endpoint.egress, EGRESS, &mut entries);
    entries_of(&endpoint.ingress, INGRESS, &mut entries);
    let mut flags = 0;
    for (direction, open) in
        [(&endpoint.egress, WORKLOAD_EGRESS_OPEN), (&endpoint.ingress, WORKLOAD_INGRESS_OPEN)]
    {
        if direction.is_open() {
            flags |= open;
        }
    }
    let mut policy = Arc::new(entries);
    match sets.get_key_value(&policy) {
        Some((known, ())) => policy = known.clone(),
        None => {
            sets.insert(policy.clone(), ());
        }
    }
    DesiredWorkload {
        name: workload.name.clone(),
        identity: party.identity.0,
        flags,
        policy,
        egress: endpoint.egress.rest(),
        ingress: endpoint.ingress.rest(),
    }
}

/// Entries as keys of the trie. Entries of one peer and protocol never overlap, so that the longest
/// prefix is the only one that matches.
fn entries_of(policy: &DirectionPolicy, direction: u8, entries: &mut PolicyEntries) {
    for entry in policy.kernel_entries() {
        let identity = match entry.peer {
            Peer::Any => ANY_IDENTITY,
            Peer::Identity(number) => number.0,
        };
        let protocol = match entry.protocol {
            weft_policy::Protocol::Any => 0,
            weft_policy::Protocol::Number(number) => number,
        };
        for (port, bits) in entry.ports.prefixes() {
            let data = PolicyKey { set: 0, identity, direction, protocol, port_be: port.to_be() };
            entries.insert(Prefix { length: POLICY_PREFIX + u32::from(bits), data }, entry.verdict);
        }
    }
}

#[cfg(test)]
mod tests;
