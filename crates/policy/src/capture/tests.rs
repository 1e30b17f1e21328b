// SPDX-License-Identifier: Apache-2.0
use std::{net::IpAddr, time::Duration};

use proptest::{collection::vec, prelude::*, sample::select};
use weft_ir::{
    Changes, Endpoint, ObjectName, RateLimit, RateLimitTarget, Resource, ResourceKey, Route, RouteAction,
    RouteKind, RouteParent, RouteTimeouts, Service, Snapshot,
};

use super::*;

fn port(protocol: Protocol, app_protocol: AppProtocol) -> ServicePort {
    ServicePort { name: "http".into(), port: 80, protocol, app_protocol }
}

fn reason(port: &ServicePort, routed: bool, limited: bool) -> Option<CaptureReason> {
    Capture::of_service_port(port, routed, limited).reason
}

#[test]
fn routes_and_limits_capture_what_they_can_speak_about() {
    let http = port(Protocol::Tcp, AppProtocol::Http);
    assert_eq!(reason(&http, false, false), None);
    assert_eq!(reason(&http, true, true), Some(CaptureReason::Route));
    assert_eq!(reason(&http, false, true), Some(CaptureReason::RateLimit));
    let bytes = port(Protocol::Tcp, AppProtocol::Tcp);
    assert_eq!(reason(&bytes, false, true), None, "a limit on the Service leaves a port of bytes alone");
    assert_eq!(reason(&bytes, true, false), Some(CaptureReason::Route));
    let datagrams = port(Protocol::Udp, AppProtocol::Unknown);
    assert_eq!(reason(&datagrams, true, true), None);
}

#[test]
fn the_version_of_http_is_declared_or_told_by_the_first_bytes() {
    let reading =
        |app_protocol| Capture::of_service_port(&port(Protocol::Tcp, app_protocol), true, false).reading;
    assert_eq!(reading(AppProtocol::Http2), Reading::Declared(AppProtocol::Http2));
    assert_eq!(reading(AppProtocol::Unknown), Reading::Sniffed);
    assert_eq!(reading(AppProtocol::Tcp), Reading::Sniffed, "the route says that there are requests");
    let nothing = Capture::of_service_port(&port(Protocol::Tcp, AppProtocol::Http2), false, false);
    assert_eq!(nothing.reading, Reading::Bytes);
}

