// SPDX-License-Identifier: Apache-2.0
//! What the endpoint policies of one state are compiled from, and what of it a new state changes.

use std::{collections::BTreeSet, sync::Arc};

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use ipnet::IpNet;
use weft_ebpf_common::verdict::{TIER_ADMIN, TIER_BASELINE, TIER_NORMAL};
use weft_ir::{
    Changes, Direction, Entity, IdentityNumber, NamedPort, Peer, Policy, PolicyDirection, PolicyPort,
    PolicyRule, Protocol, ResourceKey, Selector, Tier,
};

use crate::{
    counted::Counted,
    directory::{Directory, prefix_label},
    groups::{Candidate, GroupId, Groups, PeerSet},
    http::HttpCache,
    numbers::RuleNumbers,
    rejected::Rejected,
    selector::{IdentityTable, Labels, is_allocated, matches, namespaces},
};

/// A policy, with what its endpoint policies depend on.
#[derive(Debug)]
pub(crate) struct CompiledPolicy {
    /// Namespace and name, as flows and logs show it.
    pub(crate) name: Arc<str>,
    pub(crate) tier: u8,
    pub(crate) priority: u16,
    pub(crate) subject: Selector,
    pub(crate) ingress: Section,
    pub(crate) egress: Section,
}

/// One direction of a policy.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) default_deny: bool,
    /// The number of what no rule names.
    pub(crate) rest: u32,
    pub(crate) allow: Vec<CompiledRule>,
    pub(crate) deny: Vec<CompiledRule>,
}

/// A rule and the groups of its peers.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) rule: PolicyRule,
    pub(crate) number: u32,
    groups: Vec<GroupId>,
}

impl CompiledPolicy {
    /// `first` is the first of the policy's numbers.
    fn new(policy: &Policy, first: u32, groups: &mut Groups) -> CompiledPolicy {
        let mut next = first + 2;
        CompiledPolicy {
            name: policy.name.to_string().into(),
            tier: tier(policy.tier),
            priority: policy.priority,
            subject: policy.subject.clone(),
            ingress: Section::new(&policy.ingress, first, &mut next, groups),
            egress: Section::new(&policy.egress, first + 1, &mut next, groups),
        }
    }

    /// The rules of a direction.
    pub(crate) fn section(&self, direction: Direction) -> &Section {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    fn rules(&self) -> impl Iterator<Item = &CompiledRule> {
        self.ingress.rules().chain(self.egress.rules())
    }

    /// The groups that its rules name.
    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.rules().flat_map(|rule| rule.groups.iter().copied())
    }

    /// The names of ports that are looked up at the peers.
    pub(crate) fn port_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let ports = self.egress.rules().flat_map(|rule| &rule.rule.ports);
        ports.filter_map(|port| if let PolicyPort::Named(name) = &port.port { Some(name) } else { None })
    }
}

impl Section {
    fn new(direction: &PolicyDirection, rest: u32, next: &mut u32, groups: &mut Groups) -> Section {
        let mut compiled = |rule: &PolicyRule| {
            let number = *next;
            *next += 1;
            let groups = rule.peers.iter().map(|peer| groups.enter(peer)).collect();
            CompiledRule { rule: rule.clone(), number, groups }
        };
        Section {
            default_deny: direction.default_deny,
            rest,
            allow: direction.allow.iter().map(&mut compiled).collect(),
            deny: direction.deny.iter().map(compiled).collect(),
        }
    }

    /// Whether it closes the direction or has a rule.
    pub(crate) fn says_anything(&self) -> bool {
        self.default_deny || !self.allow.is_empty() || !self.deny.is_empty()
    }

    fn rules(&self) -> impl Iterator<Item = &CompiledRule> {
        self.allow.iter().chain(&self.deny)
    }
}

/// The tier's number in verdicts.
fn tier(tier: Tier) -> u8 {
    match tier {
        Tier::Admin => TIER_ADMIN,
        Tier::Normal => TIER_NORMAL,
        Tier::Baseline => TIER_BASELINE,
    }
}

/// What all endpoint policies of one state are compiled from. A clone shares everything with the original.
#[derive(Clone, Debug)]
pub(crate) struct RuleSet {
    pub(crate) directory: Directory,
    pub(crate) identities: IdentityTable,
    pub(crate) named_ports: NamedPorts,
    pub(crate) rejected: Rejected,
    pub(crate) http: Arc<HttpCache>,
    pub(crate) numbers: RuleNumbers,
    policies: Policies,
    groups: Groups,
}

/// Name, protocol and port of a named port.
pub(crate) type PortName = (Arc<str>, Protocol, u16);

