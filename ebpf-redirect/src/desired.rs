// SPDX-License-Identifier: Apache-2.0
//! What the tables should hold for a state: plain values, computed without a look at the kernel.
//!
//! The tables are persistent maps. Those of the next state share with the last ones what a change does not
//! touch, so that computing them, and comparing them with what the kernel was brought to, costs what the
//! change costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;
use weft_ebpf_common::{
    Verdict,
    layout::{Address, Endpoint, ServiceKey},
};
use weft_ir::{
    Changes, IdentityNumber, ObjectName, Protocol, Resource, ResourceKey, Service, ServicePort, Snapshot,
    Workload,
};
use weft_policy::{
    EndpointPolicy, PolicySet,
    capture::{self, ServiceView, Services},
};

use crate::bpf::Prefix;

mod policy;

/// The port of DNS.
const DNS: u16 = 53;

pub use policy::PolicyEntries;

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

/// A workload of this node.
#[derive(Clone, Debug)]
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
    /// What the policy was made from.
    source: Arc<EndpointPolicy>,
}

/// The tables of a node.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Services by address and port; nothing for an address itself, whatever the port.
    pub services: OrdMap<ServiceKey, Option<Arc<DesiredService>>>,
    /// Addresses and TCP ports whose connections go to the proxy.
    pub kept: OrdSet<(IpAddr, u16)>,
    /// Workloads of this node by address.
    pub workloads: BTreeMap<IpAddr, DesiredWorkload>,
    /// Identities of addresses and prefixes.
    pub identities: OrdMap<Prefix<Address>, u32>,
    /// Addresses at which a cache of this node answers for DNS.
    local_dns: BTreeSet<IpAddr>,
    /// The workloads of this node.
    local: OrdMap<ResourceKey, Arc<Resource>>,
    snapshot: Snapshot,
    views: Services,
    policies: PolicySet,
}

impl DesiredWorkload {
    /// Whether both have the same policy, as one object.
    pub(crate) fn has_policy_of(&self, other: &DesiredWorkload) -> bool {
        Arc::ptr_eq(&self.policy, &other.policy)
    }
}

impl Desired {
    /// The tables of a node of which nothing is known.
    pub fn empty(node: &str) -> Desired {
        let policies = PolicySet::empty(node);
        let identities =
            policies.directory().identities().map(|(prefix, number)| (address_prefix(prefix), number.0));
        Desired {
            services: OrdMap::new(),
            kept: OrdSet::new(),
            workloads: BTreeMap::new(),
            identities: identities.collect(),
            local_dns: BTreeSet::new(),
            local: OrdMap::new(),
            snapshot: Snapshot::default(),
            views: Services::default(),
            policies,
        }
    }

    /// The tables for a state, whose parts are all of one revision.
    #[must_use]
    pub fn next(&self, snapshot: &Snapshot, services: &Services, policies: &PolicySet) -> Desired {
        let mut next = self.clone();
        next.snapshot = snapshot.clone();
        next.views = services.clone();
        next.policies = policies.clone();
        next.follow_identities(&self.policies);
        for name in services.changed_since(&self.views) {
            let of = |views: &Services| views.find(&name).and_then(ServiceView::service).map(keys);
            let touched: BTreeSet<ServiceKey> =
                of(&self.views).into_iter().chain(of(services)).flatten().collect();
            touched.into_iter().for_each(|key| next.settle_service(key));
        }
        next.follow_workloads(&Changes::between(&self.snapshot, snapshot));
        next
    }

    /// The revision of the state.
    pub fn revision(&self) -> u64 {
        self.snapshot.revision
    }

    /// Prefixes inside of the cluster, where the client's own address needs no translation.
    pub fn cluster(&self) -> impl Iterator<Item = IpNet> {
        self.policies.directory().cluster()
    }

    /// Whether those are the same as in other tables. May say no where they are.
    pub fn has_cluster_of(&self, other: &Desired) -> bool {
        self.policies.directory().has_cluster_of(other.policies.directory())
    }

