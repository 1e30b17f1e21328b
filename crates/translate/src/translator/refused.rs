// SPDX-License-Identifier: Apache-2.0
//! What stands in for objects that were refused.

use serde_json::Value;
use weft_api::{
    httproute::HttpRoute,
    object::{Kind, decode_as},
};

use crate::{ratelimit, store::Store};

/// What stands in for routes: their parents and hostnames, as far as they
/// can be read, with generation and reason.
pub(super) fn routes(store: &Store) -> Vec<(i64, String, HttpRoute)> {
    store
        .of_kind(Kind::HttpRoute)
        .filter_map(|(key, entry)| {
            let refused = entry.refused()?;
            let mut route = parents(&refused.value)?;
            route.metadata.namespace = key.namespace.clone();
            route.metadata.name = key.name.clone();
            Some((entry.generation(), refused.error.to_string(), route))
        })
        .collect()
}

/// What stands in for rate limits.
pub(super) fn rate_limits(store: &Store) -> Vec<ratelimit::Candidate> {
    let of_kind = store.of_kind(Kind::RateLimitPolicy);
    of_kind
        .filter_map(|(key, entry)| ratelimit::stand_in(key, &entry.refused()?.value, entry.generation()))
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
