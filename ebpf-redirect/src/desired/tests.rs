// SPDX-License-Identifier: Apache-2.0
use weft_ebpf_common::{Action, identity, reason::Reason};
use weft_ir::{
    AppProtocol, EndpointPort, Endpoints, IdentityNumber, Node, PathMatch, Route, RouteAction, RouteKind,
    RouteMatch, RouteParent, RouteTimeouts,
};

use super::*;

fn service(addresses: &[&str], port: u16, app_protocol: AppProtocol) -> Resource {
    Resource::Service(Service {
        name: ObjectName::new("shop", "checkout"),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ports: vec![ServicePort { name: "http".into(), port, protocol: Protocol::Tcp, app_protocol }],
    })
}

fn slice(endpoints: &[(&str, bool, bool)]) -> Resource {
    Resource::Endpoints(Endpoints {
        name: ObjectName::new("shop", "checkout-1"),
        service: "checkout".into(),
        ports: vec![EndpointPort { name: "http".into(), port: 8080, protocol: Protocol::Tcp }],
        endpoints: endpoints
            .iter()
            .map(|(address, ready, terminating)| weft_ir::Endpoint {
                address: address.parse().unwrap(),
                ready: *ready,
                serving: true,
                terminating: *terminating,
            })
            .collect(),
    })
}

fn route(port: Option<u16>) -> Resource {
    Resource::Route(Route {
        kind: RouteKind::HttpRoute,
        origin: ObjectName::new("shop", "checkout"),
        rule: 0,
        created: 0,
        parents: vec![RouteParent::Service { service: ObjectName::new("shop", "checkout"), port }],
        hostnames: Vec::new(),
        matches: vec![RouteMatch {
            path: PathMatch::Prefix("/".into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }],
        action: RouteAction {
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: RouteTimeouts::default(),
            retry: None,
        },
    })
}

fn compile(resources: impl IntoIterator<Item = Resource>) -> Desired {
    let mut snapshot = Snapshot { revision: 7, ..Snapshot::default() };
    for resource in resources {
        snapshot.insert(resource);
    }
    let services = Services::of(&snapshot);
    Desired::empty("one").next(&snapshot, &services, &PolicySet::compile(&snapshot, "one"))
}

fn backends(desired: &Desired) -> Vec<Vec<String>> {
    let text = |backend: &Endpoint| format!("{}", backend.address.ip());
    desired.services.values().flatten().map(|service| service.backends.iter().map(text).collect()).collect()
}

#[test]
fn each_address_of_a_service_gets_backends_of_its_own_family() {
    let desired = compile([
        service(&["10.96.0.1", "fd00:96::1"], 80, AppProtocol::Http),
        slice(&[("10.0.0.1", true, false), ("fd00::1", true, false)]),
    ]);
    let mut found = backends(&desired);
    found.sort();
    assert_eq!(found, [["10.0.0.1"], ["fd00::1"]]);
    assert!(desired.services.values().flatten().all(|service| !service.kept));
}

#[test]
fn ending_endpoints_take_connections_only_when_none_is_ready() {
    let service = || service(&["10.96.0.1"], 80, AppProtocol::Http);
    let desired = compile([service(), slice(&[("10.0.0.1", true, false), ("10.0.0.2", false, true)])]);
    assert_eq!(backends(&desired), [["10.0.0.1"]]);
    let desired = compile([service(), slice(&[("10.0.0.2", false, true)])]);
    assert_eq!(backends(&desired), [["10.0.0.2"]]);
}

#[test]
fn a_route_keeps_the_address_of_the_port_it_names_only() {
    let kept = |port| {
        let desired = compile([service(&["10.96.0.1"], 80, AppProtocol::Http), route(port)]);
        desired.services.values().flatten().all(|service| service.kept)
    };
    assert!(kept(None));
    assert!(kept(Some(80)));
    assert!(!kept(Some(81)));
}

#[test]
fn workloads_of_other_nodes_have_identities_but_no_entry() {
    let workload = |node: &str, address: &str, name: &str| {
        Resource::Workload(Workload {
            name: ObjectName::new("shop", name),
            node: node.into(),
            addresses: vec![address.parse().unwrap()],
            identity: IdentityNumber(300),
            service_account: "default".into(),
            host_network: false,
            owner: "".into(),
            ports: Vec::new(),
        })
    };
    let node = Node {
        name: "one".into(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        ingress_addresses: vec![],
        pod_cidrs: vec![],
    };
    let desired =
        compile([workload("one", "10.0.0.1", "a"), workload("two", "10.0.1.1", "b"), Resource::Node(node)]);
    assert_eq!(desired.workloads.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1"]);
    let identity = |address: &str| {
        let prefix = address_prefix(address.parse::<IpAddr>().unwrap().into());
        desired.identities.get(&prefix).copied()
    };
    assert_eq!((identity("10.0.0.1"), identity("10.0.1.1")), (Some(300), Some(300)));
    assert_eq!(identity("192.0.2.1"), Some(identity::HOST));
}

#[test]
fn a_pod_of_which_nothing_is_known_is_closed_in_both_directions() {
    let refused = Resource::Workload(Workload {
        name: ObjectName::new("shop", "refused"),
        node: "one".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        identity: IdentityNumber::UNKNOWN,
        service_account: "default".into(),
        host_network: false,
        owner: "".into(),
        ports: Vec::new(),
    });
    let desired = compile([refused]);
    let closed = desired.workloads.values().next().expect("its device is held to a policy");
    assert_eq!((&*closed.name.name, closed.identity), ("refused", identity::UNKNOWN));
    for verdict in [closed.egress, closed.ingress] {
        assert_eq!((verdict.action(), verdict.reason), (Action::Deny, Reason::NoPolicyConfig as u16));
    }
}

#[test]
fn dns_at_an_address_of_a_cache_of_the_node_is_left_to_it() {
    let addresses = ["10.96.0.10", "fd00:96::10"];
    let key = |address: &str, port: u16| ServiceKey {
        address: address.parse::<IpAddr>().unwrap().into(),
        port_be: port.to_be(),
        protocol: if port == 0 { 0 } else { Protocol::Tcp.number() },
        pad: 0,
    };
    for (port, routed, translated) in [(53, false, false), (9153, false, true), (53, true, true)] {
        let mut resources =
            vec![service(&addresses, port, AppProtocol::Http), slice(&[("10.0.0.7", true, false)])];
        resources.extend(routed.then(|| route(None)));
        let mut desired = compile(resources);
        let before = desired.services.clone();
        let cache: BTreeSet<IpAddr> = addresses.map(|address| address.parse().unwrap()).into();
        desired.set_local_dns(&cache);
        for address in addresses {
            assert_eq!(desired.services.contains_key(&key(address, port)), translated, "{address} {port}");
            assert!(!desired.services.contains_key(&key(address, 0)));
            assert_eq!(desired.keeps(address.parse().unwrap()), routed);
        }
        desired.set_local_dns(&BTreeSet::new());
        assert_eq!(desired.services, before);
    }
}
