// SPDX-License-Identifier: Apache-2.0
//! Services, each with what belongs to it: its endpoints, the routes that are attached to it, and the limits
//! on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use imbl::{OrdMap, ordmap::DiffItem};
use weft_ir::{
    Changed, Changes, Endpoints, ObjectName, RateLimitTarget, Resource, ResourceKey, RouteParent, Service,
    ServicePort, Snapshot,
};

use super::Capture;

/// The Services of a state. A clone shares everything with the original.
#[derive(Clone, Debug, Default)]
pub struct Services {
    by_name: OrdMap<ObjectName, Shared>,
    /// Who claims a port of an address; the last by name has it.
    by_address: OrdMap<Point, Arc<[ObjectName]>>,
    /// How many Services have an address.
    addresses: OrdMap<IpAddr, u32>,
}

/// An address, a port, and the number of an IP protocol.
type Point = (IpAddr, u16, u8);

/// One Service with what belongs to it. Endpoints and routes may be there before their Service is.
#[derive(Clone, Debug, Default)]
pub struct ServiceView {
    service: Option<Arc<Resource>>,
    slices: BTreeMap<ResourceKey, Arc<Resource>>,
    /// The ports that routes name; nothing for every port.
    routes: BTreeMap<ResourceKey, Vec<Option<u16>>>,
    limits: Vec<ResourceKey>,
}

/// Equal where it is the same object: a change makes a new one.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<ServiceView>);

impl PartialEq for Shared {
    fn eq(&self, other: &Shared) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Services {
    /// The Services of a state.
    pub fn of(snapshot: &Snapshot) -> Services {
        Services::default().next(&Changes::between(&Snapshot::default(), snapshot))
    }

    /// Those of the next state; the cost is that of the change.
    #[must_use]
    pub fn next(&self, changes: &Changes) -> Services {
        let mut next = self.clone();
        for changed in changes {
            next.note(changed);
        }
        next
    }

    /// The Service of this name, or what names one that is not there.
    pub fn find(&self, name: &ObjectName) -> Option<&ServiceView> {
        self.by_name.get(name).map(|shared| &*shared.0)
    }

    /// The Service that has a port of an address, with the port; of several the last by name.
    pub fn at(
        &self,
        address: IpAddr,
        port: u16,
        protocol: u8,
    ) -> Option<(&ServiceView, &Service, &ServicePort)> {
        let owner = self.by_address.get(&(address, port, protocol))?.last()?;
        let view = self.find(owner)?;
        let service = view.service()?;
        let same = |found: &&ServicePort| found.port == port && found.protocol.number() == protocol;
        Some((view, service, service.ports.iter().find(same)?))
    }

    /// Whether a Service has the address, whatever the port.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &ServiceView)> {
        self.by_name.iter().map(|(name, shared)| (name, &*shared.0))
    }

    /// The names of those that differ from those of another state.
    pub fn changed_since(&self, old: &Services) -> Vec<ObjectName> {
        let name = |item: DiffItem<'_, '_, ObjectName, Shared>| match item {
            DiffItem::Add(name, _) | DiffItem::Remove(name, _) => name.clone(),
            DiffItem::Update { new: (name, _), .. } => name.clone(),
        };
        old.by_name.diff(&self.by_name).map(name).collect()
    }

    fn note(&mut self, changed: &Changed) {
        if let Some(old) = &changed.old {
            self.leave(&changed.key, old);
        }
        if let Some(new) = &changed.new {
            self.enter(&changed.key, new);
        }
    }

    fn enter(&mut self, key: &ResourceKey, resource: &Arc<Resource>) {
        match &**resource {
            Resource::Service(service) => {
                self.view(&service.name).service = Some(Arc::clone(resource));
                self.claim(service);
            }
            Resource::Endpoints(slice) => {
                self.view(&owner(slice)).slices.insert(key.clone(), Arc::clone(resource));
            }
            Resource::Route(route) => {
                for (service, port) in parents(&route.parents) {
                    self.view(service).routes.entry(key.clone()).or_default().push(port);
                }
            }
            Resource::RateLimit(limit) => {
                if let RateLimitTarget::Service(service) = &limit.target {
                    let limits = &mut self.view(service).limits;
                    if let Err(place) = limits.binary_search(key) {
                        limits.insert(place, key.clone());
                    }
                }
            }
            _ => {}
        }
    }

