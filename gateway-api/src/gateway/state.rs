// SPDX-License-Identifier: Apache-2.0
//! What a Gateway is once it was looked at: what serves routes, and what its status says.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use weft_api::{
    gateway::{self as api, GatewayAddress, RouteGroupKind},
    status::{
        Condition, GatewayStatus, ListenerStatus, Truth,
        reason::{
            GatewayAccepted, GatewayProgrammed, ListenerAccepted, ListenerConflicted, ListenerProgrammed,
            ListenerResolvedRefs,
        },
    },
};
use weft_ir::{ListenerParent, ListenerParentKind, ObjectName, Resource};

/// The most addresses that the status of a Gateway has (`GatewayStatus.addresses`).
pub const MAX_STATUS_ADDRESSES: usize = 16;

/// How many routes are attached to each listener of a Gateway, by its name.
pub type Attached = BTreeMap<Arc<str>, i32>;

/// A Gateway of one of our classes.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayState {
    pub(super) generation: i64,
    pub(crate) name: ObjectName,
    pub(crate) listeners: Vec<ListenerState>,
    /// Why the whole Gateway is refused: reason and message.
    pub(super) refused: Option<(GatewayAccepted, String)>,
    pub(super) addresses: Addresses,
}

/// The addresses that a Gateway asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Addresses {
    /// Those to listen on; where the object names none at all, every address of a node.
    pub(super) listen: Vec<IpAddr>,
    /// An address that is asked for without saying which.
    pub(super) unassigned: Option<String>,
}

/// A listener of such a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerState {
    pub(crate) spec: api::Listener,
    /// Whether HTTPRoutes are among the kinds that it takes.
    pub(crate) takes_http_routes: bool,
    pub(super) supported_kinds: Vec<RouteGroupKind>,
    pub(super) invalid_kinds: Option<String>,
    pub(super) refused: Option<(ListenerAccepted, String)>,
    pub(super) conflict: Option<(Conflict, String)>,
}

/// How another listener of the Gateway is in the way of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Conflict {
    Hostname,
    Protocol,
}

impl ListenerState {
    fn serves(&self) -> bool {
        self.refused.is_none() && self.conflict.is_none() && self.takes_http_routes
    }
}

impl GatewayState {
    /// Whether routes of this listener reach a node.
    pub(crate) fn serves(&self, listener: &ListenerState) -> bool {
        let nowhere = self.addresses.unassigned.is_some() && self.addresses.listen.is_empty();
        self.refused.is_none() && !nowhere && listener.serves()
    }

    /// The listeners that nodes open.
    pub(super) fn resources(&self) -> Vec<Resource> {
        let served = self.listeners.iter().filter(|listener| self.serves(listener));
        let resource = |listener: &ListenerState| {
            Resource::Listener(weft_ir::Listener {
                parent: ListenerParent { kind: ListenerParentKind::Gateway, name: self.name.clone() },
                name: listener.spec.name.clone(),
                addresses: self.addresses.listen.clone(),
                port: listener.spec.port,
                hostname: listener.spec.hostname.clone().unwrap_or_else(|| "".into()),
            })
        };
        served.map(resource).collect()
    }

    /// The status, with the number of routes at each listener. The addresses of the nodes are asked for only
    /// where the Gateway is reached on them.
    pub fn status(
        &self,
        node_addresses: impl FnOnce() -> Vec<Arc<str>>,
        attached: &Attached,
    ) -> GatewayStatus {
        let of_listener = |listener: &ListenerState| {
            let attached = attached.get(&listener.spec.name).copied().unwrap_or(0);
            listener_status(listener, self.serves(listener), attached, self.generation)
        };
        GatewayStatus {
            addresses: self.addresses(node_addresses),
            accepted: self.accepted(),
            programmed: self.programmed(),
            listeners: self.listeners.iter().map(of_listener).collect(),
        }
    }

