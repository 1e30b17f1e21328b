// SPDX-License-Identifier: Apache-2.0
//! Services, their endpoints, and the listeners of gateways.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{ObjectName, Protocol, ResourceKey};

/// A Service and its addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.clusterIPs`; empty for a headless service.
    pub addresses: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
}

impl Service {
    /// The key under which the state holds it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::Service(self.name.clone())
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// The name that ties it to the ports of the endpoints; empty where the service has one port.
    pub name: Arc<str>,
    /// The port that clients use.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// What is spoken behind it.
    pub app_protocol: AppProtocol,
}

/// What is spoken behind a port (`appProtocol`, or the prefix of the port's name).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppProtocol {
    /// Not declared: the first bytes of the client tell.
    Unknown,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 in the clear, with prior knowledge (`kubernetes.io/h2c`, `grpc`).
    Http2,
    /// Anything else, relayed as bytes.
    Tcp,
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Namespace and name of the slice.
    pub name: ObjectName,
    /// The service that it belongs to, in the same namespace (label `kubernetes.io/service-name`).
    pub service: Arc<str>,
    /// Ports; each port of the service is found by name.
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

impl Endpoints {
    /// The key under which the state holds it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::Endpoints(self.name.clone())
    }
}

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// The service port's name.
    pub name: Arc<str>,
    /// The port that the endpoint listens on.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address (`addresses[0]`; the others are the same endpoint).
    pub address: IpAddr,
    /// It takes new connections.
    pub ready: bool,
    /// It answers, even if it is ending.
    pub serving: bool,
    /// It is ending.
    pub terminating: bool,
}

/// The object that a listener is part of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerParent {
    /// Its kind.
    pub kind: ListenerParentKind,
    /// Namespace and name.
    pub name: ObjectName,
}

/// The kinds of objects that have listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ListenerParentKind {
    /// `gateway.networking.k8s.io` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io` ListenerSet.
    ListenerSet,
}

impl ListenerParentKind {
    /// Every kind.
    pub const ALL: [ListenerParentKind; 2] = [ListenerParentKind::Gateway, ListenerParentKind::ListenerSet];

    /// The kind with its API group, as `kubectl` writes it.
    pub fn resource_kind(self) -> &'static str {
        match self {
            ListenerParentKind::Gateway => "gateway.gateway.networking.k8s.io",
            ListenerParentKind::ListenerSet => "listenerset.gateway.networking.k8s.io",
        }
    }
}

/// One listener of a Gateway or ListenerSet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// The object that it is part of.
    pub parent: ListenerParent,
    /// Name of the listener (`sectionName`).
    pub name: Arc<str>,
    /// Addresses to listen on; empty means every address of the node.
    pub addresses: Vec<IpAddr>,
    /// The port to listen on.
    pub port: u16,
    /// The hostname that requests must have: exact, `*.suffix`, or empty for any.
    pub hostname: Arc<str>,
}

impl Listener {
    /// The key under which the state holds it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::Listener { parent: self.parent.clone(), listener: self.name.clone() }
    }
}
