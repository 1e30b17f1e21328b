// SPDX-License-Identifier: Apache-2.0
//! Network policies, as selectors: every node resolves them for its own workloads.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ObjectName, Protocol, ResourceKey};

/// One rule (`spec` or an entry of `specs`) of a policy object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// The kind of object.
    pub kind: PolicyKind,
    /// Namespace and name of the object.
    pub name: ObjectName,
    /// Index of the rule in its object.
    pub index: u32,
    /// Its tier: what a policy of a higher one decides, no lower one can change.
    pub tier: Tier,
    /// Its place within the tier, 0 to [`MAX_PRIORITY`]: the lower number decides first.
    pub priority: u16,
    /// The workloads that it speaks about. Scoping to the namespace is already part of it.
    pub subject: Selector,
    /// What may come in.
    pub ingress: PolicyDirection,
    /// What may go out.
    pub egress: PolicyDirection,
}

/// The last priority within a tier (`priority` of AdminNetworkPolicy and ClusterNetworkPolicy: 0 to 1000).
pub const MAX_PRIORITY: u16 = 1000;

/// The tiers, in the order in which they decide (ClusterNetworkPolicy of `policy.networking.k8s.io`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Of administrators, in front of everybody else's.
    Admin,
    /// Of namespaces: NetworkPolicy and CiliumNetworkPolicy.
    Normal,
    /// Of administrators, for what no other policy decides.
    Baseline,
}

impl Policy {
    /// The key under which the state holds it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::Policy { kind: self.kind, name: self.name.clone(), index: self.index }
    }
}

/// The kind of a policy object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
}

impl PolicyKind {
    /// Every kind.
    pub const ALL: [PolicyKind; 3] = [
        PolicyKind::CiliumNetworkPolicy,
        PolicyKind::CiliumClusterwideNetworkPolicy,
        PolicyKind::NetworkPolicy,
    ];

    /// The kind with its API group, as `kubectl` writes it.
    pub fn resource_kind(self) -> &'static str {
        match self {
            PolicyKind::CiliumNetworkPolicy => "ciliumnetworkpolicy.cilium.io",
            PolicyKind::CiliumClusterwideNetworkPolicy => "ciliumclusterwidenetworkpolicy.cilium.io",
            PolicyKind::NetworkPolicy => "networkpolicy.networking.k8s.io",
        }
    }

    /// Whether its objects have a namespace, and select workloads of that namespace only.
    pub fn is_namespaced(self) -> bool {
        self != PolicyKind::CiliumClusterwideNetworkPolicy
    }
}

/// The rules of one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyDirection {
    /// What no rule allows is denied for the subject.
    pub default_deny: bool,
    /// Any of these allows.
    pub allow: Vec<PolicyRule>,
    /// Any of these denies, whatever is allowed.
    pub deny: Vec<PolicyRule>,
}

/// Peers and ports, both of which must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Any of these; nobody when empty.
    pub peers: Vec<Peer>,
    /// Any of these; every port and protocol when empty.
    pub ports: Vec<PortRule>,
    /// What is allowed must come from a peer that has proved who it is. Allow rules only.
    pub authenticate: bool,
}

/// Whom a rule speaks about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// Anybody at all.
    Any,
    /// Workloads with these labels.
    Selector(Selector),
    /// One of Cilium's entities.
    Entity(Entity),
    /// Addresses outside of the cluster.
    Cidr {
        /// The prefix.
        cidr: ipnet::IpNet,
        /// Prefixes inside of it that are left out.
        except: Vec<ipnet::IpNet>,
    },
}

/// Groups with a fixed meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Entity {
    /// Everybody.
    All,
    /// Everything outside of the cluster.
    World,
    /// Everything inside of the cluster, nodes included.
    Cluster,
    /// The local node.
    Host,
    /// Other nodes.
    RemoteNode,
    /// The API server.
    KubeApiserver,
    /// Traffic that entered through a Gateway or an Ingress.
    Ingress,
    /// Nobody.
    None,
}

/// Labels that must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// All of these must hold; everything matches when empty.
    pub requirements: Vec<Requirement>,
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Requirement {
    /// `source:key`; the source `any` matches every source.
    pub key: Arc<str>,
    /// What is asked of it.
    pub operator: Operator,
}

/// What is asked of a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// It has one of these values.
    In(Vec<Arc<str>>),
    /// It is missing, or has none of these values.
    NotIn(Vec<Arc<str>>),
    /// It is there.
    Exists,
    /// It is missing.
    DoesNotExist,
}

/// Ports, and what may be said on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortRule {
    /// The port.
    pub port: PolicyPort,
    /// Its protocol; TCP, UDP and SCTP when absent.
    pub protocol: Option<Protocol>,
    /// What may be said; absent means anything. Allow rules only.
    pub l7: Option<L7Rules>,
}

/// Rules about what is said on a port, any of which allows. An empty list allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum L7Rules {
    /// HTTP requests.
    Http(Vec<HttpRule>),
}

/// A port of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyPort {
    /// Every port (`port: "0"` or absent).
    Any,
    /// From the first to the last, both included.
    Range(u16, u16),
    /// A container port's name, looked up at the workload that receives.
    Named(Arc<str>),
}

/// Conditions on an HTTP request, all of which must hold. Expressions match the whole string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HttpRule {
    /// Regular expression over the request target, query included.
    pub path: Option<Arc<str>>,
    /// Regular expression over the method.
    pub method: Option<Arc<str>>,
    /// Regular expression over the authority, port included where the client sent one.
    pub host: Option<Arc<str>>,
    /// Headers: present where the value is absent, else exactly equal. Names in lower case.
    pub headers: Vec<(Arc<str>, Option<Arc<str>>)>,
}
