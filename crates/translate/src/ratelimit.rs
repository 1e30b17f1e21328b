// SPDX-License-Identifier: Apache-2.0
//! RateLimitPolicies.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use weft_api::{
    gateway,
    meta::Metadata,
    object::{DecodeError, Decoded, Kind, ObjectKey, decode_as},
    ratelimit::{RateLimitPolicy, TargetRef},
    status::Condition,
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
pub(crate) fn stand_in(key: &ObjectKey, value: &Value, generation: i64) -> Option<Candidate> {
    let named = decode_as::<TargetRef>(value.pointer("/spec/targetRef")?).ok()?;
    if !named.unknown.is_empty() {
        return None;
    }
    let metadata = value.get("metadata").and_then(|value| decode_as::<Metadata>(value).ok());
    let limit = RateLimit {
        name: ObjectName { namespace: key.namespace.clone(), name: key.name.clone() },
        target: target(&key.namespace, &named.object).ok()?,
        requests: 0,
        interval: Duration::from_secs(1),
        burst: 1,
        per_client: false,
    };
    let created = metadata.map_or(0, |metadata| metadata.object.created());
    Some(Candidate { limit, created, generation })
}

/// One policy of the store.
pub(crate) struct Candidate {
    pub(crate) limit: RateLimit,
    pub(crate) created: i64,
    pub(crate) generation: i64,
}

/// Decides which policies hold. Of several with one target the oldest wins, then the first by name
/// (GEP-713, conflict resolution).
pub(crate) fn decide(
    mut candidates: Vec<Candidate>,
    exists: impl Fn(&ObjectKey) -> bool,
) -> Vec<(ObjectKey, Condition, Option<RateLimit>)> {
    candidates.sort_by(|a, b| (a.created, &a.limit.name).cmp(&(b.created, &b.limit.name)));
    let mut taken: BTreeMap<ObjectKey, ObjectName> = BTreeMap::new();
    let decide_one = |candidate: Candidate| {
        let (kind, target) = match &candidate.limit.target {
            // `target` takes no route of another kind.
            RateLimitTarget::Route { kind: _, name } => (Kind::HttpRoute, name),
            RateLimitTarget::Service(name) => (Kind::Service, name),
        };
        let target = ObjectKey { kind, namespace: target.namespace.clone(), name: target.name.clone() };
        let refuse = |reason: &str, message: String| {
            (Condition::new("Accepted", false, candidate.generation, reason, &message), None)
        };
        let name = &candidate.limit.name;
        let key = ObjectKey {
            kind: Kind::RateLimitPolicy,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        };
        let (condition, limit) = if !exists(&target) {
            refuse("TargetNotFound", format!("{target} does not exist"))
        } else if let Some(winner) = taken.get(&target) {
            refuse("Conflicted", format!("RateLimitPolicy {winner} already holds back {target}"))
        } else {
            taken.insert(target.clone(), name.clone());
            let message = format!("{target} is held back on every node");
            let accepted = Condition::new("Accepted", true, candidate.generation, "Accepted", &message);
            (accepted, Some(candidate.limit.clone()))
        };
        (key, condition, limit)
    };
    candidates.into_iter().map(decide_one).collect()
}
