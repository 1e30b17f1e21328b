// SPDX-License-Identifier: Apache-2.0
//! What a route attaches to: listeners of Gateways, and Services (GAMMA).

use std::sync::Arc;

use weft_api::{
    core::{L4Protocol, Service},
    gateway::{self as api, FromNamespaces},
    httproute::{HttpRoute, ParentReference},
    status::reason::RouteAccepted,
};
use weft_ir::{ListenerParent, ListenerParentKind, ObjectName, RouteParent};

use crate::{
    gateway::state::{GatewayState, ListenerState},
    hostnames::Hostnames,
    selector,
    world::{Lookup, World},
};

/// What came of one parent reference.
pub(crate) enum Attachment {
    /// The parent is not ours, and so no status is written; the text says what is noted instead.
    NotOurs(Option<String>),
    /// It is ours, and serves the route or refuses it: reason and message.
    Ours { attached: Attached, refused: Option<(RouteAccepted, String)> },
}

/// Where a route is attached.
#[derive(Default)]
pub(crate) struct Attached {
    /// The parents that nodes serve.
    pub(crate) parents: Vec<RouteParent>,
    /// Every listener by Gateway and name, served or not.
    pub(crate) listeners: Vec<(ObjectName, Arc<str>)>,
    /// The parents that a hostname fits which cannot be used.
    pub(crate) closed: Vec<RouteParent>,
}

fn refused(reason: RouteAccepted, message: String) -> Attachment {
    Attachment::Ours { attached: Attached::default(), refused: Some((reason, message)) }
}

/// Looks up one parent and attaches the route where that is allowed.
pub(crate) fn attach(
    world: &impl World,
    route: &HttpRoute,
    hostnames: &Hostnames,
    parent: &ParentReference,
) -> Attachment {
    let group = parent.group.as_deref().unwrap_or(api::GROUP);
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let namespace = parent.namespace.as_ref().unwrap_or(&route.metadata.namespace);
    let name = ObjectName { namespace: namespace.clone(), name: parent.name.clone() };
    match (group, kind) {
        (api::GROUP, "Gateway") => match world.gateway(&name) {
            Lookup::Ours(gateway) => to_gateway(world, &gateway, route, hostnames, parent),
            // A Gateway of another controller is no concern of ours; one that does not exist is.
            Lookup::Foreign => Attachment::NotOurs(None),
            Lookup::Missing => {
                Attachment::NotOurs(Some(format!("Gateway {name} does not exist or cannot be read")))
            }
        },
        ("", "Service") => to_service(world, route, parent, &name),
        _ => Attachment::NotOurs(Some(format!("parents of kind {group}/{kind} are not supported"))),
    }
}

fn to_gateway(
    world: &impl World,
    gateway: &GatewayState,
    route: &HttpRoute,
    hostnames: &Hostnames,
    parent: &ParentReference,
) -> Attachment {
    let named = |listener: &&ListenerState| {
        parent.section_name.as_ref().is_none_or(|section| *section == listener.spec.name)
            && parent.port.is_none_or(|port| port == listener.spec.port)
    };
    let named: Vec<&ListenerState> = gateway.listeners.iter().filter(named).collect();
    if named.is_empty() {
        let message = format!("Gateway {} has no such listener", gateway.name);
        return refused(RouteAccepted::NoMatchingParent, message);
    }
    let allowed = |listener: &&ListenerState| {
        listener.takes_http_routes && allows(world, &gateway.name.namespace, &listener.spec, route)
    };
    let allowed: Vec<&ListenerState> = named.into_iter().filter(allowed).collect();
    if allowed.is_empty() {
        let message = format!("no listener of Gateway {} takes HTTPRoutes of this namespace", gateway.name);
        return refused(RouteAccepted::NotAllowedByListeners, message);
    }
    let own = |listener: &ListenerState| listener.spec.hostname.clone().unwrap_or_default();
    let served: Vec<_> = allowed.iter().copied().filter(|one| hostnames.fit(&own(one))).collect();
    let name = |listener: &&ListenerState| (gateway.name.clone(), listener.spec.name.clone());
    let parent = |listener: &&ListenerState| {
        let (name, listener) = name(listener);
        let parent = ListenerParent { kind: ListenerParentKind::Gateway, name };
        RouteParent::Listener { parent, listener }
    };
    let serves = |listener: &&&ListenerState| gateway.serves(listener);
    let attached = Attached {
        parents: served.iter().filter(serves).map(parent).collect(),
        listeners: served.iter().map(name).collect(),
        closed: allowed
            .iter()
            .filter(|listener| gateway.serves(listener) && hostnames.close(&own(listener)))
            .map(parent)
            .collect(),
    };
    let refused = served.is_empty().then(|| match hostnames.none() {
        true => (RouteAccepted::UnsupportedValue, "no hostname of the route can be used".to_owned()),
        false => {
            let message = format!("no hostname of the route fits a listener of Gateway {}", gateway.name);
            (RouteAccepted::NoMatchingListenerHostname, message)
        }
    });
    Attachment::Ours { attached, refused }
}

fn allows(world: &impl World, gateway_namespace: &str, listener: &api::Listener, route: &HttpRoute) -> bool {
    let namespaces = &listener.allowed_routes.namespaces;
    match namespaces.from {
        FromNamespaces::All => true,
        FromNamespaces::Same => &*route.metadata.namespace == gateway_namespace,
        FromNamespaces::None => false,
        FromNamespaces::Selector => namespaces.selector.as_ref().is_some_and(|wanted| {
            // A label that is not known may be one that the selector excludes.
            let labels = world.namespace_labels(&route.metadata.namespace);
            labels.is_some_and(|labels| selector::matches(wanted, &labels))
        }),
    }
}

fn to_service(
    world: &impl World,
    route: &HttpRoute,
    parent: &ParentReference,
    name: &ObjectName,
) -> Attachment {
    if name.namespace != route.metadata.namespace {
        let message = "routes for a Service of another namespace (consumer routes) are not supported";
        return refused(RouteAccepted::UnsupportedValue, message.into());
    }
    let Some(service) = world.service(name) else {
        return refused(RouteAccepted::NoMatchingParent, format!("Service {name} does not exist"));
    };
    if !has_address(service) {
        let message = format!("Service {name} has no address of its own that requests could be sent to");
        return refused(RouteAccepted::UnsupportedValue, message);
    }
    match service_port(service, parent.port, parent.section_name.as_ref()) {
        Ok(port) => {
            let parents = vec![RouteParent::Service { service: name.clone(), port }];
            Attachment::Ours { attached: Attached { parents, ..Attached::default() }, refused: None }
        }
        Err(message) => refused(RouteAccepted::NoMatchingParent, format!("Service {name} {message}")),
    }
}

/// A headless or external Service has no address at which the mesh could meet its requests.
fn has_address(service: &Service) -> bool {
    &*service.spec.cluster_ip != "None" && &*service.spec.kind != "ExternalName"
}

/// The one TCP port that a parent reference names, or every port.
fn service_port(
    service: &Service,
    port: Option<u16>,
    section: Option<&Arc<str>>,
) -> Result<Option<u16>, String> {
    if port.is_none() && section.is_none() {
        return Ok(None);
    }
    let found = service.spec.ports.iter().find(|candidate| {
        candidate.protocol == L4Protocol::Tcp
            && port.is_none_or(|port| port == candidate.port)
            && section.is_none_or(|section| *section == candidate.name)
    });
    match found {
        Some(found) => Ok(Some(found.port)),
        None => Err("has no such TCP port".into()),
    }
}
