// SPDX-License-Identifier: Apache-2.0
//! What the translation of an object may look at, and which objects looked at what.
//!
//! An object is translated from itself and from what it asks of a [`View`], which writes down every question:
//! that is what it depends on. [`Dependents`] has the same the other way round.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use weft_api::{
    core::Service,
    gateway::{GatewayClass, NamespaceLabels, ReferenceGrant},
    object::{Kind, Object, ObjectKey},
};
use weft_gateway_api::{Attached, Item, Lookup, MAX_STATUS_ADDRESSES, World};
use weft_ir::ObjectName;

use super::facts::Facts;
use crate::{
    identity::Labels,
    nodes,
    store::{Entry, Store},
};

/// A question about the other objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Asked {
    /// What one object is, or that there is none.
    Object(ObjectKey),
    /// Which objects of a kind there are, and what they are.
    Kind(Kind),
    /// The same in one namespace.
    Namespace(Kind, Arc<str>),
    /// Which rate limits name a target.
    RateLimits(ObjectKey),
    /// What the routes of a Gateway need to know of it.
    Gateway(ObjectKey),
    /// How many routes are attached to the listeners of a Gateway.
    Attached(ObjectKey),
}

/// What there is to ask.
pub(super) struct View<'a> {
    store: &'a Store,
    facts: &'a Facts,
    asked: RefCell<BTreeSet<Asked>>,
}

impl<'a> View<'a> {
    pub(super) fn new(store: &'a Store, facts: &'a Facts) -> View<'a> {
        View { store, facts, asked: RefCell::default() }
    }

    /// What was asked.
    pub(super) fn into_asked(self) -> Box<[Asked]> {
        self.asked.into_inner().into_iter().collect()
    }

    /// An object, valid or not.
    pub(super) fn object(&self, key: ObjectKey) -> Option<&'a Entry> {
        let entry = self.store.objects().get(&key);
        self.ask(Asked::Object(key));
        entry
    }

    /// The rate limit that holds among those that name a target.
    pub(super) fn rate_limit(&self, target: &ObjectKey) -> Option<&'a ObjectKey> {
        self.ask(Asked::RateLimits(target.clone()));
        self.facts.rate_limit(target)
    }

    /// How many routes are attached to the listeners of a Gateway.
    pub(super) fn attached(&self, gateway: &ObjectKey) -> &'a Attached {
        self.ask(Asked::Attached(gateway.clone()));
        self.facts.attached(gateway)
    }

    /// The labels of a namespace, its name among them; nothing where its object is refused.
    pub(super) fn labels_of_namespace(&self, name: &Arc<str>) -> Option<Labels> {
        let key = ObjectKey { kind: Kind::Namespace, namespace: "".into(), name: name.clone() };
        let mut labels = match self.object(key).map(|entry| Some(&entry.good()?.object)) {
            Some(Some(Object::Namespace(object))) => object.metadata.labels.clone(),
            Some(_) => return None,
            None => Labels::new(),
        };
        // The API server gives every namespace this label; a file need not have it.
        labels.insert("kubernetes.io/metadata.name".into(), name.clone());
        Some(labels)
    }

    fn valid(&self, kind: Kind, namespace: Arc<str>, name: Arc<str>) -> Option<(&'a Object, &'a Entry)> {
        let entry = self.object(ObjectKey { kind, namespace, name })?;
        Some((&entry.good()?.object, entry))
    }

    fn ask(&self, question: Asked) {
        self.asked.borrow_mut().insert(question);
    }
}

impl World for View<'_> {
    fn class(&self, name: &Arc<str>) -> Option<Item<'_, GatewayClass>> {
        match self.valid(Kind::GatewayClass, "".into(), name.clone())? {
            (Object::GatewayClass(class), entry) => entry.item(class),
            _ => None,
        }
    }

    fn gateway(&self, name: &ObjectName) -> Lookup {
        let ObjectName { namespace, name } = name.clone();
        let key = ObjectKey { kind: Kind::Gateway, namespace, name };
        let lookup = self.facts.gateway(&key);
        self.ask(Asked::Gateway(key));
        lookup
    }

    fn service(&self, name: &ObjectName) -> Option<&Service> {
        match self.valid(Kind::Service, name.namespace.clone(), name.name.clone())? {
            (Object::Service(service), _) => Some(service),
            _ => None,
        }
    }

    fn namespace_labels(&self, namespace: &Arc<str>) -> Option<Arc<NamespaceLabels>> {
        self.labels_of_namespace(namespace).map(Arc::new)
    }

    fn grants(&self, namespace: &Arc<str>) -> Vec<&ReferenceGrant> {
        self.ask(Asked::Namespace(Kind::ReferenceGrant, namespace.clone()));
        let grants = self.store.of_namespace(Kind::ReferenceGrant, namespace);
        let grants = grants.filter_map(|(_, entry)| match &entry.good()?.object {
            Object::ReferenceGrant(grant) => Some(grant),
            _ => None,
        });
        grants.collect()
    }

    fn node_addresses(&self) -> Vec<Arc<str>> {
        self.ask(Asked::Kind(Kind::Node));
        let nodes = self.store.of_kind(Kind::Node).filter_map(|(_, entry)| match &entry.good()?.object {
            Object::Node(node) => Some(nodes::node(node).addresses),
            _ => None,
        });
        nodes.flatten().take(MAX_STATUS_ADDRESSES).map(|address| address.to_string().into()).collect()
    }
}

/// Which objects asked what.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    by_question: HashMap<Asked, BTreeSet<ObjectKey>>,
}

impl Dependents {
    /// Notes that an object asks other questions than before.
    pub(super) fn replace(&mut self, key: &ObjectKey, before: &[Asked], now: &[Asked]) {
        if before == now {
            return;
        }
        for question in before {
            if let Some(dependents) = self.by_question.get_mut(question) {
                dependents.remove(key);
                if dependents.is_empty() {
                    self.by_question.remove(question);
                }
            }
        }
        for question in now {
            self.by_question.entry(question.clone()).or_default().insert(key.clone());
        }
    }

    /// The objects that asked this.
    pub(super) fn of(&self, question: &Asked) -> impl Iterator<Item = &ObjectKey> {
        self.by_question.get(question).into_iter().flatten()
    }
}
