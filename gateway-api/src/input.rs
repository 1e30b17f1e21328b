// SPDX-License-Identifier: Apache-2.0
//! What the translation reads and what it gives.

use std::{collections::BTreeMap, sync::Arc};

use weft_api::{
    core::Service,
    gateway::{Gateway, GatewayClass, NamespaceLabels, ReferenceGrant},
    httproute::HttpRoute,
    object::{Kind, ObjectKey},
    status::Status,
};
use weft_ir::{ObjectName, Resource};

/// An object and what its source says about it.
#[derive(Debug)]
pub struct Item<'a, T> {
    /// The object.
    pub object: &'a T,
    /// Paths of fields that are not known.
    pub unknown: &'a [Arc<str>],
    /// The generation that conditions observe.
    pub generation: i64,
    /// Set for an object that has no version that could be read: only its parents and hostnames
    /// are known, and requests to them are answered with 500. The text says why.
    pub refused: Option<&'a str>,
}

impl<T> Clone for Item<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Item<'_, T> {}

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

impl Input<'_> {
    /// The labels of a namespace; a namespace without an object has its name alone.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> NamespaceLabels {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".into(), namespace.into());
        labels
    }

    /// Whether a route of `from` may use a Service of another namespace.
    pub(crate) fn granted(&self, from: &str, service: &ObjectName) -> bool {
        self.grants.iter().filter(|grant| grant.metadata.namespace == service.namespace).any(|grant| {
            let may_refer = grant.spec.from.iter().any(|source| {
                &*source.group == Kind::HttpRoute.group()
                    && &*source.kind == Kind::HttpRoute.name()
                    && &*source.namespace == from
            });
            let may_be_named = grant.spec.to.iter().any(|target| {
                target.group.is_empty()
                    && &*target.kind == "Service"
                    && target.name.as_ref().is_none_or(|name| *name == service.name)
            });
            may_refer && may_be_named
        })
    }
}