/// What differs between the rules of two states.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    /// Identities whose labels are new.
    pub(crate) identities: BTreeSet<IdentityNumber>,
    /// Groups with other identities.
    pub(crate) groups: BTreeSet<GroupId>,
    /// Whom policies select, or selected, that are new, gone or different.
    pub(crate) subjects: Vec<Selector>,
    /// Names of ports that other workloads have.
    pub(crate) port_names: BTreeSet<Arc<str>>,
    /// Other namespaces are closed.
    pub(crate) rejected: bool,
}

impl Stale {
    /// Whether the rules are the same.
    pub(crate) fn is_empty(&self) -> bool {
        self.identities.is_empty()
            && self.groups.is_empty()
            && self.subjects.is_empty()
            && self.port_names.is_empty()
            && !self.rejected
    }
}

impl RuleSet {
    /// The rules before the first state, for the node of this name.
    pub(crate) fn empty(node: &str) -> RuleSet {
        RuleSet {
            directory: Directory::empty(node),
            identities: IdentityTable::reserved(),
            named_ports: NamedPorts::default(),
            rejected: Rejected::default(),
            http: Arc::default(),
            numbers: RuleNumbers::default(),
            policies: Policies::default(),
            groups: Groups::default(),
        }
    }

    /// The rules of the next state, and what differs.
    pub(crate) fn next(
        &self,
        directory: Directory,
        changes: &Changes,
        rejected: Rejected,
    ) -> (RuleSet, Stale) {
        let mut next = RuleSet { directory, ..self.clone() };
        let mut stale = Stale { rejected: rejected != self.rejected, ..Stale::default() };
        next.rejected = rejected;
        next.change_identities(changes, &mut stale);
        next.change_prefixes(&self.directory, &mut stale);
        if !next.directory.has_apiservers_of(&self.directory) {
            next.groups.forget(&Peer::Entity(Entity::KubeApiserver), &mut stale.groups);
        }
        next.change_policies(changes, &mut stale);
        for (old, new) in changes.workloads() {
            next.named_ports.change(old, new, &mut stale.port_names);
        }
        (next, stale)
    }

    /// The policies that select the identity, in the order of their keys.
    pub(crate) fn selecting(&self, number: IdentityNumber) -> Vec<&CompiledPolicy> {
        let Some(labels) = self.identities.labels(number) else { return Vec::new() };
        self.policies.selecting(labels, self.identities.namespace(number))
    }

    /// The peers of a rule of this set.
    pub(crate) fn peers(&self, rule: &CompiledRule) -> PeerSet {
        match rule.rule.peers.iter().any(|peer| matches!(peer, Peer::Any | Peer::Entity(Entity::All))) {
            true => PeerSet::Any,
            false => self.groups.peers(&rule.groups, &self.identities, &self.directory),
        }
    }

    fn change_identities(&mut self, changes: &Changes, stale: &mut Stale) {
        for (old, new) in changes.identities() {
            let Some(number) = new.or(old).map(|identity| identity.number) else { continue };
            if is_allocated(number) {
                let labels = new.map(|identity| Arc::new(identity.labels.clone()));
                self.set_labels(number, labels, [None, None], &mut stale.groups);
                stale.identities.insert(number);
            }
        }
    }

    /// Each prefix with a number is an identity with labels of its own.
    fn change_prefixes(&mut self, old: &Directory, stale: &mut Stale) {
        let (before, now) = (old.numbers().prefixes(), self.directory.numbers().prefixes().clone());
        for item in before.diff(&now) {
            let (number, prefixes) = match item {
                DiffItem::Add(number, prefix) => (*number, [None, Some(*prefix)]),
                DiffItem::Update { old, new } => (*new.0, [Some(*old.1), Some(*new.1)]),
                DiffItem::Remove(number, prefix) => (*number, [Some(*prefix), None]),
            };
            let labels = prefixes[1].map(|prefix| Arc::new(prefix_labels(prefix)));
            self.set_labels(number, labels, prefixes, &mut stale.groups);
        }
    }

    /// Gives an identity its labels; `prefixes` are those that it stood and stands for.
    fn set_labels(
        &mut self,
        number: IdentityNumber,
        labels: Option<Arc<Labels>>,
        prefixes: [Option<IpNet>; 2],
        changed: &mut BTreeSet<GroupId>,
    ) {
        let old = self.identities.set(number, labels.clone());
        let old = old.as_deref().map(|labels| Candidate { number, labels, prefix: prefixes[0] });
        let new = labels.as_deref().map(|labels| Candidate { number, labels, prefix: prefixes[1] });
        self.groups.note(old, new, &self.directory, changed);
    }

