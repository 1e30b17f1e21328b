// SPDX-License-Identifier: Apache-2.0
//! The objects of the Gateway API, all together.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use weft_api::{
    httproute::HttpRoute,
    object::{Decoded, Kind, Object, ObjectKey, decode_as},
    status::{
        ClassStatus, Condition, GatewayStatus, Status,
        reason::{ClassAccepted, GatewayAccepted, GatewayProgrammed},
    },
};
use weft_gateway_api::{Input, Item};
use weft_ir::{ObjectName, Resource};

use super::object::Outcome;
use crate::{
    nodes,
    store::{Entry, Store},
};

/// The kinds of which something comes here.
pub(super) const KINDS: [Kind; 3] = [Kind::GatewayClass, Kind::Gateway, Kind::HttpRoute];

/// Whether a change of an object of this kind may concern others of the Gateway API.
pub(super) fn concerns(kind: Kind) -> bool {
    KINDS.contains(&kind)
        || matches!(kind, Kind::ReferenceGrant | Kind::Service | Kind::Node | Kind::Namespace)
}

/// What comes of every object.
pub(super) fn translate(store: &Store) -> BTreeMap<ObjectKey, Outcome> {
    let stand_ins = stand_ins(store);
    let mut input = Input::default();
    for entry in store.objects().values() {
        let Some(decoded) = entry.good() else { continue };
        match &decoded.object {
            Object::Namespace(object) => {
                let metadata = &object.metadata;
                input.namespaces.insert(metadata.name.clone(), metadata.labels.clone());
            }
            Object::GatewayClass(object) => input.classes.push(item(object, decoded, entry)),
            Object::Gateway(object) => input.gateways.push(item(object, decoded, entry)),
            Object::HttpRoute(object) => input.routes.push(item(object, decoded, entry)),
            Object::ReferenceGrant(object) => input.grants.push(object),
            Object::Service(object) => {
                let metadata = &object.metadata;
                let name = ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() };
                input.services.insert(name, object);
            }
            Object::Node(object) => {
                let addresses = nodes::node(object).addresses.into_iter();
                input.node_addresses.extend(addresses.map(|address| Arc::from(address.to_string())));
            }
            _ => {}
        }
    }
    for (generation, reason, route) in &stand_ins {
        let refused = Some(&**reason);
        input.routes.push(Item { object: route, unknown: &[], generation: *generation, refused });
    }
    outcomes(weft_gateway_api::translate(&input))
}

fn outcomes(output: weft_gateway_api::Output) -> BTreeMap<ObjectKey, Outcome> {
    let mut outcomes: BTreeMap<ObjectKey, Outcome> = BTreeMap::new();
    for resource in output.resources {
        let (kind, name) = match &resource {
            Resource::Route(route) => (Kind::HttpRoute, &route.origin),
            Resource::Listener(listener) => (Kind::Gateway, &listener.parent.name),
            _ => continue,
        };
        let key = ObjectKey { kind, namespace: name.namespace.clone(), name: name.name.clone() };
        outcomes.entry(key).or_default().resources.push(Arc::new(resource));
    }
    for (key, status) in output.statuses {
        outcomes.entry(key).or_default().status = Some(status);
    }
    for (key, note) in output.notes {
        outcomes.entry(key).or_default().notes.push(note);
    }
    outcomes
}

/// The status of a refused object that has no stand-in.
pub(super) fn refused(key: &ObjectKey, entry: &Entry) -> Option<Status> {
    let message = entry.refused()?.error.to_string();
    let generation = entry.generation();
    match key.kind {
        Kind::GatewayClass => {
            let accepted = Condition::new(false, generation, ClassAccepted::InvalidParameters, message);
            Some(Status::Class(ClassStatus { accepted }))
        }
        Kind::Gateway => Some(Status::Gateway(GatewayStatus {
            addresses: Vec::new(),
            accepted: Condition::new(false, generation, GatewayAccepted::Invalid, message),
            programmed: Condition::new(
                false,
                generation,
                GatewayProgrammed::Invalid,
                "no listener can be served",
            ),
            listeners: Vec::new(),
        })),
        _ => None,
    }
}

fn item<'a, T>(object: &'a T, decoded: &'a Decoded<Object>, entry: &Entry) -> Item<'a, T> {
    Item { object, unknown: &decoded.unknown, generation: entry.generation(), refused: None }
}

/// What stands in for refused routes: their parents and hostnames, as far as they can be read, with
/// generation and reason.
fn stand_ins(store: &Store) -> Vec<(i64, String, HttpRoute)> {
    let stand_in = |(key, entry): (&ObjectKey, &Entry)| {
        let refused = entry.refused()?;
        let mut route = parents(&refused.value)?;
        route.metadata.namespace = key.namespace.clone();
        route.metadata.name = key.name.clone();
        Some((entry.generation(), refused.error.to_string(), route))
    };
    store.of_kind(Kind::HttpRoute).filter_map(stand_in).collect()
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
