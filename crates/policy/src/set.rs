// SPDX-License-Identifier: Apache-2.0
//! Everything about policy in one state, for one node.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use imbl::OrdMap;
use weft_ir::{Changes, IdentityNumber, NamedPort, ResourceKey, Snapshot};

use crate::{
    Directory, EndpointPolicy, Labels,
    groups::GroupId,
    numbers::RuleName,
    rejected::Rejected,
    rules::{PortName, RuleSet, Stale, port_name},
    selector::matches,
};

/// The policies of one revision. A clone shares everything with the original.
#[derive(Clone, Debug)]
pub struct PolicySet {
    rules: Arc<RuleSet>,
    endpoints: Arc<Mutex<Endpoints>>,
}

/// Endpoint policies that were asked for, by identity and named ports.
type Endpoints = OrdMap<(IdentityNumber, BTreeSet<PortName>), Arc<Compiled>>;

/// An endpoint policy, and what it was made of besides the policies that select the identity.
#[derive(Debug)]
struct Compiled {
    policy: Arc<EndpointPolicy>,
    groups: BTreeSet<GroupId>,
    port_names: BTreeSet<Arc<str>>,
}

impl PolicySet {
    /// The policies before the first state, for the node of this name: none.
    pub fn empty(node: &str) -> PolicySet {
        PolicySet { rules: Arc::new(RuleSet::empty(node)), endpoints: Arc::default() }
    }

    /// Compiles the policies of a state for the node of this name.
    pub fn compile(snapshot: &Snapshot, node: &str) -> PolicySet {
        PolicySet::compile_with_rejected(snapshot, node, &[])
    }

    /// The same, with the keys of resources that this node could not read. A policy among them that the
    /// state holds no earlier version of closes all workloads of its namespace.
    pub fn compile_with_rejected(snapshot: &Snapshot, node: &str, rejected: &[ResourceKey]) -> PolicySet {
        let changes = Changes::between(&Snapshot::default(), snapshot);
        PolicySet::empty(node).next(snapshot, &changes, rejected)
    }

    /// The policies of the next state, which differs from this one's by `changes`. What they do not touch is
    /// the same: prefixes keep their numbers, HTTP rules stay compiled, and the policy of an endpoint stays
    /// the same object where nothing that it is made of changed.
    pub fn next(&self, snapshot: &Snapshot, changes: &Changes, rejected: &[ResourceKey]) -> PolicySet {
        let directory = self.rules.directory.next(snapshot, changes);
        let (rules, stale) = self.rules.next(directory, changes, Rejected::of(rejected, snapshot));
        let mut endpoints = self.endpoints().clone();
        if !stale.is_empty() {
            let gone: Vec<_> = endpoints
                .iter()
                .filter(|((number, _), compiled)| self.is_stale(*number, compiled, &rules, &stale))
                .map(|(key, _)| key.clone())
                .collect();
            for key in &gone {
                endpoints.remove(key);
            }
        }
        PolicySet { rules: Arc::new(rules), endpoints: Arc::new(Mutex::new(endpoints)) }
    }

    /// The same set, and its later states, on a node whose devices have these addresses: what no object has
    /// is `host`, also inside of a pods' network (a bridge, a tunnel, `docker0`).
    pub fn with_device_addresses(&self, devices: &[IpAddr]) -> PolicySet {
        let directory = self.rules.directory.with_device_addresses(devices);
        let mut rules = RuleSet::clone(&self.rules);
        rules.directory = directory;
        // Rules speak of no device.
        PolicySet { rules: Arc::new(rules), endpoints: self.endpoints.clone() }
    }

    /// Who is behind which address.
    pub fn directory(&self) -> &Directory {
        &self.rules.directory
    }

    /// The labels of an identity; none for `unknown`.
    pub fn labels(&self, identity: IdentityNumber) -> Option<&Arc<Labels>> {
        self.rules.identities.labels(identity)
    }

    /// The rule that a number in a verdict stands for; none once its policy is long gone.
    pub fn rule(&self, number: u32) -> Option<RuleName> {
        self.rules.numbers.name(number)
    }

    /// The policy of workloads with this identity and these named ports: the same object as in an earlier
    /// state where nothing that it is made of changed. Compiled at the first call and kept, behind a lock:
    /// data workers keep the result instead of asking for each request.
    pub fn endpoint(&self, identity: IdentityNumber, ports: &[NamedPort]) -> Arc<EndpointPolicy> {
        let key = (identity, ports.iter().map(port_name).collect());
        if let Some(found) = self.endpoints().get(&key) {
            return found.policy.clone();
        }
        // Compiled outside of the lock: two callers may do the same work, and the first result stays.
        let policies = self.rules.selecting(identity);
        let compiled = Compiled {
            policy: Arc::new(EndpointPolicy::compile(&self.rules, identity, &key.1)),
            groups: policies.iter().flat_map(|policy| policy.groups()).collect(),
            port_names: policies.iter().flat_map(|policy| policy.port_names()).cloned().collect(),
        };
        self.endpoints().entry(key).or_insert(Arc::new(compiled)).policy.clone()
    }

    fn endpoints(&self) -> std::sync::MutexGuard<'_, Endpoints> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the policy is not the one that `rules` would give.
    fn is_stale(&self, number: IdentityNumber, compiled: &Compiled, rules: &RuleSet, stale: &Stale) -> bool {
        let namespace = rules.identities.namespace(number).map(AsRef::as_ref);
        let selected =
            |subject| rules.identities.labels(number).is_some_and(|labels| matches(subject, labels));
        stale.identities.contains(&number)
            || stale.rejected && self.rules.rejected.closes(namespace) != rules.rejected.closes(namespace)
            || stale.subjects.iter().any(selected)
            || !compiled.groups.is_disjoint(&stale.groups)
            || !compiled.port_names.is_disjoint(&stale.port_names)
    }
}
