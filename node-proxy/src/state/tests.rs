// SPDX-License-Identifier: Apache-2.0
use std::time::Duration;

use weft_ebpf_common::identity;
use weft_ir::{
    AppProtocol, BackendService, Endpoint, EndpointPort, Endpoints, Listener, ListenerParent,
    ListenerParentKind, MeshDefaults, ObjectName, PathMatch, Protocol, RateLimit, RateLimitTarget, Resource,
    Route, RouteAction, RouteBackend, RouteKind, RouteMatch, RouteParent, RouteTimeouts, Service,
    ServicePort, Snapshot,
};
use weft_policy::Place;

use super::{compile::Compiler, *};
use crate::route::{samples::get, seen::Looked};

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn service(name_: &str, last: u8) -> Resource {
    Resource::Service(Service {
        name: name(name_),
        addresses: vec![IpAddr::from([10, 96, 0, last])],
        ports: vec![ServicePort {
            name: "http".into(),
            port: 80,
            protocol: Protocol::Tcp,
            app_protocol: AppProtocol::Http,
        }],
    })
}

fn endpoints(service: &str, last: u8) -> Resource {
    Resource::Endpoints(Endpoints {
        name: name(service),
        service: service.into(),
        ports: vec![EndpointPort { name: "http".into(), port: 8080, protocol: Protocol::Tcp }],
        endpoints: vec![Endpoint {
            address: IpAddr::from([10, 0, 0, last]),
            ready: true,
            serving: true,
            terminating: false,
        }],
    })
}

fn route(name_: &str, parent: RouteParent, backend: &str) -> Route {
    let service = Some(BackendService { name: name(backend), port: 80 });
    Route {
        kind: RouteKind::HttpRoute,
        origin: name(name_),
        rule: 0,
        created: 1,
        parents: vec![parent],
        hostnames: vec![],
        matches: vec![RouteMatch {
            path: PathMatch::Prefix("/".into()),
            method: None,
            headers: vec![],
            query: vec![],
        }],
        action: RouteAction {
            filters: vec![],
            backends: vec![RouteBackend { service, weight: 1, filters: vec![] }],
            timeouts: RouteTimeouts::default(),
            retry: None,
        },
    }
}

fn gateway() -> ListenerParent {
    ListenerParent { kind: ListenerParentKind::Gateway, name: name("gw") }
}

fn to_service(service: &str) -> RouteParent {
    RouteParent::Service { service: name(service), port: None }
}

fn limit(requests: u32) -> Resource {
    Resource::RateLimit(RateLimit {
        name: name("limit"),
        target: RateLimitTarget::Route { kind: RouteKind::HttpRoute, name: name("r") },
        requests,
        interval: Duration::from_secs(1),
        burst: 1,
        per_client: false,
    })
}

fn snapshot(revision: u64, resources: Vec<Resource>) -> Snapshot {
    let mut snapshot = Snapshot { revision, ..Snapshot::default() };
    resources.into_iter().for_each(|resource| snapshot.insert(resource));
    snapshot
}

fn vip(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, last], 80))
}

fn table(state: &MeshState, address: SocketAddr) -> Arc<RouteTable> {
    let target = state.service(address).expect("a service");
    Arc::clone(target.routes.as_ref().expect("routes"))
}

#[test]
fn what_did_not_change_is_the_same_object_in_the_next_state() {
    let mut compiler = Compiler::new("node-a".into(), vec![]);
    let mut snapshot = snapshot(
        1,
        vec![
            service("web", 1),
            endpoints("web", 1),
            service("api", 2),
            endpoints("api", 2),
            Resource::Route(route("r", to_service("web"), "web")),
        ],
    );
    let (first, _) = compiler.compile(&snapshot, &[]);
    snapshot.revision = 2;
    snapshot.insert(endpoints("api", 3));
    let (second, _) = compiler.compile(&snapshot, &[]);
    assert_eq!(second.position.revision, 2);
    assert!(Arc::ptr_eq(&table(&first, vip(1)), &table(&second, vip(1))));
    let upstream = |state: &MeshState, address| {
        let slot = state.service(address).expect("a service").upstream;
        Arc::clone(state.upstream(slot).expect("a upstream"))
    };
    assert!(Arc::ptr_eq(&upstream(&first, vip(1)), &upstream(&second, vip(1))));
    assert!(!Arc::ptr_eq(&upstream(&first, vip(2)), &upstream(&second, vip(2))));
    assert_eq!(upstream(&second, vip(2)).endpoints[0].address, ([10, 0, 0, 3], 8080).into());
}

#[test]
fn a_rate_limit_keeps_its_bucket_until_it_changes() {
    let mut compiler = Compiler::new("node-a".into(), vec![]);
    let resources = vec![service("web", 1), Resource::Route(route("r", to_service("web"), "web")), limit(1)];
    let mut snapshot = snapshot(1, resources);
    let limiter = |state: &MeshState| {
        let head = get("/");
        let table = table(state, vip(1));
        Arc::clone(&table.find(b"", &head, &mut Looked::default()).expect("a match").rule.limits[0])
    };
    let first = limiter(&compiler.compile(&snapshot, &[]).0);
    snapshot.insert(Resource::Route(Route { created: 2, ..route("r", to_service("web"), "web") }));
    let second = limiter(&compiler.compile(&snapshot, &[]).0);
    assert!(Arc::ptr_eq(&first, &second), "a change of the route is no change of the limit");
    snapshot.insert(limit(2));
    let third = limiter(&compiler.compile(&snapshot, &[]).0);
    assert!(!Arc::ptr_eq(&first, &third));
}

