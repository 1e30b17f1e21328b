// SPDX-License-Identifier: Apache-2.0
//! Statuses, as Weft writes them. `lastTransitionTime` is set by whoever writes a status, since the
//! translators have no clock.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    gateway::{GatewayAddress, RouteGroupKind},
    httproute::ParentReference,
};

/// `True`, `False` or `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `Programmed`, ...
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// Whether it holds.
    pub status: Truth,
    /// The generation of the object that was looked at.
    pub observed_generation: i64,
    /// Why, in one word.
    pub reason: Arc<str>,
    /// Why, in a sentence.
    pub message: Arc<str>,
}

impl Condition {
    /// A condition of an object of this generation.
    pub fn new(kind: &str, status: bool, generation: i64, reason: &str, message: &str) -> Condition {
        Condition {
            kind: kind.into(),
            status: status.into(),
            observed_generation: generation,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// The status of any object that Weft writes one for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Status {
    /// A Gateway's.
    Gateway(GatewayStatus),
    /// A route's.
    Route(RouteStatus),
    /// Any other object's.
    Conditions(ConditionsStatus),
}

/// A status that holds conditions only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConditionsStatus {
    /// The conditions.
    pub conditions: Vec<Condition>,
}

/// `status` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Addresses that it is reached at.
    pub addresses: Vec<GatewayAddress>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Its listeners, in the order of the object.
    pub listeners: Vec<ListenerStatus>,
}

/// The status of a listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: Arc<str>,
    /// Kinds of routes that may attach.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// How many routes are accepted by it.
    pub attached_routes: i32,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// `status` of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// One entry for every parent that Weft is in charge of.
    pub parents: Vec<RouteParentStatus>,
}

/// The status of a route at one parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// The reference, as written.
    pub parent_ref: ParentReference,
    /// Who wrote this entry.
    pub controller_name: Arc<str>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}
