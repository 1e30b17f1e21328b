// SPDX-License-Identifier: Apache-2.0
//! Clusters of a given number of pods, with everything else in proportion: at 10,000 pods 5,000 Services,
//! 20,000 endpoints, 2,000 routes and 2,000 policies.

use std::net::{IpAddr, Ipv4Addr};

use weft_ir::{
    AppProtocol, BackendService, Endpoint, EndpointPort, Endpoints, HttpRule, Identity, IdentityNumber,
    L7Rules, Listener, ListenerParent, ListenerParentKind, MeshDefaults, Node, ObjectName, Operator,
    PathMatch, Peer, Policy, PolicyDirection, PolicyKind, PolicyPort, PolicyRule, PortRule, Protocol,
    Requirement, Resource, Route, RouteAction, RouteBackend, RouteKind, RouteMatch, RouteParent,
    RouteTimeouts, Selector, Service, ServicePort, Tier, Workload,
};

/// The node whose cost is measured; it has as many pods as the others.
pub(crate) const NODE: &str = "node-0";
/// Pods of one node: the kubelet's default is at most 110.
const PODS_PER_NODE: u32 = 100;
/// Pods of one application, which have the same labels.
const REPLICAS: u32 = 10;
/// Endpoints of one Service.
const ENDPOINTS: u32 = 4;

/// What changes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Pod,
    /// A pod with labels that no other has.
    PodWithNewLabels,
    Service,
    Endpoints,
    Route,
    Policy,
}

impl Kind {
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Pod, Kind::PodWithNewLabels, Kind::Service, Kind::Endpoints, Kind::Route, Kind::Policy];
}

/// A cluster of this many pods.
#[derive(Clone, Copy)]
pub(crate) struct Cluster {
    pub(crate) pods: u32,
}

impl Cluster {
    pub(crate) fn services(self) -> u32 {
        self.pods / 2
    }

    pub(crate) fn endpoints(self) -> u32 {
        self.services() * ENDPOINTS
    }

    pub(crate) fn routes(self) -> u32 {
        self.pods / 5
    }

    pub(crate) fn policies(self) -> u32 {
        self.pods / 5
    }

    fn apps(self) -> u32 {
        self.pods.div_ceil(REPLICAS)
    }

    /// Everything.
    pub(crate) fn resources(self) -> Vec<Resource> {
        let mut all =
            vec![Resource::MeshDefaults(MeshDefaults { pod_cidrs: vec!["10.0.0.0/8".parse().unwrap()] })];
        all.extend((0..self.pods.div_ceil(PODS_PER_NODE)).map(node));
        all.extend((0..self.apps()).map(|app| identity(300 + app, &format!("app-{app}"))));
        all.extend((0..self.pods).map(|number| pod(number, 300 + number % self.apps(), number)));
        all.extend(
            (0..self.services())
                .flat_map(|number| [service(number, AppProtocol::Http), self.slice(number, true)]),
        );
        all.push(Resource::Listener(Listener {
            parent: gateway(),
            name: "http".into(),
            addresses: vec![],
            port: 8080,
            hostname: "".into(),
        }));
        all.extend((0..self.routes()).map(|number| self.route(number, 1)));
        all.extend((0..self.policies()).map(|number| self.policy(number, 8080)));
        all
    }

    /// One object of the kind, changed; each version differs.
    pub(crate) fn changed(self, kind: Kind, number: u32, version: u32) -> Vec<Resource> {
        match kind {
            // Its address moves to one that nobody has.
            Kind::Pod => vec![pod(number, 300 + number % self.apps(), self.pods + version)],
            Kind::PodWithNewLabels => {
                let own = 1_000_000 + version;
                vec![identity(own, &format!("new-{version}")), pod(number, own, number)]
            }
            Kind::Service => {
                let protocols = [AppProtocol::Unknown, AppProtocol::Http2];
                vec![service(number, protocols[version as usize % 2])]
            }
            Kind::Endpoints => vec![self.slice(number, false)],
            Kind::Route => vec![self.route(number % self.routes(), 1 + version)],
            Kind::Policy => vec![self.policy(number % self.policies(), 9_000 + version as u16)],
        }
    }

