// SPDX-License-Identifier: Apache-2.0
//! GatewayClasses and Gateways.

use std::sync::Arc;

use weft_api::{
    gateway::{self as api, GatewayAddress, RouteGroupKind},
    object::Kind,
    status::{
        ClassStatus, Condition,
        reason::{ClassAccepted, GatewayAccepted, ListenerAccepted},
    },
};
use weft_ir::{ObjectName, Resource};
use weft_matching::hostname;

use crate::{
    CONTROLLER_NAME, validate,
    world::{Item, World},
    wrong::{Wrong, is_within},
};

pub(crate) mod state;

use state::{Addresses, Conflict, GatewayState, ListenerState};

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

/// The status of a class; nothing where it is none of ours.
pub fn translate_class(class: Item<'_, api::GatewayClass>) -> Option<ClassStatus> {
    if &*class.object.spec.controller_name != CONTROLLER_NAME {
        return None;
    }
    let (reason, message) = match class.unknown.first() {
        None => (ClassAccepted::Accepted, "Weft serves this class".to_owned()),
        Some(field) => (ClassAccepted::InvalidParameters, format!("{field} is not supported")),
    };
    let accepted = Condition::new(serves(class), class.generation, reason, message);
    Some(ClassStatus { accepted })
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
            let state = state(item);
            let resources = state.resources();
            GatewayOutput { state: Some(Arc::new(state)), resources, notes: Vec::new() }
        }
        Some(_) => GatewayOutput::default(),
    }
}

/// A Gateway of one of our classes, with what is wrong about it.
fn state(item: Item<'_, api::Gateway>) -> GatewayState {
    let metadata = &item.object.metadata;
    let spec = &item.object.spec;
    let (addresses, mut refused) = match requested_addresses(&spec.addresses) {
        Ok(addresses) => (addresses, None),
        Err(refused) => (Addresses::default(), Some(refused)),
    };
    let wrong = Wrong::new(item.unknown, &item.object.unread);
    if let Some(message) = wrong.unknown(|at| !at.starts_with("spec.listeners[")) {
        refused = Some((GatewayAccepted::Invalid, message));
    }
    let listeners = spec.listeners.iter().enumerate();
    let mut listeners: Vec<ListenerState> =
        listeners.map(|(index, listener)| listener_state(listener, index, &wrong)).collect();
    mark_conflicts(&mut listeners);
    GatewayState {
        generation: item.generation,
        name: ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() },
        listeners,
        refused,
        addresses,
    }
}

/// The addresses; the error is reason and message about the first that can never be had.
fn requested_addresses(addresses: &[GatewayAddress]) -> Result<Addresses, (GatewayAccepted, String)> {
    let mut requested = Addresses::default();
    for (index, address) in addresses.iter().enumerate() {
        let path = format!("spec.addresses[{index}]");
        let kind = address.kind.as_deref().unwrap_or("IPAddress");
        if kind != "IPAddress" {
            let message = format!("{path}: addresses of type {kind} are not supported");
            return Err((GatewayAccepted::UnsupportedAddress, message));
        }
        if address.value.is_empty() {
            requested.unassigned = Some(format!("{path}: assigning an address is not supported"));
            continue;
        }
        match address.value.parse() {
            Ok(address) => requested.listen.push(address),
            Err(_) => {
                let message = format!("{path}: `{}` is no IP address", address.value);
                return Err((GatewayAccepted::Invalid, message));
            }
        }
    }
    Ok(requested)
}

fn listener_state(spec: &api::Listener, index: usize, wrong: &Wrong<'_>) -> ListenerState {
    let http_route = RouteGroupKind { group: api::GROUP.into(), kind: Kind::HttpRoute.name().into() };
    let other_kinds: Vec<String> = spec
        .allowed_routes
        .kinds
        .iter()
        .filter(|kind| **kind != http_route)
        .map(|kind| format!("{}/{}", kind.group, kind.kind))
        .collect();
    let http = &*spec.protocol == "HTTP";
    let listed = spec.allowed_routes.kinds.is_empty() || spec.allowed_routes.kinds.contains(&http_route);
    let path = format!("spec.listeners[{index}]");
    let invalid = || validate::listener(&path, spec).err().map(|error| error.to_string());
    let refused = match wrong.unread(|at| is_within(at, &path)) {
        None if !http => {
            let message = format!("listeners of protocol {} are not supported", spec.protocol);
            Some((ListenerAccepted::UnsupportedProtocol, message))
        }
        unread => {
            let message = unread.or_else(|| wrong.within(&path)).or_else(invalid);
            message.map(|message| (ListenerAccepted::UnsupportedValue, message))
        }
    };
    let mut spec = spec.clone();
    // Names differ in nothing but letters of another case.
    spec.hostname = spec.hostname.map(|name| hostname::canonical(&name).unwrap_or(name));
    ListenerState {
        spec,
        takes_http_routes: http && listed,
        supported_kinds: if http && listed { vec![http_route] } else { Vec::new() },
        invalid_kinds: (http && !other_kinds.is_empty())
            .then(|| format!("routes of these kinds are not supported: {}", other_kinds.join(", "))),
        refused,
        conflict: None,
    }
}

/// Listeners of one port must differ in their hostname, and speak one protocol; inside a Gateway no
/// listener of a conflict wins. UDP ports are others than TCP ports.
fn mark_conflicts(listeners: &mut [ListenerState]) {
    let conflicts: Vec<Option<(Conflict, String)>> = (0..listeners.len())
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
fn conflict(listener: &api::Listener, other: &ListenerState) -> Option<(Conflict, String)> {
    let name = &other.spec.name;
    if listener.port != other.spec.port || &*other.spec.protocol == "UDP" {
        return None;
    }
    if listener.protocol != other.spec.protocol {
        let message = format!("listener {name} has the same port and protocol {}", other.spec.protocol);
        return Some((Conflict::Protocol, message));
    }
    let hostname =
        |listener: &api::Listener| listener.hostname.as_deref().unwrap_or_default().to_ascii_lowercase();
    let same = other.refused.is_none() && hostname(listener) == hostname(&other.spec);
    same.then(|| (Conflict::Hostname, format!("listener {name} has the same port and hostname")))
}
