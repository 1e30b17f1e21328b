// SPDX-License-Identifier: Apache-2.0
//! All that a worker needs to know at one revision.
//!
//! A state never changes. The control thread compiles a new one from each snapshot of the IR (see
//! [`compile`]), reusing every part whose resources are the same; a worker swaps its handle between two
//! requests, and requests that run keep the state that they started with.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::Vector;
use weft_ir::stream::Position;
use weft_policy::{
    Directory, Party, PolicySet,
    capture::{Capture, Services},
};

pub(crate) mod compile;
mod held;
mod listeners;
pub(crate) mod permit;
#[cfg(test)]
mod tests;
pub(crate) mod upstream;
#[cfg(test)]
pub(crate) mod world;

pub(crate) use held::Held;
pub(crate) use listeners::ListenPoint;

use crate::{
    route::{RouteTable, ratelimit::RateLimiter, slots::Slot},
    state::upstream::Upstream,
};

/// The whole state at one revision.
#[derive(Clone, Debug)]
pub struct MeshState {
    /// The revision of the snapshot that it was compiled from; 0 before the first.
    pub(crate) position: Position,
    pub(crate) services: Services,
    pub(crate) targets: TargetMap,
    pub(crate) upstreams: Vector<Option<Arc<Upstream>>>,
    pub(crate) listen_points: Arc<BTreeMap<SocketAddr, Arc<ListenPoint>>>,
    pub(crate) policies: Arc<PolicySet>,
}

/// Targets by the address and port of a Service.
pub(crate) type TargetMap = imbl::HashMap<(IpAddr, u16), Arc<ServiceTarget>>;

/// What a port of a Service's address stands for.
#[derive(Debug)]
pub(crate) struct ServiceTarget {
    /// Whether connections to it are looked into, and why.
    pub(crate) capture: Capture,
    /// Where requests go when no route is attached.
    pub(crate) upstream: Slot,
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
            services: Services::default(),
            targets: TargetMap::default(),
            upstreams: Vector::new(),
            listen_points: Arc::default(),
            policies: Arc::new(PolicySet::empty(node)),
        }
    }

    /// Who is behind an address.
    pub fn peer(&self, address: IpAddr) -> &Party {
        self.directory().find(address)
    }

    /// Who is behind which address, with names for flows.
    pub fn directory(&self) -> &Directory {
        self.policies.directory()
    }

    /// The policies of the same revision.
    pub fn policies(&self) -> &Arc<PolicySet> {
        &self.policies
    }

    /// The Services of the same revision.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// What a port of a Service's address stands for.
    pub(crate) fn service(&self, address: SocketAddr) -> Option<&Arc<ServiceTarget>> {
        self.targets.get(&(address.ip(), address.port()))
    }

    /// The upstream in a slot; nothing where the Service or its port does not exist.
    pub(crate) fn upstream(&self, slot: Slot) -> Option<&Arc<Upstream>> {
        let upstream = self.upstreams.get(slot.index as usize)?.as_ref()?;
        (upstream.slot == slot).then_some(upstream)
    }

    /// The addresses on which Gateways listen, and what is served there. Port 0.0.0.0 and `[::]` stand
    /// for every address of the node.
    pub(crate) fn listen_points(&self) -> &BTreeMap<SocketAddr, Arc<ListenPoint>> {
        &self.listen_points
    }
}
