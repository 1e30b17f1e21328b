// SPDX-License-Identifier: Apache-2.0
//! Namespace, Node, Pod, Service and EndpointSlice.

use std::{net::IpAddr, sync::Arc};

use serde::Deserialize;

use crate::meta::Metadata;

/// `v1` Namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Its name and labels.
    pub metadata: Metadata,
}

/// `v1` Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub metadata: Metadata,
    /// What it was given.
    pub spec: NodeSpec,
    /// What the node reports.
    pub status: NodeStatus,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// The first of its networks for pods.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Arc<str>,
    /// All of them, one per family. CNIs with an address management of their own do not use them.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<Arc<str>>,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its addresses.
    pub addresses: Vec<NodeAddress>,
}

/// An address of a Node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, ...
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// The address or name.
    pub address: Arc<str>,
}

/// `v1` Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Its name, labels and owner.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: PodSpec,
    /// What is.
    pub status: PodStatus,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// The node that it runs on; empty before it is scheduled.
    pub node_name: Arc<str>,
    /// Its service account; empty means `default`.
    pub service_account_name: Arc<str>,
    /// It shares the node's network namespace.
    pub host_network: bool,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its init containers; those that restart always (sidecars) may have ports too.
    pub init_containers: Vec<Container>,
}

/// A container of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its ports.
    pub ports: Vec<ContainerPort>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name; empty where it has none.
    pub name: Arc<str>,
    /// Its number.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: L4Protocol,
}

/// `TCP` (the default), `UDP` or `SCTP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum L4Protocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Arc<str>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<IpAddr>,
    /// All of its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    /// What is known of it.
    pub conditions: Vec<PodCondition>,
    /// How its containers are.
    pub container_statuses: Vec<ContainerStatus>,
    /// How its init containers are; among them the sidecars, which run as long as the others.
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// An entry of `status.conditions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: PodConditionKind,
    /// Whether it holds.
    pub status: ConditionStatus,
}

/// What a condition of a Pod is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PodConditionKind {
    /// Its sandbox runs and has a network.
    PodReadyToStartContainers,
    /// Anything else.
    #[default]
    #[serde(other)]
    Other,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    #[default]
    #[serde(other)]
    Unknown,
}

/// An entry of `status.containerStatuses`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// How it is now.
    pub state: ContainerState,
}

/// `state` of a container, of which one is set; none means waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// It has ended.
    pub terminated: Option<Terminated>,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    /// What its process returned.
    pub exit_code: i32,
}

/// An entry of `status.podIPs`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct PodIp {
    /// The address.
    pub ip: IpAddr,
}

/// `v1` Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: ServiceSpec,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP` (the default), `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// The first cluster address; `None` for a headless service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Arc<str>,
    /// All cluster addresses.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<Arc<str>>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `None` (the default) or `ClientIP`.
    pub session_affinity: Arc<str>,
    /// `Cluster` (the default) or `Local`.
    pub internal_traffic_policy: Arc<str>,
    /// `Cluster` (the default) or `Local`.
    pub external_traffic_policy: Arc<str>,
    /// Addresses outside of the cluster that lead to the service.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<Arc<str>>,
    /// Who may use a load balancer.
    pub load_balancer_source_ranges: Vec<Arc<str>>,
    /// Endpoints count as ready before they are.
    pub publish_not_ready_addresses: bool,
    /// Which endpoints are preferred, such as `PreferClose`.
    pub traffic_distribution: Arc<str>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name; may be empty where the service has one port.
    pub name: Arc<str>,
    /// The port that clients use.
    pub port: u16,
    /// Its protocol.
    pub protocol: L4Protocol,
    /// What is spoken behind it (KEP-1422, GEP-1911).
    pub app_protocol: Option<Arc<str>>,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Its name; the label `kubernetes.io/service-name` names the service.
    pub metadata: Metadata,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: Arc<str>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports of every endpoint.
    pub ports: Vec<SlicePort>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SliceEndpoint {
    /// Addresses, all of which are the same endpoint; consumers use the first.
    pub addresses: Vec<Arc<str>>,
    /// Whether it can be used.
    pub conditions: EndpointConditions,
}

/// `conditions` of an endpoint: absent `ready` means true, absent `serving` means the value of
/// `ready`, absent `terminating` means false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// It takes new connections.
    pub ready: Option<bool>,
    /// It answers, even if it is ending.
    pub serving: Option<bool>,
    /// It is ending.
    pub terminating: Option<bool>,
}

/// A port of a slice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SlicePort {
    /// The service port's name.
    pub name: Arc<str>,
    /// The port that the endpoints listen on; absent means every port, which Weft does not use.
    pub port: Option<u16>,
    /// Its protocol.
    pub protocol: L4Protocol,
}
