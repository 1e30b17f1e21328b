// SPDX-License-Identifier: Apache-2.0
//! Nodes, Services and EndpointSlices.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use weft_api::core::{EndpointSlice, L4Protocol, Node, NodeSpec, Service, SliceEndpoint};
use weft_ir::{AppProtocol, Endpoint, EndpointPort, Endpoints, ObjectName, ServicePort};

use crate::workload::protocol;

/// The annotation of a Node with the addresses, separated by commas, that its proxy uses for
/// traffic that entered through a Gateway.
pub(crate) const INGRESS_ADDRESSES: &str = "weft.dev/ingress-addresses";

/// The label of an EndpointSlice with the name of its service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A node; addresses that are names are left out.
pub(crate) fn node(node: &Node) -> weft_ir::Node {
    let addresses = node.status.addresses.iter().filter(|entry| &*entry.kind != "Hostname");
    let annotation = node.metadata.annotations.get(INGRESS_ADDRESSES).map(AsRef::as_ref).unwrap_or("");
    weft_ir::Node {
        name: node.metadata.name.clone(),
        addresses: addresses.filter_map(|entry| entry.address.parse().ok()).collect(),
        ingress_addresses: annotation.split(',').filter_map(|text| text.trim().parse().ok()).collect(),
        pod_cidrs: pod_cidrs(&node.spec),
    }
}

/// Its networks for pods; what is none is left out, as a hint that does not help.
fn pod_cidrs(spec: &NodeSpec) -> Vec<IpNet> {
    let all = spec.pod_cidrs.iter().chain((!spec.pod_cidr.is_empty()).then_some(&spec.pod_cidr));
    let parsed: BTreeSet<IpNet> =
        all.filter_map(|text| text.parse().ok()).map(|net: IpNet| net.trunc()).collect();
    parsed.into_iter().collect()
}

/// A service; one of type ExternalName has no address in the cluster, and is nothing to a node.
pub(crate) fn service(service: &Service) -> Option<weft_ir::Service> {
    let spec = &service.spec;
    if &*spec.kind == "ExternalName" {
        return None;
    }
    Some(weft_ir::Service {
        name: ObjectName {
            namespace: service.metadata.namespace.clone(),
            name: service.metadata.name.clone(),
        },
        addresses: cluster_ips(service).iter().filter_map(|text| text.parse().ok()).collect(),
        ports: spec
            .ports
            .iter()
            .map(|port| ServicePort {
                name: port.name.clone(),
                port: port.port,
                protocol: protocol(port.protocol),
                app_protocol: app_protocol(port.protocol, port.app_protocol.as_deref(), &port.name),
            })
            .collect(),
    })
}

/// The cluster addresses as written; none for a headless service.
pub(crate) fn cluster_ips(service: &Service) -> Vec<Arc<str>> {
    let spec = &service.spec;
    let mut texts = spec.cluster_ips.clone();
    if texts.is_empty() && !spec.cluster_ip.is_empty() {
        texts.push(spec.cluster_ip.clone());
    }
    texts.retain(|text| !matches!(&**text, "" | "None"));
    texts
}

/// What is spoken: `appProtocol` decides, else what the port's name begins with.
fn app_protocol(l4: L4Protocol, declared: Option<&str>, name: &str) -> AppProtocol {
    if l4 != L4Protocol::Tcp {
        return AppProtocol::Unknown;
    }
    let word = match declared {
        Some(declared) => declared.to_ascii_lowercase(),
        None => name.split('-').next().unwrap_or_default().to_ascii_lowercase(),
    };
    protocol_of(&word)
}

/// Whether a declared `appProtocol` says something.
pub(crate) fn is_app_protocol(declared: &str) -> bool {
    protocol_of(&declared.to_ascii_lowercase()) != AppProtocol::Unknown
}

fn protocol_of(word: &str) -> AppProtocol {
    match word {
        "http" | "kubernetes.io/ws" => AppProtocol::Http,
        "http2" | "h2c" | "grpc" | "kubernetes.io/h2c" => AppProtocol::Http2,
        "tcp" | "tls" | "https" | "kubernetes.io/wss" | "mongo" | "mysql" | "postgresql" | "redis" => {
            AppProtocol::Tcp
        }
        _ => AppProtocol::Unknown,
    }
}

/// A slice; one without a service or of names instead of addresses is nothing to a node.
pub(crate) fn endpoints(slice: &EndpointSlice) -> Option<Endpoints> {
    let service = slice.metadata.labels.get(SERVICE_NAME)?;
    if &*slice.address_type == "FQDN" {
        return None;
    }
    let port = |port: &weft_api::core::SlicePort| {
        Some(EndpointPort { name: port.name.clone(), port: port.port?, protocol: protocol(port.protocol) })
    };
    Some(Endpoints {
        name: ObjectName { namespace: slice.metadata.namespace.clone(), name: slice.metadata.name.clone() },
        service: service.clone(),
        ports: slice.ports.iter().filter_map(port).collect(),
        endpoints: slice.endpoints.iter().filter_map(endpoint).collect(),
    })
}

/// Absent `ready` means true, absent `serving` means the value of `ready` (EndpointConditions).
fn endpoint(endpoint: &SliceEndpoint) -> Option<Endpoint> {
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions;
    let ready = conditions.ready.unwrap_or(true);
    Some(Endpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
    })
}
