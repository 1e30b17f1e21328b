// SPDX-License-Identifier: Apache-2.0
//! Workloads, nodes and identities.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{IdentityNumber, ObjectName, Protocol, ResourceKey};

/// A pod, or what stands for one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Namespace and name of the pod.
    pub name: ObjectName,
    /// The node that it runs on (`spec.nodeName`); empty where that cannot be told.
    pub node: Arc<str>,
    /// Its addresses (`status.podIPs`).
    pub addresses: Vec<IpAddr>,
    /// The identity that its labels have.
    pub identity: IdentityNumber,
    /// `spec.serviceAccountName`, or `default`.
    pub service_account: Arc<str>,
    /// It shares the node's network namespace, and so has the node's addresses.
    pub host_network: bool,
    /// The owning controller's name (Deployment, StatefulSet, ...), for flows; empty where there is none.
    pub owner: Arc<str>,
    /// Named container ports, which policies may use.
    pub ports: Vec<NamedPort>,
}

impl Workload {
    /// The key under which the state holds it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::Workload(self.name.clone())
    }
}

/// A container port with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPort {
    /// Its name.
    pub name: Arc<str>,
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Addresses that its proxy uses for traffic that entered through a Gateway (identity `ingress`).
    pub ingress_addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`: where its pods' addresses are from, unless the CNI has networks of its own.
    pub pod_cidrs: Vec<ipnet::IpNet>,
}

impl Node {
    /// The key under which the state holds it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::Node(self.name.clone())
    }
}

/// The labels behind an identity number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The number.
    pub number: IdentityNumber,
    /// Labels as `source:key` to value, with Cilium's derived ones:
    /// `k8s:io.kubernetes.pod.namespace`, `k8s:io.cilium.k8s.namespace.labels.<key>`,
    /// `k8s:io.cilium.k8s.policy.serviceaccount`, `k8s:io.cilium.k8s.policy.cluster`.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

impl Identity {
    /// The key under which the state holds it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::Identity(self.number)
    }
}
