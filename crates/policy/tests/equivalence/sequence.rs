// SPDX-License-Identifier: Apache-2.0
//! Random sequences of changes: what is carried from state to state is what a state gives from scratch.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample::select};
use weft_ir::{
    Changes, Direction, Endpoint, Endpoints, Identity, IdentityNumber, MeshDefaults, NamedPort, Node,
    ObjectName, Protocol, Resource, ResourceKey, Snapshot, Workload,
};
use weft_policy::{DirectionPolicy, EndpointPolicy, Party, Peer, PolicySet};

use crate::world::{ADDRESSES, NODE, PORTS, PROTOCOLS, policy, prefix};

/// Adds, replaces or removes one resource.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    resource: Resource,
    remove: bool,
}

/// Sequences of batches.
pub(crate) fn sequence() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step =
        || (resource(), prop::bool::weighted(0.3)).prop_map(|(resource, remove)| Step { resource, remove });
    (vec(step(), 8..20), vec(vec(step(), 1..4), 1..8)).prop_map(|(first, rest)| [vec![first], rest].concat())
}

fn resource() -> impl Strategy<Value = Resource> {
    let port =
        (select(vec!["web", "dns"]), select(PORTS.to_vec()), select(vec![Protocol::Tcp, Protocol::Udp]))
            .prop_map(|(name, port, protocol)| NamedPort { name: name.into(), port, protocol });
    let workload = (0..6_u32, addresses(0..3), 255..261_u32, any::<bool>(), vec(port, 0..3), 0..8).prop_map(
        |(name, addresses, identity, near, ports, host)| {
            Resource::Workload(Workload {
                name: ObjectName::new("any", &format!("w{name}")),
                node: if near { NODE.into() } else { "n2".into() },
                addresses,
                identity: IdentityNumber(identity),
                service_account: "default".into(),
                host_network: host == 0,
                owner: "".into(),
                ports,
            })
        },
    );
    let identity = (255..261_u32, select(vec!["a", "b"]), select(vec!["x", "y", "z"])).prop_map(
        |(number, namespace, app)| {
            let labels = [("k8s:io.kubernetes.pod.namespace", namespace), ("k8s:app", app)];
            let labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
            Resource::Identity(Identity { number: IdentityNumber(number), labels })
        },
    );
    let node = (select(vec![NODE, "n2", "n3"]), addresses(0..2), addresses(0..2), vec(prefix(), 0..2))
        .prop_map(|(name, addresses, ingress_addresses, pod_cidrs)| {
            Resource::Node(Node { name: name.into(), addresses, ingress_addresses, pod_cidrs })
        });
    let slice = (0..2_u32, addresses(0..3)).prop_map(|(name, addresses)| {
        let endpoint = |address| Endpoint { address, ready: true, serving: true, terminating: false };
        Resource::Endpoints(Endpoints {
            name: ObjectName::new("default", &format!("kubernetes-{name}")),
            service: "kubernetes".into(),
            ports: Vec::new(),
            endpoints: addresses.into_iter().map(endpoint).collect(),
        })
    });
    let defaults =
        vec(prefix(), 0..2).prop_map(|pod_cidrs| Resource::MeshDefaults(MeshDefaults { pod_cidrs }));
    prop_oneof![
        6 => workload,
        4 => identity,
        2 => node,
        1 => slice,
        1 => defaults,
        6 => (0..6_u32).prop_flat_map(policy).prop_map(Resource::Policy),
    ]
}

