// SPDX-License-Identifier: Apache-2.0
//! GatewayClasses and Gateways.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use weft_api::{
    gateway::{self as api, GatewayAddress, RouteGroupKind},
    object::Kind,
    status::{Condition, ConditionsStatus, GatewayStatus, ListenerStatus, Status, Truth},
};
use weft_ir::{ListenerParent, ListenerParentKind, ObjectName, Resource};

use crate::{
    CONTROLLER_NAME,
    world::{Item, World},
};

/// How many routes are attached to each listener of a Gateway, by its name.
pub type Attached = BTreeMap<Arc<str>, i32>;

/// What comes of one Gateway. Its status is written once the routes are counted
/// ([`GatewayState::status`]).
#[derive(Debug, Default)]
pub struct GatewayOutput {
    /// What its routes need to know; nothing where its class is none of ours.
    pub state: Option<Arc<GatewayState>>,
    /// Its listeners.
    pub resources: Vec<Resource>,
    /// What no status can say.
    pub notes: Vec<Arc<str>>,
}

/// A Gateway of one of our classes.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayState {
    generation: i64,
    pub(crate) name: ObjectName,
    pub(crate) listeners: Vec<ListenerState>,
    /// Why the whole Gateway is refused: reason and message.
    refused: Option<(&'static str, String)>,
    listen_addresses: Vec<IpAddr>,
}

