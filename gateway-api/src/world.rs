// SPDX-License-Identifier: Apache-2.0
//! What the translation of one object may ask about others.

use std::sync::Arc;

use weft_api::{
    core::Service,
    gateway::{GatewayClass, NamespaceLabels, ReferenceGrant},
    object::Kind,
};
use weft_ir::ObjectName;

use crate::gateway::state::GatewayState;

/// An object and what its source says about it.
#[derive(Debug)]
pub struct Item<'a, T> {
    /// The object.
    pub object: &'a T,
    /// Paths of fields that are not known.
    pub unknown: &'a [Arc<str>],
    /// The generation that conditions observe.
    pub generation: i64,
    /// Set for an object that could not be read: only its parents and hostnames are known, and requests to
    /// them are answered with 500. The text says why.
    pub refused: Option<&'a str>,
}

impl<T> Clone for Item<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Item<'_, T> {}

/// A Gateway by name.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// There is none.
    Missing,
    /// Its class is none of ours.
    Foreign,
    /// One of ours, as [`crate::translate_gateway`] gave it.
    Ours(Arc<GatewayState>),
}

/// The other objects, asked for one by one: whoever keeps the results of translations learns from the
/// questions what each depends on.
pub trait World {
    /// A GatewayClass.
    fn class(&self, name: &Arc<str>) -> Option<Item<'_, GatewayClass>>;
    /// A Gateway.
    fn gateway(&self, name: &ObjectName) -> Lookup;
    /// A Service.
    fn service(&self, name: &ObjectName) -> Option<&Service>;
    /// The labels of a namespace, its name among them (`kubernetes.io/metadata.name`); a namespace
    /// without an object has that alone. Nothing where there is an object that cannot be read.
    fn namespace_labels(&self, namespace: &Arc<str>) -> Option<Arc<NamespaceLabels>>;
    /// The ReferenceGrants of a namespace.
    fn grants(&self, namespace: &Arc<str>) -> Vec<&ReferenceGrant>;
    /// Addresses of the nodes, on which a Gateway without addresses is reached; no more than
    /// [`MAX_STATUS_ADDRESSES`](crate::MAX_STATUS_ADDRESSES) are looked at.
    fn node_addresses(&self) -> Vec<Arc<str>>;
}

/// Whether a route of `from` may use a Service of another namespace.
pub(crate) fn granted(world: &impl World, from: &str, service: &ObjectName) -> bool {
    world.grants(&service.namespace).into_iter().any(|grant| {
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
