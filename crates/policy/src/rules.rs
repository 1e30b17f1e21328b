// SPDX-License-Identifier: Apache-2.0
//! The policies of a state, with their peers resolved to identities when first asked for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use ipnet::IpNet;
use weft_ebpf_common::{
    identity,
    verdict::{TIER_ADMIN, TIER_BASELINE, TIER_NORMAL},
};
use weft_ir::{
    Entity, IdentityNumber, NamedPort, Peer, Policy, PolicyDirection, PolicyRule, Selector, Snapshot, Tier,
};

use crate::{
    Direction, EndpointPolicy,
    addresses::{PrefixNumbers, apiserver_addresses, apiserver_is_local, prefix_label},
    http::HttpCache,
    numbers::RuleNumbers,
    rejected::Rejected,
    selector::{IdentityTable, Labels, is_allocated, is_local_prefix, matches},
};

/// The peers of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerSet {
    /// Anybody, unknown addresses included.
    Any,
    /// These identities, in order.
    Identities(Arc<[IdentityNumber]>),
}

impl PeerSet {
    /// Whether everybody in `other` is in this set too.
    pub(crate) fn covers(&self, other: &PeerSet) -> bool {
        match (self, other) {
            (PeerSet::Any, _) => true,
            (PeerSet::Identities(_), PeerSet::Any) => false,
            (PeerSet::Identities(mine), PeerSet::Identities(theirs)) => {
                theirs.iter().all(|number| mine.binary_search(number).is_ok())
            }
        }
    }
}

/// A policy whose rules keep their resolved peers.
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

/// A rule and, once asked for, its peers.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) rule: PolicyRule,
    pub(crate) number: u32,
    peers: OnceLock<PeerSet>,
}

impl CompiledPolicy {
    /// `first` is the first of the policy's numbers.
    fn new(policy: &Policy, first: u32) -> CompiledPolicy {
        let mut next = first + 2;
        CompiledPolicy {
            name: policy.name.to_string().into(),
            tier: tier(policy.tier),
            priority: policy.priority,
            subject: policy.subject.clone(),
            ingress: Section::new(&policy.ingress, first, &mut next),
            egress: Section::new(&policy.egress, first + 1, &mut next),
        }
    }

