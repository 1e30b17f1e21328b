// SPDX-License-Identifier: Apache-2.0
//! GatewayClasses and Gateways.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use weft_api::{
    gateway::{self as api, GatewayAddress, RouteGroupKind},
    object::{Kind, ObjectKey},
    status::{Condition, ConditionsStatus, GatewayStatus, ListenerStatus, Status, Truth},
};
use weft_ir::{ListenerParent, ListenerParentKind, ObjectName, Resource};

use crate::{
    CONTROLLER_NAME,
    input::{Input, Item, Output},
};

/// A Gateway of one of our classes.
pub(crate) struct GatewayState<'a> {
    item: Item<'a, api::Gateway>,
    pub(crate) name: ObjectName,
    pub(crate) listeners: Vec<ListenerState<'a>>,
    /// Why the whole Gateway is refused: reason and message.
    refused: Option<(&'static str, String)>,
    status_addresses: Vec<GatewayAddress>,
    listen_addresses: Vec<IpAddr>,
}

/// A listener of such a Gateway.
pub(crate) struct ListenerState<'a> {
    pub(crate) spec: &'a api::Listener,
    pub(crate) attached: i32,
    /// Whether HTTPRoutes are among the kinds that it takes.
    pub(crate) takes_http_routes: bool,
    supported_kinds: Vec<RouteGroupKind>,
    invalid_kinds: Option<String>,
    refused: Option<(&'static str, String)>,
    /// Reason and message.
    conflict: Option<(&'static str, String)>,
}

impl ListenerState<'_> {
    fn serves(&self) -> bool {
        self.refused.is_none() && self.conflict.is_none() && self.takes_http_routes
    }
}

/// The names of our classes; writes the status of each.
pub(crate) fn classes(input: &Input<'_>, output: &mut Output) -> Vec<Arc<str>> {
    let mut ours = Vec::new();
    for class in &input.classes {
        if &*class.object.spec.controller_name != CONTROLLER_NAME {
            continue;
        }
        let name = &class.object.metadata.name;
        let condition = match class.unknown.first() {
            None => Condition::new("Accepted", true, class.generation, "Accepted", "Weft serves this class"),
            Some(field) => {
                let message = format!("{field} is not supported");
                Condition::new("Accepted", false, class.generation, "InvalidParameters", &message)
            }
        };
        if condition.status == Truth::True {
            ours.push(name.clone());
        }
        let key = ObjectKey { kind: Kind::GatewayClass, namespace: "".into(), name: name.clone() };
        output.statuses.push((key, Status::Conditions(ConditionsStatus { conditions: vec![condition] })));
    }
    ours
}

/// A Gateway whose class does not exist is served by nobody, and nobody else says so.
pub(crate) fn note_missing_classes(input: &Input<'_>, output: &mut Output) {
    for item in &input.gateways {
        let class = &item.object.spec.gateway_class_name;
        if !input.classes.iter().any(|known| known.object.metadata.name == *class) {
            let metadata = &item.object.metadata;
            let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone());
            let key = ObjectKey { kind: Kind::Gateway, namespace, name };
            output.notes.push((key, format!("GatewayClass {class} does not exist").into()));
        }
    }
}

/// The Gateways of these classes by name.
pub(crate) fn gateways<'a>(
    input: &Input<'a>,
    classes: &[Arc<str>],
) -> BTreeMap<ObjectName, GatewayState<'a>> {
    input
        .gateways
        .iter()
        .filter(|item| classes.contains(&item.object.spec.gateway_class_name))
        .map(|item| {
            let state = GatewayState::new(input, *item);
            (state.name.clone(), state)
        })
        .collect()
}

