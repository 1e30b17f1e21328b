// SPDX-License-Identifier: Apache-2.0
//! The translation of every object at once, from the functions for single ones.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use weft_api::{
    core::Service,
    decode::Decoded,
    gateway::{GatewayClass, NamespaceLabels, ReferenceGrant},
    object::{Kind, Object, ObjectKey, decode},
    status::Status,
};
use weft_gateway_api::{
    Attached, Item, Lookup, World, translate_class, translate_gateway, translate_route, validate_gateway,
    validate_route,
};
use weft_ir::{ObjectName, Resource};

/// What comes of objects.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    pub(crate) resources: BTreeMap<String, Resource>,
    pub(crate) statuses: BTreeMap<String, Status>,
    /// What is in no status: an object that was refused as a whole, or a note about a field.
    pub(crate) notes: Vec<String>,
}

/// The objects, and the Gateways as far as they are translated.
#[derive(Default)]
struct All {
    objects: BTreeMap<ObjectKey, Decoded<Object>>,
    gateways: BTreeMap<ObjectName, Lookup>,
}

/// Translates objects as they come out of YAML.
pub(crate) fn translate(objects: &[Value]) -> Translation {
    let mut translation = Translation::default();
    let mut all = All::default();
    for value in objects {
        match read(value) {
            Ok((key, object)) => drop(all.objects.insert(key, object)),
            Err(message) => translation.notes.push(message),
        }
    }
    let mut attached: BTreeMap<ObjectName, Attached> = BTreeMap::new();
    for (key, object) in &all.objects {
        if let Object::GatewayClass(class) = &object.object {
            translation.say(key, translate_class(item(class, object)).map(Status::Class), &[]);
        }
    }
    for (key, object) in &all.objects {
        let Object::Gateway(gateway) = &object.object else { continue };
        let translated = translate_gateway(&all, item(gateway, object));
        translation.add(translated.resources);
        translation.say(key, None, &translated.notes);
        all.gateways.insert(name(key), translated.state.map_or(Lookup::Foreign, Lookup::Ours));
    }
    for (key, object) in &all.objects {
        let Object::HttpRoute(route) = &object.object else { continue };
        let translated = translate_route(&all, item(route, object));
        translation.add(translated.resources);
        translation.say(key, translated.status.map(Status::Route), &translated.notes);
        for (gateway, listener) in translated.attached {
            *attached.entry(gateway).or_default().entry(listener).or_default() += 1;
        }
    }
    for key in all.objects.keys().filter(|key| key.kind == Kind::Gateway) {
        let Some(Lookup::Ours(state)) = all.gateways.get(&name(key)) else { continue };
        let status =
            state.status(|| all.node_addresses(), attached.get(&name(key)).unwrap_or(&Attached::new()));
        translation.say(key, Some(Status::Gateway(status)), &[]);
    }
    translation
}

/// The object, or why it is refused as a whole.
fn read(value: &Value) -> Result<(ObjectKey, Decoded<Object>), String> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let group = text("/apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    let known = |kind: &&Kind| kind.name() == text("/kind") && kind.group() == group;
    let Some(kind) = Kind::ALL.iter().find(known).copied() else {
        return Err(format!("{} is not read", text("/kind")));
    };
    let key = ObjectKey {
        kind,
        namespace: text("/metadata/namespace").into(),
        name: text("/metadata/name").into(),
    };
    let refused = |error| format!("{key}: {error}");
    let object = decode(kind, value).map_err(refused)?;
    match &object.object {
        Object::Gateway(gateway) => validate_gateway(gateway).map_err(refused)?,
        Object::HttpRoute(route) => validate_route(route).map_err(refused)?,
        _ => {}
    }
    Ok((key, object))
}

impl Translation {
    fn add(&mut self, resources: Vec<Resource>) {
        self.resources.extend(resources.into_iter().map(|resource| (resource.key().to_string(), resource)));
    }

    fn say(&mut self, key: &ObjectKey, status: Option<Status>, notes: &[Arc<str>]) {
        self.notes.extend(notes.iter().map(|note| format!("{key}: {note}")));
        self.statuses.extend(status.map(|status| (key.to_string(), status)));
    }

    /// What is not the same in another translation.
    pub(crate) fn without(mut self, other: &Translation) -> Translation {
        self.resources.retain(|key, resource| other.resources.get(key) != Some(resource));
        self.statuses.retain(|key, status| other.statuses.get(key) != Some(status));
        self
    }
}

impl All {
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        let objects = self.objects.iter().filter(move |(key, _)| key.kind == kind);
        objects.map(|(_, decoded)| &decoded.object)
    }

    fn get(&self, kind: Kind, namespace: &Arc<str>, name: &Arc<str>) -> Option<&Decoded<Object>> {
        self.objects.get(&ObjectKey { kind, namespace: namespace.clone(), name: name.clone() })
    }
}

impl World for All {
    fn class(&self, name: &Arc<str>) -> Option<Item<'_, GatewayClass>> {
        let found = self.get(Kind::GatewayClass, &"".into(), name)?;
        match &found.object {
            Object::GatewayClass(class) => Some(item(class, found)),
            _ => None,
        }
    }

    fn gateway(&self, name: &ObjectName) -> Lookup {
        self.gateways.get(name).cloned().unwrap_or(Lookup::Missing)
    }

    fn service(&self, name: &ObjectName) -> Option<&Service> {
        match &self.get(Kind::Service, &name.namespace, &name.name)?.object {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }

    fn namespace_labels(&self, namespace: &Arc<str>) -> Option<Arc<NamespaceLabels>> {
        let mut labels = match self.get(Kind::Namespace, &"".into(), namespace).map(|found| &found.object) {
            Some(Object::Namespace(found)) => found.metadata.labels.clone(),
            _ => NamespaceLabels::new(),
        };
        labels.insert("kubernetes.io/metadata.name".into(), namespace.clone());
        Some(Arc::new(labels))
    }

    fn grants(&self, namespace: &Arc<str>) -> Vec<&ReferenceGrant> {
        let grants = self.of_kind(Kind::ReferenceGrant).filter_map(|object| match object {
            Object::ReferenceGrant(grant) => Some(grant),
            _ => None,
        });
        grants.filter(|grant| grant.metadata.namespace == *namespace).collect()
    }

    fn node_addresses(&self) -> Vec<Arc<str>> {
        let nodes = self.of_kind(Kind::Node).filter_map(|object| match object {
            Object::Node(node) => Some(node),
            _ => None,
        });
        nodes.flat_map(|node| node.status.addresses.iter().map(|address| address.address.clone())).collect()
    }
}

fn name(key: &ObjectKey) -> ObjectName {
    ObjectName { namespace: key.namespace.clone(), name: key.name.clone() }
}

fn item<'a, T>(object: &'a T, decoded: &'a Decoded<Object>) -> Item<'a, T> {
    let generation = decoded.object.metadata().generation.unwrap_or(1);
    Item { object, unknown: &decoded.unknown, generation, refused: None }
}