    /// The rules of a direction.
    pub(crate) fn section(&self, direction: Direction) -> &Section {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl Section {
    /// Whether it closes the direction or has a rule.
    pub(crate) fn says_anything(&self) -> bool {
        self.default_deny || !self.allow.is_empty() || !self.deny.is_empty()
    }

    fn new(direction: &PolicyDirection, rest: u32, next: &mut u32) -> Section {
        let mut compiled = |rule: &PolicyRule| {
            let number = *next;
            *next += 1;
            CompiledRule { rule: rule.clone(), number, peers: OnceLock::new() }
        };
        Section {
            default_deny: direction.default_deny,
            rest,
            allow: direction.allow.iter().map(&mut compiled).collect(),
            deny: direction.deny.iter().map(compiled).collect(),
        }
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

/// What all endpoint policies of one state are compiled from.
#[derive(Debug)]
pub(crate) struct RuleSet {
    pub(crate) identities: IdentityTable,
    pub(crate) policies: Vec<CompiledPolicy>,
    /// The named ports of the workloads of each identity.
    pub(crate) named_ports: HashMap<IdentityNumber, BTreeSet<PortName>>,
    pub(crate) rejected: Rejected,
    pub(crate) http: HttpCache,
    pub(crate) numbers: RuleNumbers,
    prefixes: Vec<(IpNet, IdentityNumber)>,
    apiserver: BTreeSet<IpNet>,
    apiserver_is_local: bool,
    endpoints: Mutex<HashMap<EndpointKey, Arc<EndpointPolicy>>>,
}

/// Name, protocol number and port of a named port.
pub(crate) type PortName = (Arc<str>, u8, u16);

type EndpointKey = (IdentityNumber, BTreeSet<PortName>);

impl RuleSet {
    pub(crate) fn build(
        snapshot: &Snapshot,
        node: &str,
        numbers: &PrefixNumbers,
        rejected: Rejected,
        http: HttpCache,
        mut rule_numbers: RuleNumbers,
    ) -> RuleSet {
        let gone: Vec<_> =
            rule_numbers.keys().filter(|key| !snapshot.resources.contains_key(*key)).cloned().collect();
        gone.iter().for_each(|key| {
            rule_numbers.set(key, None);
        });
        let mut compiled =
            |policy: &Policy| CompiledPolicy::new(policy, rule_numbers.set(&policy.key(), Some(policy)));
        let local = numbers.iter().map(|(prefix, number)| (number, prefix_labels(prefix)));
        RuleSet {
            identities: IdentityTable::build(snapshot, local),
            policies: snapshot.policies().map(&mut compiled).collect(),
            numbers: rule_numbers,
            named_ports: named_ports(snapshot),
            rejected,
            http,
            prefixes: numbers.iter().collect(),
            apiserver: apiserver_addresses(snapshot).into_iter().map(IpNet::from).collect(),
            apiserver_is_local: apiserver_is_local(snapshot, node),
            endpoints: Mutex::default(),
        }
    }

    /// The policy of workloads with this identity and these named ports.
    pub(crate) fn endpoint(&self, number: IdentityNumber, ports: &[NamedPort]) -> Arc<EndpointPolicy> {
        let key = (number, ports.iter().map(port_name).collect());
        let cache = || self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache().get(&key) {
            return found.clone();
        }
        // Compiled outside of the lock: two callers may do the same work, and the first result stays.
        let compiled = Arc::new(EndpointPolicy::compile(self, number, &key.1));
        cache().entry(key).or_insert(compiled).clone()
    }

    /// The policies that select the identity.
    pub(crate) fn selecting(&self, number: IdentityNumber) -> Vec<&CompiledPolicy> {
        let Some(labels) = self.identities.labels(number) else { return Vec::new() };
        self.policies.iter().filter(|compiled| matches(&compiled.subject, labels)).collect()
    }

    /// The peers of a rule of this set.
    pub(crate) fn peers<'a>(&self, rule: &'a CompiledRule) -> &'a PeerSet {
        rule.peers.get_or_init(|| self.resolve(&rule.rule.peers))
    }

    fn resolve(&self, peers: &[Peer]) -> PeerSet {
        let mut numbers: BTreeSet<IdentityNumber> = BTreeSet::new();
        for peer in peers {
            match peer {
                Peer::Any | Peer::Entity(Entity::All) => return PeerSet::Any,
                Peer::Selector(selector) => numbers.extend(self.identities.select(selector)),
                Peer::Entity(entity) => {
                    numbers.extend(self.identities.numbers().filter(|number| self.is_in(*entity, *number)));
                }
                Peer::Cidr { cidr, except } => numbers.extend(self.inside(cidr, except)),
            }
        }
        PeerSet::Identities(numbers.into_iter().collect())
    }

    fn is_in(&self, entity: Entity, number: IdentityNumber) -> bool {
        match (entity, number.0) {
            (Entity::World, identity::WORLD) | (Entity::Host, identity::HOST) => true,
            (Entity::World, _) => is_local_prefix(number),
            (Entity::Cluster, identity::HOST | identity::REMOTE_NODE | identity::INGRESS) => true,
            (Entity::Cluster, identity::KUBE_APISERVER) => true,
            (Entity::Cluster, _) => is_allocated(number),
            // The number of an API server's node, which is a node all the same.
            (Entity::RemoteNode, identity::REMOTE_NODE | identity::KUBE_APISERVER) => true,
            (Entity::KubeApiserver, identity::KUBE_APISERVER) => true,
            (Entity::KubeApiserver, identity::HOST) => self.apiserver_is_local,
            (Entity::KubeApiserver, _) => self.is_outside_apiserver(number),
            (Entity::Ingress, identity::INGRESS) => true,
            (Entity::All, _) => true,
            (Entity::Host | Entity::RemoteNode | Entity::Ingress | Entity::None, _) => false,
        }
    }

    /// Whether the number stands for an API server outside of the cluster.
    fn is_outside_apiserver(&self, number: IdentityNumber) -> bool {
        let mut addresses = self.prefixes.iter().filter(|(prefix, _)| self.apiserver.contains(prefix));
        addresses.any(|(_, found)| *found == number)
    }

    /// The numbers of prefixes inside of `cidr` and outside of every exception.
    fn inside(&self, cidr: &IpNet, except: &[IpNet]) -> impl Iterator<Item = IdentityNumber> {
        let chosen = move |prefix: &IpNet| {
            cidr.contains(prefix) && !except.iter().any(|except| except.contains(prefix))
        };
        self.prefixes.iter().filter(move |(prefix, _)| chosen(prefix)).map(|(_, number)| *number)
    }
}

/// A named port in the form that can be compared and ordered.
pub(crate) fn port_name(port: &NamedPort) -> PortName {
    (port.name.clone(), port.protocol.number(), port.port)
}

/// Named ports by identity; host-network workloads have no identity of their own.
pub(crate) fn named_ports(snapshot: &Snapshot) -> HashMap<IdentityNumber, BTreeSet<PortName>> {
    let mut named: HashMap<IdentityNumber, BTreeSet<PortName>> = HashMap::new();
    for workload in snapshot.workloads() {
        if !workload.host_network && !workload.ports.is_empty() {
            named.entry(workload.identity).or_default().extend(workload.ports.iter().map(port_name));
        }
    }
    named
}

fn prefix_labels(prefix: IpNet) -> Labels {
    Labels::from([(prefix_label(prefix), Arc::from("")), ("reserved:world".into(), Arc::from(""))])
}
