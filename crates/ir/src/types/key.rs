// SPDX-License-Identifier: Apache-2.0
//! Keys: which resource of the state it is.
//!
//! A key has one text, for people and on the wire, and every text is the text of one key: names have no
//! `/`, which is checked wherever bytes become a key or a resource.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    IdentityNumber, ListenerParent, ListenerParentKind, ObjectName, PolicyKind, RouteKind,
    name::{is_label, is_subdomain},
};

/// Names a resource. Keys of one kind are neighbours in the order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKey {
    /// The settings of the mesh.
    MeshDefaults,
    /// A node.
    Node(Arc<str>),
    /// An identity.
    Identity(IdentityNumber),
    /// A pod.
    Workload(ObjectName),
    /// A Service.
    Service(ObjectName),
    /// An EndpointSlice.
    Endpoints(ObjectName),
    /// A listener.
    Listener {
        /// The object that it is part of.
        parent: ListenerParent,
        /// Its name in there.
        listener: Arc<str>,
    },
    /// One rule of a route.
    Route {
        /// The kind of the route object.
        kind: RouteKind,
        /// Namespace and name of the route object.
        origin: ObjectName,
        /// Index of the rule.
        rule: u32,
    },
    /// A rate limit.
    RateLimit(ObjectName),
    /// One rule of a policy.
    Policy {
        /// The kind of the policy object.
        kind: PolicyKind,
        /// Namespace and name of the policy object.
        name: ObjectName,
        /// Index of the rule.
        index: u32,
    },
    /// What this build cannot read as a key. No resource has such a key.
    Unknown(UnknownKey),
}

/// The text of a key that this build does not know. Only reading a key makes one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownKey(Arc<str>);

const MESH_DEFAULTS: &str = "meshdefaults";
const NODE: &str = "node";
const IDENTITY: &str = "identity";
const WORKLOAD: &str = "pod";
const SERVICE: &str = "service";
const ENDPOINTS: &str = "endpointslice.discovery.k8s.io";
const RATE_LIMIT: &str = "ratelimitpolicy.weft.dev";

impl ResourceKey {
    /// Reads the text of a key. What is none becomes [`ResourceKey::Unknown`].
    pub fn parse(text: &str) -> ResourceKey {
        known(text).unwrap_or_else(|| ResourceKey::Unknown(UnknownKey(text.into())))
    }

    /// The kind of the object with its API group, as `kubectl` writes it: the first part of the text.
    pub fn resource_kind(&self) -> &str {
        match self {
            ResourceKey::MeshDefaults => MESH_DEFAULTS,
            ResourceKey::Node(_) => NODE,
            ResourceKey::Identity(_) => IDENTITY,
            ResourceKey::Workload(_) => WORKLOAD,
            ResourceKey::Service(_) => SERVICE,
            ResourceKey::Endpoints(_) => ENDPOINTS,
            ResourceKey::Listener { parent, .. } => parent.kind.resource_kind(),
            ResourceKey::Route { kind, .. } => kind.resource_kind(),
            ResourceKey::RateLimit(_) => RATE_LIMIT,
            ResourceKey::Policy { kind, .. } => kind.resource_kind(),
            ResourceKey::Unknown(UnknownKey(text)) => text.split_once('/').map_or(text, |(kind, _)| kind),
        }
    }

    /// Whether its names are ones that Kubernetes takes for its kind, so that no other key has its text.
    pub(crate) fn is_valid(&self) -> bool {
        let namespaced = |name: &ObjectName| is_label(&name.namespace) && is_subdomain(&name.name);
        match self {
            ResourceKey::MeshDefaults | ResourceKey::Identity(_) => true,
            ResourceKey::Node(name) => is_subdomain(name),
            ResourceKey::Service(name) => is_label(&name.namespace) && is_label(&name.name),
            ResourceKey::Workload(name) | ResourceKey::Endpoints(name) | ResourceKey::RateLimit(name) => {
                namespaced(name)
            }
            ResourceKey::Listener { parent, listener } => namespaced(&parent.name) && is_subdomain(listener),
            ResourceKey::Route { origin, .. } => namespaced(origin),
            ResourceKey::Policy { kind, name, .. } if kind.is_namespaced() => namespaced(name),
            ResourceKey::Policy { name, .. } => name.namespace.is_empty() && is_subdomain(&name.name),
            ResourceKey::Unknown(_) => false,
        }
    }

