// SPDX-License-Identifier: Apache-2.0
//! Compiles snapshots of the IR into states, on the control thread.
//!
//! The compiler remembers what the last state was made of. Three groups are looked at apart: who is
//! behind an address, services with their endpoints, routes with listeners and rate limits. A group
//! that no changed resource belongs to is taken over as it is; inside a group what was compiled from
//! the same resources is used again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::ordmap::DiffItem;
use weft_ebpf_common::identity;
use weft_flow_export::enrich::Directory;
use weft_ir::{
    BackendService, Endpoints, Listener, MeshDefaults, ObjectName, Protocol, RateLimitTarget, Resource,
    ResourceKey, RouteParent, Service, ServicePort, Snapshot,
};
use weft_policy::PolicySet;

use super::{
    ListenPoint, MeshState, Peer, Peers, Place, ServiceTarget, VirtualHost, listeners,
    tables::{CompiledRoute, TableKey, Tables, same_limits},
};
use crate::{
    route::{
        self, Hostnames,
        ratelimit::RateLimiter,
        rule::Rule,
        slots::{Slot, Slots},
    },
    state::cluster::{Cluster, Endpoint, serving_addresses},
};

/// A resource of which the node cannot use a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The resource.
    pub key: ResourceKey,
    /// What is wrong with it.
    pub(crate) error: String,
}

/// Turns snapshots into states.
#[derive(Debug)]
pub struct Compiler {
    node: Arc<str>,
    listen_addresses: Vec<IpAddr>,
    snapshot: Snapshot,
    state: Arc<MeshState>,
    cluster_slots: Slots<BackendService>,
    endpoint_slots: Slots<SocketAddr>,
    limits: HashMap<ResourceKey, Arc<RateLimiter>>,
    routes: HashMap<ResourceKey, CompiledRoute>,
    rejected: HashMap<ResourceKey, String>,
    tables: Tables,
    own: Vec<IpAddr>,
    own_changed: bool,
}

/// Which groups a change touches.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    peers: bool,
    services: bool,
    routes: bool,
}

/// The resources of a snapshot by kind.
#[derive(Default)]
struct Sorted<'a> {
    peers: Vec<&'a Resource>,
    services: Vec<&'a Service>,
    slices: HashMap<ObjectName, Vec<&'a Endpoints>>,
    routes: Vec<(&'a ResourceKey, &'a Arc<Resource>)>,
    listeners: Vec<&'a Listener>,
    limits: Vec<(&'a ResourceKey, &'a weft_ir::RateLimit)>,
}

type Limits = HashMap<RateLimitTarget, Vec<Arc<RateLimiter>>>;

impl Compiler {
    /// A compiler for the node of this name, with an empty state. Listeners without addresses of their
    /// own listen on these, or on every address of the node where there are none.
    pub fn new(node: Arc<str>, listen_addresses: Vec<IpAddr>) -> Compiler {
        Compiler {
            listen_addresses,
            snapshot: Snapshot::default(),
            state: Arc::new(MeshState::empty(&node)),
            node,
            cluster_slots: Slots::default(),
            endpoint_slots: Slots::default(),
            limits: HashMap::new(),
            routes: HashMap::new(),
            rejected: HashMap::new(),
            tables: Tables::default(),
            own: Vec::new(),
            own_changed: false,
        }
    }

    /// Makes addresses of the node's own devices the node's, from the next state on.
    pub(crate) fn set_own_addresses(&mut self, own: Vec<IpAddr>) {
        if self.own != own {
            self.own = own;
            self.own_changed = true;
        }
    }

    fn compile_policies(&mut self, snapshot: &Snapshot, undecoded: &[ResourceKey]) -> PolicySet {
        let policies = self.state.policies.next(snapshot, undecoded);
        // Later sets keep the addresses.
        match std::mem::take(&mut self.own_changed) {
            true => policies.with_own_addresses(&self.own),
            false => policies,
        }
    }

    /// The last state.
    pub(crate) fn state(&self) -> &Arc<MeshState> {
        &self.state
    }