/// A listener of such a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerState {
    pub(crate) spec: api::Listener,
    /// Whether HTTPRoutes are among the kinds that it takes.
    pub(crate) takes_http_routes: bool,
    supported_kinds: Vec<RouteGroupKind>,
    invalid_kinds: Option<String>,
    refused: Option<(&'static str, String)>,
    /// Reason and message.
    conflict: Option<(&'static str, String)>,
}

impl ListenerState {
    fn serves(&self) -> bool {
        self.refused.is_none() && self.conflict.is_none() && self.takes_http_routes
    }
}

/// The status of a class; nothing where it is none of ours.
pub fn translate_class(class: Item<'_, api::GatewayClass>) -> Option<Status> {
    if &*class.object.spec.controller_name != CONTROLLER_NAME {
        return None;
    }
    let condition = match class.unknown.first() {
        None => Condition::new("Accepted", true, class.generation, "Accepted", "Weft serves this class"),
        Some(field) => {
            let message = format!("{field} is not supported");
            Condition::new("Accepted", false, class.generation, "InvalidParameters", &message)
        }
    };
    Some(Status::Conditions(ConditionsStatus { conditions: vec![condition] }))
}

/// Whether Weft serves the Gateways of a class: it is ours and accepted.
fn serves(class: Item<'_, api::GatewayClass>) -> bool {
    &*class.object.spec.controller_name == CONTROLLER_NAME && class.unknown.is_empty()
}

/// Translates one Gateway.
pub fn translate_gateway(world: &impl World, item: Item<'_, api::Gateway>) -> GatewayOutput {
    let class = &item.object.spec.gateway_class_name;
    match world.class(class) {
        // It is served by nobody, and nobody else says so.
        None => GatewayOutput {
            notes: vec![format!("GatewayClass {class} does not exist").into()],
            ..GatewayOutput::default()
        },
        Some(found) if serves(found) => {
            let state = GatewayState::new(item);
            let resources = state.resources();
            GatewayOutput { state: Some(Arc::new(state)), resources, notes: Vec::new() }
        }
        Some(_) => GatewayOutput::default(),
    }
}

impl GatewayState {
    fn new(item: Item<'_, api::Gateway>) -> GatewayState {
        let metadata = &item.object.metadata;
        let spec = &item.object.spec;
        let (listen_addresses, mut refused) = match requested_addresses(&spec.addresses) {
            Ok(addresses) => (addresses, None),
            Err(message) => (Vec::new(), Some(("UnsupportedAddress", message))),
        };
        let of_gateway = |field: &&Arc<str>| !field.starts_with("spec.listeners[");
        if let Some(field) = item.unknown.iter().find(of_gateway) {
            refused = Some(("Invalid", format!("{field} is not supported")));
        }
        let listeners = spec.listeners.iter().enumerate();
        let mut listeners: Vec<ListenerState> =
            listeners.map(|(index, listener)| listener_state(listener, index, item.unknown)).collect();
        mark_conflicts(&mut listeners);
        GatewayState {
            generation: item.generation,
            name: ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() },
            listeners,
            refused,
            listen_addresses,
        }
    }

    /// Whether routes of this listener reach a node.
    pub(crate) fn serves(&self, listener: &ListenerState) -> bool {
        self.refused.is_none() && listener.serves()
    }

    fn resources(&self) -> Vec<Resource> {
        let served = self.listeners.iter().filter(|listener| self.serves(listener));
        let resource = |listener: &ListenerState| {
            Resource::Listener(weft_ir::Listener {
                parent: ListenerParent { kind: ListenerParentKind::Gateway, name: self.name.clone() },
                name: listener.spec.name.clone(),
                addresses: self.listen_addresses.clone(),
                port: listener.spec.port,
                hostname: listener.spec.hostname.clone().unwrap_or_else(|| "".into()),
            })
        };
        served.map(resource).collect()
    }

    /// The status, with the number of routes at each listener.
    pub fn status(&self, world: &impl World, attached: &Attached) -> GatewayStatus {
        let of_listener = |listener: &ListenerState| {
            let attached = attached.get(&listener.spec.name).copied().unwrap_or(0);
            listener_status(listener, self.serves(listener), attached, self.generation)
        };
        GatewayStatus {
            conditions: self.conditions(),
            addresses: self.addresses(world),
            listeners: self.listeners.iter().map(of_listener).collect(),
        }
    }

    /// The addresses that were asked for, or those of the nodes (at most 16, the API's limit).
    fn addresses(&self, world: &impl World) -> Vec<GatewayAddress> {
        let address = |value: Arc<str>| GatewayAddress { kind: Some("IPAddress".into()), value };
        match self.listen_addresses.as_slice() {
            [] => world.node_addresses().into_iter().take(16).map(address).collect(),
            own => own.iter().map(|ip| address(ip.to_string().into())).collect(),
        }
    }

    fn conditions(&self) -> Vec<Condition> {
        let generation = self.generation;
        let invalid: Vec<&str> = self
            .listeners
            .iter()
            .filter(|listener| !listener.serves())
            .map(|listener| &*listener.spec.name)
            .collect();
        let some_serve = self.listeners.iter().any(|listener| self.serves(listener));
        let accepted = match (&self.refused, invalid.is_empty()) {
            (Some((reason, message)), _) => Condition::new("Accepted", false, generation, reason, message),
            (None, true) => {
                Condition::new("Accepted", true, generation, "Accepted", "every listener is valid")
            }
            (None, false) => {
                let message = format!("these listeners are not valid: {}", invalid.join(", "));
                Condition::new("Accepted", some_serve, generation, "ListenersNotValid", &message)
            }
        };
        let programmed = if some_serve {
            pending(generation)
        } else {
            Condition::new("Programmed", false, generation, "Invalid", "no listener can be served")
        };
        vec![accepted, programmed]
    }
}

/// `Programmed` before the nodes have answered: whoever counts their answers makes it true.
fn pending(generation: i64) -> Condition {
    Condition {
        status: Truth::Unknown,
        ..Condition::new("Programmed", false, generation, "Pending", "waiting for the nodes")
    }
}

/// Addresses to listen on; the error is a message about the first that cannot be had.
fn requested_addresses(addresses: &[GatewayAddress]) -> Result<Vec<IpAddr>, String> {
    let parse = |(index, address): (usize, &GatewayAddress)| {
        let kind = address.kind.as_deref().unwrap_or("IPAddress");
        if kind != "IPAddress" {
            return Err(format!("spec.addresses[{index}]: addresses of type {kind} are not supported"));
        }
        if address.value.is_empty() {
            return Err(format!("spec.addresses[{index}]: assigning an address is not supported"));
        }
        address
            .value
            .parse::<IpAddr>()
            .map_err(|_error| format!("spec.addresses[{index}]: `{}` is no IP address", address.value))
    };
    addresses.iter().enumerate().map(parse).collect()
}

