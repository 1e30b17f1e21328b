// SPDX-License-Identifier: Apache-2.0
//! Network policies, with exactly the meaning that Cilium and Kubernetes give them.
//!
//! A policy is translated as a whole or refused as a whole. A refused one closes the directions that it
//! names, for the workloads that it names.

use std::sync::Arc;

use weft_api::{
    decode::{DecodeError, Decoded},
    policy::{CiliumNetworkPolicy, NetworkPolicy},
};
use weft_ir::{ObjectName, Policy};

mod cilium;
mod cilium_ports;
mod kubernetes;
mod selectors;
mod stand_in;

pub(crate) use stand_in::stand_in;

/// Fields of Cilium's API that exist but that Weft does not enforce, for a clearer message.
const NOT_ENFORCED: [&str; 22] = [
    "authentication",
    "fromGroups",
    "fromNodes",
    "fromRequires",
    "headerMatches",
    "icmps",
    "kafka",
    "dns",
    "l7",
    "l7proto",
    "listener",
    "log",
    "nodeSelector",
    "originatingTLS",
    "serverNames",
    "terminatingTLS",
    "toFQDNs",
    "toGroups",
    "toNodes",
    "toRequires",
    "toServices",
    "cidrGroupRef",
];

/// Translates a CiliumNetworkPolicy, or names the first field for which it is refused.
pub(crate) fn cilium(policy: &Decoded<CiliumNetworkPolicy>) -> Result<Vec<Policy>, DecodeError> {
    refuse_unknown(&policy.unknown)?;
    cilium::translate(&policy.object)
}

/// Translates a NetworkPolicy, or names the first field for which it is refused.
pub(crate) fn kubernetes(policy: &Decoded<NetworkPolicy>) -> Result<Vec<Policy>, DecodeError> {
    refuse_unknown(&policy.unknown)?;
    kubernetes::translate(&policy.object)
}

/// A field that is not known could be a condition, and so rejects the policy.
pub(crate) fn refuse_unknown(unknown: &[Arc<str>]) -> Result<(), DecodeError> {
    let Some(field) = unknown.first() else { return Ok(()) };
    let name = field.rsplit('.').next().unwrap_or_default();
    let exists = NOT_ENFORCED.contains(&name);
    Err(DecodeError::new(field.clone(), if exists { "is not supported" } else { "is not known" }))
}

fn object_name(metadata: &weft_api::meta::Metadata) -> ObjectName {
    ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() }
}
