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

use weft_api::object::{Kind, ObjectKey};

use super::facts::Facts;
use crate::store::{Entry, Store};

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

    fn ask(&self, question: Asked) {
        self.asked.borrow_mut().insert(question);
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
