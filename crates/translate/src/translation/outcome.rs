// SPDX-License-Identifier: Apache-2.0
//! What can come of an object.

use std::sync::Arc;

use weft_api::status::{
    Condition, PolicyStatus, RateLimitStatus, Status,
    reason::{PolicyValid, RateLimitAccepted},
};
use weft_ir::{IdentityNumber, Resource};

use super::facts::ListenerName;

/// What comes of an object.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) status: Option<Status>,
    /// What is wrong and in no status.
    pub(super) notes: Vec<Arc<str>>,
    /// The identity that the object holds.
    pub(super) identity: Option<IdentityNumber>,
    /// No identity was left for it.
    pub(super) starved: bool,
    /// The listeners at which it counts.
    pub(super) attached: Box<[ListenerName]>,
}

impl Outcome {
    pub(super) fn of(resource: Option<Resource>) -> Outcome {
        Outcome { resources: resource.into_iter().map(Arc::new).collect(), ..Outcome::default() }
    }

    pub(super) fn of_policy(resources: Vec<Arc<Resource>>, valid: Condition<PolicyValid>) -> Outcome {
        let status = Some(Status::Policy(PolicyStatus { valid }));
        Outcome { resources, status, ..Outcome::default() }
    }

    pub(super) fn of_rate_limit(
        limit: Option<Arc<Resource>>,
        accepted: Condition<RateLimitAccepted>,
    ) -> Outcome {
        let status = Some(Status::RateLimit(RateLimitStatus { accepted }));
        Outcome { resources: limit.into_iter().collect(), status, ..Outcome::default() }
    }
}
