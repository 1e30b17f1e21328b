// SPDX-License-Identifier: Apache-2.0
//! What comes of one object of the Gateway API.

use std::sync::Arc;

use serde_json::Value;
use weft_api::{
    httproute::HttpRoute,
    object::{Kind, Object, ObjectKey, decode},
    status::{
        ClassStatus, Condition, GatewayStatus, Status,
        reason::{ClassAccepted, GatewayAccepted, GatewayProgrammed},
    },
};
use weft_gateway_api::{
    GatewayOutput, GatewayState, Item, RouteOutput, World as _, translate_class, translate_gateway,
    translate_route,
};

use super::{outcome::Outcome, view::View};
use crate::store::{Entry, Refused};

/// Translates an object; nothing comes of one of another kind.
pub(super) fn translate(view: &View<'_>, key: &ObjectKey, entry: &Entry) -> Outcome {
    match (entry.good().map(|good| &good.object), entry.refused()) {
        (Some(Object::GatewayClass(class)), _) => Outcome {
            status: entry.item(class).and_then(translate_class).map(Status::Class),
            ..Outcome::default()
        },
        (Some(Object::Gateway(_)), _) => gateway(view, key, entry),
        (Some(Object::HttpRoute(route)), _) => {
            entry.item(route).map(|item| self::route(translate_route(view, item))).unwrap_or_default()
        }
        (_, Some(refused)) => refused_object(view, key, refused, entry.generation()),
        _ => Outcome::default(),
    }
}

/// What routes need to know of a Gateway, nothing where it is of another controller; and nothing at all where
/// it is not valid.
pub(super) fn state(view: &View<'_>, entry: &Entry) -> Option<Option<Arc<GatewayState>>> {
    translated(view, entry).map(|translated| translated.state)
}

fn translated(view: &View<'_>, entry: &Entry) -> Option<GatewayOutput> {
    match &entry.good()?.object {
        Object::Gateway(gateway) => Some(translate_gateway(view, entry.item(gateway)?)),
        _ => None,
    }
}

fn gateway(view: &View<'_>, key: &ObjectKey, entry: &Entry) -> Outcome {
    let Some(translated) = translated(view, entry) else { return Outcome::default() };
    let status = translated
        .state
        .map(|state| Status::Gateway(state.status(|| view.node_addresses(), view.attached(key))));
    Outcome {
        resources: translated.resources.into_iter().map(Arc::new).collect(),
        status,
        notes: translated.notes,
        ..Outcome::default()
    }
}

fn route(output: RouteOutput) -> Outcome {
    Outcome {
        resources: output.resources.into_iter().map(Arc::new).collect(),
        status: output.status.map(Status::Route),
        notes: output.notes,
        attached: output.attached.into_iter().collect(),
        ..Outcome::default()
    }
}

fn refused_object(view: &View<'_>, key: &ObjectKey, refused: &Refused, generation: i64) -> Outcome {
    let message = refused.error.to_string();
    let status = match key.kind {
        Kind::HttpRoute => {
            let Some(mut stand_in) = stand_in(&refused.value) else { return Outcome::default() };
            stand_in.metadata.namespace = key.namespace.clone();
            stand_in.metadata.name = key.name.clone();
            let item = Item { object: &stand_in, unknown: &[], generation, refused: Some(&message) };
            return route(translate_route(view, item));
        }
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
    };
    Outcome { status, ..Outcome::default() }
}

/// What stands in for a refused route: the route without its rules. Nothing where its parents cannot be read.
fn stand_in(value: &Value) -> Option<HttpRoute> {
    let mut value = value.clone();
    value.get_mut("spec")?.as_object_mut()?.remove("rules");
    match decode(Kind::HttpRoute, &value).ok()?.object {
        Object::HttpRoute(route) => Some(route),
        _ => None,
    }
}
