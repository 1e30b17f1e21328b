// SPDX-License-Identifier: Apache-2.0
//! The resources. Plain data: what cannot be said here cannot reach a node.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

mod policy;
mod route;
mod service;
mod workload;

pub use policy::*;
pub use route::*;
pub use service::*;
pub use workload::*;

/// Names a resource: `kind/namespace/name` and, where one object yields several, an index:
/// `route/shop/checkout/0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceKey(pub Arc<str>);

impl ResourceKey {
    /// Joins the parts with `/`.
    pub fn new(kind: &str, parts: &[&str]) -> ResourceKey {
        let mut key = String::from(kind);
        for part in parts {
            key.push('/');
            key.push_str(part);
        }
        ResourceKey(key.into())
    }

    /// The part before the first `/`.
    pub fn kind(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of a Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The namespace; empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Both parts, as given.
    pub fn new(namespace: &str, name: &str) -> ObjectName {
        ObjectName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Layer 4 protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
    /// IP protocol 132.
    Sctp,
}

impl Protocol {
    /// The number in the IP header (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// A number that stands for a set of labels, or one of the reserved ones of `weft_ebpf_common::identity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityNumber(pub u32);

/// Which nodes need a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Every node.
    All,
    /// Only the node of this name.
    Node(Arc<str>),
}

/// One resource of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Resource {
    /// A pod, or what stands for one.
    Workload(Workload),
    /// A node of the cluster.
    Node(Node),
    /// The labels behind an identity number.
    Identity(Identity),
    /// A Service and its addresses.
    Service(Service),
    /// One EndpointSlice.
    Endpoints(Endpoints),
    /// One listener of a Gateway.
    Listener(Listener),
    /// One rule of a route.
    Route(Route),
    /// A rate limit and what it is attached to.
    RateLimit(RateLimit),
    /// One rule of a network policy.
    Policy(Policy),
    /// Settings of the whole mesh.
    MeshDefaults(MeshDefaults),
}

impl Resource {
    /// The key under which the state holds this resource.
    pub fn key(&self) -> ResourceKey {
        let named = |kind, object: &ObjectName| ResourceKey::new(kind, &[&object.namespace, &object.name]);
        match self {
            Resource::Workload(workload) => named("workload", &workload.name),
            Resource::Node(node) => ResourceKey::new("node", &[&node.name]),
            Resource::Identity(identity) => ResourceKey::new("identity", &[&identity.number.0.to_string()]),
            Resource::Service(service) => named("service", &service.name),
            Resource::Endpoints(endpoints) => named("endpoints", &endpoints.name),
            Resource::Listener(listener) => ResourceKey::new(
                "listener",
                &[&listener.gateway.namespace, &listener.gateway.name, &listener.name],
            ),
            Resource::Route(route) => ResourceKey::new(
                "route",
                &[&route.origin.namespace, &route.origin.name, &route.rule.to_string()],
            ),
            Resource::RateLimit(limit) => named("ratelimit", &limit.name),
            Resource::Policy(policy) => ResourceKey::new(
                "policy",
                &[policy.kind.key(), &policy.name.namespace, &policy.name.name, &policy.index.to_string()],
            ),
            Resource::MeshDefaults(_) => ResourceKey::new("defaults", &["mesh"]),
        }
    }

    /// Which nodes need it.
    pub fn scope(&self) -> Scope {
        Scope::All
    }
}

/// Settings of the whole mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeshDefaults {
    /// An address inside one of these that no workload has is unknown, never `world`.
    pub pod_cidrs: Vec<ipnet::IpNet>,
}

/// Whether an address family matters is asked often enough to have a name.
pub fn is_ipv6(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(_))
}
