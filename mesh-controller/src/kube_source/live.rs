// SPDX-License-Identifier: Apache-2.0
//! The statuses that objects have in the API server now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;
use tokio::sync::Notify;
use weft_api::object::{Kind, ObjectKey};

use super::list_watch::{Heard, version_of};

/// Kinds whose status is written. Those of policies are not: NetworkPolicy has none, and CiliumNetworkPolicy's
/// belongs to Cilium.
pub(super) const WRITTEN: [Kind; 4] =
    [Kind::GatewayClass, Kind::Gateway, Kind::HttpRoute, Kind::RateLimitPolicy];

/// An object as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LiveObject {
    /// Group and version in which it was read.
    pub(super) api_version: String,
    pub(super) version: u64,
    /// As a text, which takes a fraction of a value's memory.
    status: Box<str>,
}

impl LiveObject {
    /// Of an object of a kind whose status is written.
    pub(super) fn of(object: &Value, version: u64) -> LiveObject {
        let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
        let status = object.get("status").map_or("{}".to_owned(), Value::to_string);
        LiveObject { api_version, version, status: status.into() }
    }

    pub(super) fn status(&self) -> Value {
        serde_json::from_str(&self.status).unwrap_or_default()
    }
}

/// The objects whose status is written, and which of them have changed.
#[derive(Debug, Default)]
pub(super) struct Live {
    objects: Mutex<Objects>,
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<ObjectKey, LiveObject>,
    changed: BTreeSet<ObjectKey>,
}

impl Live {
    /// Takes what is heard of a kind whose status is written.
    pub(super) fn hear(&self, kind: Kind, heard: &Heard) {
        match heard {
            Heard::Object(object) => {
                if let (Some(key), Ok(version)) = (key(kind, object), version_of(object)) {
                    self.set(key, LiveObject::of(object, version));
                }
            }
            Heard::Gone(object) => drop(key(kind, object).map(|key| self.remove(&key))),
            // What a list does not name is answered with 404 when it is written.
            _ => {}
        }
    }

    /// Takes what the API server says of an object; what is not newer is left out.
    pub(super) fn set(&self, key: ObjectKey, object: LiveObject) {
        self.with(|objects| {
            if objects.by_key.get(&key).is_some_and(|known| known.version >= object.version) {
                return;
            }
            objects.changed.insert(key.clone());
            objects.by_key.insert(key, object);
        });
        self.changed.notify_one();
    }

    /// Forgets an object that is gone.
    pub(super) fn remove(&self, key: &ObjectKey) {
        self.with(|objects| objects.by_key.remove(key));
    }

    pub(super) fn of(&self, key: &ObjectKey) -> Option<LiveObject> {
        self.with(|objects| objects.by_key.get(key).cloned())
    }

    /// The objects that have changed since this was asked.
    pub(super) fn take_changed(&self) -> BTreeSet<ObjectKey> {
        self.with(|objects| std::mem::take(&mut objects.changed))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Objects) -> T) -> T {
        work(&mut self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The key of an object of a kind.
fn key(kind: Kind, object: &Value) -> Option<ObjectKey> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let (name, namespace) = (text("/metadata/name")?, text("/metadata/namespace").unwrap_or_default());
    Some(ObjectKey { kind, namespace: namespace.into(), name: name.into() })
}
