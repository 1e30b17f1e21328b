// SPDX-License-Identifier: Apache-2.0
//! What comes of one object, given what it may ask.

use std::sync::Arc;

use weft_api::{
    core::Pod,
    object::{Kind, Object, ObjectKey},
    status::{
        Condition,
        reason::{PolicyValid, RateLimitAccepted},
    },
};
use weft_ir::{IdentityNumber, ObjectName, RateLimit, RateLimitTarget, Resource};

use super::{gateway, outcome::Outcome, settings::Translator, view::View};
use crate::{
    good::Meaning,
    identity::{Exhausted, Identities},
    nodes, policy, ratelimit, refused,
    store::{Entry, Refused},
    workload,
};

/// Translates an object.
pub(super) fn translate(
    settings: &Translator,
    view: &View<'_>,
    identities: &mut Identities,
    key: &ObjectKey,
    entry: &Entry,
) -> Outcome {
    let good = match (entry.good(), entry.refused()) {
        (_, Some(refused)) => return refused_object(view, key, entry, refused),
        (Some(good), None) => good,
        (None, None) => return Outcome::default(),
    };
    match (&good.object, &good.meaning) {
        (_, Meaning::Policies(policies)) => {
            let message = "the policy is enforced";
            let valid = Condition::new(true, entry.generation(), PolicyValid::Valid, message);
            Outcome::of_policy(policies.clone(), valid)
        }
        (_, Meaning::RateLimit(limit)) => {
            let (limit, accepted) = rate_limit(view, key, limit, entry.generation());
            Outcome::of_rate_limit(limit, accepted)
        }
        (Object::Pod(pod), _) => workload(settings, view, identities, pod),
        (Object::Node(node), _) => Outcome::of(Some(Resource::Node(nodes::node(node)))),
        (Object::Service(service), _) => Outcome::of(nodes::service(service).map(Resource::Service)),
        (Object::EndpointSlice(slice), _) => Outcome::of(nodes::endpoints(slice).map(Resource::Endpoints)),
        _ => gateway::translate(view, key, entry),
    }
}

/// Closes what a refused object names, and says why.
fn refused_object(view: &View<'_>, key: &ObjectKey, entry: &Entry, refused: &Refused) -> Outcome {
    let generation = entry.generation();
    match key.kind {
        Kind::CiliumNetworkPolicy | Kind::CiliumClusterwideNetworkPolicy | Kind::NetworkPolicy => {
            let stand_in = policy::stand_in(key, &refused.value);
            let so = if stand_in.is_empty() { "nothing enforces it" } else { "what it names is closed" };
            let message = format!("{}; {so}", refused.error);
            let resources = stand_in.into_iter().map(|policy| Arc::new(Resource::Policy(policy)));
            let valid = Condition::new(false, generation, PolicyValid::Invalid, message);
            Outcome::of_policy(resources.collect(), valid)
        }
        Kind::RateLimitPolicy => {
            let stand_in = ratelimit::stand_in(key, &refused.value);
            let held = stand_in.and_then(|limit| rate_limit(view, key, &limit, generation).0);
            let so = if held.is_some() { "; requests to its target are answered with 429" } else { "" };
            let message = format!("{}{so}", refused.error);
            let accepted = Condition::new(false, generation, RateLimitAccepted::Invalid, message);
            Outcome::of_rate_limit(held, accepted)
        }
        Kind::Pod => {
            let pod = refused::pod(key, &refused.value);
            Outcome::of(pod.stand_in().map(Resource::Workload))
        }
        _ => gateway::translate(view, key, entry),
    }
}

/// The rate limit where it holds, and its condition. Of several with one target one wins.
fn rate_limit(
    view: &View<'_>,
    key: &ObjectKey,
    limit: &RateLimit,
    generation: i64,
) -> (Option<Arc<Resource>>, Condition<RateLimitAccepted>) {
    let target = limited(limit);
    let refuse = |reason: RateLimitAccepted, message: String| {
        (None, Condition::new(false, generation, reason, message))
    };
    if view.object(target.clone()).is_none() {
        return refuse(RateLimitAccepted::TargetNotFound, format!("{target} does not exist"));
    }
    match view.rate_limit(&target) {
        Some(winner) if winner != key => {
            refuse(RateLimitAccepted::Conflicted, format!("{winner} already holds back {target}"))
        }
        Some(_) | None => {
            let message = format!("{target} is held back on every node");
            let accepted = Condition::new(true, generation, RateLimitAccepted::Accepted, message);
            (Some(Arc::new(Resource::RateLimit(limit.clone()))), accepted)
        }
    }
}

/// The target that a rate limit, valid or not, names, and when the limit was made.
pub(super) fn named_target(key: &ObjectKey, entry: &Entry) -> Option<(ObjectKey, i64)> {
    match (entry.good().map(|good| (&good.meaning, good)), entry.refused()) {
        (Some((Meaning::RateLimit(limit), good)), _) => {
            Some((limited(limit), good.object.metadata().created()))
        }
        (_, Some(refused)) => {
            let limit = ratelimit::stand_in(key, &refused.value)?;
            Some((limited(&limit), ratelimit::created(&refused.value)))
        }
        _ => None,
    }
}

fn limited(limit: &RateLimit) -> ObjectKey {
    let (kind, ObjectName { namespace, name }) = match &limit.target {
        // `ratelimit` takes no route of another kind.
        RateLimitTarget::Route { kind: _, name } => (Kind::HttpRoute, name),
        RateLimitTarget::Service(name) => (Kind::Service, name),
    };
    ObjectKey { kind, namespace: namespace.clone(), name: name.clone() }
}

/// The workload of a live pod. One whose labels are not all known has an identity of which nothing is known:
/// a selector that excludes a label must not take it in.
fn workload(settings: &Translator, view: &View<'_>, identities: &mut Identities, pod: &Pod) -> Outcome {
    if !workload::is_live(pod) {
        return Outcome::default();
    }
    let with = |number| Outcome::of(Some(Resource::Workload(workload::translate(pod, number))));
    let Some(namespace) = view.labels_of_namespace(&pod.metadata.namespace) else {
        return with(IdentityNumber::UNKNOWN);
    };
    let labels = workload::identity_labels(pod, &namespace, &settings.cluster);
    match identities.hold(labels) {
        Ok(number) => Outcome { identity: Some(number), ..with(number) },
        Err(error @ Exhausted) => {
            let note = format!("{error}; {}", refused::CLOSED);
            Outcome { notes: vec![note.into()], starved: true, ..with(IdentityNumber::UNKNOWN) }
        }
    }
}