    fn change_policies(&mut self, changes: &Changes, stale: &mut Stale) {
        for (old, new) in changes.policies() {
            let Some(key) = new.or(old).map(Policy::key) else { continue };
            stale.subjects.extend([old, new].into_iter().flatten().map(|policy| policy.subject.clone()));
            // What is new goes first, so that the groups of both stay.
            let first = self.numbers.set(&key, new);
            let compiled = new.map(|policy| Arc::new(CompiledPolicy::new(policy, first, &mut self.groups)));
            if let Some(gone) = self.policies.set(key, compiled) {
                gone.groups().for_each(|group| self.groups.leave(group));
            }
        }
        if !stale.subjects.is_empty() {
            self.http.sweep();
        }
    }
}

/// Policies by key, and by the namespaces whose workloads they can select.
#[derive(Clone, Debug, Default)]
struct Policies {
    by_key: OrdMap<ResourceKey, Arc<CompiledPolicy>>,
    by_namespace: OrdMap<Arc<str>, OrdSet<ResourceKey>>,
    anywhere: OrdSet<ResourceKey>,
}

impl Policies {
    /// Adds, replaces or removes a policy; yields the one that was there.
    fn set(&mut self, key: ResourceKey, policy: Option<Arc<CompiledPolicy>>) -> Option<Arc<CompiledPolicy>> {
        let old = self.by_key.remove(&key);
        if let Some(old) = &old {
            self.unlist(&key, &old.subject);
        }
        let Some(policy) = policy else { return old };
        match namespaces(&policy.subject) {
            Some(names) => names.iter().for_each(|name| {
                self.by_namespace.entry(name.clone()).or_default().insert(key.clone());
            }),
            None => drop(self.anywhere.insert(key.clone())),
        }
        self.by_key.insert(key, policy);
        old
    }

    fn unlist(&mut self, key: &ResourceKey, subject: &Selector) {
        let Some(names) = namespaces(subject) else {
            self.anywhere.remove(key);
            return;
        };
        for name in names {
            let Some(keys) = self.by_namespace.get_mut(name) else { continue };
            keys.remove(key);
            if keys.is_empty() {
                self.by_namespace.remove(name);
            }
        }
    }

    fn selecting(&self, labels: &Labels, namespace: Option<&Arc<str>>) -> Vec<&CompiledPolicy> {
        let of_namespace = namespace.and_then(|name| self.by_namespace.get(name)).into_iter().flatten();
        let keys: BTreeSet<&ResourceKey> = self.anywhere.iter().chain(of_namespace).collect();
        let policies = keys.into_iter().filter_map(|key| self.by_key.get(key));
        policies.map(|policy| &**policy).filter(|policy| matches(&policy.subject, labels)).collect()
    }
}

/// The named ports of the workloads of each identity; host-network workloads have none of their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamedPorts(OrdMap<IdentityNumber, Counted<PortName>>);

impl NamedPorts {
    /// The ports by identity.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IdentityNumber, &Counted<PortName>)> {
        self.0.iter().map(|(number, ports)| (*number, ports))
    }

    /// Follows the change of a workload; notes the names whose ports are not the same.
    fn change(
        &mut self,
        old: Option<&weft_ir::Workload>,
        new: Option<&weft_ir::Workload>,
        changed: &mut BTreeSet<Arc<str>>,
    ) {
        let of = |workload: Option<&weft_ir::Workload>| {
            let workload = workload.filter(|workload| !workload.host_network);
            let ports: BTreeSet<PortName> =
                workload.into_iter().flat_map(|workload| &workload.ports).map(port_name).collect();
            (workload.map(|workload| workload.identity), ports)
        };
        let ((before, gone), (now, come)) = (of(old), of(new));
        if (before, &gone) == (now, &come) {
            return;
        }
        for (number, port) in now.into_iter().flat_map(|number| come.iter().map(move |port| (number, port))) {
            if self.0.entry(number).or_default().add(port.clone()) {
                changed.insert(port.0.clone());
            }
        }
        let Some(number) = before else { return };
        let Some(ports) = self.0.get_mut(&number) else { return };
        for port in gone {
            if ports.remove(&port) {
                changed.insert(port.0);
            }
        }
        if ports.is_empty() {
            self.0.remove(&number);
        }
    }
}

/// A named port in the form that can be compared and ordered.
pub(crate) fn port_name(port: &NamedPort) -> PortName {
    (port.name.clone(), port.protocol, port.port)
}

fn prefix_labels(prefix: IpNet) -> Labels {
    Labels::from([(prefix_label(prefix), Arc::from("")), ("reserved:world".into(), Arc::from(""))])
}