fn addresses(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<std::net::IpAddr>> {
    let texts: Vec<&str> = ADDRESSES.iter().copied().chain(["::ffff:10.244.0.1", "10.244.0.5"]).collect();
    vec(select(texts).prop_map(|text| text.parse().unwrap()), count)
}

/// Follows a sequence, with a question to some states before the next one comes and to others after.
pub(crate) fn check(batches: &[Vec<Step>]) {
    let mut snapshot = Snapshot::default();
    let mut set = PolicySet::empty(NODE);
    for (index, batch) in batches.iter().enumerate() {
        let mut next = Snapshot { revision: snapshot.revision + 1, ..snapshot.clone() };
        for step in batch {
            match step.remove {
                true => drop(next.resources.remove(&step.resource.key())),
                false => next.insert(step.resource.clone()),
            }
        }
        let changes = Changes::between(&snapshot, &next);
        // A policy that cannot be read now and then.
        let rejected = if index % 3 == 1 { vec![unread()] } else { Vec::new() };
        let following = set.next(&next, &changes, &rejected);
        same_directories(&set, &following);
        if index % 2 == 1 {
            // Nobody asked the state that is about to go before the one that follows was made of it.
            let last = if index % 3 == 2 { vec![unread()] } else { Vec::new() };
            same(&snapshot, &set, &PolicySet::compile_with_rejected(&snapshot, NODE, &last));
            same(&next, &following, &PolicySet::compile_with_rejected(&next, NODE, &rejected));
        }
        (set, snapshot) = (following, next);
    }
}

fn unread() -> ResourceKey {
    let kind = weft_ir::PolicyKind::NetworkPolicy;
    ResourceKey::Policy { kind, name: ObjectName::new("b", "unread"), index: 0 }
}

/// The differences between two directories lead from the one to the other.
fn same_directories(old: &PolicySet, new: &PolicySet) {
    let mut followed: BTreeMap<IpNet, IdentityNumber> = old.directory().identities().collect();
    for (prefix, number) in new.directory().changes_since(old.directory()) {
        let before = match number {
            Some(number) => followed.insert(prefix, number),
            None => followed.remove(&prefix),
        };
        assert_ne!(before, number, "{prefix} did not change");
    }
    assert_eq!(followed, new.directory().identities().collect());
}

fn same(snapshot: &Snapshot, one: &PolicySet, other: &PolicySet) {
    for address in ADDRESSES.iter().map(|text| text.parse().unwrap()) {
        let (found, expected) = (one.directory().find(address), other.directory().find(address));
        assert_eq!(name(one, found.identity), name(other, expected.identity), "{address}");
        let rest = |party: &Party| Party { identity: IdentityNumber(0), ..party.clone() };
        assert_eq!(rest(found), rest(expected), "{address}");
    }
    let table = |set: &PolicySet| -> BTreeMap<IpNet, String> {
        let identities = set.directory().identities();
        identities.map(|(prefix, number)| (prefix, name(set, number))).collect()
    };
    assert_eq!(table(one), table(other));
    let cluster = |set: &PolicySet| set.directory().cluster().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(cluster(one), cluster(other));
    let known = snapshot.workloads().map(|workload| (workload.identity, workload.ports.clone()));
    for (identity, ports) in known.chain([(IdentityNumber(8), Vec::new()), (IdentityNumber(0), Vec::new())]) {
        let (found, expected) = (one.endpoint(identity, &ports), other.endpoint(identity, &ports));
        same_policies((one, &found), (other, &expected));
    }
}

fn same_policies(one: (&PolicySet, &EndpointPolicy), other: (&PolicySet, &EndpointPolicy)) {
    assert_eq!(one.1.warnings, other.1.warnings);
    for direction in [Direction::Ingress, Direction::Egress] {
        let (found, expected) = (one.1.direction(direction), other.1.direction(direction));
        assert_eq!((found.enforced(), found.is_open()), (expected.enforced(), expected.is_open()));
        assert_eq!(entries(one.0, found), entries(other.0, expected));
        for address in ADDRESSES.iter().map(|text| text.parse().unwrap()) {
            for (protocol, port) in PROTOCOLS.iter().flat_map(|p| PORTS.iter().map(move |port| (*p, *port))) {
                let verdict = |set: &PolicySet, policy: &DirectionPolicy| {
                    let found = policy.l4(set.directory().find(address).identity, protocol, port);
                    (found.verdict.precedence, found.verdict.reason, found.policy)
                };
                assert_eq!(verdict(one.0, found), verdict(other.0, expected), "{address} {protocol} {port}");
            }
        }
    }
}

fn entries(set: &PolicySet, policy: &DirectionPolicy) -> Vec<String> {
    let text = |entry: &weft_policy::KernelEntry| {
        let peer = match entry.peer {
            Peer::Any => "anybody".to_owned(),
            Peer::Identity(number) => name(set, number),
        };
        let verdict = entry.verdict;
        let rule = set.rule(verdict.rule).map(|rule| rule.to_string());
        let said = (verdict.precedence, verdict.reason, rule);
        format!("{peer} {:?} {:?} {said:?}", entry.protocol, entry.ports)
    };
    let mut entries: Vec<String> = policy.kernel_entries().iter().map(text).collect();
    entries.sort_unstable();
    entries
}

/// An identity by what it means: numbers of prefixes depend on the order in which they were given.
fn name(set: &PolicySet, number: IdentityNumber) -> String {
    let local = number.0 >= 1 << 24;
    let labels = set.labels(number).filter(|_| local);
    let keys: Option<Vec<&Arc<str>>> = labels.map(|labels| labels.keys().collect());
    keys.map_or_else(|| number.0.to_string(), |keys| format!("{keys:?}"))
}
