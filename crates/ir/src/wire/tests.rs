// SPDX-License-Identifier: Apache-2.0

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
    strategy::Union,
};

use super::*;
use crate::*;

fn text() -> impl Strategy<Value = Arc<str>> + Clone {
    "\\PC{0,12}".prop_map(Arc::from)
}

fn texts() -> impl Strategy<Value = Vec<Arc<str>>> + Clone {
    vec(text(), 0..3)
}

fn label() -> impl Strategy<Value = Arc<str>> + Clone {
    "[a-z0-9]([-a-z0-9]{0,5}[a-z0-9])?".prop_map(Arc::from)
}

fn subdomain() -> impl Strategy<Value = Arc<str>> + Clone {
    vec(label(), 1..3).prop_map(|labels| labels.join(".").into())
}

fn name() -> impl Strategy<Value = ObjectName> + Clone {
    (label(), subdomain()).prop_map(|(namespace, name)| ObjectName { namespace, name })
}

fn service_name() -> impl Strategy<Value = ObjectName> + Clone {
    (label(), label()).prop_map(|(namespace, name)| ObjectName { namespace, name })
}

fn listener_parent() -> impl Strategy<Value = ListenerParent> {
    (select(&ListenerParentKind::ALL[..]), name()).prop_map(|(kind, name)| ListenerParent { kind, name })
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    vec(any::<IpAddr>(), 0..3)
}

fn port() -> std::ops::RangeInclusive<u16> {
    1..=u16::MAX
}

fn protocol() -> impl Strategy<Value = Protocol> + Clone {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
}

fn duration() -> impl Strategy<Value = Duration> + Clone {
    (any::<u64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn cidr() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=128u8).prop_map(|(address, prefix)| {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, prefix % (longest + 1)).unwrap()
    })
}

fn workload() -> impl Strategy<Value = Resource> {
    let ports = vec(
        (text(), port(), protocol()).prop_map(|(name, port, protocol)| NamedPort { name, port, protocol }),
        0..3,
    );
    let node = prop_oneof![9 => subdomain(), 1 => Just(Arc::default())];
    (name(), node, addresses(), any::<u32>(), text(), any::<bool>(), text(), ports).prop_map(
        |(name, node, addresses, identity, service_account, host_network, owner, ports)| {
            let identity = IdentityNumber(identity);
            Resource::Workload(Workload {
                name,
                node,
                addresses,
                identity,
                service_account,
                host_network,
                owner,
                ports,
            })
        },
    )
}

fn node() -> impl Strategy<Value = Resource> {
    (subdomain(), addresses(), addresses(), vec(cidr(), 0..3)).prop_map(
        |(name, addresses, ingress_addresses, pod_cidrs)| {
            Resource::Node(Node { name, addresses, ingress_addresses, pod_cidrs })
        },
    )
}

fn identity() -> impl Strategy<Value = Resource> {
    let labels = btree_map(text(), text(), 0..4);
    (any::<u32>(), labels).prop_map(|(number, labels): (u32, BTreeMap<_, _>)| {
        Resource::Identity(Identity { number: IdentityNumber(number), labels })
    })
}

fn service() -> impl Strategy<Value = Resource> {
    let app_protocol = prop_oneof![
        Just(AppProtocol::Unknown),
        Just(AppProtocol::Http),
        Just(AppProtocol::Http2),
        Just(AppProtocol::Tcp)
    ];
    let port = (text(), port(), protocol(), app_protocol)
        .prop_map(|(name, port, protocol, app_protocol)| ServicePort { name, port, protocol, app_protocol });
    (service_name(), addresses(), vec(port, 0..3))
        .prop_map(|(name, addresses, ports)| Resource::Service(Service { name, addresses, ports }))
}

fn endpoints() -> impl Strategy<Value = Resource> {
    let port =
        (text(), port(), protocol()).prop_map(|(name, port, protocol)| EndpointPort { name, port, protocol });
    let endpoint =
        (any::<IpAddr>(), any::<[bool; 3]>()).prop_map(|(address, [ready, serving, terminating])| Endpoint {
            address,
            ready,
            serving,
            terminating,
        });
    (name(), label(), vec(port, 0..3), vec(endpoint, 0..4)).prop_map(|(name, service, ports, endpoints)| {
        Resource::Endpoints(Endpoints { name, service, ports, endpoints })
    })
}

