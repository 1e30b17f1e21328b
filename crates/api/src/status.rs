// SPDX-License-Identifier: Apache-2.0
//! Statuses, as Weft writes them. `lastTransitionTime` is set by whoever writes a status, since the
//! translators have no clock.
//!
//! A condition has the type of its reason, and each type of condition its own reasons ([`reason`]): what
//! an API does not know cannot be said. They become text where a status is printed.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeStruct};
use weft_time::Timestamp;

use crate::{
    gateway::{GatewayAddress, RouteGroupKind},
    httproute::ParentReference,
};

pub mod reason;
mod transitions;

use reason::{
    ClassAccepted, GatewayAccepted, GatewayProgrammed, ListenerAccepted, ListenerConflicted,
    ListenerProgrammed, ListenerResolvedRefs, PolicyValid, RateLimitAccepted, Reason, RouteAccepted,
    RoutePartiallyInvalid, RouteResolvedRefs,
};

/// `True`, `False` or `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known yet.
    Unknown,
}

impl From<bool> for Truth {
    fn from(value: bool) -> Truth {
        if value { Truth::True } else { Truth::False }
    }
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        })
    }
}

/// One condition, of the type that its reasons belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<R> {
    /// Whether it holds.
    pub status: Truth,
    /// The generation of the object that was looked at.
    pub observed_generation: i64,
    /// Why, in one word.
    pub reason: R,
    /// Why, in a sentence.
    pub message: Arc<str>,
    /// When `status` became what it is; set by whoever has a clock ([`Status::set_transitions`]).
    pub last_transition_time: Option<Timestamp>,
}

impl<R: Reason> Condition<R> {
    /// A condition of an object of this generation.
    pub fn new(status: impl Into<Truth>, generation: i64, reason: R, message: impl Into<Arc<str>>) -> Self {
        Condition {
            status: status.into(),
            observed_generation: generation,
            reason,
            message: message.into(),
            last_transition_time: None,
        }
    }

    /// The condition in words.
    pub fn words(&self) -> ConditionWords<'_> {
        ConditionWords {
            kind: R::CONDITION,
            status: self.status,
            observed_generation: self.observed_generation,
            reason: self.reason.word(),
            message: &self.message,
            last_transition_time: self.last_transition_time,
            good: Truth::from(!R::NEGATIVE) == self.status,
        }
    }
}

/// A condition as it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionWords<'a> {
    /// `Accepted`, `Programmed`, ...
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Truth,
    /// The generation of the object that was looked at.
    pub observed_generation: i64,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: &'a str,
    /// When `status` became what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// Whether this is how it should be.
    #[serde(skip)]
    pub good: bool,
}

/// The status of any object that Weft writes one for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Status {
    /// A GatewayClass's.
    Class(ClassStatus),
    /// A Gateway's.
    Gateway(GatewayStatus),
    /// A route's.
    Route(RouteStatus),
    /// A network policy's, of any API.
    Policy(PolicyStatus),
    /// A RateLimitPolicy's.
    RateLimit(RateLimitStatus),
}

/// `status` of a GatewayClass.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassStatus {
    /// Whether Weft serves its Gateways.
    pub accepted: Condition<ClassAccepted>,
}

/// `status` of a network policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyStatus {
    /// Whether it is enforced as written.
    pub valid: Condition<PolicyValid>,
}

/// `status` of a RateLimitPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitStatus {
    /// Whether it holds its target back.
    pub accepted: Condition<RateLimitAccepted>,
}

/// `status` of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayStatus {
    /// Addresses that it is reached at.
    pub addresses: Vec<GatewayAddress>,
    /// Whether some of it can be served.
    pub accepted: Condition<GatewayAccepted>,
    /// Whether the nodes serve it.
    pub programmed: Condition<GatewayProgrammed>,
    /// Its listeners, in the order of the object.
    pub listeners: Vec<ListenerStatus>,
}

/// The status of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: Arc<str>,
    /// Kinds of routes that may attach.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// How many routes are accepted by it.
    pub attached_routes: i32,
    /// Whether it is valid.
    pub accepted: Condition<ListenerAccepted>,
    /// Whether everything that it names exists.
    pub resolved_refs: Condition<ListenerResolvedRefs>,
    /// Whether the nodes serve it.
    pub programmed: Condition<ListenerProgrammed>,
    /// Whether another listener is in its way.
    pub conflicted: Condition<ListenerConflicted>,
}

/// `status` of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RouteStatus {
    /// One entry for every parent that Weft is in charge of.
    pub parents: Vec<RouteParentStatus>,
}

/// The status of a route at one parent.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteParentStatus {
    /// The reference, as written.
    pub parent_ref: ParentReference,
    /// Who wrote this entry.
    pub controller_name: Arc<str>,
    /// Whether the parent serves any of it.
    pub accepted: Condition<RouteAccepted>,
    /// Whether everything that it names exists.
    pub resolved_refs: Condition<RouteResolvedRefs>,
    /// There where some rules are refused and others are not.
    pub partially_invalid: Option<Condition<RoutePartiallyInvalid>>,
}

impl GatewayStatus {
    /// Its conditions in words, those of its listeners left out.
    pub fn conditions(&self) -> Vec<ConditionWords<'_>> {
        vec![self.accepted.words(), self.programmed.words()]
    }
}

impl ListenerStatus {
    /// Its conditions in words.
    pub fn conditions(&self) -> Vec<ConditionWords<'_>> {
        vec![
            self.accepted.words(),
            self.resolved_refs.words(),
            self.programmed.words(),
            self.conflicted.words(),
        ]
    }
}

impl RouteParentStatus {
    /// Its conditions in words.
    pub fn conditions(&self) -> Vec<ConditionWords<'_>> {
        let mut all = vec![self.accepted.words(), self.resolved_refs.words()];
        all.extend(self.partially_invalid.iter().map(Condition::words));
        all
    }
}

impl Serialize for ClassStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        only_conditions(serializer, self.accepted.words())
    }
}

impl Serialize for PolicyStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        only_conditions(serializer, self.valid.words())
    }
}

impl Serialize for RateLimitStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        only_conditions(serializer, self.accepted.words())
    }
}

fn only_conditions<S: Serializer>(serializer: S, one: ConditionWords<'_>) -> Result<S::Ok, S::Error> {
    let mut fields = serializer.serialize_struct("Status", 1)?;
    fields.serialize_field("conditions", &[one])?;
    fields.end()
}

impl Serialize for GatewayStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("GatewayStatus", 3)?;
        fields.serialize_field("addresses", &self.addresses)?;
        fields.serialize_field("conditions", &self.conditions())?;
        fields.serialize_field("listeners", &self.listeners)?;
        fields.end()
    }
}

impl Serialize for ListenerStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ListenerStatus", 4)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("supportedKinds", &self.supported_kinds)?;
        fields.serialize_field("attachedRoutes", &self.attached_routes)?;
        fields.serialize_field("conditions", &self.conditions())?;
        fields.end()
    }
}

impl Serialize for RouteParentStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("RouteParentStatus", 3)?;
        fields.serialize_field("parentRef", &self.parent_ref)?;
        fields.serialize_field("controllerName", &self.controller_name)?;
        fields.serialize_field("conditions", &self.conditions())?;
        fields.end()
    }
}
