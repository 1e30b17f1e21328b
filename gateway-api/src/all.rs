// SPDX-License-Identifier: Apache-2.0
//! The translation of every object at once, from the functions for single ones.

use std::{collections::BTreeMap, sync::Arc};

use weft_api::{
    core::Service,
    gateway::{Gateway, GatewayClass, NamespaceLabels, ReferenceGrant},
    httproute::HttpRoute,
    meta::Metadata,
    object::{Kind, ObjectKey},
    status::Status,
};
use weft_ir::{ObjectName, Resource};

use crate::{
    gateway::{Attached, translate_class, translate_gateway},
    httproute::translate_route,
    world::{Item, Lookup, World},
};

/// Every object that the Gateway API speaks about.
#[derive(Debug, Default)]
pub struct Input<'a> {
    /// GatewayClasses.
    pub classes: Vec<Item<'a, GatewayClass>>,
    /// Gateways.
    pub gateways: Vec<Item<'a, Gateway>>,
    /// HTTPRoutes.
    pub routes: Vec<Item<'a, HttpRoute>>,
    /// ReferenceGrants.
    pub grants: Vec<&'a ReferenceGrant>,
    /// Services by namespace and name.
    pub services: BTreeMap<ObjectName, &'a Service>,
    /// Labels of namespaces by name.
    pub namespaces: BTreeMap<Arc<str>, NamespaceLabels>,
    /// Addresses of the nodes, on which a Gateway without addresses is reached.
    pub node_addresses: Vec<Arc<str>>,
}

/// What comes of it.
#[derive(Debug, Default)]
pub struct Output {
    /// Listeners and routes.
    pub resources: Vec<Resource>,
    /// Statuses of the objects that Weft is in charge of.
    pub statuses: Vec<(ObjectKey, Status)>,
    /// What no status can say, by object and field.
    pub notes: Vec<(ObjectKey, Arc<str>)>,
}

/// Translates every object. The result depends on nothing but the input.
pub fn translate(input: &Input<'_>) -> Output {
    let mut output = Output::default();
    for class in &input.classes {
        let key = key(Kind::GatewayClass, &class.object.metadata);
        output.statuses.extend(translate_class(*class).map(|status| (key, Status::Class(status))));
    }
    let mut all = All { input, gateways: BTreeMap::new() };
    for item in &input.gateways {
        let translated = translate_gateway(&all, *item);
        let key = key(Kind::Gateway, &item.object.metadata);
        output.notes.extend(translated.notes.into_iter().map(|note| (key.clone(), note)));
        output.resources.extend(translated.resources);
        let lookup = translated.state.map_or(Lookup::Foreign, Lookup::Ours);
        all.gateways.insert(name(&item.object.metadata), lookup);
    }
    let mut attached: BTreeMap<ObjectName, Attached> = BTreeMap::new();
    for item in &input.routes {
        let translated = translate_route(&all, *item);
        let key = key(Kind::HttpRoute, &item.object.metadata);
        output.notes.extend(translated.notes.into_iter().map(|note| (key.clone(), note)));
        output.resources.extend(translated.resources);
        output.statuses.extend(translated.status.map(|status| (key, Status::Route(status))));
        for (gateway, listener) in translated.attached {
            *attached.entry(gateway).or_default().entry(listener).or_default() += 1;
        }
    }
    for (name, lookup) in &all.gateways {
        let Lookup::Ours(state) = lookup else { continue };
        let status = state.status(&all, attached.get(name).unwrap_or(&Attached::new()));
        let key =
            ObjectKey { kind: Kind::Gateway, namespace: name.namespace.clone(), name: name.name.clone() };
        output.statuses.push((key, Status::Gateway(status)));
    }
    output
}

/// The objects, and the Gateways as far as they are translated.
struct All<'a> {
    input: &'a Input<'a>,
    gateways: BTreeMap<ObjectName, Lookup>,
}

impl World for All<'_> {
    fn class(&self, name: &Arc<str>) -> Option<Item<'_, GatewayClass>> {
        self.input.classes.iter().find(|class| class.object.metadata.name == *name).copied()
    }

    fn gateway(&self, name: &ObjectName) -> Lookup {
        self.gateways.get(name).cloned().unwrap_or(Lookup::Missing)
    }

    fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.input.services.get(name).copied()
    }

    fn namespace_labels(&self, namespace: &Arc<str>) -> Arc<NamespaceLabels> {
        let mut labels = self.input.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".into(), namespace.clone());
        Arc::new(labels)
    }

    fn grants(&self, namespace: &Arc<str>) -> Vec<&ReferenceGrant> {
        let grants = self.input.grants.iter().copied();
        grants.filter(|grant| grant.metadata.namespace == *namespace).collect()
    }

    fn node_addresses(&self) -> Vec<Arc<str>> {
        self.input.node_addresses.clone()
    }
}

fn name(metadata: &Metadata) -> ObjectName {
    ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() }
}

fn key(kind: Kind, metadata: &Metadata) -> ObjectKey {
    let namespace = if kind.namespaced() { metadata.namespace.clone() } else { "".into() };
    ObjectKey { kind, namespace, name: metadata.name.clone() }
}
