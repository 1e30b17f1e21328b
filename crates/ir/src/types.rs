// SPDX-License-Identifier: Apache-2.0
//! The resources. Plain data: what cannot be said here cannot reach a node.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

mod key;
mod name;
mod policy;
mod route;
mod service;
mod workload;

pub use key::*;
pub use name::*;
pub use policy::*;
pub use route::*;
pub use service::*;
pub use workload::*;

/// A protocol above IP that objects can name.
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
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// Which way a connection goes, seen from the workload that is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Direction {
    /// To the workload.
    Ingress,
    /// From the workload.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// A number that stands for a set of labels, or one of the reserved ones of `weft_ebpf_common::identity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityNumber(pub u32);

impl IdentityNumber {
    /// Of whom nothing is known: no rule but one for everybody means it, and a workload that has it is closed.
    pub const UNKNOWN: IdentityNumber = IdentityNumber(0);
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
        match self {
            Resource::Workload(workload) => workload.key(),
            Resource::Node(node) => node.key(),
            Resource::Identity(identity) => identity.key(),
            Resource::Service(service) => service.key(),
            Resource::Endpoints(endpoints) => endpoints.key(),
            Resource::Listener(listener) => listener.key(),
            Resource::Route(route) => route.key(),
            Resource::RateLimit(limit) => limit.key(),
            Resource::Policy(policy) => policy.key(),
            Resource::MeshDefaults(_) => ResourceKey::MeshDefaults,
        }
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
