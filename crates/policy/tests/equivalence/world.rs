// SPDX-License-Identifier: Apache-2.0
//! A small world in which random rules meet often.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::select};
use weft_ir::{
    Endpoint, Endpoints, Entity, HttpRule, Identity, IdentityNumber, L7Rules, MeshDefaults, NamedPort, Node,
    ObjectName, Operator, Peer, Policy, PolicyDirection, PolicyKind, PolicyPort, PolicyRule, PortRule,
    Protocol, Requirement, Resource, Selector, Snapshot, Tier, Workload,
};

pub(crate) const NODE: &str = "n1";
pub(crate) const POD_CIDR: &str = "10.244.0.0/16";

/// Addresses of workloads (the last part of their identity), nodes, and strangers.
pub(crate) const ADDRESSES: &[&str] = &[
    "10.244.0.1",
    "10.244.0.2",
    "10.244.0.3",
    "10.244.0.4",
    "fd00::4",    // workloads
    "10.244.9.9", // nobody in the pod CIDR
    "192.168.0.1",
    "127.0.0.1",   // this node
    "192.168.0.2", // another node
    "192.168.0.3", // another node, with the API server
    "192.168.0.8", // ingress
    "10.1.2.3",
    "10.1.9.9",
    "10.9.9.9",
    "8.8.8.8",
    "2001:db8::1",
    "2a00::1",     // outside
    "203.0.113.7", // an API server outside
];
pub(crate) const PORTS: &[u16] = &[0, 1, 79, 80, 81, 1023, 1024, 8080, 65535];
pub(crate) const PROTOCOLS: &[u8] = &[6, 17, 132, 1];

pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) authority: &'static str,
    pub(crate) target: &'static str,
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

pub(crate) const REQUESTS: &[Request] = &[
    Request { method: "GET", authority: "shop", target: "/a", headers: &[] },
    Request { method: "GET", authority: "shop:8080", target: "/a?x=1", headers: &[("x-team", "red")] },
    Request { method: "POST", authority: "shop", target: "/a", headers: &[("x-team", "blue")] },
    Request { method: "GETTER", authority: "", target: "/ab/7", headers: &[] },
    Request { method: "GET", authority: "bank", target: "/ab/77", headers: &[("x-team", "red,blue")] },
    Request { method: "GE\nT", authority: "shop", target: "/a", headers: &[] },
];

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) labels: BTreeMap<IdentityNumber, BTreeMap<Arc<str>, Arc<str>>>,
}

