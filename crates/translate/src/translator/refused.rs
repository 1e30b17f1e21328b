// SPDX-License-Identifier: Apache-2.0
//! Objects whose newest text was refused.

use serde_json::Value;
use weft_api::{
    httproute::HttpRoute,
    object::{Kind, decode_as},
    status::{Condition, Status},
};

use crate::{ratelimit, store::Store};

/// What stands in for routes that have no good version: their parents and hostnames, as far as they
/// can be read, with generation and reason.
pub(super) fn routes(store: &Store) -> Vec<(i64, String, HttpRoute)> {
    let refused =
        store.objects().iter().filter(|(key, entry)| key.kind == Kind::HttpRoute && entry.good.is_none());
    refused
        .filter_map(|(key, entry)| {
            let refused = entry.refused.as_ref()?;
            let mut route = parents(&refused.value)?;
            route.metadata.namespace = key.namespace.clone();
            route.metadata.name = key.name.clone();
            Some((entry.generation, refused.error.to_string(), route))
        })
        .collect()
}

/// What stands in for rate limits that have no good version.
pub(super) fn rate_limits(store: &Store) -> Vec<ratelimit::Candidate> {
    let of_kind = store.objects().iter().filter(|(key, _)| key.kind == Kind::RateLimitPolicy);
    of_kind
        .filter(|(_, entry)| entry.good.is_none())
        .filter_map(|(key, entry)| ratelimit::stand_in(key, &entry.refused.as_ref()?.value, entry.generation))
        .collect()
}

/// The route without its rules; without its hostnames, and so for every host, where these are what
/// cannot be read.
fn parents(value: &Value) -> Option<HttpRoute> {
    let mut value = value.clone();
    value.get_mut("spec")?.as_object_mut()?.remove("rules");
    if let Ok(decoded) = decode_as::<HttpRoute>(&value)
        && weft_gateway_api::validate_route(&decoded.object).is_ok()
    {
        return Some(decoded.object);
    }
    value.get_mut("spec")?.as_object_mut()?.remove("hostnames");
    decode_as::<HttpRoute>(&value).ok().map(|decoded| decoded.object)
}

/// Says in the status of the last good version that the newest text was refused.
pub(super) fn overwrite(status: &mut Status, accepted: &Condition) {
    match status {
        Status::Conditions(status) => replace(&mut status.conditions, accepted),
        Status::Gateway(status) => replace(&mut status.conditions, accepted),
        Status::Route(status) => {
            for parent in &mut status.parents {
                replace(
                    &mut parent.conditions,
                    &Condition { reason: "UnsupportedValue".into(), ..accepted.clone() },
                );
            }
        }
    }
}

fn replace(conditions: &mut [Condition], accepted: &Condition) {
    for condition in conditions.iter_mut() {
        if condition.kind == accepted.kind {
            *condition = accepted.clone();
        }
    }
}