fn listener() -> impl Strategy<Value = Resource> {
    (listener_parent(), subdomain(), addresses(), port(), text()).prop_map(
        |(parent, name, addresses, port, hostname)| {
            Resource::Listener(Listener { parent, name, addresses, port, hostname })
        },
    )
}

fn value() -> impl Strategy<Value = ValueMatch> {
    let value = prop_oneof![text().prop_map(StringMatch::Exact), text().prop_map(StringMatch::Regex)];
    (text(), value).prop_map(|(name, value)| ValueMatch { name, value })
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        text().prop_map(PathMatch::Regex)
    ];
    (path, option::of(text()), vec(value(), 0..2), vec(value(), 0..2))
        .prop_map(|(path, method, headers, query)| RouteMatch { path, method, headers, query })
}

fn path_change() -> impl Strategy<Value = Option<PathChange>> {
    option::of(prop_oneof![text().prop_map(PathChange::Full), text().prop_map(PathChange::Prefix)])
}

fn changes() -> impl Strategy<Value = HeaderChanges> {
    let pairs = || vec((text(), text()), 0..2);
    (pairs(), pairs(), texts()).prop_map(|(set, add, remove)| HeaderChanges { set, add, remove })
}

fn filter() -> impl Strategy<Value = RouteFilter> {
    let hostname = || {
        option::of(
            "[a-z]{1,8}(\\.[a-z]{1,8}){0,2}".prop_map(|name| Hostname::new(&name).expect("a hostname")),
        )
    };
    let scheme = option::of(prop_oneof![Just(Scheme::Http), Just(Scheme::Https)]);
    let status = [301_u16, 302, 303, 307, 308].map(|code| code.try_into().expect("a redirect"));
    let redirect = (scheme, hostname(), path_change(), option::of(port()), select(status.to_vec()));
    let redirect = redirect.prop_map(|(scheme, hostname, path, port, status)| {
        RouteFilter::Redirect(Redirect { scheme, hostname, path, port, status })
    });
    let rewrite = (hostname(), path_change())
        .prop_map(|(hostname, path)| RouteFilter::Rewrite(Rewrite { hostname, path }));
    prop_oneof![
        changes().prop_map(RouteFilter::RequestHeaders),
        changes().prop_map(RouteFilter::ResponseHeaders),
        redirect,
        rewrite,
        Just(RouteFilter::Invalid),
    ]
}

fn action() -> impl Strategy<Value = RouteAction> {
    let service = (service_name(), port()).prop_map(|(name, port)| BackendService { name, port });
    let backend = (option::of(service), any::<u32>(), vec(filter(), 0..2))
        .prop_map(|(service, weight, filters)| RouteBackend { service, weight, filters });
    let timeouts = (option::of(duration()), option::of(duration()))
        .prop_map(|(request, backend_request)| RouteTimeouts { request, backend_request });
    let retry = (vec(any::<u16>(), 0..3), any::<u32>(), option::of(duration()))
        .prop_map(|(codes, attempts, backoff)| RouteRetry { codes, attempts, backoff });
    (vec(filter(), 0..3), vec(backend, 0..3), timeouts, option::of(retry))
        .prop_map(|(filters, backends, timeouts, retry)| RouteAction { filters, backends, timeouts, retry })
}

fn route() -> impl Strategy<Value = Resource> {
    let parent = prop_oneof![
        (listener_parent(), subdomain())
            .prop_map(|(parent, listener)| RouteParent::Listener { parent, listener }),
        (service_name(), option::of(port()))
            .prop_map(|(service, port)| RouteParent::Service { service, port }),
    ];
    let (kind, matches) = (select(&RouteKind::ALL[..]), vec(route_match(), 0..3));
    let all = (kind, name(), any::<u32>(), any::<i64>(), vec(parent, 0..3), texts(), matches, action());
    all.prop_map(|(kind, origin, rule, created, parents, hostnames, matches, action)| {
        Resource::Route(Route { kind, origin, rule, created, parents, hostnames, matches, action })
    })
}

