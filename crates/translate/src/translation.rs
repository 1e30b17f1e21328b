// SPDX-License-Identifier: Apache-2.0
//! The translation: a store of objects becomes the state of the mesh and the statuses.
//!
//! What came of an object is kept, with what it was asked of others ([`view`]). A change makes those objects
//! be translated again that are new, or that asked for something that is different now; the first translation
//! is one in which everything is new. So the result is a function of the store and the identities, whatever
//! changes led to it, and its cost is that of the objects concerned.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use serde::Serialize;
use weft_api::{
    object::{Kind, ObjectKey},
    status::Status,
};
use weft_ir::{IdentityNumber, MeshDefaults, Resource, ResourceKey, publish::Change};

use crate::{
    identity::{Identities, IdentityRecord},
    report,
    store::{Entry, Problem, Store},
};

mod facts;
mod gateway;
mod object;
mod view;

use facts::Facts;
use object::Outcome;
use view::{Asked, Dependents, View};

/// The status of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectStatus {
    /// The object.
    pub object: ObjectKey,
    /// What is to be written.
    pub status: Arc<Status>,
}

impl Serialize for ObjectStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("ObjectStatus", 2)?;
        fields.serialize_field("object", &self.object.to_string())?;
        fields.serialize_field("status", &self.status)?;
        fields.end()
    }
}

/// The settings of the translation.
#[derive(Clone, Debug)]
pub struct Translator {
    /// The cluster's name, which is a label of every identity.
    pub cluster: Arc<str>,
    /// Settings for every node.
    pub defaults: MeshDefaults,
}

impl Default for Translator {
    /// The cluster `default`, as Cilium names it.
    fn default() -> Translator {
        Translator { cluster: "default".into(), defaults: MeshDefaults::default() }
    }
}

/// What came of all objects.
#[derive(Debug)]
pub struct Translation {
    settings: Translator,
    identities: Identities,
    done: BTreeMap<ObjectKey, Done>,
    dependents: Dependents,
    facts: Facts,
    /// Pods for which no identity was left.
    starved: BTreeSet<ObjectKey>,
    notes: BTreeSet<Problem>,
    /// How far the store's problems are part of what was told.
    problems_told: Option<u64>,
    counts: BTreeMap<Kind, ObjectCounts>,
    resources: usize,
    begun: bool,
}

/// What came of an object, and what it asked.
#[derive(Debug, Default)]
struct Done {
    asked: Box<[Asked]>,
    resources: Box<[Arc<Resource>]>,
    identity: Option<IdentityNumber>,
    status: Option<Arc<Status>>,
    notes: Box<[Problem]>,
    rejected: bool,
}

/// How many objects there are of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObjectCounts {
    /// They are served.
    pub accepted: u64,
    /// They are refused, or not served as they are written.
    pub rejected: u64,
}

/// How a translation is different from before.
#[derive(Debug, Default)]
pub struct Delta {
    /// The resources.
    pub change: Change,
    /// The statuses that are different, or gone.
    pub statuses: Vec<(ObjectKey, Option<Arc<Status>>)>,
    /// Objects with a status whose resources are different.
    pub renewed: BTreeSet<ObjectKey>,
    /// All that is wrong and in no status, in the order of the sources and lines, where that is different.
    pub problems: Option<Vec<Problem>>,
    /// What happened to the identities. No node may hear of the change before these are kept.
    pub identities: Vec<IdentityRecord>,
}

impl Translation {
    /// Nothing is translated yet.
    pub fn new(settings: Translator, identities: Identities) -> Translation {
        Translation {
            settings,
            identities,
            done: BTreeMap::new(),
            dependents: Dependents::default(),
            facts: Facts::default(),
            starved: BTreeSet::new(),
            notes: BTreeSet::new(),
            problems_told: None,
            counts: BTreeMap::new(),
            resources: 0,
            begun: false,
        }
    }