    fn leave(&mut self, key: &ResourceKey, resource: &Resource) {
        match resource {
            Resource::Service(service) => {
                self.view(&service.name).service = None;
                self.release(service);
                self.forget_empty(&service.name);
            }
            Resource::Endpoints(slice) => {
                let service = owner(slice);
                self.view(&service).slices.remove(key);
                self.forget_empty(&service);
            }
            Resource::Route(route) => {
                for (service, _) in parents(&route.parents) {
                    self.view(service).routes.remove(key);
                    self.forget_empty(service);
                }
            }
            Resource::RateLimit(limit) => {
                if let RateLimitTarget::Service(service) = &limit.target {
                    self.view(service).limits.retain(|known| known != key);
                    self.forget_empty(service);
                }
            }
            _ => {}
        }
    }

    fn view(&mut self, name: &ObjectName) -> &mut ServiceView {
        Arc::make_mut(&mut self.by_name.entry(name.clone()).or_default().0)
    }

    fn forget_empty(&mut self, name: &ObjectName) {
        if self.find(name).is_some_and(ServiceView::is_empty) {
            self.by_name.remove(name);
        }
    }

    fn claim(&mut self, service: &Service) {
        for address in addresses(service) {
            *self.addresses.entry(address).or_insert(0) += 1;
        }
        for point in points(service) {
            let mut names = self.by_address.get(&point).map_or_else(Vec::new, |known| known.to_vec());
            if let Err(place) = names.binary_search(&service.name) {
                names.insert(place, service.name.clone());
                self.by_address.insert(point, names.into());
            }
        }
    }

    fn release(&mut self, service: &Service) {
        for address in addresses(service) {
            match self.addresses.get_mut(&address) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.addresses.remove(&address)),
            }
        }
        for point in points(service) {
            let Some(known) = self.by_address.get(&point) else { continue };
            let rest: Arc<[ObjectName]> =
                known.iter().filter(|name| **name != service.name).cloned().collect();
            match rest.is_empty() {
                true => self.by_address.remove(&point),
                false => self.by_address.insert(point, rest),
            };
        }
    }
}

impl ServiceView {
    /// The Service, once it is there.
    pub fn service(&self) -> Option<&Service> {
        match self.service.as_deref() {
            Some(Resource::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// Its EndpointSlices, in the order of their keys.
    pub fn slices(&self) -> impl Iterator<Item = &Endpoints> {
        self.slices.values().filter_map(|resource| match &**resource {
            Resource::Endpoints(slice) => Some(slice),
            _ => None,
        })
    }

    /// The rules of routes that are attached to a port: those that name it, then those of every port, each
    /// in the order of their keys.
    pub fn routes(&self, port: u16) -> impl Iterator<Item = &ResourceKey> {
        let naming = move |wanted: Option<u16>| {
            let named = move |(_, ports): &(_, &Vec<Option<u16>>)| ports.contains(&wanted);
            self.routes.iter().filter(named).map(|(key, _)| key)
        };
        let twice = move |key: &&ResourceKey| !self.routes[*key].contains(&Some(port));
        naming(Some(port)).chain(naming(None).filter(twice))
    }

    /// The limits on it, in the order of their keys.
    pub fn limits(&self) -> &[ResourceKey] {
        &self.limits
    }

    /// What becomes of connections to one of its ports.
    pub fn capture(&self, port: &ServicePort) -> Capture {
        let routed = self.routes(port.port).next().is_some();
        Capture::of_service_port(port, routed, !self.limits.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty() && self.routes.is_empty() && self.limits.is_empty()
    }
}

/// The addresses of a Service, each once.
fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let all: BTreeSet<_> = service.addresses.iter().map(IpAddr::to_canonical).collect();
    all.into_iter()
}

/// The Service that a slice belongs to.
fn owner(slice: &Endpoints) -> ObjectName {
    ObjectName { namespace: Arc::clone(&slice.name.namespace), name: Arc::clone(&slice.service) }
}

fn points(service: &Service) -> impl Iterator<Item = Point> {
    addresses(service).flat_map(|address| {
        service.ports.iter().map(move |port| (address, port.port, port.protocol.number()))
    })
}

fn parents(parents: &[RouteParent]) -> impl Iterator<Item = (&ObjectName, Option<u16>)> {
    parents.iter().filter_map(|parent| match parent {
        RouteParent::Service { service, port } => Some((service, *port)),
        RouteParent::Listener { .. } => None,
    })
}