fn listener_state(spec: &api::Listener, index: usize, unknown: &[Arc<str>]) -> ListenerState {
    let http_route = RouteGroupKind { group: api::GROUP.into(), kind: Kind::HttpRoute.name().into() };
    let wrong: Vec<String> = spec
        .allowed_routes
        .kinds
        .iter()
        .filter(|kind| **kind != http_route)
        .map(|kind| format!("{}/{}", kind.group, kind.kind))
        .collect();
    let http = &*spec.protocol == "HTTP";
    let listed = spec.allowed_routes.kinds.is_empty() || spec.allowed_routes.kinds.contains(&http_route);
    let prefix = format!("spec.listeners[{index}].");
    let refused = if http {
        let field = unknown.iter().find(|field| field.starts_with(&prefix));
        field.map(|field| ("UnsupportedValue", format!("{field} is not supported")))
    } else {
        Some(("UnsupportedProtocol", format!("listeners of protocol {} are not supported", spec.protocol)))
    };
    ListenerState {
        spec: spec.clone(),
        takes_http_routes: http && listed,
        supported_kinds: if http && listed { vec![http_route] } else { Vec::new() },
        invalid_kinds: (http && !wrong.is_empty())
            .then(|| format!("routes of these kinds are not supported: {}", wrong.join(", "))),
        refused,
        conflict: None,
    }
}

/// Listeners of one port must differ in their hostname, and speak one protocol; inside a Gateway no
/// listener of a conflict wins. UDP ports are others than TCP ports.
fn mark_conflicts(listeners: &mut [ListenerState]) {
    let conflicts: Vec<Option<(&'static str, String)>> = (0..listeners.len())
        .map(|index| {
            let others = listeners.iter().enumerate().filter(|(other, _)| *other != index);
            others.filter_map(|(_, other)| conflict(&listeners[index].spec, other)).min()
        })
        .collect();
    for (listener, conflict) in listeners.iter_mut().zip(conflicts) {
        // What is not served at all is in nobody's way and has its own reason.
        if listener.refused.is_none() {
            listener.conflict = conflict;
        }
    }
}

/// How another listener is in the way of one.
fn conflict(listener: &api::Listener, other: &ListenerState) -> Option<(&'static str, String)> {
    let name = &other.spec.name;
    if listener.port != other.spec.port || &*other.spec.protocol == "UDP" {
        return None;
    }
    if listener.protocol != other.spec.protocol {
        let message = format!("listener {name} has the same port and protocol {}", other.spec.protocol);
        return Some(("ProtocolConflict", message));
    }
    let hostname =
        |listener: &api::Listener| listener.hostname.as_deref().unwrap_or_default().to_ascii_lowercase();
    let same = other.refused.is_none() && hostname(listener) == hostname(&other.spec);
    same.then(|| ("HostnameConflict", format!("listener {name} has the same port and hostname")))
}

fn listener_status(listener: &ListenerState, served: bool, attached: i32, generation: i64) -> ListenerStatus {
    let condition =
        |kind, status, reason: &str, message: &str| Condition::new(kind, status, generation, reason, message);
    let accepted = match (&listener.refused, &listener.conflict) {
        (Some((reason, message)), _) => condition("Accepted", false, reason, message),
        (None, Some((reason, message))) => condition("Accepted", false, reason, message),
        (None, None) => condition("Accepted", true, "Accepted", "the listener is valid"),
    };
    let resolved = match &listener.invalid_kinds {
        Some(message) => condition("ResolvedRefs", false, "InvalidRouteKinds", message),
        None => condition("ResolvedRefs", true, "ResolvedRefs", "every reference is resolved"),
    };
    let programmed = if served {
        pending(generation)
    } else {
        condition("Programmed", false, "Invalid", "the listener cannot be served")
    };
    let conflicted = match &listener.conflict {
        Some((reason, message)) => condition("Conflicted", true, reason, message),
        None => condition("Conflicted", false, "NoConflicts", "no other listener is in its way"),
    };
    ListenerStatus {
        name: listener.spec.name.clone(),
        supported_kinds: listener.supported_kinds.clone(),
        attached_routes: attached,
        conditions: vec![accepted, resolved, programmed, conflicted],
    }
}