    /// The state for a snapshot, and the resources that cannot be used in full. `undecoded` names
    /// resources of the snapshot that this node could not read.
    pub fn compile(
        &mut self,
        snapshot: &Snapshot,
        undecoded: &[ResourceKey],
    ) -> (Arc<MeshState>, Vec<Rejected>) {
        let changed = changed(&self.snapshot, snapshot);
        let sorted = Sorted::new(snapshot);
        let limits = self.compile_limits(&sorted);
        let peers = match changed.peers {
            true => Arc::new(self.compile_peers(&sorted.peers)),
            false => Arc::clone(&self.state.peers),
        };
        if changed.routes {
            self.compile_routes(&sorted.routes, &limits);
        }
        let mut state = MeshState {
            revision: snapshot.revision,
            peers,
            services: Arc::clone(&self.state.services),
            clusters: Vec::new(),
            listen_points: Arc::clone(&self.state.listen_points),
            policies: Arc::new(self.compile_policies(snapshot, undecoded)),
            directory: Arc::new(Directory::build(snapshot, &self.node)),
        };
        if changed.routes || changed.services {
            let mut last = std::mem::take(&mut self.tables);
            state.clusters = self.compile_clusters(&sorted, &limits);
            state.services = Arc::new(self.compile_services(&sorted, &limits, &mut last));
            state.listen_points = Arc::new(self.compile_listeners(&sorted.listeners, &mut last));
        } else {
            state.clusters.clone_from(&self.state.clusters);
        }
        self.snapshot = snapshot.clone();
        self.state = Arc::new(state);
        let rejected = self.rejected.iter();
        let rejected = rejected.map(|(key, error)| Rejected { key: key.clone(), error: error.clone() });
        (Arc::clone(&self.state), rejected.collect())
    }

    fn compile_peers(&self, resources: &[&Resource]) -> Peers {
        let mut peers = Peers::default();
        for resource in resources {
            match resource {
                // A pod of the host's network has the node's addresses, and so the node's identity.
                Resource::Workload(workload) if !workload.host_network => {
                    let peer = Peer::of_workload(workload.clone(), &self.node);
                    peers.known.extend(workload.addresses.iter().map(|address| (*address, peer.clone())));
                }
                Resource::Node(node) => {
                    let (number, place) = match *node.name == *self.node {
                        true => (identity::HOST, Place::Host),
                        false => (identity::REMOTE_NODE, Place::OtherNode),
                    };
                    let peer = Peer::of_node(number, place);
                    peers.known.extend(node.addresses.iter().map(|address| (*address, peer.clone())));
                    let ingress = Peer::of_node(identity::INGRESS, place);
                    let addresses = node.ingress_addresses.iter();
                    peers.known.extend(addresses.map(|address| (*address, ingress.clone())));
                    if place == Place::Host {
                        peers.own = Some(Arc::new(node.clone()));
                    }
                }
                Resource::MeshDefaults(MeshDefaults { pod_cidrs }) => peers.pod_cidrs.clone_from(pod_cidrs),
                _ => {}
            }
        }
        peers
    }

    /// Keeps the bucket of a limit that has not changed.
    fn compile_limits(&mut self, sorted: &Sorted<'_>) -> Limits {
        let mut kept = HashMap::with_capacity(sorted.limits.len());
        let mut by_target = Limits::new();
        for (key, limit) in &sorted.limits {
            let limiter = match self.limits.remove(*key) {
                Some(limiter) if limiter.limit() == *limit => limiter,
                _ => Arc::new(RateLimiter::new((*limit).clone())),
            };
            by_target.entry(limit.target.clone()).or_default().push(Arc::clone(&limiter));
            kept.insert((*key).clone(), limiter);
        }
        self.limits = kept;
        by_target
    }

    fn compile_routes(&mut self, routes: &[(&ResourceKey, &Arc<Resource>)], limits: &Limits) {
        let mut last = std::mem::take(&mut self.routes);
        let mut last_rejected = std::mem::take(&mut self.rejected);
        for (key, resource) in routes {
            let Resource::Route(route) = resource.as_ref() else { continue };
            let limits = limits.get(&RateLimitTarget::Route { kind: route.kind, name: route.origin.clone() });
            let limits = limits.map(Vec::as_slice).unwrap_or_default();
            let (compiled, error) = match last.remove(*key) {
                Some(compiled) if compiled.is_made_from(resource, limits) => {
                    (compiled, last_rejected.remove(*key))
                }
                _ => {
                    let (usable, error) = route::usable(route);
                    let slots = &mut self.cluster_slots;
                    let rule = Rule::compile(&usable, limits.to_vec(), |service| slots.assign(service));
                    let closed = error.is_some().then(|| Arc::new(usable.into_owned()));
                    let resource = Arc::clone(resource);
                    (
                        CompiledRoute { resource, closed, rule: Arc::new(rule) },
                        error.map(|error| error.to_string()),
                    )
                }
            };
            self.rejected.extend(error.map(|error| ((*key).clone(), error)));
            self.routes.insert((*key).clone(), compiled);
        }
    }

