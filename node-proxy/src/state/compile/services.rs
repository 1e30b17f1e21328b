// SPDX-License-Identifier: Apache-2.0
//! What the ports of Services stand for: a target for those who connect to them, an upstream for those who
//! are sent to them.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::Vector;
use weft_ir::{BackendService, ObjectName, Protocol, RateLimitTarget, Service, ServicePort};
use weft_policy::capture::{self, ServiceView, Services};

use super::{
    limits::{self, Limits},
    rules::{self, CompiledRoute, Rules},
};
use crate::{
    route::{
        RouteTable,
        ratelimit::RateLimiter,
        slots::{Slot, Slots},
    },
    state::{
        ServiceTarget, TargetMap,
        upstream::{Endpoint, Upstream},
    },
};

/// The ports of the last state.
#[derive(Debug, Default)]
pub(super) struct Targets {
    by_port: HashMap<BackendService, CompiledPort>,
    by_address: TargetMap,
    upstreams: Vector<Option<Arc<Upstream>>>,
    endpoints: Slots<SocketAddr>,
}

#[derive(Debug)]
struct CompiledPort {
    routes: Vec<CompiledRoute>,
    target: Arc<ServiceTarget>,
    upstream: Arc<Upstream>,
}

/// What a port is made from, besides its Service.
pub(super) struct Parts<'a> {
    pub(super) services: &'a Services,
    pub(super) rules: &'a Rules,
    pub(super) limits: &'a Limits,
}

impl Targets {
    /// Targets by the address and port of a Service.
    pub(super) fn by_address(&self) -> &TargetMap {
        &self.by_address
    }

    /// Upstreams by the index of their slots.
    pub(super) fn upstreams(&self) -> &Vector<Option<Arc<Upstream>>> {
        &self.upstreams
    }

    /// How many endpoints have a slot.
    #[cfg(test)]
    pub(super) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Compiles a Service again; `old` is what it was in the last state.
    pub(super) fn compile(
        &mut self,
        name: &ObjectName,
        old: Option<&ServiceView>,
        parts: &Parts<'_>,
        slots: &mut Slots<BackendService>,
    ) {
        let view = parts.services.find(name);
        let before = old.and_then(ServiceView::service);
        let now = view.and_then(ServiceView::service);
        if let (Some(view), Some(service)) = (view, now) {
            let limits = parts.limits.on(&RateLimitTarget::Service(name.clone()));
            for port in tcp_ports(service) {
                self.compile_port(view, port, &limits, parts, slots);
            }
        }
        for port in before.into_iter().flat_map(tcp_ports) {
            let gone = !now.into_iter().flat_map(tcp_ports).any(|kept| kept.port == port.port);
            if gone {
                self.forget_port(&backend(name, port), slots);
            }
        }
        for point in before.into_iter().chain(now).flat_map(points) {
            self.settle_point(point, parts.services);
        }
    }

    /// Gives back the slots of endpoints that no upstream has any more.
    pub(super) fn settle(&mut self) {
        self.endpoints.settle();
    }

    fn compile_port(
        &mut self,
        view: &ServiceView,
        port: &ServicePort,
        limits: &[Arc<RateLimiter>],
        parts: &Parts<'_>,
        slots: &mut Slots<BackendService>,
    ) {
        let Some(service) = view.service() else { return };
        let key = backend(&service.name, port);
        let last = self.by_port.remove(&key);
        let slot = match &last {
            Some(last) => last.upstream.slot,
            None => slots.hold(&key),
        };
        let upstream = self.upstream(slot, view, port, limits, last.as_ref());
        let routes: Vec<CompiledRoute> =
            view.routes(port.port).filter_map(|key| parts.rules.find(key)).cloned().collect();
        let capture = view.capture(port);
        let target = ServiceTarget {
            capture,
            upstream: slot,
            routes: table(&routes, last.as_ref()),
            limits: if capture.is_redirected() { limits.to_vec() } else { Vec::new() },
        };
        let target = match last {
            Some(last) if last.target.is_same(&target) => last.target,
            _ => Arc::new(target),
        };
        self.by_port.insert(key, CompiledPort { routes, target, upstream });
    }

