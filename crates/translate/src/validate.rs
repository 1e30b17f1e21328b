// SPDX-License-Identifier: Apache-2.0
//! What an object must satisfy by itself to be taken into the store. On Kubernetes the API server
//! has checked most of it.

use std::{net::IpAddr, sync::Arc};

use weft_api::{
    core::{EndpointSlice, Service},
    decode::{DecodeError, Decoded},
    meta::Metadata,
    object::{Kind, Object, decode},
};
use weft_gateway_api::{validate_gateway, validate_route};
use weft_ir::{Policy, Resource, is_label, is_label_key, is_label_value, is_subdomain};

use crate::{
    good::{Good, Meaning},
    ineffective,
    name::MAX_SHOWN,
    nodes, policy, ratelimit,
};

/// Reads an object and checks it, unless it is the same as before. The error names the first field that
/// is wrong.
pub(crate) fn read(
    kind: Kind,
    value: &serde_json::Value,
    before: Option<&Arc<Good>>,
) -> Result<Arc<Good>, DecodeError> {
    let mut decoded = decode(kind, value)?;
    if kind.namespaced() {
        default_namespace(&mut decoded.object);
    }
    if ineffective::takes_unknown(&decoded.object) {
        // Nobody asks for the rest: it would be a text for each field of every pod.
        decoded.unknown.retain(|path| path.starts_with("metadata"));
    }
    if let Some(same) = before.filter(|before| ****before == decoded) {
        return Ok(same.clone());
    }
    let meaning = check(&decoded)?;
    Ok(Arc::new(Good::new(decoded, meaning)))
}

fn check(decoded: &Decoded<Object>) -> Result<Meaning, DecodeError> {
    let unknown = decoded.unknown.clone();
    let plain = match &decoded.object {
        Object::Gateway(gateway) => validate_gateway(gateway),
        Object::HttpRoute(route) => validate_route(route),
        Object::CiliumNetworkPolicy(policy) => {
            return policy::cilium(&Decoded { object: policy.clone(), unknown }).map(policies);
        }
        Object::NetworkPolicy(policy) => {
            return policy::kubernetes(&Decoded { object: policy.clone(), unknown }).map(policies);
        }
        Object::RateLimitPolicy(policy) => {
            let policy = Decoded { object: policy.clone(), unknown };
            return ratelimit::translate(&policy).map(Meaning::RateLimit);
        }
        Object::ReferenceGrant(_) => policy::refuse_unknown(&unknown),
        Object::Service(service) => check_service(service),
        Object::EndpointSlice(slice) => check_slice(slice),
        Object::Pod(pod) => {
            let node = &pod.spec.node_name;
            check_labels(&pod.metadata)?;
            require(node.is_empty() || is_subdomain(node), "spec.nodeName", node, "no name of a node")
        }
        Object::Namespace(namespace) => check_labels(&namespace.metadata),
        Object::Node(_) | Object::GatewayClass(_) => Ok(()),
    };
    plain.map(|()| Meaning::Plain)
}

/// Labels by which policies select.
fn check_labels(metadata: &Metadata) -> Result<(), DecodeError> {
    for (key, value) in &metadata.labels {
        require(is_label_key(key), "metadata.labels", key, "no key of a label")?;
        require(is_label_value(value), &format!("metadata.labels[{key}]"), value, "no value of a label")?;
    }
    Ok(())
}

fn check_service(service: &Service) -> Result<(), DecodeError> {
    for address in nodes::cluster_ips(service) {
        require(address.parse::<IpAddr>().is_ok(), "spec.clusterIPs", &address, "no IP address")?;
    }
    Ok(())
}

fn check_slice(slice: &EndpointSlice) -> Result<(), DecodeError> {
    if let Some(service) = slice.metadata.labels.get(nodes::SERVICE_NAME) {
        let path = format!("metadata.labels[{}]", nodes::SERVICE_NAME);
        require(is_label(service), &path, service, "no name of a Service")?;
    }
    if &*slice.address_type == "FQDN" {
        return Ok(());
    }
    for (at, endpoint) in slice.endpoints.iter().enumerate() {
        let first = endpoint.addresses.first().map(AsRef::as_ref).unwrap_or("");
        let path = format!("endpoints[{at}].addresses[0]");
        require(first.parse::<IpAddr>().is_ok(), &path, first, "no IP address")?;
    }
    Ok(())
}

fn require(holds: bool, path: &str, text: &str, what: &str) -> Result<(), DecodeError> {
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    if holds { Ok(()) } else { Err(DecodeError::new(path, format!("`{}` is {what}", shown.escape_debug()))) }
}

fn policies(policies: Vec<Policy>) -> Meaning {
    Meaning::Policies(policies.into_iter().map(|policy| Arc::new(Resource::Policy(policy))).collect())
}

/// An object without a namespace is in `default`, as kubectl has it.
fn default_namespace(object: &mut Object) {
    let metadata = match object {
        Object::Pod(object) => &mut object.metadata,
        Object::Service(object) => &mut object.metadata,
        Object::EndpointSlice(object) => &mut object.metadata,
        Object::Gateway(object) => &mut object.metadata,
        Object::HttpRoute(object) => &mut object.metadata,
        Object::ReferenceGrant(object) => &mut object.metadata,
        Object::CiliumNetworkPolicy(object) => &mut object.metadata,
        Object::NetworkPolicy(object) => &mut object.metadata,
        Object::RateLimitPolicy(object) => &mut object.metadata,
        Object::Namespace(_) | Object::Node(_) | Object::GatewayClass(_) => return,
    };
    if metadata.namespace.is_empty() {
        metadata.namespace = "default".into();
    }
}
