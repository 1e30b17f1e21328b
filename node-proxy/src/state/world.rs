// SPDX-License-Identifier: Apache-2.0
//! A small world for property tests: few names, so that random resources meet.

use std::{net::IpAddr, time::Duration};

use proptest::{collection::vec, option, prelude::*, sample::select};
use weft_ir::{
    AppProtocol, BackendService, Endpoint, EndpointPort, Endpoints, HttpRule, Identity, IdentityNumber,
    L7Rules, Listener, ListenerParent, ListenerParentKind, MeshDefaults, Node, ObjectName, Operator, Peer,
    Policy, PolicyDirection, PolicyKind, PolicyPort, PolicyRule, PortRule, Protocol, RateLimit,
    RateLimitTarget, Requirement, Resource, ResourceKey, Route, RouteAction, RouteBackend, RouteFilter,
    RouteKind, RouteParent, RouteTimeouts, Selector, Service, ServicePort, Snapshot, Tier, Workload,
};

use crate::route::samples::route_match;

/// This node.
pub(crate) const NODE: &str = "one";
/// Ports of Services; endpoints listen on 8000 more.
pub(crate) const PORTS: [u16; 2] = [80, 81];
/// Names of Services and routes.
const NAMES: [&str; 3] = ["s1", "s2", "s3"];
/// Addresses of Services: fewer than Services, so that two may claim one.
const VIPS: [u8; 2] = [1, 2];
const IDENTITIES: std::ops::Range<u32> = 300..303;

/// A rule about requests.
pub(crate) fn http_rule() -> impl Strategy<Value = HttpRule> {
    let headers = (select(vec!["x-a", "x-b", "accept", "cookie"]), option::of(select(vec!["1", "1,2"])));
    let part = |texts: Vec<&'static str>| option::weighted(0.4, select(texts));
    let parts =
        (part(vec!["GET", "GET|POST"]), part(vec!["a.test", ".*b.test"]), part(vec!["/a.*", "/[^?]*"]));
    (parts, vec(headers, 0..2)).prop_map(|((method, host, path), headers)| HttpRule {
        method: method.map(Into::into),
        host: host.map(Into::into),
        path: path.map(Into::into),
        headers: headers.into_iter().map(|(name, value)| (name.into(), value.map(Into::into))).collect(),
    })
}

/// The address of a pod.
pub(crate) fn pod_address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

/// The addresses of Services.
pub(crate) fn vips() -> impl Iterator<Item = IpAddr> {
    VIPS.into_iter().map(|last| IpAddr::from([10, 96, 0, last]))
}

/// What is always there: the nodes, the pods' network, and what identities mean.
pub(crate) fn ground() -> Snapshot {
    let mut snapshot = Snapshot { revision: 1, ..Snapshot::default() };
    let node = |name: &str, last| Node {
        name: name.into(),
        addresses: vec![IpAddr::from([192, 168, 0, last])],
        ingress_addresses: vec![],
        pod_cidrs: vec![],
    };
    snapshot.insert(Resource::Node(node(NODE, 1)));
    snapshot.insert(Resource::Node(node("two", 2)));
    let pods = "10.0.0.0/16".parse().expect("a prefix");
    snapshot.insert(Resource::MeshDefaults(MeshDefaults { pod_cidrs: vec![pods] }));
    for number in IDENTITIES {
        let label = |key: &str, value: &str| (key.into(), value.into());
        let labels =
            [label("k8s:app", &number.to_string()), label("k8s:io.kubernetes.pod.namespace", "shop")];
        let number = IdentityNumber(number);
        snapshot.insert(Resource::Identity(Identity { number, labels: labels.into() }));
    }
    snapshot
}