    /// Translates what has changed in the store since the last time, and tells what is different. It must
    /// always be the same store. `now` is in seconds since 1970 and moves the identities along; apart from
    /// them the result depends on the store alone.
    pub fn update(&mut self, store: &mut Store, now: u64) -> Delta {
        let changed = store.take_changes();
        let mut update = Update::new(self, store);
        update.begin(changed, now);
        while let Some((_, key)) = update.dirty.pop_first() {
            update.object(key);
        }
        update.end(now)
    }

    /// The identities, with all that was told of them.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// How many resources there are, besides those of no object.
    pub fn len(&self) -> usize {
        self.resources
    }

    /// Whether no object has become a resource.
    pub fn is_empty(&self) -> bool {
        self.resources == 0
    }

    /// The statuses, in the order of the objects.
    pub fn statuses(&self) -> impl Iterator<Item = ObjectStatus> {
        self.done.iter().filter_map(|(object, done)| {
            Some(ObjectStatus { object: object.clone(), status: done.status.clone()? })
        })
    }

    /// How many objects there are of each kind.
    pub fn counts(&self) -> BTreeMap<&'static str, ObjectCounts> {
        self.counts.iter().map(|(kind, counts)| (kind.name(), *counts)).collect()
    }
}

/// One update, under way.
struct Update<'a> {
    translation: &'a mut Translation,
    store: &'a Store,
    /// What is to be translated, in the order in which it is: Gateways last, since routes count at them.
    dirty: BTreeSet<(bool, ObjectKey)>,
    gateway_api: BTreeMap<ObjectKey, Outcome>,
    notes_changed: bool,
    delta: Delta,
}

