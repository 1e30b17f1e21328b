// SPDX-License-Identifier: Apache-2.0
//! All that a worker needs to know at one revision.
//!
//! A state never changes. The control thread compiles a new one from each snapshot of the IR (see
//! [`compile`]), reusing every part whose resources are the same; a worker swaps its handle between two
//! requests, and requests that run keep the state that they started with.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::Vector;
use ipnet::IpNet;
use weft_ebpf_common::identity;
use weft_flow_export::enrich::Directory;
use weft_ir::{IdentityNumber, Node, Snapshot, Workload, stream::Position};
use weft_policy::{
    PolicySet,
    capture::{Capture, Services},
};

pub(crate) mod cluster;
pub(crate) mod compile;
mod held;
mod listeners;
pub(crate) mod permit;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

pub(crate) use held::Held;
pub(crate) use listeners::ListenPoint;

use crate::{
    route::{RouteTable, ratelimit::RateLimiter, slots::Slot},
    state::cluster::Cluster,
};

/// The whole state at one revision.
#[derive(Debug)]
pub struct MeshState {
    /// The revision of the snapshot that it was compiled from; 0 before the first.
    pub(crate) position: Position,
    pub(crate) peers: Arc<Peers>,
    pub(crate) services: Services,
    pub(crate) targets: TargetMap,
    pub(crate) clusters: Vector<Option<Arc<Cluster>>>,
    pub(crate) listen_points: Arc<BTreeMap<SocketAddr, Arc<ListenPoint>>>,
    pub(crate) policies: Arc<PolicySet>,
    pub(crate) directory: Arc<Directory>,
}

/// Who is behind an address.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The security identity.
    pub(crate) identity: IdentityNumber,
    /// Where it is, as seen from this node.
    pub(crate) place: Place,
    /// The workload, if it is one.
    pub(crate) workload: Option<Arc<Workload>>,
}

/// Where a peer is, as seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A pod of this node.
    LocalPod,
    /// A pod of another node.
    RemotePod,
    /// This node itself.
    Host,
    /// Another node.
    OtherNode,
    /// Outside of the cluster.
    Outside,
    /// An address of the cluster that nothing is known about.
    Unknown,
}

/// Peers by address.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: HashMap<IpAddr, Peer>,
    pod_cidrs: Vec<IpNet>,
    /// This node, once the controller has said which it is.
    own: Option<Arc<Node>>,
}

/// Targets by the address and port of a Service.
pub(crate) type TargetMap = imbl::HashMap<(IpAddr, u16), Arc<ServiceTarget>>;

/// What a port of a Service's address stands for.
#[derive(Debug)]
pub(crate) struct ServiceTarget {
    /// Whether connections to it are looked into, and why.
    pub(crate) capture: Capture,
    /// Where requests go when no route is attached.
    pub(crate) cluster: Slot,
    /// The routes that are attached.
    pub(crate) routes: Option<Arc<RouteTable>>,
    /// Rate limits on the Service.
    pub(crate) limits: Vec<Arc<RateLimiter>>,
}

impl MeshState {
    /// What a node knows before its first snapshot: nothing.
    pub fn empty(node: &str) -> MeshState {
        MeshState {
            position: Position::default(),
            peers: Arc::default(),
            services: Services::default(),
            targets: TargetMap::default(),
            clusters: Vector::new(),
            listen_points: Arc::default(),
            policies: Arc::new(PolicySet::compile(&Snapshot::default(), node)),
            directory: Arc::new(Directory::build(&Snapshot::default(), node)),
        }
    }

    /// Who is behind an address.
    pub(crate) fn peer(&self, address: IpAddr) -> Peer {
        let mut peer = self.peers.find(address);
        if matches!(peer.place, Place::Outside | Place::Unknown) {
            // Prefixes that policies name have numbers of their own, and the node's devices have addresses
            // that no object names: a bridge's, inside of the pods' network.
            let number = self.policies.identity_of(address);
            if number.0 == identity::HOST {
                peer.place = Place::Host;
            }
            if peer.place != Place::Unknown {
                peer.identity = number;
            }
        }
        peer
    }

