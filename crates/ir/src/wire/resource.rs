// SPDX-License-Identifier: Apache-2.0
//! Which resource it is; workloads, nodes, identities and the settings of the mesh.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    WireError,
    fields::{
        addresses, all, checked, cidr, object_name, parse_addresses, parse_cidr, parse_object_name,
        parse_protocol, port, protocol, required,
    },
    generated::{self as pb, resource::Kind},
    policy, route, service,
};
use crate::{Identity, IdentityNumber, MeshDefaults, NamedPort, Node, Resource, Workload, is_subdomain};

pub(super) fn to_wire(from: &Resource) -> pb::Resource {
    let kind = match from {
        Resource::Workload(workload) => Kind::Workload(workload_to_wire(workload)),
        Resource::Node(node) => Kind::Node(pb::Node {
            name: node.name.to_string(),
            addresses: addresses(&node.addresses),
            ingress_addresses: addresses(&node.ingress_addresses),
            pod_cidrs: node.pod_cidrs.iter().map(cidr).collect(),
        }),
        Resource::Identity(identity) => Kind::Identity(identity_to_wire(identity)),
        Resource::Service(from) => Kind::Service(service::service_to_wire(from)),
        Resource::Endpoints(from) => Kind::Endpoints(service::endpoints_to_wire(from)),
        Resource::Listener(from) => Kind::Listener(service::listener_to_wire(from)),
        Resource::Route(from) => Kind::Route(route::route_to_wire(from)),
        Resource::RateLimit(from) => Kind::RateLimit(route::rate_limit_to_wire(from)),
        Resource::Policy(from) => Kind::Policy(policy::to_wire(from)),
        Resource::MeshDefaults(from) => {
            Kind::MeshDefaults(pb::MeshDefaults { pod_cidrs: from.pod_cidrs.iter().map(cidr).collect() })
        }
    };
    pb::Resource { kind: Some(kind) }
}

pub(super) fn from_wire(from: pb::Resource) -> Result<Resource, WireError> {
    Ok(match required(from.kind, "resource.kind")? {
        Kind::Workload(from) => Resource::Workload(parse_workload(from)?),
        Kind::Node(from) => Resource::Node(Node {
            name: checked(from.name, is_subdomain, "node.name")?,
            addresses: parse_addresses(from.addresses, "node.addresses")?,
            ingress_addresses: parse_addresses(from.ingress_addresses, "node.ingress_addresses")?,
            pod_cidrs: all(from.pod_cidrs, |cidr| parse_cidr(cidr, "node.pod_cidrs"))?,
        }),
        Kind::Identity(from) => Resource::Identity(parse_identity(from)?),
        Kind::Service(from) => Resource::Service(service::parse_service(from)?),
        Kind::Endpoints(from) => Resource::Endpoints(service::parse_endpoints(from)?),
        Kind::Listener(from) => Resource::Listener(service::parse_listener(from)?),
        Kind::Route(from) => Resource::Route(route::parse_route(from)?),
        Kind::RateLimit(from) => Resource::RateLimit(route::parse_rate_limit(from)?),
        Kind::Policy(from) => Resource::Policy(policy::parse(from)?),
        Kind::MeshDefaults(from) => Resource::MeshDefaults(MeshDefaults {
            pod_cidrs: all(from.pod_cidrs, |cidr| parse_cidr(cidr, "mesh_defaults.pod_cidrs"))?,
        }),
    })
}

fn workload_to_wire(from: &Workload) -> pb::Workload {
    pb::Workload {
        name: object_name(&from.name),
        node: from.node.to_string(),
        addresses: addresses(&from.addresses),
        identity: from.identity.0,
        service_account: from.service_account.to_string(),
        host_network: from.host_network,
        owner: from.owner.to_string(),
        ports: from
            .ports
            .iter()
            .map(|port| pb::NamedPort {
                name: port.name.to_string(),
                port: port.port.into(),
                protocol: protocol(port.protocol),
            })
            .collect(),
    }
}

fn parse_workload(from: pb::Workload) -> Result<Workload, WireError> {
    Ok(Workload {
        name: parse_object_name(from.name, "workload.name")?,
        node: checked(from.node, |name| name.is_empty() || is_subdomain(name), "workload.node")?,
        addresses: parse_addresses(from.addresses, "workload.addresses")?,
        identity: IdentityNumber(from.identity),
        service_account: from.service_account.into(),
        host_network: from.host_network,
        owner: from.owner.into(),
        ports: all(from.ports, |from| {
            Ok(NamedPort {
                name: from.name.into(),
                port: port(from.port, "named_port.port")?,
                protocol: parse_protocol(from.protocol, "named_port.protocol")?,
            })
        })?,
    })
}

fn identity_to_wire(from: &Identity) -> pb::Identity {
    let labels = from.labels.iter();
    pb::Identity {
        number: from.number.0,
        labels: labels
            .map(|(key, value)| pb::Label { key: key.to_string(), value: value.to_string() })
            .collect(),
    }
}

fn parse_identity(from: pb::Identity) -> Result<Identity, WireError> {
    let mut labels: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    for label in from.labels {
        if labels.insert(label.key.into(), label.value.into()).is_some() {
            return Err(WireError::Duplicate { field: "identity.labels" });
        }
    }
    Ok(Identity { number: IdentityNumber(from.number), labels })
}
