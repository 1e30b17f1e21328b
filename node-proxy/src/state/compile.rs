// SPDX-License-Identifier: Apache-2.0
//! Compiles snapshots of the IR into states, on the control thread.
//!
//! The compiler remembers what the last state was made of, and which part of it each resource went into: a
//! change compiles again what it names, and the rest is shared with the last state. The order is that of
//! dependence: limits, rules of routes (they hold limits), Services (they have rules attached), listeners
//! (they, too). Policies, with who is behind an address, follow each change by themselves.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use weft_ir::{BackendService, Changes, ObjectName, RateLimitTarget, ResourceKey, Route, Snapshot};
use weft_policy::capture::Services;

use self::{
    limits::Limits,
    listeners::Listeners,
    rules::{CompiledRoute, Rules},
    services::{Parts, Targets},
};
use super::MeshState;
use crate::route::slots::Slots;

mod limits;
mod listeners;
mod rules;
mod services;

/// A resource of which the node cannot use a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The resource.
    pub key: ResourceKey,
    /// What is wrong with it.
    pub(crate) error: String,
}

/// Turns snapshots into states.
#[derive(Debug)]
pub struct Compiler {
    snapshot: Snapshot,
    state: Arc<MeshState>,
    slots: Slots<BackendService>,
    limits: Limits,
    rules: Rules,
    targets: Targets,
    listeners: Listeners,
}

impl Compiler {
    /// A compiler for the node of this name, with an empty state. Listeners without addresses of their
    /// own listen on these, or on every address of the node where there are none.
    pub fn new(node: Arc<str>, listen_addresses: Vec<IpAddr>) -> Compiler {
        Compiler {
            snapshot: Snapshot::default(),
            state: Arc::new(MeshState::empty(&node)),
            slots: Slots::default(),
            limits: Limits::default(),
            rules: Rules::default(),
            targets: Targets::default(),
            listeners: Listeners::new(listen_addresses),
        }
    }

    /// Makes addresses of the node's devices the node's, in later states too; yields the last state with
    /// them, where they are not what they were.
    pub(crate) fn set_device_addresses(&mut self, devices: &[IpAddr]) -> Option<Arc<MeshState>> {
        if self.state.directory().has_device_addresses(devices) {
            return None;
        }
        let policies = Arc::new(self.state.policies.with_device_addresses(devices));
        self.state = Arc::new(MeshState { policies, ..MeshState::clone(&self.state) });
        Some(Arc::clone(&self.state))
    }

    /// The last state.
    pub(crate) fn state(&self) -> &Arc<MeshState> {
        &self.state
    }

    /// The state for a snapshot, and the resources that cannot be used in full. `undecoded` names
    /// resources of the snapshot that this node could not read.
    pub fn compile(
        &mut self,
        snapshot: &Snapshot,
        undecoded: &[ResourceKey],
    ) -> (Arc<MeshState>, Vec<Rejected>) {
        let changes = Changes::between(&self.snapshot, snapshot);
        let services = self.state.services.next(&changes);
        let mut touched: BTreeSet<ObjectName> =
            services.changed_since(&self.state.services).into_iter().collect();
        let limited = self.limits.update(&changes);
        let mut hosts = BTreeSet::new();
        for key in touched_rules(&changes, &limited, snapshot) {
            let old = self.rules.compile(&key, snapshot.resources.get(&key), &self.limits, &mut self.slots);
            let new = self.rules.find(&key);
            touched.extend(old.iter().chain(new).flat_map(CompiledRoute::services).cloned());
            hosts.extend(self.listeners.attach(&key, old.as_ref(), new));
        }
        touched.extend(limited.into_iter().filter_map(|target| match target {
            RateLimitTarget::Service(service) => Some(service),
            RateLimitTarget::Route { .. } => None,
        }));
        let parts = Parts { services: &services, rules: &self.rules, limits: &self.limits };
        for name in &touched {
            self.targets.compile(name, self.state.services.find(name), &parts, &mut self.slots);
        }
        self.listeners.compile(&changes, &hosts, snapshot, &self.rules);
        self.slots.settle();
        self.targets.settle();
        self.finish(snapshot, &changes, services, undecoded)
    }

    fn finish(
        &mut self,
        snapshot: &Snapshot,
        changes: &Changes,
        services: Services,
        undecoded: &[ResourceKey],
    ) -> (Arc<MeshState>, Vec<Rejected>) {
        let state = MeshState {
            position: snapshot.position(),
            services,
            targets: self.targets.by_address().clone(),
            upstreams: self.targets.upstreams().clone(),
            listen_points: Arc::clone(self.listeners.points()),
            policies: Arc::new(self.state.policies.next(snapshot, changes, undecoded)),
        };
        self.snapshot = snapshot.clone();
        self.state = Arc::new(state);
        let rejected = self.rules.rejected();
        let rejected = rejected.map(|(key, error)| Rejected { key: key.clone(), error: error.clone() });
        (Arc::clone(&self.state), rejected.collect())
    }
}

/// The rules that are to be compiled again: those that differ, and those whose limits do.
fn touched_rules(
    changes: &Changes,
    limited: &[RateLimitTarget],
    snapshot: &Snapshot,
) -> BTreeSet<ResourceKey> {
    let of_route = |target: &RateLimitTarget| match target {
        RateLimitTarget::Route { kind, name } => {
            let key = |rule| ResourceKey::Route { kind: *kind, origin: name.clone(), rule };
            Some(snapshot.resources.range(key(0)..=key(u32::MAX)).map(|(key, _)| key.clone()))
        }
        RateLimitTarget::Service(_) => None,
    };
    let differing = changes.routes().filter_map(|(old, new)| new.or(old)).map(Route::key);
    differing.chain(limited.iter().filter_map(of_route).flatten()).collect()
}

#[cfg(test)]
mod tests;