    fn compile_clusters(&mut self, sorted: &Sorted<'_>, limits: &Limits) -> Vec<Option<Arc<Cluster>>> {
        let mut live: HashSet<BackendService> = sorted.services.iter().flat_map(|s| backends(s)).collect();
        live.extend(
            self.routes
                .values()
                .filter_map(CompiledRoute::route)
                .flat_map(|route| route.action.backends.iter().filter_map(|backend| backend.service.clone())),
        );
        self.cluster_slots.retain(&live);
        let mut clusters = Vec::new();
        let mut addresses = HashSet::new();
        for service in &sorted.services {
            let name: Arc<str> = service.name.to_string().into();
            let slices = sorted.slices.get(&service.name).map(Vec::as_slice).unwrap_or_default();
            for port in tcp_ports(service) {
                let backend = BackendService { name: service.name.clone(), port: port.port };
                let slot = self.cluster_slots.assign(&backend);
                let found = serving_addresses(port, slices.iter().copied());
                addresses.extend(found.iter().copied());
                let endpoints = found.into_iter();
                let endpoints = endpoints
                    .map(|address| Endpoint { address, slot: self.endpoint_slots.assign(&address) })
                    .collect();
                let cluster = Cluster {
                    slot,
                    name: Arc::clone(&name),
                    protocol: port.app_protocol,
                    endpoints,
                    limits: service_limits(limits, &service.name),
                };
                place(&mut clusters, self.reuse(cluster));
            }
        }
        self.endpoint_slots.retain(&addresses);
        clusters
    }

    /// The cluster of the last state, if it is the same: workers and caches then see that it is.
    fn reuse(&self, cluster: Cluster) -> Arc<Cluster> {
        match self.state.cluster(cluster.slot) {
            Some(last)
                if last.endpoints == cluster.endpoints
                    && last.protocol == cluster.protocol
                    && same_limits(&last.limits, &cluster.limits) =>
            {
                Arc::clone(last)
            }
            _ => Arc::new(cluster),
        }
    }

    fn compile_services(
        &mut self,
        sorted: &Sorted<'_>,
        limits: &Limits,
        last: &mut Tables,
    ) -> HashMap<(IpAddr, u16), Arc<ServiceTarget>> {
        let attached = self.attached_to_services();
        let mut targets = HashMap::new();
        for service in &sorted.services {
            for port in tcp_ports(service) {
                let backend = BackendService { name: service.name.clone(), port: port.port };
                let routes = routes_of(&attached, &service.name, port.port);
                let table = (!routes.is_empty()).then(|| {
                    let key = TableKey::Service(service.name.clone(), port.port);
                    self.tables.table(last, key, routes, Hostnames::Ignored)
                });
                let target = Arc::new(ServiceTarget {
                    protocol: port.app_protocol,
                    cluster: self.cluster_slots.assign(&backend),
                    routes: table,
                    limits: service_limits(limits, &service.name),
                });
                let keys = service.addresses.iter().map(|address| (*address, port.port));
                targets.extend(keys.map(|key| (key, Arc::clone(&target))));
            }
        }
        targets
    }

    fn compile_listeners(
        &mut self,
        listeners: &[&Listener],
        last: &mut Tables,
    ) -> BTreeMap<SocketAddr, Arc<ListenPoint>> {
        let attached = self.attached_to_listeners();
        let mut points: BTreeMap<SocketAddr, ListenPoint> = BTreeMap::new();
        for ((address, hostname), shared) in listeners::by_address(listeners, &self.listen_addresses) {
            let keys: Vec<ResourceKey> = shared.iter().map(|listener| listener.key()).collect();
            let routes = keys.iter().filter_map(|key| attached.get(key)).flatten().cloned().collect();
            let table = self.tables.table(last, TableKey::Listeners(keys), routes, Hostnames::Matched);
            let host = VirtualHost { routes: table };
            points.entry(address).or_default().add(&hostname, Arc::new(host));
        }
        points.into_iter().map(|(address, point)| (address, Arc::new(point))).collect()
    }