fn rate_limit() -> impl Strategy<Value = Resource> {
    let target = prop_oneof![
        (select(&RouteKind::ALL[..]), name()).prop_map(|(kind, name)| RateLimitTarget::Route { kind, name }),
        service_name().prop_map(RateLimitTarget::Service),
    ];
    (name(), target, any::<u32>(), duration(), any::<u32>(), any::<bool>()).prop_map(
        |(name, target, requests, interval, burst, per_client)| {
            Resource::RateLimit(RateLimit { name, target, requests, interval, burst, per_client })
        },
    )
}

fn selector() -> impl Strategy<Value = Selector> {
    let operator = prop_oneof![
        texts().prop_map(Operator::In),
        texts().prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist)
    ];
    let requirement = (text(), operator).prop_map(|(key, operator)| Requirement { key, operator });
    vec(requirement, 0..3).prop_map(|requirements| Selector { requirements })
}

fn policy_rule() -> impl Strategy<Value = PolicyRule> {
    let entities = [
        Entity::All,
        Entity::World,
        Entity::Cluster,
        Entity::Host,
        Entity::RemoteNode,
        Entity::KubeApiserver,
        Entity::Ingress,
        Entity::None,
    ];
    let peer = prop_oneof![
        Just(Peer::Any),
        selector().prop_map(Peer::Selector),
        Union::new(entities.map(Just)).prop_map(Peer::Entity),
        (cidr(), vec(cidr(), 0..2)).prop_map(|(cidr, except)| Peer::Cidr { cidr, except }),
    ];
    let headers = vec((text(), option::of(text())), 0..3);
    let http = (option::of(text()), option::of(text()), option::of(text()), headers)
        .prop_map(|(path, method, host, headers)| HttpRule { path, method, host, headers });
    let port = prop_oneof![
        Just(PolicyPort::Any),
        any::<[u16; 2]>().prop_map(|[a, b]| PolicyPort::Range(a.min(b), a.max(b))),
        text().prop_map(PolicyPort::Named)
    ];
    let l7 = option::of(vec(http, 0..3).prop_map(L7Rules::Http));
    let port =
        (port, option::of(protocol()), l7).prop_map(|(port, protocol, l7)| PortRule { port, protocol, l7 });
    (vec(peer, 0..3), vec(port, 0..3), any::<bool>()).prop_map(|(peers, ports, authenticate)| PolicyRule {
        peers,
        ports,
        authenticate,
    })
}

fn policy() -> impl Strategy<Value = Resource> {
    let direction = || {
        (any::<bool>(), vec(policy_rule(), 0..3), vec(policy_rule(), 0..2))
            .prop_map(|(default_deny, allow, deny)| PolicyDirection { default_deny, allow, deny })
    };
    let kind = select(&PolicyKind::ALL[..]);
    let place = (prop_oneof![Just(Tier::Admin), Just(Tier::Normal), Just(Tier::Baseline)], 0..=MAX_PRIORITY);
    (kind, name(), any::<u32>(), place, selector(), direction(), direction()).prop_map(
        |(kind, mut name, index, (tier, priority), subject, ingress, egress)| {
            if !kind.is_namespaced() {
                name.namespace = Arc::default();
            }
            Resource::Policy(Policy { kind, name, index, tier, priority, subject, ingress, egress })
        },
    )
}

fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        workload(),
        node(),
        identity(),
        service(),
        endpoints(),
        listener(),
        route(),
        rate_limit(),
        policy(),
        vec(cidr(), 0..3).prop_map(|pod_cidrs| Resource::MeshDefaults(MeshDefaults { pod_cidrs })),
    ]
}

#[test]
fn small_messages_survive_the_wire_and_a_reason_is_bounded() {
    use crate::stream::{FromNode, MAX_REJECTION_BYTES, ToNode};
    assert_eq!(decode_from_node(encode_from_node(&FromNode::Pong)), Ok(FromNode::Pong));
    assert_eq!(decode_to_node(encode_to_node(ToNode::Ping)), Ok(ToNode::Ping));
    let withheld = ToNode::Withheld { reason: "was told more".into() };
    assert_eq!(decode_to_node(encode_to_node(withheld.clone())), Ok(withheld));
    let long = ToNode::Withheld { reason: "\u{e9}".repeat(MAX_REJECTION_BYTES).into() };
    let Ok(ToNode::Withheld { reason }) = decode_to_node(encode_to_node(long)) else { panic!("it is one") };
    assert_eq!(reason.len(), MAX_REJECTION_BYTES);
}