    /// The upstream of a port: that of the last state if it is the same, so that workers see that it is.
    fn upstream(
        &mut self,
        slot: Slot,
        view: &ServiceView,
        port: &ServicePort,
        limits: &[Arc<RateLimiter>],
        last: Option<&CompiledPort>,
    ) -> Arc<Upstream> {
        let families = [false, true];
        let found = families.into_iter().flat_map(|ipv6| capture::backends(port, view.slices(), ipv6));
        let endpoints: Vec<Endpoint> =
            found.map(|address| Endpoint { address, slot: self.endpoints.hold(&address) }).collect();
        for endpoint in last.into_iter().flat_map(|last| &last.upstream.endpoints) {
            self.endpoints.release(&endpoint.address);
        }
        if let Some(CompiledPort { upstream, .. }) = last
            && upstream.endpoints == endpoints
            && upstream.protocol == port.app_protocol
            && limits::same(&upstream.limits, limits)
        {
            return Arc::clone(upstream);
        }
        let name = view.service().map(|service| service.name.to_string()).unwrap_or_default();
        let upstream = Arc::new(Upstream {
            slot,
            name: name.into(),
            protocol: port.app_protocol,
            endpoints,
            limits: limits.to_vec(),
        });
        self.place(slot, Some(Arc::clone(&upstream)));
        upstream
    }

    fn forget_port(&mut self, key: &BackendService, slots: &mut Slots<BackendService>) {
        let Some(last) = self.by_port.remove(key) else { return };
        for endpoint in &last.upstream.endpoints {
            self.endpoints.release(&endpoint.address);
        }
        self.place(last.upstream.slot, None);
        slots.release(key);
    }

    fn place(&mut self, slot: Slot, upstream: Option<Arc<Upstream>>) {
        let index = slot.index as usize;
        while self.upstreams.len() <= index {
            self.upstreams.push_back(None);
        }
        self.upstreams.set(index, upstream);
    }

    /// Enters the Service that has a port of an address now.
    fn settle_point(&mut self, (address, port): (IpAddr, u16), services: &Services) {
        let owner = services.at(address, port, Protocol::Tcp.number());
        let target = owner.and_then(|(_, service, port)| self.by_port.get(&backend(&service.name, port)));
        match target {
            Some(found) => self.by_address.insert((address, port), Arc::clone(&found.target)),
            None => self.by_address.remove(&(address, port)),
        };
    }
}

/// The table of the routes on a port: that of the last state if they are the same.
fn table(routes: &[CompiledRoute], last: Option<&CompiledPort>) -> Option<Arc<RouteTable>> {
    if routes.is_empty() {
        return None;
    }
    if let Some(last) = last
        && rules::same(&last.routes, routes)
    {
        return last.target.routes.clone();
    }
    let mut table = RouteTable::default();
    rules::set_host(&mut table, "", routes);
    Some(Arc::new(table))
}

impl ServiceTarget {
    fn is_same(&self, other: &ServiceTarget) -> bool {
        let same_routes = match (&self.routes, &other.routes) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same_routes
            && self.capture == other.capture
            && self.upstream == other.upstream
            && limits::same(&self.limits, &other.limits)
    }
}

fn tcp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(|port| port.protocol == Protocol::Tcp)
}

fn points(service: &Service) -> impl Iterator<Item = (IpAddr, u16)> {
    let addresses = service.addresses.iter().map(IpAddr::to_canonical);
    addresses.flat_map(|address| tcp_ports(service).map(move |port| (address, port.port)))
}

fn backend(service: &ObjectName, port: &ServicePort) -> BackendService {
    BackendService { name: service.clone(), port: port.port }
}