    fn slice(self, service: u32, ready: bool) -> Resource {
        let endpoint = |index: u32| Endpoint {
            address: pod_address((service * 2 + index) % self.pods),
            ready: ready || index > 0,
            serving: true,
            terminating: false,
        };
        Resource::Endpoints(Endpoints {
            name: name(&format!("service-{service}-slice")),
            service: format!("service-{service}").into(),
            ports: vec![EndpointPort { name: "http".into(), port: 8080, protocol: Protocol::Tcp }],
            endpoints: (0..ENDPOINTS).map(endpoint).collect(),
        })
    }

    /// Half of them are attached to a Service, half to the Gateway, each with a hostname of its own.
    fn route(self, number: u32, weight: u32) -> Resource {
        let service = name(&format!("service-{number}"));
        let parent = match number % 2 {
            0 => RouteParent::Service { service: service.clone(), port: Some(80) },
            _ => RouteParent::Listener { parent: gateway(), listener: "http".into() },
        };
        let backend = |offset: u32, weight| RouteBackend {
            service: Some(BackendService { name: name(&format!("service-{}", number + offset)), port: 80 }),
            weight,
            filters: vec![],
        };
        Resource::Route(Route {
            kind: RouteKind::HttpRoute,
            origin: name(&format!("route-{number}")),
            rule: 0,
            created: i64::from(number),
            parents: vec![parent],
            hostnames: vec![format!("host-{number}.test").into()],
            matches: vec![RouteMatch {
                path: PathMatch::Prefix("/".into()),
                method: None,
                headers: vec![],
                query: vec![],
            }],
            action: RouteAction {
                filters: vec![],
                backends: vec![backend(0, weight), backend(1, 1)],
                timeouts: RouteTimeouts::default(),
                retry: None,
            },
        })
    }

    /// An application may be asked by another; one in four policies is about requests.
    fn policy(self, number: u32, port: u16) -> Resource {
        let app = |number: u32| Selector {
            requirements: vec![Requirement {
                key: "k8s:app".into(),
                operator: Operator::In(vec![format!("app-{}", number % self.apps()).into()]),
            }],
        };
        let rules = || L7Rules::Http(vec![HttpRule { path: Some("/api/.*".into()), ..HttpRule::default() }]);
        let port = PortRule {
            port: PolicyPort::Range(port, port),
            protocol: Some(Protocol::Tcp),
            l7: number.is_multiple_of(4).then(rules),
        };
        let rule = PolicyRule {
            peers: vec![Peer::Selector(app(number + 1))],
            ports: vec![port],
            authenticate: false,
        };
        Resource::Policy(Policy {
            kind: PolicyKind::CiliumNetworkPolicy,
            name: name(&format!("policy-{number}")),
            index: 0,
            tier: Tier::Normal,
            priority: 0,
            subject: app(number),
            ingress: PolicyDirection { default_deny: true, allow: vec![rule], deny: vec![] },
            egress: PolicyDirection::default(),
        })
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn gateway() -> ListenerParent {
    ListenerParent { kind: ListenerParentKind::Gateway, name: name("gateway") }
}

fn pod_address(number: u32) -> IpAddr {
    // 10.0.0.0 and what is behind it up to the Services' 10.128.0.0.
    Ipv4Addr::from((10 << 24) + number + 1).into()
}

fn node(number: u32) -> Resource {
    Resource::Node(Node {
        name: format!("node-{number}").into(),
        addresses: vec![Ipv4Addr::from((172 << 24) + (16 << 16) + number + 1).into()],
        ingress_addresses: vec![],
        pod_cidrs: vec![],
    })
}

fn identity(number: u32, app: &str) -> Resource {
    let labels = [("k8s:app".into(), app.into()), ("k8s:io.kubernetes.pod.namespace".into(), "shop".into())];
    Resource::Identity(Identity { number: IdentityNumber(number), labels: labels.into() })
}

fn pod(number: u32, identity: u32, address: u32) -> Resource {
    Resource::Workload(Workload {
        name: name(&format!("pod-{number}")),
        node: format!("node-{}", number / PODS_PER_NODE).into(),
        addresses: vec![pod_address(address)],
        identity: IdentityNumber(identity),
        service_account: "default".into(),
        host_network: false,
        owner: format!("app-{identity}").into(),
        ports: vec![],
    })
}

fn service(number: u32, app_protocol: AppProtocol) -> Resource {
    Resource::Service(Service {
        name: name(&format!("service-{number}")),
        addresses: vec![Ipv4Addr::from((10 << 24) + (128 << 16) + number + 1).into()],
        ports: vec![ServicePort { name: "http".into(), port: 80, protocol: Protocol::Tcp, app_protocol }],
    })
}