    fn attached_to_services(&self) -> HashMap<(ObjectName, Option<u16>), Vec<CompiledRoute>> {
        let mut attached: HashMap<_, Vec<CompiledRoute>> = HashMap::new();
        for (parent, compiled) in self.parents() {
            if let RouteParent::Service { service, port } = parent {
                attached.entry((service.clone(), *port)).or_default().push(compiled.clone());
            }
        }
        attached
    }

    fn attached_to_listeners(&self) -> HashMap<ResourceKey, Vec<CompiledRoute>> {
        let mut attached: HashMap<_, Vec<CompiledRoute>> = HashMap::new();
        for (parent, compiled) in self.parents() {
            if let RouteParent::Listener { parent, listener } = parent {
                let key = ResourceKey::Listener { parent: parent.clone(), listener: listener.clone() };
                attached.entry(key).or_default().push(compiled.clone());
            }
        }
        attached
    }

    /// Parents with their routes, in the order of the routes' keys, so that equal states are built equal.
    fn parents(&self) -> Vec<(&RouteParent, &CompiledRoute)> {
        let mut routes: Vec<_> = self.routes.iter().collect();
        routes.sort_unstable_by_key(|(key, _)| *key);
        let all = routes.into_iter().filter_map(|(_, compiled)| Some((compiled.route()?, compiled)));
        all.flat_map(|(route, compiled)| route.parents.iter().map(move |parent| (parent, compiled))).collect()
    }
}

impl<'a> Sorted<'a> {
    fn new(snapshot: &'a Snapshot) -> Sorted<'a> {
        let mut sorted = Sorted::default();
        for (key, resource) in &snapshot.resources {
            match resource.as_ref() {
                peer @ (Resource::Workload(_) | Resource::Node(_) | Resource::MeshDefaults(_)) => {
                    sorted.peers.push(peer);
                }
                Resource::Service(service) => sorted.services.push(service),
                Resource::Endpoints(slice) => {
                    let owner = ObjectName {
                        namespace: Arc::clone(&slice.name.namespace),
                        name: Arc::clone(&slice.service),
                    };
                    sorted.slices.entry(owner).or_default().push(slice);
                }
                Resource::Listener(listener) => sorted.listeners.push(listener),
                Resource::Route(_) => sorted.routes.push((key, resource)),
                Resource::RateLimit(limit) => sorted.limits.push((key, limit)),
                Resource::Identity(_) | Resource::Policy(_) => {}
            }
        }
        sorted
    }
}

fn changed(old: &Snapshot, new: &Snapshot) -> Changed {
    let mut changed = Changed::default();
    let mut note = |resource: &Resource| match resource {
        Resource::Workload(_) | Resource::Node(_) | Resource::MeshDefaults(_) => changed.peers = true,
        Resource::Service(_) | Resource::Endpoints(_) => changed.services = true,
        Resource::Route(_) | Resource::Listener(_) | Resource::RateLimit(_) => changed.routes = true,
        Resource::Identity(_) | Resource::Policy(_) => {}
    };
    for item in old.resources.diff(&new.resources) {
        match item {
            DiffItem::Add(_, resource) | DiffItem::Remove(_, resource) => note(resource),
            DiffItem::Update { new: (_, resource), .. } => note(resource),
        }
    }
    changed
}

fn tcp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(|port| port.protocol == Protocol::Tcp)
}

fn backends(service: &Service) -> impl Iterator<Item = BackendService> {
    tcp_ports(service).map(|port| BackendService { name: service.name.clone(), port: port.port })
}

fn service_limits(limits: &Limits, service: &ObjectName) -> Vec<Arc<RateLimiter>> {
    limits.get(&RateLimitTarget::Service(service.clone())).cloned().unwrap_or_default()
}

fn routes_of(
    attached: &HashMap<(ObjectName, Option<u16>), Vec<CompiledRoute>>,
    service: &ObjectName,
    port: u16,
) -> Vec<CompiledRoute> {
    let of = |port| attached.get(&(service.clone(), port)).into_iter().flatten().cloned();
    of(Some(port)).chain(of(None)).collect()
}

fn place(clusters: &mut Vec<Option<Arc<Cluster>>>, cluster: Arc<Cluster>) {
    let Slot { index, .. } = cluster.slot;
    if clusters.len() <= index as usize {
        clusters.resize(index as usize + 1, None);
    }
    if let Some(place) = clusters.get_mut(index as usize) {
        *place = Some(cluster);
    }
}
