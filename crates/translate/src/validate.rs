// SPDX-License-Identifier: Apache-2.0
//! What an object must satisfy by itself to be taken into the store. On Kubernetes the API server
//! has checked most of it.

use std::sync::Arc;

use weft_api::object::{DecodeError, Decoded, Kind, Object, decode};
use weft_gateway_api::{validate_gateway, validate_route};
use weft_ir::{Policy, Resource};

use crate::{
    nodes, policy, ratelimit,
    store::{Good, Meaning},
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
        Object::Service(service) => {
            let wrong = nodes::cluster_ips(service)
                .into_iter()
                .find(|text| text.parse::<std::net::IpAddr>().is_err());
            match wrong {
                Some(text) => Err(DecodeError::new("spec.clusterIPs", format!("`{text}` is no IP address"))),
                None => Ok(()),
            }
        }
        Object::EndpointSlice(slice) => {
            let fqdn = &*slice.address_type == "FQDN";
            for (at, endpoint) in slice.endpoints.iter().enumerate() {
                let first = endpoint.addresses.first().map(AsRef::as_ref).unwrap_or("");
                if !fqdn && first.parse::<std::net::IpAddr>().is_err() {
                    let path = format!("endpoints[{at}].addresses[0]");
                    return Err(DecodeError::new(path, format!("`{first}` is no IP address")));
                }
            }
            Ok(())
        }
        Object::Namespace(_) | Object::Node(_) | Object::Pod(_) | Object::GatewayClass(_) => Ok(()),
    };
    plain.map(|()| Meaning::Plain)
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