    /// The addresses that were asked for, or those of the nodes.
    fn addresses(&self, node_addresses: impl FnOnce() -> Vec<Arc<str>>) -> Vec<GatewayAddress> {
        let address = |value: Arc<str>| GatewayAddress { kind: Some("IPAddress".into()), value };
        match self.addresses.listen.as_slice() {
            [] if self.addresses.unassigned.is_some() => Vec::new(),
            [] => node_addresses().into_iter().take(MAX_STATUS_ADDRESSES).map(address).collect(),
            own => own.iter().map(|ip| address(ip.to_string().into())).collect(),
        }
    }

    fn accepted(&self) -> Condition<GatewayAccepted> {
        let of_invalid = self.listeners.iter().filter(|listener| !listener.serves());
        let invalid: Vec<&str> = of_invalid.map(|listener| &*listener.spec.name).collect();
        let (status, reason, message) = match (&self.refused, invalid.len()) {
            (Some((reason, message)), _) => (false, *reason, message.clone()),
            (None, 0) => (true, GatewayAccepted::Accepted, "every listener is valid".to_owned()),
            (None, wrong) => {
                let message = format!("these listeners are not valid: {}", invalid.join(", "));
                (wrong < self.listeners.len(), GatewayAccepted::ListenersNotValid, message)
            }
        };
        Condition::new(status, self.generation, reason, message)
    }

    /// Unknown before the nodes have answered: whoever counts their answers makes it true.
    fn programmed(&self) -> Condition<GatewayProgrammed> {
        let (status, reason, message) = match &self.addresses.unassigned {
            _ if self.refused.is_some() || !self.listeners.iter().any(ListenerState::serves) => {
                (Truth::False, GatewayProgrammed::Invalid, "no listener can be served")
            }
            Some(message) => (Truth::False, GatewayProgrammed::AddressNotAssigned, &**message),
            None => (Truth::Unknown, GatewayProgrammed::Pending, WAITING),
        };
        Condition::new(status, self.generation, reason, message)
    }
}

/// Said of what the nodes have not answered yet.
const WAITING: &str = "waiting for the nodes";

fn listener_status(listener: &ListenerState, served: bool, attached: i32, generation: i64) -> ListenerStatus {
    let accepted = match (&listener.refused, &listener.conflict) {
        (Some((reason, message)), _) => Condition::new(false, generation, *reason, &**message),
        (None, Some((conflict, message))) => {
            let reason = match conflict {
                Conflict::Hostname => ListenerAccepted::HostnameConflict,
                Conflict::Protocol => ListenerAccepted::ProtocolConflict,
            };
            Condition::new(false, generation, reason, &**message)
        }
        (None, None) => Condition::new(true, generation, ListenerAccepted::Accepted, "the listener is valid"),
    };
    let resolved_refs = match &listener.invalid_kinds {
        Some(message) => {
            Condition::new(false, generation, ListenerResolvedRefs::InvalidRouteKinds, &**message)
        }
        None => Condition::new(
            true,
            generation,
            ListenerResolvedRefs::ResolvedRefs,
            "every reference is resolved",
        ),
    };
    let programmed = match served {
        true => Condition::new(Truth::Unknown, generation, ListenerProgrammed::Pending, WAITING),
        false => {
            Condition::new(false, generation, ListenerProgrammed::Invalid, "the listener cannot be served")
        }
    };
    let conflicted = match &listener.conflict {
        Some((conflict, message)) => {
            let reason = match conflict {
                Conflict::Hostname => ListenerConflicted::HostnameConflict,
                Conflict::Protocol => ListenerConflicted::ProtocolConflict,
            };
            Condition::new(true, generation, reason, &**message)
        }
        None => Condition::new(
            false,
            generation,
            ListenerConflicted::NoConflicts,
            "no other listener is in its way",
        ),
    };
    ListenerStatus {
        name: listener.spec.name.clone(),
        supported_kinds: listener.supported_kinds.clone(),
        attached_routes: attached,
        accepted,
        resolved_refs,
        programmed,
        conflicted,
    }
}