/// Two pods of this node, of which the first speaks to the second, with the rules about requests of a policy
/// on either; without rules there is no policy.
pub(crate) fn two_pods(egress: Vec<HttpRule>, ingress: Vec<HttpRule>) -> Vec<Resource> {
    let pod = |number| Workload {
        name: object(&format!("p{number}")),
        node: NODE.into(),
        addresses: vec![pod_address(number)],
        identity: IdentityNumber(299 + u32::from(number)),
        service_account: "default".into(),
        host_network: false,
        owner: "".into(),
        ports: vec![],
    };
    let direction = |rules: Vec<HttpRule>| {
        let default_deny = !rules.is_empty();
        let l7 = default_deny.then_some(L7Rules::Http(rules));
        let ports = vec![PortRule { port: PolicyPort::Any, protocol: Some(Protocol::Tcp), l7 }];
        let rule = PolicyRule { peers: vec![Peer::Any], ports, authenticate: false };
        PolicyDirection { default_deny, allow: vec![rule], deny: vec![] }
    };
    let none = || PolicyDirection { default_deny: false, allow: vec![], deny: vec![] };
    vec![
        Resource::Workload(pod(1)),
        Resource::Workload(pod(2)),
        Resource::Policy(of_pods(1, 300, none(), direction(egress))),
        Resource::Policy(of_pods(2, 301, direction(ingress), none())),
    ]
}

/// A resource that comes or changes, or the key of one that goes.
pub(crate) fn edit() -> impl Strategy<Value = Result<Resource, ResourceKey>> {
    let resource = prop_oneof![pod(), service(), slice(), route(), listener(), limit(), policy()];
    let stays = proptest::bool::weighted(0.7);
    (resource, stays).prop_map(|(resource, stays)| if stays { Ok(resource) } else { Err(resource.key()) })
}

/// Puts an edit into a state.
pub(crate) fn put(snapshot: &mut Snapshot, edit: Result<Resource, ResourceKey>) {
    match edit {
        Ok(resource) => snapshot.insert(resource),
        Err(key) => drop(snapshot.resources.remove(&key)),
    }
}

fn object(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn name() -> impl Strategy<Value = &'static str> {
    select(NAMES.to_vec())
}

fn pod() -> impl Strategy<Value = Resource> {
    (1..5_u8, select(vec![NODE, "two"]), IDENTITIES).prop_map(|(number, node, identity)| {
        Resource::Workload(Workload {
            name: object(&format!("p{number}")),
            node: node.into(),
            addresses: vec![pod_address(number)],
            identity: IdentityNumber(identity),
            service_account: "default".into(),
            host_network: false,
            owner: "".into(),
            ports: vec![],
        })
    })
}

fn service() -> impl Strategy<Value = Resource> {
    let protocols = vec![AppProtocol::Unknown, AppProtocol::Http, AppProtocol::Http2, AppProtocol::Tcp];
    let ports = proptest::sample::subsequence(PORTS.to_vec(), 0..3);
    (name(), select(VIPS.to_vec()), ports, select(protocols)).prop_map(|(name, vip, ports, app_protocol)| {
        let port = |number: u16| ServicePort {
            name: format!("p{number}").into(),
            port: number,
            protocol: Protocol::Tcp,
            app_protocol,
        };
        Resource::Service(Service {
            name: object(name),
            addresses: vec![IpAddr::from([10, 96, 0, vip])],
            ports: ports.into_iter().map(port).collect(),
        })
    })
}

fn slice() -> impl Strategy<Value = Resource> {
    let endpoint = (1..5_u8, any::<bool>()).prop_map(|(number, ready)| Endpoint {
        address: pod_address(number),
        ready,
        serving: true,
        terminating: !ready,
    });
    (name(), name(), vec(endpoint, 0..4)).prop_map(|(slice, service, endpoints)| {
        let port = |number: u16| EndpointPort {
            name: format!("p{number}").into(),
            port: 8000 + number,
            protocol: Protocol::Tcp,
        };
        Resource::Endpoints(Endpoints {
            name: object(slice),
            service: service.into(),
            ports: PORTS.into_iter().map(port).collect(),
            endpoints,
        })
    })
}

fn gateway() -> ListenerParent {
    ListenerParent { kind: ListenerParentKind::Gateway, name: object("gw") }
}

fn listener() -> impl Strategy<Value = Resource> {
    let hostnames = vec!["", "a.test", "*.test", "*.b.test"];
    (select(vec!["l1", "l2"]), select(hostnames), select(vec![8000_u16, 8001])).prop_map(
        |(name, hostname, port)| {
            Resource::Listener(Listener {
                parent: gateway(),
                name: name.into(),
                addresses: vec![],
                port,
                hostname: hostname.into(),
            })
        },
    )
}