    /// The node's addresses as the state has them.
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.policies.directory().node_addresses()
    }

    /// Whether connections to a port of the address go to the proxy.
    pub fn keeps(&self, address: IpAddr) -> bool {
        self.kept.range((address, 0)..=(address, u16::MAX)).next().is_some()
    }

    /// Makes addresses of the node's devices the node's, in later tables too.
    pub fn set_device_addresses(&mut self, devices: &[IpAddr]) {
        if !self.policies.directory().has_device_addresses(devices) {
            let policies = self.policies.with_device_addresses(devices);
            let last = std::mem::replace(&mut self.policies, policies);
            self.follow_identities(&last);
        }
    }

    /// Leaves DNS at these addresses to the cache of this node that has them, in later tables too: translated, it
    /// would be asked by nobody. What has a route goes to the proxy all the same.
    pub fn set_local_dns(&mut self, addresses: &BTreeSet<IpAddr>) {
        let last = std::mem::replace(&mut self.local_dns, addresses.clone());
        for address in last.symmetric_difference(addresses) {
            let whole = ServiceKey { address: (*address).into(), ..ServiceKey::default() };
            self.settle_service(whole);
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                self.settle_service(ServiceKey {
                    port_be: DNS.to_be(),
                    protocol: protocol.number(),
                    ..whole
                });
            }
        }
    }

    /// Takes over what the policies' directory says differently from that of the last ones.
    fn follow_identities(&mut self, last: &PolicySet) {
        for (prefix, number) in self.policies.directory().changes_since(last.directory()) {
            let key = address_prefix(prefix);
            match number {
                Some(number) => self.identities.insert(key, number.0),
                None => self.identities.remove(&key),
            };
        }
    }

    /// Enters what is behind a key now.
    fn settle_service(&mut self, key: ServiceKey) {
        let address = key.address.ip();
        if key.port_be == 0 && key.protocol == 0 {
            // What is sent past the hooks of sockets is the cache's too.
            match self.views.has_address(address) && !self.local_dns.contains(&address) {
                true => self.services.insert(key, None),
                false => self.services.remove(&key),
            };
            return;
        }
        let port = u16::from_be(key.port_be);
        let found = self
            .views
            .at(address, port, key.protocol)
            .map(|(view, service, port)| Arc::new(desired_service(view, service, port, address.is_ipv6())));
        let local = port == DNS && self.local_dns.contains(&address);
        let found = found.filter(|service| service.kept || !local);
        if key.protocol == Protocol::Tcp.number() {
            match found.as_ref().is_some_and(|service| service.kept) {
                true => self.kept.insert((address, port)),
                false => self.kept.remove(&(address, port)),
            };
        }
        match found {
            Some(service) => self.services.insert(key, Some(service)),
            None => self.services.remove(&key),
        };
    }

    /// The workloads of this node are looked at each time: they are few, and any change can change what
    /// their policies say.
    fn follow_workloads(&mut self, changes: &Changes) {
        let node = Arc::clone(self.policies.directory().node());
        let is_local = |resource: &Resource| matches!(resource, Resource::Workload(workload) if workload.node == node && !workload.host_network);
        for changed in changes {
            match changed.new.as_ref().filter(|new| is_local(new)) {
                Some(new) => self.local.insert(changed.key.clone(), Arc::clone(new)),
                None => self.local.remove(&changed.key),
            };
        }
        let last = std::mem::take(&mut self.workloads);
        for resource in self.local.values() {
            let Resource::Workload(workload) = resource.as_ref() else { continue };
            for address in workload.addresses.iter().map(IpAddr::to_canonical) {
                let party = self.policies.directory().find(address);
                // What is the node's own is not the pod's.
                if !party.is_local() {
                    continue;
                }
                // An address that several pods claim has the closed policy of whom nobody knows.
                let source = self.policies.endpoint(party.identity, &workload.ports);
                let known = last.get(&address).filter(|known| Arc::ptr_eq(&known.source, &source));
                let made = desired_workload(workload, party.identity, &source, known);
                self.workloads.insert(address, made);
            }
        }
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

/// Every key that stands for a part of a Service.
fn keys(service: &Service) -> Vec<ServiceKey> {
    let mut keys = Vec::new();
    for address in service.addresses.iter().map(IpAddr::to_canonical) {
        let whole = ServiceKey { address: address.into(), ..ServiceKey::default() };
        keys.push(whole);
        keys.extend(service.ports.iter().map(|port| ServiceKey {
            port_be: port.port.to_be(),
            protocol: port.protocol.number(),
            ..whole
        }));
    }
    keys
}

fn desired_service(view: &ServiceView, service: &Service, port: &ServicePort, ipv6: bool) -> DesiredService {
    let name =
        ServiceName { service: service.name.clone(), port: port.port, protocol: port.protocol.number() };
    let backend = |backend: std::net::SocketAddr| Endpoint {
        address: backend.ip().into(),
        port_be: backend.port().to_be(),
        pad: 0,
    };
    let backends = capture::backends(port, view.slices(), ipv6).into_iter().map(backend).collect();
    DesiredService { name, backends, kept: view.capture(port).is_redirected() }
}

fn desired_workload(
    workload: &Workload,
    identity: IdentityNumber,
    source: &Arc<EndpointPolicy>,
    known: Option<&DesiredWorkload>,
) -> DesiredWorkload {
    let (flags, policy) = match known {
        Some(known) => (known.flags, Arc::clone(&known.policy)),
        None => (policy::flags(source), Arc::new(policy::entries(source))),
    };
    let (name, source) = (workload.name.clone(), Arc::clone(source));
    let (egress, ingress) = (source.egress.rest(), source.ingress.rest());
    DesiredWorkload { name, identity: identity.0, flags, policy, egress, ingress, source }
}

#[cfg(test)]
mod tests;
