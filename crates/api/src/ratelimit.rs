// SPDX-License-Identifier: Apache-2.0
//! Weft's own `weft.dev/v1alpha1` RateLimitPolicy.

use std::sync::Arc;

use serde::Deserialize;

use crate::{duration::ApiDuration, meta::Metadata};

/// The group of Weft's own kinds.
pub const GROUP: &str = "weft.dev";

/// RateLimitPolicy: a token bucket on each node for a route or a service.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RateLimitPolicy {
    /// Its name.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: RateLimitSpec,
}

/// `spec` of a RateLimitPolicy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitSpec {
    /// What it holds back, in its own namespace.
    pub target_ref: TargetRef,
    /// The bucket of each node.
    pub local: LocalRateLimit,
    /// Every client workload has a bucket of its own.
    #[serde(default)]
    pub per_client: bool,
}

/// What a policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TargetRef {
    /// The group: `gateway.networking.k8s.io` for HTTPRoute, empty for Service.
    #[serde(default)]
    pub group: Arc<str>,
    /// `HTTPRoute` or `Service`.
    pub kind: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct LocalRateLimit {
    /// Requests in each interval; at least 1.
    pub requests: u32,
    /// The interval, more than 0.
    pub interval: ApiDuration,
    /// The size of the bucket; `requests` when absent.
    #[serde(default)]
    pub burst: Option<u32>,
}