    /// The length of its text, in bytes.
    pub(crate) fn text_len(&self) -> usize {
        let object = |name: &ObjectName| match name.namespace.len() {
            0 => 1 + name.name.len(),
            namespace => 2 + namespace + name.name.len(),
        };
        let number = |number: u32| 1 + number.checked_ilog10().unwrap_or(0) as usize + 1;
        let rest = match self {
            ResourceKey::MeshDefaults => 0,
            ResourceKey::Node(name) => 1 + name.len(),
            ResourceKey::Identity(identity) => number(identity.0),
            ResourceKey::Workload(name)
            | ResourceKey::Service(name)
            | ResourceKey::Endpoints(name)
            | ResourceKey::RateLimit(name) => object(name),
            ResourceKey::Listener { parent, listener } => object(&parent.name) + 1 + listener.len(),
            ResourceKey::Route { origin, rule, .. } => object(origin) + number(*rule),
            ResourceKey::Policy { name, index, .. } => object(name) + number(*index),
            ResourceKey::Unknown(UnknownKey(text)) => return text.len(),
        };
        self.resource_kind().len() + rest
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.resource_kind();
        match self {
            ResourceKey::MeshDefaults => f.write_str(kind),
            ResourceKey::Node(name) => write!(f, "{kind}/{name}"),
            ResourceKey::Identity(number) => write!(f, "{kind}/{}", number.0),
            ResourceKey::Workload(name)
            | ResourceKey::Service(name)
            | ResourceKey::Endpoints(name)
            | ResourceKey::RateLimit(name) => write!(f, "{kind}/{name}"),
            ResourceKey::Listener { parent, listener } => write!(f, "{kind}/{}/{listener}", parent.name),
            ResourceKey::Route { origin, rule, .. } => write!(f, "{kind}/{origin}/{rule}"),
            ResourceKey::Policy { name, index, .. } => write!(f, "{kind}/{name}/{index}"),
            ResourceKey::Unknown(UnknownKey(text)) => f.write_str(text),
        }
    }
}

fn known(text: &str) -> Option<ResourceKey> {
    let Some((kind, rest)) = text.split_once('/') else {
        return (text == MESH_DEFAULTS).then_some(ResourceKey::MeshDefaults);
    };
    let key = match kind {
        NODE => ResourceKey::Node(rest.into()),
        IDENTITY => ResourceKey::Identity(IdentityNumber(number(rest)?)),
        WORKLOAD => ResourceKey::Workload(object(rest)?),
        SERVICE => ResourceKey::Service(object(rest)?),
        ENDPOINTS => ResourceKey::Endpoints(object(rest)?),
        RATE_LIMIT => ResourceKey::RateLimit(object(rest)?),
        _ => part(kind, rest)?,
    };
    key.is_valid().then_some(key)
}

/// The keys of which one object has several.
fn part(kind: &str, rest: &str) -> Option<ResourceKey> {
    let (name, last) = rest.rsplit_once('/')?;
    if let Some(kind) = ListenerParentKind::ALL.into_iter().find(|one| one.resource_kind() == kind) {
        let parent = ListenerParent { kind, name: object(name)? };
        return Some(ResourceKey::Listener { parent, listener: last.into() });
    }
    if let Some(kind) = RouteKind::ALL.into_iter().find(|one| one.resource_kind() == kind) {
        return Some(ResourceKey::Route { kind, origin: object(name)?, rule: number(last)? });
    }
    let kind = PolicyKind::ALL.into_iter().find(|one| one.resource_kind() == kind)?;
    let name = if kind.is_namespaced() { object(name)? } else { ObjectName::new("", name) };
    Some(ResourceKey::Policy { kind, name, index: number(last)? })
}

fn object(text: &str) -> Option<ObjectName> {
    let (namespace, name) = text.split_once('/')?;
    Some(ObjectName::new(namespace, name))
}

/// A number in the one way in which it is written.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl Serialize for ResourceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResourceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ResourceKey, D::Error> {
        Ok(ResourceKey::parse(&Cow::<str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests;