    /// Names for addresses, for flows.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The policies of the same revision.
    pub(crate) fn policies(&self) -> &Arc<PolicySet> {
        &self.policies
    }

    /// What a port of a Service's address stands for.
    pub(crate) fn service(&self, address: SocketAddr) -> Option<&Arc<ServiceTarget>> {
        self.targets.get(&(address.ip(), address.port()))
    }

    /// The cluster in a slot; nothing where the Service or its port does not exist.
    pub(crate) fn cluster(&self, slot: Slot) -> Option<&Arc<Cluster>> {
        let cluster = self.clusters.get(slot.index as usize)?.as_ref()?;
        (cluster.slot == slot).then_some(cluster)
    }

    /// The addresses on which Gateways listen, and what is served there. Port 0.0.0.0 and `[::]` stand
    /// for every address of the node.
    pub(crate) fn listen_points(&self) -> &BTreeMap<SocketAddr, Arc<ListenPoint>> {
        &self.listen_points
    }

    /// The address of this node of the given family from which traffic of a Gateway goes onward: an
    /// ingress address, else the node's own.
    pub(crate) fn ingress_address(&self, ipv6: bool) -> Option<IpAddr> {
        let own = self.peers.own.as_ref()?;
        let all = own.ingress_addresses.iter().chain(&own.addresses);
        all.copied().find(|address| address.is_ipv6() == ipv6)
    }

    /// The node's own address of the given family.
    pub(crate) fn node_address(&self, ipv6: bool) -> Option<IpAddr> {
        let own = self.peers.own.as_ref()?;
        own.addresses.iter().copied().find(|address| address.is_ipv6() == ipv6)
    }
}

impl Peers {
    fn of(snapshot: &Snapshot, local: &str) -> Peers {
        let mut peers = Peers::default();
        // A pod of the host's network has the node's addresses, and so the node's identity.
        for workload in snapshot.workloads().filter(|workload| !workload.host_network) {
            let peer = Peer::of_workload(workload.clone(), local);
            peers.known.extend(workload.addresses.iter().map(|address| (*address, peer.clone())));
        }
        for node in snapshot.nodes() {
            let (number, place) = match *node.name == *local {
                true => (identity::HOST, Place::Host),
                false => (identity::REMOTE_NODE, Place::OtherNode),
            };
            let peer = Peer::of_node(number, place);
            peers.known.extend(node.addresses.iter().map(|address| (*address, peer.clone())));
            let ingress = Peer::of_node(identity::INGRESS, place);
            peers.known.extend(node.ingress_addresses.iter().map(|address| (*address, ingress.clone())));
            if place == Place::Host {
                peers.own = Some(Arc::new(node.clone()));
            }
        }
        peers.pod_cidrs = snapshot.mesh_defaults().map(|mesh| mesh.pod_cidrs.clone()).unwrap_or_default();
        peers
    }

    fn find(&self, address: IpAddr) -> Peer {
        if let Some(peer) = self.known.get(&address) {
            return peer.clone();
        }
        if address.is_loopback() {
            return Peer::of_node(identity::HOST, Place::Host);
        }
        if self.pod_cidrs.iter().any(|cidr| cidr.contains(&address)) {
            return Peer::of_node(identity::UNKNOWN, Place::Unknown);
        }
        Peer::of_node(identity::WORLD, Place::Outside)
    }
}

impl Peer {
    /// Traffic that entered through a Gateway of this node.
    pub(crate) fn ingress() -> Peer {
        Peer::of_node(identity::INGRESS, Place::Host)
    }

    fn of_node(number: u32, place: Place) -> Peer {
        Peer { identity: IdentityNumber(number), place, workload: None }
    }

    fn of_workload(workload: Workload, own_node: &str) -> Peer {
        let place = if *workload.node == *own_node { Place::LocalPod } else { Place::RemotePod };
        Peer { identity: workload.identity, place, workload: Some(Arc::new(workload)) }
    }
}
