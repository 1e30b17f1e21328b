// SPDX-License-Identifier: Apache-2.0
//! What an object asks for that has no effect, and is not worth refusing it: each object is named once.
//!
//! Of policies, routes and Gateways only what their APIs themselves leave without effect is here: a field that
//! Weft does not carry out refuses what has it.

use std::net::IpAddr;

use weft_api::{
    core::{EndpointSlice, L4Protocol, Node, Service},
    decode::Decoded,
    httproute::HttpRoute,
    object::Object,
    policy::{NetworkPolicy, PolicyType},
};

use crate::nodes;

/// The annotation by which EndpointSlices prefer endpoints of a client's zone.
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

/// Fields without effect, each with its value or what to know.
pub(crate) fn fields(decoded: &Decoded<Object>) -> Vec<(String, String)> {
    let mut fields = of_object(&decoded.object);
    if takes_unknown(&decoded.object) {
        fields.extend(decoded.unknown.iter().map(|path| (path.to_string(), "it is not known".to_owned())));
    }
    fields
}

/// Whether an object is used whatever fields it has that are not known.
pub(crate) fn takes_unknown(object: &Object) -> bool {
    matches!(
        object,
        Object::Namespace(_)
            | Object::Node(_)
            | Object::Pod(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
    )
}

/// Whether a field that is `null` is worth telling: it may have been emptied by mistake, and what an absent one
/// means decides about traffic (`from`, `rules`, ...).
pub(crate) fn tells_nulls(object: &Object) -> bool {
    !takes_unknown(object)
}

fn of_object(object: &Object) -> Vec<(String, String)> {
    match object {
        Object::Service(service) => of_service(service),
        Object::EndpointSlice(slice) => of_slice(slice),
        Object::Node(node) => of_node(node),
        Object::HttpRoute(route) => of_route(route),
        Object::NetworkPolicy(policy) => of_network_policy(policy),
        // Of these only metadata and status count, or an unknown field refuses them.
        Object::Namespace(_)
        | Object::Pod(_)
        | Object::GatewayClass(_)
        | Object::Gateway(_)
        | Object::ReferenceGrant(_)
        | Object::CiliumNetworkPolicy(_)
        | Object::RateLimitPolicy(_) => Vec::new(),
    }
}

/// At a Service a route gets the requests for every host (GAMMA, GEP-1426).
fn of_route(route: &HttpRoute) -> Vec<(String, String)> {
    let spec = &route.spec;
    let is_service = |kind: &Option<_>| kind.as_deref() == Some("Service");
    if spec.hostnames.is_empty() || !spec.parent_refs.iter().any(|parent| is_service(&parent.kind)) {
        return Vec::new();
    }
    vec![("spec.hostnames".into(), "a parent of kind Service takes requests for every host".into())]
}

/// A section of a direction that the policy is not about: nothing in it is closed or allowed.
fn of_network_policy(policy: &NetworkPolicy) -> Vec<(String, String)> {
    let spec = &policy.spec;
    let without = |direction| !spec.policy_types.is_empty() && !spec.policy_types.contains(&direction);
    let mut fields = Vec::new();
    if spec.ingress.is_some() && without(PolicyType::Ingress) {
        fields.push(("spec.ingress".to_owned(), "policyTypes does not name Ingress".to_owned()));
    }
    if spec.egress.is_some() && without(PolicyType::Egress) {
        fields.push(("spec.egress".to_owned(), "policyTypes does not name Egress".to_owned()));
    }
    if spec.policy_types.is_empty() && spec.egress.as_ref().is_some_and(Vec::is_empty) {
        let so = "without entries it closes only what policyTypes names";
        fields.push(("spec.egress".to_owned(), so.to_owned()));
    }
    fields
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let spec = &service.spec;
    let mut fields = Vec::new();
    let mut text = |field: &str, value: &str, without: &[&str]| {
        if !value.is_empty() && !without.contains(&value) {
            fields.push((format!("spec.{field}"), value.to_owned()));
        }
    };
    text("type", &spec.kind, &["ClusterIP"]);
    text("sessionAffinity", &spec.session_affinity, &["None"]);
    text("internalTrafficPolicy", &spec.internal_traffic_policy, &["Cluster"]);
    text("externalTrafficPolicy", &spec.external_traffic_policy, &["Cluster"]);
    text("externalIPs", &spec.external_ips.join(" "), &[]);
    text("loadBalancerSourceRanges", &spec.load_balancer_source_ranges.join(" "), &[]);
    text("publishNotReadyAddresses", if spec.publish_not_ready_addresses { "true" } else { "" }, &[]);
    text("trafficDistribution", &spec.traffic_distribution, &[]);
    if let Some(mode) = service.metadata.annotations.get(TOPOLOGY_MODE) {
        fields.push((format!("metadata.annotations[{TOPOLOGY_MODE}]"), mode.to_string()));
    }
    for (at, port) in spec.ports.iter().enumerate() {
        if port.protocol == L4Protocol::Tcp
            && let Some(name) = port.app_protocol.as_deref().filter(|name| !nodes::is_app_protocol(name))
        {
            fields.push((format!("spec.ports[{at}].appProtocol"), name.to_owned()));
        }
    }
    fields
}

fn of_slice(slice: &EndpointSlice) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    if &*slice.address_type == "FQDN" {
        fields.push(("addressType".into(), "FQDN".into()));
    }
    if !slice.metadata.labels.contains_key(nodes::SERVICE_NAME) {
        fields.push(("metadata.labels".into(), format!("no Service is named by {}", nodes::SERVICE_NAME)));
    }
    for (at, port) in slice.ports.iter().enumerate() {
        if port.port.is_none() {
            fields.push((format!("ports[{at}]"), "it has no number".into()));
        }
    }
    fields
}

fn of_node(node: &Node) -> Vec<(String, String)> {
    let annotation = node.metadata.annotations.get(nodes::INGRESS_ADDRESSES).map_or("", AsRef::as_ref);
    let is_wrong = |text: &&str| !text.is_empty() && text.parse::<IpAddr>().is_err();
    let wrong = annotation.split(',').map(str::trim).filter(is_wrong);
    let field = || format!("metadata.annotations[{}]", nodes::INGRESS_ADDRESSES);
    wrong.map(|text| (field(), format!("`{text}` is no IP address"))).collect()
}
