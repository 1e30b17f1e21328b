// SPDX-License-Identifier: Apache-2.0
//! What one change costs a node's directory and policies, by the size of the cluster.
//!
//! `cargo run --release -p weft-policy --example change_cost`
#![allow(clippy::print_stdout, reason = "the numbers are what was asked for")]

use std::{hint::black_box, net::Ipv4Addr, sync::Arc, time::Instant};

use weft_ir::{
    Changes, Identity, IdentityNumber, ObjectName, Operator, Peer, Policy, PolicyDirection, PolicyKind,
    PolicyRule, Requirement, Resource, Selector, Snapshot, Tier, Workload,
};
use weft_policy::PolicySet;

const NODE: &str = "n0";
const NAMESPACES: u32 = 100;
/// Pods of this node: Kubernetes' limit.
const LOCAL: u32 = 110;
const ROUNDS: u32 = 100;

fn selector(namespace: u32, app: u32) -> Selector {
    let requirement = |key: &str, value: String| Requirement {
        key: key.into(),
        operator: Operator::In(vec![value.into()]),
    };
    Selector {
        requirements: vec![
            requirement("k8s:io.kubernetes.pod.namespace", format!("ns{namespace}")),
            requirement("any:app", format!("app{app}")),
        ],
    }
}

fn identity(number: u32) -> Resource {
    let labels = [
        ("k8s:io.kubernetes.pod.namespace", format!("ns{}", number % NAMESPACES)),
        ("k8s:app", format!("app{}", number / NAMESPACES)),
    ];
    let labels = labels.into_iter().map(|(key, value)| (Arc::from(key), Arc::from(value))).collect();
    Resource::Identity(Identity { number: IdentityNumber(256 + number), labels })
}

fn pod(number: u32, identities: u32) -> Resource {
    let identity = number % identities;
    Resource::Workload(Workload {
        name: ObjectName::new(&format!("ns{}", identity % NAMESPACES), &format!("pod{number}")),
        node: if number < LOCAL { NODE.into() } else { format!("n{}", number / LOCAL).into() },
        addresses: vec![Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + number).into()],
        identity: IdentityNumber(256 + identity),
        service_account: "default".into(),
        host_network: false,
        owner: "".into(),
        ports: Vec::new(),
    })
}

fn policy(number: u32) -> Resource {
    let (namespace, app) = (number % NAMESPACES, number / NAMESPACES);
    let peers = vec![Peer::Selector(selector(namespace, app + 1))];
    let rule = PolicyRule { peers, ports: Vec::new(), authenticate: false };
    Resource::Policy(Policy {
        kind: PolicyKind::NetworkPolicy,
        name: ObjectName::new(&format!("ns{namespace}"), &format!("policy{number}")),
        index: 0,
        tier: Tier::Normal,
        priority: 0,
        subject: selector(namespace, app),
        ingress: PolicyDirection { default_deny: true, allow: vec![rule], deny: Vec::new() },
        egress: PolicyDirection::default(),
    })
}

/// Asks for the policy of every pod of this node, as the kernel's tables do.
fn ask(set: &PolicySet, pods: u32, identities: u32) {
    for number in 0..LOCAL.min(pods) {
        black_box(set.endpoint(IdentityNumber(256 + number % identities), &[]));
    }
}

fn main() {
    println!("pods identities policies: from scratch; then microseconds for one new pod, identity, policy");
    for pods in [1_000, 10_000, 100_000] {
        let (identities, policies) = (pods / 20, pods / 50);
        let mut snapshot = Snapshot::default();
        (0..identities).map(identity).for_each(|resource| snapshot.insert(resource));
        (0..pods).map(|number| pod(number, identities)).for_each(|resource| snapshot.insert(resource));
        (0..policies).map(policy).for_each(|resource| snapshot.insert(resource));
        let begun = Instant::now();
        let set = PolicySet::compile(&snapshot, NODE);
        ask(&set, pods, identities);
        let scratch = begun.elapsed();
        let changes = [pod(pods, identities), identity(identities), policy(policies)];
        let costs = changes.map(|resource| {
            let mut next = snapshot.clone();
            next.insert(resource);
            let changes = Changes::between(&snapshot, &next);
            let begun = Instant::now();
            for _ in 0..ROUNDS {
                ask(&set.next(&next, &changes, &[]), pods, identities);
            }
            (begun.elapsed() / ROUNDS).as_micros()
        });
        println!("{pods} {identities} {policies}: {scratch:?}; {costs:?}");
    }
}