fn workload(number: u32, addresses: &[&str], ports: &[(&str, u16, Protocol)]) -> Workload {
    Workload {
        name: ObjectName::new("any", &format!("w{number}")),
        node: NODE.into(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        identity: IdentityNumber(number),
        service_account: "default".into(),
        host_network: false,
        owner: "".into(),
        ports: ports
            .iter()
            .map(|(name, port, protocol)| NamedPort {
                name: (*name).into(),
                port: *port,
                protocol: *protocol,
            })
            .collect(),
    }
}

fn identity(number: u32, namespace: &str, app: &str) -> Identity {
    let labels = [("k8s:io.kubernetes.pod.namespace", namespace), ("k8s:app", app)];
    Identity {
        number: IdentityNumber(number),
        labels: labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
    }
}

pub(crate) fn build(policies: Vec<Policy>) -> World {
    let mut snapshot = Snapshot { revision: 1, ..Snapshot::default() };
    let identities =
        [identity(256, "a", "x"), identity(257, "a", "y"), identity(258, "b", "x"), identity(259, "b", "z")];
    let workloads = vec![
        workload(256, &["10.244.0.1"], &[("web", 80, Protocol::Tcp), ("dns", 1, Protocol::Udp)]),
        workload(257, &["10.244.0.2"], &[("web", 8080, Protocol::Tcp)]),
        workload(258, &["10.244.0.3"], &[]),
        workload(259, &["10.244.0.4", "fd00::4"], &[("web", 80, Protocol::Tcp), ("dns", 1, Protocol::Tcp)]),
    ];
    // A second pod with the identity of the first, whose named port has another number.
    let twin = Workload {
        name: ObjectName::new("any", "twin"),
        ..workload(257, &["10.244.0.77"], &[("web", 1024, Protocol::Tcp)])
    };
    let host_network = Workload { host_network: true, ..workload(256, &["192.168.0.2"], &[]) };
    let node = |name: &str, addresses: &[&str], ingress: &[&str]| Node {
        name: name.into(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ingress_addresses: ingress.iter().map(|text| text.parse().unwrap()).collect(),
        pod_cidrs: Vec::new(),
    };
    let endpoint = |text: &str| Endpoint {
        address: text.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
    };
    let apiserver = Endpoints {
        name: ObjectName::new("default", "kubernetes"),
        service: "kubernetes".into(),
        ports: Vec::new(),
        endpoints: vec![endpoint("192.168.0.3"), endpoint("203.0.113.7")],
    };
    let labels = identities.iter().map(|identity| (identity.number, identity.labels.clone())).collect();
    let resources = [
        Resource::Node(node(NODE, &["192.168.0.1"], &["192.168.0.8"])),
        Resource::Node(node("n2", &["192.168.0.2"], &[])),
        Resource::Node(node("n3", &["192.168.0.3"], &[])),
        Resource::MeshDefaults(MeshDefaults { pod_cidrs: vec![POD_CIDR.parse().unwrap()] }),
        Resource::Endpoints(apiserver),
        Resource::Workload(twin),
        Resource::Workload(Workload { name: ObjectName::new("any", "host"), ..host_network }),
    ];
    let identities = identities.into_iter().map(Resource::Identity);
    let others = workloads.iter().cloned().map(Resource::Workload);
    let all = resources.into_iter().chain(identities).chain(others);
    for resource in all.chain(policies.iter().cloned().map(Resource::Policy)) {
        snapshot.insert(resource);
    }
    World { snapshot, workloads, policies, labels }
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    vec(policy(0), 0..5).prop_map(|policies| {
        let numbered = policies
            .into_iter()
            .enumerate()
            .map(|(index, policy)| Policy { name: ObjectName::new("a", &format!("p{index}")), ..policy });
        build(numbered.collect())
    })
}

/// Mostly that of all policies which users write today.
fn level() -> impl Strategy<Value = (Tier, u16)> {
    let other = (select(vec![Tier::Admin, Tier::Normal, Tier::Baseline]), select(vec![0, 1, 1000]));
    prop_oneof![2 => Just((Tier::Normal, 0)), 1 => other]
}

pub(crate) fn policy(index: u32) -> impl Strategy<Value = Policy> {
    (selector(), level(), section(), section()).prop_map(
        move |(subject, (tier, priority), ingress, egress)| Policy {
            kind: PolicyKind::CiliumNetworkPolicy,
            name: ObjectName::new("a", &format!("p{index}")),
            index: 0,
            tier,
            priority,
            subject,
            ingress,
            egress,
        },
    )
}

fn section() -> impl Strategy<Value = PolicyDirection> {
    let rules = |http| vec(rule(http), 0..4);
    (any::<bool>(), rules(true), prop_oneof![2 => Just(Vec::new()), 1 => vec(rule(false), 1..3)])
        .prop_map(|(default_deny, allow, deny)| PolicyDirection { default_deny, allow, deny })
}

fn rule(http: bool) -> impl Strategy<Value = PolicyRule> {
    let authenticate = prop_oneof![4 => Just(false), 1 => Just(http)];
    (vec(peer(), 0..3), vec(port_rule(http), 0..3), authenticate)
        .prop_map(|(peers, ports, authenticate)| PolicyRule { peers, ports, authenticate })
}

fn peer() -> impl Strategy<Value = Peer> {
    let entities = vec![
        Entity::All,
        Entity::World,
        Entity::Cluster,
        Entity::Host,
        Entity::RemoteNode,
        Entity::KubeApiserver,
        Entity::Ingress,
        Entity::None,
    ];
    prop_oneof![
        1 => Just(Peer::Any),
        4 => selector().prop_map(Peer::Selector),
        2 => select(entities).prop_map(Peer::Entity),
        2 => (prefix(), vec(prefix(), 0..2)).prop_map(|(cidr, except)| Peer::Cidr { cidr, except }),
    ]
}

pub(crate) fn prefix() -> impl Strategy<Value = ipnet::IpNet> {
    let texts = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.244.0.0/24",
        "8.8.8.8/32",
        "::/0",
        "2001:db8::/32",
        "203.0.113.0/24",
        "192.168.0.0/16",
    ];
    select(texts.to_vec()).prop_map(|text| text.parse().unwrap())
}

fn selector() -> impl Strategy<Value = Selector> {
    vec(requirement(), 0..3).prop_map(|requirements| Selector { requirements })
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let values = || vec(select(vec!["a", "b", "x", "y"]).prop_map(Arc::from), 0..3);
    let operator = prop_oneof![
        4 => values().prop_map(Operator::In),
        1 => values().prop_map(Operator::NotIn),
        1 => Just(Operator::Exists),
        1 => Just(Operator::DoesNotExist),
    ];
    let keys = ["k8s:io.kubernetes.pod.namespace", "any:app", "k8s:app", "k8s:none", "reserved:host"];
    (select(keys.to_vec()), operator).prop_map(|(key, operator)| Requirement { key: key.into(), operator })
}

fn port_rule(http: bool) -> impl Strategy<Value = PortRule> {
    let port = prop_oneof![
        1 => Just(PolicyPort::Any),
        3 => (select(PORTS.to_vec()), select(PORTS.to_vec()))
            .prop_map(|(one, other)| PolicyPort::Range(one.min(other), one.max(other))),
        3 => select(PORTS.to_vec()).prop_map(|port| PolicyPort::Range(port, port)),
        2 => select(vec!["web", "dns", "none"]).prop_map(|name| PolicyPort::Named(name.into())),
    ];
    let protocol = select(vec![None, Some(Protocol::Tcp), Some(Protocol::Udp), Some(Protocol::Sctp)]);
    let rules = if http {
        prop_oneof![1 => Just(None), 1 => vec(http_rule(), 0..3).prop_map(|rules| Some(L7Rules::Http(rules)))]
            .boxed()
    } else {
        Just(None).boxed()
    };
    (port, protocol, rules).prop_map(|(port, protocol, l7)| PortRule { port, protocol, l7 })
}

fn http_rule() -> impl Strategy<Value = HttpRule> {
    let one_of = |texts: &[&'static str]| {
        let texts: Vec<Option<Arc<str>>> = texts.iter().map(|text| Some(Arc::from(*text))).collect();
        prop_oneof![1 => Just(None), 2 => select(texts)]
    };
    let headers = vec![
        Vec::new(),
        Vec::new(),
        vec![("x-team", None)],
        vec![("x-team", Some("red"))],
        vec![("x-team", None), ("x-none", None)],
    ];
    (
        one_of(&["/a", "^/a$", "/.*", "/a.*|/ab", "/ab/\\d", "[^x]*", "/ab/[0-9]{2}", "/é", "(", "^$", ""]),
        one_of(&["GET", "GET|POST", "(?i)get.*", "[^P]*"]),
        one_of(&["shop", "shop(:\\d+)?", "^$", ".*", "bank$", "\\bshop\\b.*"]),
        select(headers),
    )
        .prop_map(|(path, method, host, headers)| HttpRule {
            path,
            method,
            host,
            headers: headers.iter().map(|(n, v)| (Arc::from(*n), v.map(Arc::from))).collect(),
        })
}