impl<'a> Update<'a> {
    fn new(translation: &'a mut Translation, store: &'a Store) -> Update<'a> {
        Update {
            translation,
            store,
            dirty: BTreeSet::new(),
            gateway_api: BTreeMap::new(),
            notes_changed: false,
            delta: Delta::default(),
        }
    }

    fn begin(&mut self, changed: BTreeSet<ObjectKey>, now: u64) {
        let translation = &mut *self.translation;
        translation.identities.expire(now);
        if !mem::replace(&mut translation.begun, true) {
            let defaults = translation.settings.defaults.clone();
            self.delta.change.upserts.push(Resource::MeshDefaults(defaults));
        }
        for key in mem::take(&mut self.translation.starved) {
            self.add(key);
        }
        if changed.iter().any(|key| gateway::concerns(key.kind)) {
            self.gateway_api = gateway::translate(self.store);
            for kind in gateway::KINDS {
                let all = self.store.of_kind(kind);
                self.dirty.extend(all.map(|(key, _)| (kind == Kind::Gateway, key.clone())));
            }
        }
        for key in changed {
            self.ask_again(&Asked::Object(key.clone()));
            self.ask_again(&Asked::Kind(key.kind));
            self.ask_again(&Asked::Namespace(key.kind, key.namespace.clone()));
            if key.kind == Kind::RateLimitPolicy {
                let entry = self.store.objects().get(&key);
                let named = entry.and_then(|entry| object::named_target(&key, entry));
                for target in self.translation.facts.name_target(&key, named) {
                    self.ask_again(&Asked::RateLimits(target));
                }
            }
            self.add(key);
        }
    }

    fn add(&mut self, key: ObjectKey) {
        self.dirty.insert((key.kind == Kind::Gateway, key));
    }

    /// Everything that asked this is translated again.
    fn ask_again(&mut self, question: &Asked) {
        for key in self.translation.dependents.of(question) {
            self.dirty.insert((key.kind == Kind::Gateway, key.clone()));
        }
    }

    fn object(&mut self, key: ObjectKey) {
        let translation = &mut *self.translation;
        let entry = self.store.objects().get(&key);
        let before = translation.done.remove(&key);
        if let Some(before) = &before {
            translation.count(key.kind, before.rejected, false);
        }
        let view = View::new(self.store, &translation.facts);
        let outcome = match entry {
            Some(entry) if gateway::KINDS.contains(&key.kind) => {
                let mut outcome = self.gateway_api.remove(&key).unwrap_or_default();
                outcome.status = outcome.status.or_else(|| gateway::refused(&key, entry));
                outcome
            }
            Some(entry) => {
                let (settings, identities) = (&translation.settings, &mut translation.identities);
                object::translate(settings, &view, identities, &key, entry)
            }
            None => Outcome::default(),
        };
        let asked = view.into_asked();
        let before = before.unwrap_or_default();
        translation.dependents.replace(&key, &before.asked, &asked);
        // Only now, so that a number that stays is never given back in between.
        if let Some(number) = before.identity {
            translation.identities.release(number);
        }
        if outcome.starved {
            translation.starved.insert(key.clone());
        }
        let done = self.take(&key, entry, &before, outcome, asked);
        if entry.is_some() {
            self.translation.count(key.kind, done.rejected, true);
            self.translation.done.insert(key, done);
        }
    }

    /// Notes how an outcome is different from before.
    fn take(
        &mut self,
        key: &ObjectKey,
        entry: Option<&Entry>,
        before: &Done,
        outcome: Outcome,
        asked: Box<[Asked]>,
    ) -> Done {
        let renewed = self.resources(&before.resources, &outcome.resources);
        let status = match (outcome.status, &before.status) {
            (Some(status), Some(same)) if **same == status => Some(same.clone()),
            (status, _) => status.map(Arc::new),
        };
        if !same_status(status.as_ref(), before.status.as_ref()) {
            self.delta.statuses.push((key.clone(), status.clone()));
        }
        if renewed && status.is_some() {
            self.delta.renewed.insert(key.clone());
        }
        let notes: Box<[Problem]> = match entry {
            Some(entry) => outcome.notes.into_iter().map(|note| entry.problem(key, note)).collect(),
            None => Box::default(),
        };
        self.notes(&before.notes, &notes);
        let rejected = entry.is_some_and(|entry| entry.refused().is_some())
            || !notes.is_empty()
            || status.as_ref().is_some_and(|status| report::is_rejected(status));
        let resources = outcome.resources.into();
        Done { asked, resources, identity: outcome.identity, status, notes, rejected }
    }

    /// Whether the resources are different.
    fn resources(&mut self, before: &[Arc<Resource>], now: &[Arc<Resource>]) -> bool {
        if before == now {
            return false;
        }
        self.translation.resources = self.translation.resources + now.len() - before.len();
        let change = &mut self.delta.change;
        for resource in now.iter().filter(|resource| !before.contains(resource)) {
            change.upserts.push(Resource::clone(resource));
        }
        let keys: BTreeSet<ResourceKey> = now.iter().map(|resource| resource.key()).collect();
        let gone = before.iter().map(|resource| resource.key()).filter(|key| !keys.contains(key));
        change.removes.extend(gone);
        true
    }

    fn notes(&mut self, before: &[Problem], now: &[Problem]) {
        if before == now {
            return;
        }
        self.notes_changed = true;
        for note in before {
            self.translation.notes.remove(note);
        }
        self.translation.notes.extend(now.iter().cloned());
    }

    fn end(mut self, now: u64) -> Delta {
        let translation = self.translation;
        let identities = translation.identities.settle(now);
        let change = &mut self.delta.change;
        change.upserts.extend(identities.new.into_iter().map(Resource::Identity));
        change.removes.extend(identities.gone.into_iter().map(|gone| Resource::Identity(gone).key()));
        self.delta.identities = translation.identities.take_records();
        let told = translation.problems_told.replace(self.store.problems_version());
        if self.notes_changed || told != translation.problems_told {
            let of_store = self.store.problems().cloned();
            let mut problems: Vec<Problem> = of_store.chain(translation.notes.iter().cloned()).collect();
            problems.sort();
            self.delta.problems = Some(problems);
        }
        self.delta
    }
}

impl Translation {
    fn count(&mut self, kind: Kind, rejected: bool, more: bool) {
        let counts = self.counts.entry(kind).or_default();
        let count = if rejected { &mut counts.rejected } else { &mut counts.accepted };
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *counts == ObjectCounts::default() {
            self.counts.remove(&kind);
        }
    }
}

fn same_status(a: Option<&Arc<Status>>, b: Option<&Arc<Status>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