fn slice(name: &str, endpoints: &[(&str, bool, bool)]) -> Endpoints {
    let endpoint = |&(address, ready, ending): &(&str, bool, bool)| Endpoint {
        address: address.parse().unwrap(),
        ready,
        serving: ready || ending,
        terminating: ending,
    };
    Endpoints {
        name: ObjectName::new("shop", name),
        service: "web".into(),
        ports: vec![EndpointPort { name: "http".into(), port: 8080, protocol: Protocol::Tcp }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn chosen(slices: &[Endpoints], ipv6: bool) -> Vec<String> {
    let port = port(Protocol::Tcp, AppProtocol::Http);
    backends(&port, slices.iter(), ipv6).iter().map(ToString::to_string).collect()
}

#[test]
fn ready_endpoints_of_all_slices_serve_each_once() {
    let slices = [
        slice("a", &[("10.0.0.2", true, false), ("10.0.0.4", false, false)]),
        slice("b", &[("10.0.0.1", true, false), ("10.0.0.2", true, false), ("10.0.0.3", false, true)]),
    ];
    assert_eq!(chosen(&slices, false), ["10.0.0.1:8080", "10.0.0.2:8080"]);
}

#[test]
fn ending_endpoints_serve_where_their_family_has_nothing_else() {
    let slices =
        [slice("a", &[("10.0.0.1", true, false), ("fd00::1", false, true), ("10.0.0.2", false, true)])];
    assert_eq!(chosen(&slices, false), ["10.0.0.1:8080"]);
    assert_eq!(chosen(&slices, true), ["[fd00::1]:8080"]);
}

#[test]
fn a_port_of_another_name_or_protocol_does_not_serve() {
    let slices = [slice("a", &[("10.0.0.1", true, false)])];
    let named = ServicePort { name: "grpc".into(), ..port(Protocol::Tcp, AppProtocol::Http) };
    assert_eq!(backends(&named, slices.iter(), false), []);
    assert_eq!(backends(&port(Protocol::Udp, AppProtocol::Http), slices.iter(), false), []);
}

/// Service, routes, limits and slices with few names, so that they meet.
fn resources() -> impl Strategy<Value = Resource> {
    let name = || select(vec!["a", "b", "c"]);
    let object = |name: &str| ObjectName::new("shop", name);
    prop_oneof![
        (name(), vec(select(vec!["10.96.0.1", "10.96.0.2"]), 0..3), vec(80..82_u16, 0..3)).prop_map(
            move |(name, addresses, ports)| Resource::Service(Service {
                name: object(name),
                addresses: addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect(),
                ports: ports
                    .into_iter()
                    .map(|number| ServicePort { port: number, ..port(Protocol::Tcp, AppProtocol::Http) })
                    .collect(),
            })
        ),
        (name(), name()).prop_map(|(name, service)| {
            Resource::Endpoints(Endpoints {
                service: service.into(),
                ..slice(name, &[("10.0.0.1", true, false)])
            })
        }),
        (name(), vec((name(), proptest::option::of(80..82_u16)), 0..3)).prop_map(move |(name, parents)| {
            Resource::Route(Route {
                kind: RouteKind::HttpRoute,
                origin: object(name),
                rule: 0,
                created: 0,
                parents: parents
                    .into_iter()
                    .map(|(service, port)| RouteParent::Service { service: object(service), port })
                    .collect(),
                hostnames: vec![],
                matches: vec![],
                action: RouteAction {
                    filters: vec![],
                    backends: vec![],
                    timeouts: RouteTimeouts::default(),
                    retry: None,
                },
            })
        }),
        (name(), name()).prop_map(move |(name, service)| {
            Resource::RateLimit(RateLimit {
                name: object(name),
                target: RateLimitTarget::Service(object(service)),
                requests: 1,
                interval: Duration::from_secs(1),
                burst: 1,
                per_client: false,
            })
        }),
    ]
}

/// What can be asked of all Services.
fn answers(services: &Services) -> Vec<String> {
    let mut answers = Vec::new();
    for (name, view) in services.iter() {
        answers.push(format!("{name} {:?} {:?}", view.service(), view.slices().collect::<Vec<_>>()));
        for port in view.service().into_iter().flat_map(|service| &service.ports) {
            let routes: Vec<String> = view.routes(port.port).map(ResourceKey::to_string).collect();
            answers.push(format!(
                "{name}:{} {:?} {routes:?} {:?}",
                port.port,
                view.capture(port),
                view.limits()
            ));
        }
    }
    for address in ["10.96.0.1", "10.96.0.2"].map(|address| address.parse::<IpAddr>().unwrap()) {
        let at = |port| services.at(address, port, 6).map(|(_, service, port)| (&service.name, port.port));
        answers.push(format!("{address} {} {:?} {:?}", services.has_address(address), at(80), at(81)));
    }
    answers
}

proptest! {
    /// Following changes leads to what the state gives from scratch, and every Service that answers
    /// otherwise is named.
    #[test]
    fn services_that_follow_changes_are_those_of_the_state(
        commits in vec(vec((resources(), any::<bool>()), 1..4), 1..10),
    ) {
        let mut snapshot = Snapshot::default();
        let mut services = Services::default();
        for commit in commits {
            let before = snapshot.clone();
            for (resource, stays) in commit {
                match stays {
                    true => snapshot.insert(resource),
                    false => drop(snapshot.resources.remove(&resource.key())),
                }
            }
            let last = services.clone();
            services = services.next(&Changes::between(&before, &snapshot));
            prop_assert_eq!(answers(&services), answers(&Services::of(&snapshot)));
            let named = services.changed_since(&last);
            for (name, view) in services.iter() {
                let same = last.find(name).is_some_and(|last| format!("{last:?}") == format!("{view:?}"));
                prop_assert!(same || named.contains(name), "{} is not named", name);
            }
        }
    }
}