proptest! {
    #[test]
    fn any_resource_round_trips(resource in resource()) {
        prop_assert!(resource.key().is_valid());
        prop_assert_eq!(decode(&encode(&resource)), Ok(resource));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        drop(decode(&bytes));
        drop(decode_from_node(bytes.clone().into()));
        drop(decode_to_node(bytes.into()));
    }

    /// Bytes that are nearly right get further than random ones.
    #[test]
    fn a_damaged_resource_is_decoded_or_refused(resource in resource(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&resource).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(decoded) = decode(&bytes) {
            prop_assert!(decoded.key().is_valid(), "{:?}", decoded.key());
            prop_assert_eq!(decode(&encode(&decoded)), Ok(decoded));
        }
        bytes.truncate(at);
        drop(decode(&bytes));
    }
}

#[test]
fn an_unknown_enum_value_names_its_field() {
    let name = Some(generated::ObjectName { namespace: "shop".into(), name: "a".into() });
    let ports = vec![generated::ServicePort { port: 80, protocol: 77, ..Default::default() }];
    let service = generated::Service { name, ports, ..Default::default() };
    let bytes = |service| {
        generated::Resource { kind: Some(generated::resource::Kind::Service(service)) }.encode_to_vec()
    };
    let unknown = |value| Err(WireError::UnknownEnum { field: "service_port.protocol", value });
    assert_eq!(decode(&bytes(service.clone())), unknown(77));
    let mut unspecified = service;
    unspecified.ports[0].protocol = 0;
    assert_eq!(decode(&bytes(unspecified)), unknown(0));
}

/// A later version may know rules about other protocols. Without them the port would be open.
#[test]
fn l7_rules_of_a_protocol_that_is_not_known_refuse_the_policy() {
    let port = generated::PortRule {
        port: Some(generated::port_rule::Port::Any(generated::AnyPort {})),
        protocol: None,
        l7: None,
    };
    let mut bytes = port.encode_to_vec();
    // Field 60, length-delimited and empty: rules about a protocol that this version does not know.
    bytes.extend([0xe2, 0x03, 0x00]);
    let port = generated::PortRule::decode(&bytes[..]).unwrap();
    assert_eq!(policy::parse_port_rule(port), Err(WireError::Missing { field: "port_rule.l7" }));
}

#[test]
fn a_kind_that_is_not_known_is_refused() {
    // Field 99, length-delimited and empty.
    assert_eq!(decode(&[0x9a, 0x06, 0x00]), Err(WireError::Missing { field: "resource.kind" }));
    assert_eq!(decode(&[]), Err(WireError::HeldBack));
}

/// Every name of a message, replaced by one that Kubernetes does not take.
#[test]
fn a_name_that_kubernetes_does_not_take_is_refused() {
    let bad = |namespace: &str, name: &str| ObjectName::new(namespace, name);
    let policy = |kind, name| {
        let (ingress, egress) = (PolicyDirection::default(), PolicyDirection::default());
        Resource::Policy(Policy {
            kind,
            name,
            index: 0,
            tier: Tier::Normal,
            priority: 0,
            subject: Selector::default(),
            ingress,
            egress,
        })
    };
    let service = |name| Resource::Service(Service { name, addresses: Vec::new(), ports: Vec::new() });
    let endpoints = |service: &str| {
        let (ports, endpoints) = (Vec::new(), Vec::new());
        let name = ObjectName::new("shop", "a");
        Resource::Endpoints(Endpoints { name, service: service.into(), ports, endpoints })
    };
    for (resource, field) in [
        (service(bad("shop", "a/b")), "service.name"),
        (service(bad("shop/a", "b")), "service.name"),
        (service(bad("", "b")), "service.name"),
        (service(bad("shop", "a.b")), "service.name"),
        (endpoints("a/b"), "endpoints.service"),
        (policy(PolicyKind::NetworkPolicy, bad("", "a")), "policy.name"),
        (policy(PolicyKind::CiliumClusterwideNetworkPolicy, bad("shop", "a")), "policy.name"),
    ] {
        assert_eq!(decode(&encode(&resource)), Err(WireError::Name { field }), "{resource:?}");
    }
}
