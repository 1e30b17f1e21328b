// SPDX-License-Identifier: Apache-2.0
//! RateLimitPolicies.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use weft_api::{
    decode::{DecodeError, Decoded, decode_as},
    gateway,
    meta::Metadata,
    object::ObjectKey,
    ratelimit::{RateLimitPolicy, TargetRef},
};
use weft_ir::{ObjectName, RateLimit, RateLimitTarget, RouteKind};

use crate::policy::refuse_unknown;

/// Checks a policy and translates it, whether its target exists or not.
pub(crate) fn translate(policy: &Decoded<RateLimitPolicy>) -> Result<RateLimit, DecodeError> {
    refuse_unknown(&policy.unknown)?;
    let metadata = &policy.object.metadata;
    let spec = &policy.object.spec;
    let name = |name: &Arc<str>| ObjectName { namespace: metadata.namespace.clone(), name: name.clone() };
    let target = target(&metadata.namespace, &spec.target_ref)?;
    let burst = spec.local.burst.unwrap_or(spec.local.requests);
    for (value, field) in [(spec.local.requests, "requests"), (burst, "burst")] {
        if value == 0 {
            return Err(DecodeError::new(format!("spec.local.{field}"), "must be at least 1"));
        }
    }
    if spec.local.interval.0.is_zero() {
        return Err(DecodeError::new("spec.local.interval", "must be more than 0"));
    }
    Ok(RateLimit {
        name: name(&metadata.name),
        target,
        requests: spec.local.requests,
        interval: spec.local.interval.0,
        burst,
        per_client: spec.per_client,
    })
}

/// The Service or HTTPRoute that a policy of this namespace names.
fn target(namespace: &Arc<str>, target: &TargetRef) -> Result<RateLimitTarget, DecodeError> {
    let name = ObjectName { namespace: namespace.clone(), name: target.name.clone() };
    match (&*target.group, &*target.kind) {
        (gateway::GROUP, "HTTPRoute") => Ok(RateLimitTarget::Route { kind: RouteKind::HttpRoute, name }),
        ("", "Service") => Ok(RateLimitTarget::Service(name)),
        (group, kind) => {
            let message =
                format!("must name an HTTPRoute of {} or a Service, not {group}/{kind}", gateway::GROUP);
            Err(DecodeError::new("spec.targetRef", message))
        }
    }
}

/// What stands in for a refused policy: no request reaches its target.
/// Nothing where the target cannot be read, since nobody can tell then what is to be held back.
pub(crate) fn stand_in(key: &ObjectKey, value: &Value) -> Option<RateLimit> {
    let named = decode_as::<TargetRef>(value.pointer("/spec/targetRef")?).ok()?;
    if !named.unknown.is_empty() {
        return None;
    }
    Some(RateLimit {
        name: ObjectName { namespace: key.namespace.clone(), name: key.name.clone() },
        target: target(&key.namespace, &named.object).ok()?,
        requests: 0,
        interval: Duration::from_secs(1),
        burst: 1,
        per_client: false,
    })
}

/// When a refused policy was made, in seconds since 1970; 0 where it does not say.
pub(crate) fn created(value: &Value) -> i64 {
    let metadata = value.get("metadata").and_then(|value| decode_as::<Metadata>(value).ok());
    metadata.map_or(0, |metadata| metadata.object.created())
}