impl<'a> GatewayState<'a> {
    fn new(input: &Input<'a>, item: Item<'a, api::Gateway>) -> GatewayState<'a> {
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
        let mut listeners: Vec<ListenerState<'a>> = Vec::new();
        for (index, listener) in spec.listeners.iter().enumerate() {
            listeners.push(listener_state(listener, index, item.unknown));
        }
        mark_conflicts(&mut listeners);
        GatewayState {
            item,
            name: ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() },
            listeners,
            refused,
            status_addresses: status_addresses(&listen_addresses, &input.node_addresses),
            listen_addresses,
        }
    }

    /// Whether routes of this listener reach a node.
    pub(crate) fn serves(&self, listener: usize) -> bool {
        self.refused.is_none() && self.listeners.get(listener).is_some_and(ListenerState::serves)
    }

    /// Writes the listeners and the status, once all routes have been counted.
    pub(crate) fn finish(self, output: &mut Output) {
        let served: Vec<bool> = (0..self.listeners.len()).map(|index| self.serves(index)).collect();
        for (listener, served) in self.listeners.iter().zip(&served) {
            if *served {
                output.resources.push(Resource::Listener(weft_ir::Listener {
                    parent: ListenerParent { kind: ListenerParentKind::Gateway, name: self.name.clone() },
                    name: listener.spec.name.clone(),
                    addresses: self.listen_addresses.clone(),
                    port: listener.spec.port,
                    hostname: listener.spec.hostname.clone().unwrap_or_else(|| "".into()),
                }));
            }
        }
        let generation = self.item.generation;
        let listeners: Vec<ListenerStatus> = self
            .listeners
            .iter()
            .zip(&served)
            .map(|(listener, served)| listener_status(listener, *served, generation))
            .collect();
        let status = GatewayStatus {
            conditions: self.conditions(&served),
            addresses: self.status_addresses,
            listeners,
        };
        let key = ObjectKey { kind: Kind::Gateway, namespace: self.name.namespace, name: self.name.name };
        output.statuses.push((key, Status::Gateway(status)));
    }

    fn conditions(&self, served: &[bool]) -> Vec<Condition> {
        let generation = self.item.generation;
        let invalid: Vec<&str> = self
            .listeners
            .iter()
            .filter(|listener| !listener.serves())
            .map(|listener| &*listener.spec.name)
            .collect();
        let accepted = match (&self.refused, invalid.is_empty()) {
            (Some((reason, message)), _) => Condition::new("Accepted", false, generation, reason, message),
            (None, true) => {
                Condition::new("Accepted", true, generation, "Accepted", "every listener is valid")
            }
            (None, false) => {
                let message = format!("these listeners are not valid: {}", invalid.join(", "));
                let some_serve = served.contains(&true);
                Condition::new("Accepted", some_serve, generation, "ListenersNotValid", &message)
            }
        };
        let programmed = if served.contains(&true) {
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

/// The addresses for the status: those asked for, or those of the nodes (at most 16, the API's limit).
fn status_addresses(listen: &[IpAddr], nodes: &[Arc<str>]) -> Vec<GatewayAddress> {
    let address = |value: Arc<str>| GatewayAddress { kind: Some("IPAddress".into()), value };
    if listen.is_empty() {
        nodes.iter().take(16).cloned().map(address).collect()
    } else {
        listen.iter().map(|ip| address(ip.to_string().into())).collect()
    }
}

fn listener_state<'a>(spec: &'a api::Listener, index: usize, unknown: &'a [Arc<str>]) -> ListenerState<'a> {
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
        spec,
        attached: 0,
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
fn mark_conflicts(listeners: &mut [ListenerState<'_>]) {
    let conflicts: Vec<Option<(&'static str, String)>> = (0..listeners.len())
        .map(|index| {
            let others = listeners.iter().enumerate().filter(|(other, _)| *other != index);
            others.filter_map(|(_, other)| conflict(listeners[index].spec, other)).min()
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
fn conflict(listener: &api::Listener, other: &ListenerState<'_>) -> Option<(&'static str, String)> {
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
    let same = other.refused.is_none() && hostname(listener) == hostname(other.spec);
    same.then(|| ("HostnameConflict", format!("listener {name} has the same port and hostname")))
}

fn listener_status(listener: &ListenerState<'_>, served: bool, generation: i64) -> ListenerStatus {
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
        attached_routes: listener.attached,
        conditions: vec![accepted, resolved, programmed, conflicted],
    }
}