fn parent() -> impl Strategy<Value = RouteParent> {
    prop_oneof![
        select(vec!["l1", "l2"])
            .prop_map(|listener| RouteParent::Listener { parent: gateway(), listener: listener.into() }),
        (name(), option::of(select(PORTS.to_vec())))
            .prop_map(|(service, port)| RouteParent::Service { service: object(service), port }),
    ]
}

fn route() -> impl Strategy<Value = Resource> {
    let hostnames = proptest::sample::subsequence(vec!["A.test", "*.test", "b.test"], 0..3);
    let backend = (name(), select(PORTS.to_vec()), 1..3_u32).prop_map(|(name, port, weight)| RouteBackend {
        service: Some(BackendService { name: object(name), port }),
        weight,
        filters: vec![],
    });
    let rule = (name(), 0..2_u32, 0..3_i64);
    let matches = (vec(route_match(), 0..3), proptest::bool::weighted(0.2));
    (rule, vec(parent(), 0..3), hostnames, matches, vec(backend, 0..3)).prop_map(
        |((name, rule, created), parents, hostnames, (matches, invalid), backends)| {
            Resource::Route(Route {
                kind: RouteKind::HttpRoute,
                origin: object(name),
                rule,
                created,
                parents,
                hostnames: hostnames.into_iter().map(Into::into).collect(),
                matches,
                action: RouteAction {
                    filters: if invalid { vec![RouteFilter::Invalid] } else { vec![] },
                    backends,
                    timeouts: RouteTimeouts::default(),
                    retry: None,
                },
            })
        },
    )
}

fn limit() -> impl Strategy<Value = Resource> {
    let target = prop_oneof![
        name().prop_map(|service| RateLimitTarget::Service(object(service))),
        name().prop_map(|route| RateLimitTarget::Route { kind: RouteKind::HttpRoute, name: object(route) }),
    ];
    (name(), target, 1..3_u32).prop_map(|(name, target, requests)| {
        Resource::RateLimit(RateLimit {
            name: object(name),
            target,
            requests,
            interval: Duration::from_secs(1),
            burst: 1,
            per_client: false,
        })
    })
}

/// Rules of one direction: who may speak to whom, on which port, and whether HTTP only.
fn direction() -> impl Strategy<Value = PolicyDirection> {
    let app = |number: u32| Selector {
        requirements: vec![Requirement {
            key: "k8s:app".into(),
            operator: Operator::In(vec![number.to_string().into()]),
        }],
    };
    let peer = prop_oneof![Just(Peer::Any), IDENTITIES.prop_map(move |number| Peer::Selector(app(number)))];
    let rule = (peer, option::of(select(PORTS.to_vec())), any::<bool>(), any::<bool>());
    (any::<bool>(), vec(rule, 0..3)).prop_map(|(default_deny, rules)| {
        let mut direction = PolicyDirection { default_deny, allow: vec![], deny: vec![] };
        for (peer, port, http, deny) in rules {
            let port = port.map_or(PolicyPort::Any, |port| PolicyPort::Range(8000 + port, 8000 + port));
            let l7 = (http && !deny).then(|| L7Rules::Http(vec![HttpRule::default()]));
            let ports = vec![PortRule { port, protocol: Some(Protocol::Tcp), l7 }];
            let rule = PolicyRule { peers: vec![peer], ports, authenticate: false };
            if deny { direction.deny.push(rule) } else { direction.allow.push(rule) }
        }
        direction
    })
}

fn policy() -> impl Strategy<Value = Resource> {
    (1..4_u32, IDENTITIES, direction(), direction()).prop_map(|(number, subject, ingress, egress)| {
        Resource::Policy(of_pods(number, subject, ingress, egress))
    })
}

/// The policy of this number about the pods of an identity.
fn of_pods(number: u32, subject: u32, ingress: PolicyDirection, egress: PolicyDirection) -> Policy {
    let requirement =
        Requirement { key: "k8s:app".into(), operator: Operator::In(vec![subject.to_string().into()]) };
    Policy {
        kind: PolicyKind::CiliumNetworkPolicy,
        name: object(&format!("n{number}")),
        index: 0,
        tier: Tier::Normal,
        priority: 0,
        subject: Selector { requirements: vec![requirement] },
        ingress,
        egress,
    }
}
