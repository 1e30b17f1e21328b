// SPDX-License-Identifier: Apache-2.0
//! The whole state at one revision, and the difference between two of them.

use std::sync::Arc;

use imbl::{OrdMap, ordmap::DiffItem};

use crate::{
    Endpoints, Identity, IdentityNumber, Listener, ListenerParent, ListenerParentKind, Node, ObjectName,
    Policy, PolicyKind, RateLimit, Resource, ResourceKey, Route, RouteKind, Service, Workload,
    stream::Position,
};

/// The whole state at one revision. A clone shares everything with the original.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Names the run of the publisher.
    pub epoch: u64,
    /// Numbers its commits; 0 before the first.
    pub revision: u64,
    /// Every resource by its key.
    pub resources: OrdMap<ResourceKey, Arc<Resource>>,
}

/// What differs between two snapshots, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes(Vec<Changed>);

/// A key under which two snapshots hold different resources.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The key.
    pub key: ResourceKey,
    /// What was there; nothing where it is new.
    pub old: Option<Arc<Resource>>,
    /// What is there now; nothing where it is gone.
    pub new: Option<Arc<Resource>>,
}

impl Snapshot {
    /// The commit that it is the state of.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, revision: self.revision }
    }

    /// Adds or replaces a resource.
    pub fn insert(&mut self, resource: Resource) {
        self.resources.insert(resource.key(), Arc::new(resource));
    }

    /// The resources from a key on, as long as they are of one kind.
    fn range<'a, T: 'a>(
        &'a self,
        first: ResourceKey,
        kind: impl Fn(&'a Resource) -> Option<&'a T>,
    ) -> impl Iterator<Item = &'a T> {
        self.resources.range(first..).map_while(move |(_, resource)| kind(resource))
    }
}

impl Changes {
    /// Compares two snapshots. What they share is skipped: the cost is that of the change.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Changes {
        let of = |item: DiffItem<'_, '_, ResourceKey, Arc<Resource>>| match item {
            DiffItem::Add(key, new) => Changed { key: key.clone(), old: None, new: Some(new.clone()) },
            DiffItem::Remove(key, old) => Changed { key: key.clone(), old: Some(old.clone()), new: None },
            DiffItem::Update { old: (key, old), new: (_, new) } => {
                Changed { key: key.clone(), old: Some(old.clone()), new: Some(new.clone()) }
            }
        };
        Changes(old.resources.diff(&new.resources).map(of).collect())
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys differ.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Everything that differs.
    pub fn iter(&self) -> impl Iterator<Item = &Changed> {
        self.0.iter()
    }

    /// What differs under a key.
    pub fn find(&self, key: &ResourceKey) -> Option<&Changed> {
        self.0.binary_search_by(|changed| changed.key.cmp(key)).ok().map(|at| &self.0[at])
    }

    fn range<'a, T: 'a>(
        &'a self,
        first: ResourceKey,
        kind: impl Fn(&'a Resource) -> Option<&'a T>,
    ) -> impl Iterator<Item = (Option<&'a T>, Option<&'a T>)> {
        let from = self.0.partition_point(|changed| changed.key < first);
        let pairs = self.0[from..].iter().map(move |changed| {
            let of = |resource: &'a Option<Arc<Resource>>| resource.as_deref().and_then(&kind);
            (of(&changed.old), of(&changed.new))
        });
        pairs.take_while(|(old, new)| old.is_some() || new.is_some())
    }
}

impl<'a> IntoIterator for &'a Changes {
    type Item = &'a Changed;
    type IntoIter = std::slice::Iter<'a, Changed>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// For one kind of resource: the conversion, and its iterators over a state and over a difference.
macro_rules! kinds {
    ($($all:ident, $as:ident, $kind:ident, $first:expr, $doc:literal;)*) => {
        impl Snapshot {
            $(
                #[doc = concat!($doc, ", in the order of their keys.")]
                pub fn $all(&self) -> impl Iterator<Item = &$kind> {
                    self.range($first, $as)
                }
            )*
        }

        impl Changes {
            $(
                #[doc = concat!($doc, " that differ, as they were and as they are.")]
                pub fn $all(&self) -> impl Iterator<Item = (Option<&$kind>, Option<&$kind>)> {
                    self.range($first, $as)
                }
            )*
        }

        $(
            fn $as(resource: &Resource) -> Option<&$kind> {
                if let Resource::$kind(found) = resource { Some(found) } else { None }
            }
        )*
    };
}

kinds! {
    nodes, as_node, Node, ResourceKey::Node(Arc::default()), "Nodes";
    identities, as_identity, Identity, ResourceKey::Identity(IdentityNumber(0)), "Identities";
    workloads, as_workload, Workload, ResourceKey::Workload(least_name()), "Workloads";
    services, as_service, Service, ResourceKey::Service(least_name()), "Services";
    endpoints, as_endpoints, Endpoints, ResourceKey::Endpoints(least_name()), "EndpointSlices";
    listeners, as_listener, Listener, least_listener(), "Listeners";
    routes, as_route, Route, least_route(), "Rules of routes";
    rate_limits, as_rate_limit, RateLimit, ResourceKey::RateLimit(least_name()), "Rate limits";
    policies, as_policy, Policy, least_policy(), "Rules of policies";
}

/// The first name there can be.
fn least_name() -> ObjectName {
    ObjectName { namespace: Arc::default(), name: Arc::default() }
}

fn least_listener() -> ResourceKey {
    let parent = ListenerParent { kind: ListenerParentKind::ALL[0], name: least_name() };
    ResourceKey::Listener { parent, listener: Arc::default() }
}

fn least_route() -> ResourceKey {
    ResourceKey::Route { kind: RouteKind::ALL[0], origin: least_name(), rule: 0 }
}

fn least_policy() -> ResourceKey {
    ResourceKey::Policy { kind: PolicyKind::ALL[0], name: least_name(), index: 0 }
}

#[cfg(test)]
mod tests;