#[test]
fn a_backend_may_appear_after_its_route() {
    let mut compiler = Compiler::new("node-a".into(), vec![]);
    let mut snapshot =
        snapshot(1, vec![service("web", 1), Resource::Route(route("r", to_service("web"), "later"))]);
    let backend = |state: &MeshState| {
        let head = get("/");
        let table = table(state, vip(1));
        let slot = table.find(b"", &head, &mut Looked::default()).expect("a match").rule.backends[0]
            .upstream
            .expect("a slot");
        state.upstream(slot).map(|upstream| upstream.name.to_string())
    };
    assert_eq!(backend(&compiler.compile(&snapshot, &[]).0), None);
    snapshot.insert(service("later", 9));
    assert_eq!(backend(&compiler.compile(&snapshot, &[]).0).as_deref(), Some("shop/later"));
}

#[test]
fn an_unknown_address_of_a_pod_network_is_never_world() {
    let mut compiler = Compiler::new("node-a".into(), vec![]);
    let defaults = MeshDefaults { pod_cidrs: vec!["10.0.0.0/8".parse().expect("a prefix")] };
    let (state, _) = compiler.compile(&snapshot(1, vec![Resource::MeshDefaults(defaults)]), &[]);
    assert_eq!(state.peer(IpAddr::from([10, 1, 2, 3])).place, Place::Unknown);
    assert_eq!(state.peer(IpAddr::from([192, 0, 2, 1])).place, Place::Outside);
    assert_eq!(state.peer(IpAddr::from([127, 0, 0, 1])).place, Place::Host);
}

#[test]
fn an_address_of_the_nodes_own_bridge_is_the_node() {
    let mut compiler = Compiler::new("node-a".into(), vec![]);
    let bridge = IpAddr::from([10, 1, 0, 1]);
    compiler.set_device_addresses(&[bridge]);
    let defaults = MeshDefaults { pod_cidrs: vec!["10.0.0.0/8".parse().expect("a prefix")] };
    for revision in 1..3 {
        let resources = vec![Resource::MeshDefaults(defaults.clone())];
        let (state, _) = compiler.compile(&snapshot(revision, resources), &[]);
        let peer = state.peer(bridge);
        assert_eq!((peer.place, peer.identity.0), (Place::Host, identity::HOST));
        assert_eq!(state.peer(IpAddr::from([10, 1, 2, 3])).place, Place::Unknown);
    }
}

#[test]
fn the_most_specific_listener_serves_alone() {
    let mut compiler = Compiler::new("node-a".into(), vec![]);
    let listener = |listener: &str, hostname: &str| {
        Resource::Listener(Listener {
            parent: gateway(),
            name: listener.into(),
            addresses: vec![],
            port: 8000,
            hostname: hostname.into(),
        })
    };
    let to_listener = |listener: &str| RouteParent::Listener { parent: gateway(), listener: listener.into() };
    let of = |listener: &str, path: &str| {
        let mut route = route(listener, to_listener(listener), "web");
        route.matches[0].path = PathMatch::Prefix(path.into());
        Resource::Route(route)
    };
    let resources = vec![
        listener("any", ""),
        listener("wide", "*.test"),
        listener("exact", "A.test"),
        of("any", "/"),
        of("wide", "/"),
        of("exact", "/only"),
    ];
    let (state, _) = compiler.compile(&snapshot(1, resources), &[]);
    assert_eq!(state.listen_points().len(), 2, "IPv4 and IPv6");
    let point = &state.listen_points()[&SocketAddr::from(([0, 0, 0, 0], 8000))];
    let served = |host: &str, path: &'static str| {
        let head = get(path);
        let routes = point.find(host.as_bytes())?;
        routes
            .find(host.as_bytes(), &head, &mut Looked::default())
            .map(|matched| matched.rule.label.to_string())
    };
    assert_eq!(served("a.test", "/only").as_deref(), Some("shop/exact/0"));
    assert_eq!(served("a.test", "/"), None, "the wider listeners do not help out");
    assert_eq!(served("b.a.test", "/").as_deref(), Some("shop/wide/0"));
    assert_eq!(served("other", "/").as_deref(), Some("shop/any/0"));
}

#[test]
fn a_route_that_cannot_be_used_is_reported() {
    let mut compiler = Compiler::new("node-a".into(), vec![]);
    let mut bad = route("r", to_service("web"), "web");
    bad.matches[0].path = PathMatch::Regex("(".into());
    let mut snapshot = snapshot(1, vec![service("web", 1), Resource::Route(bad)]);
    let (_, rejected) = compiler.compile(&snapshot, &[]);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].key.to_string(), "httproute.gateway.networking.k8s.io/shop/r/0");
    snapshot.insert(service("other", 3));
    assert_eq!(compiler.compile(&snapshot, &[]).1, rejected, "it stays reported while it is there");
}
