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
use weft_ir::{IdentityNumber, Resource, ResourceKey, publish::Change};

use crate::{
    identity::{Identities, IdentityRecord},
    report,
    store::{Entry, Problem, Store},
};

mod facts;
mod gateway;
mod object;
mod outcome;
mod settings;
mod view;

use facts::{Facts, ListenerName};
use outcome::Outcome;
pub use settings::Translator;
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
    attached: Box<[ListenerName]>,
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
    /// How many objects were translated for it.
    pub translated: usize,
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
        while let Some((step, key)) = update.dirty.pop_first() {
            match step {
                Step::Collect => update.collect(key),
                Step::Translate | Step::Conclude => update.object(key),
            }
        }
        update.end(now)
    }

    /// The identities, with all that was told of them.
    pub fn identities(&self) -> &Identities {
        &self.identities
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

/// The steps of an update. What one step finds out is asked for in later ones only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Rate limits say what they name, and Gateways what their routes need to know.
    Collect,
    /// Every object but those is translated.
    Translate,
    /// Rate limits are decided, now that all are known, and Gateways, now that their routes are counted.
    Conclude,
}

/// One update, under way.
struct Update<'a> {
    translation: &'a mut Translation,
    store: &'a Store,
    /// What is to be done, in the order in which it is.
    dirty: BTreeSet<(Step, ObjectKey)>,
    notes_changed: bool,
    delta: Delta,
}

impl<'a> Update<'a> {
    fn new(translation: &'a mut Translation, store: &'a Store) -> Update<'a> {
        Update { translation, store, dirty: BTreeSet::new(), notes_changed: false, delta: Delta::default() }
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
        for key in changed {
            self.ask_again(&Asked::Object(key.clone()));
            self.ask_again(&Asked::Kind(key.kind));
            self.ask_again(&Asked::Namespace(key.kind, key.namespace.clone()));
            self.add(key);
        }
    }

    /// Has an object translated.
    fn add(&mut self, key: ObjectKey) {
        let step = match key.kind {
            Kind::Gateway | Kind::RateLimitPolicy => Step::Collect,
            _ => Step::Translate,
        };
        self.dirty.insert((step, key));
    }

    /// Has everything translated that asked this.
    fn ask_again(&mut self, question: &Asked) {
        let dependents: Vec<ObjectKey> = self.translation.dependents.of(question).cloned().collect();
        for key in dependents {
            self.add(key);
        }
    }

    /// Has everything concluded that asked this.
    fn conclude_again(&mut self, question: &Asked) {
        let dependents = self.translation.dependents.of(question);
        self.dirty.extend(dependents.map(|key| (Step::Conclude, key.clone())));
    }

    fn collect(&mut self, key: ObjectKey) {
        let translation = &mut *self.translation;
        let entry = self.store.objects().get(&key);
        if key.kind == Kind::Gateway {
            // What is asked here is asked again, and written down, when the Gateway is concluded.
            let view = View::new(self.store, &translation.facts);
            let state = entry.and_then(|entry| gateway::state(&view, entry));
            if translation.facts.set_gateway(&key, state) {
                self.ask_again(&Asked::Gateway(key.clone()));
            }
        } else {
            let named = entry.and_then(|entry| object::named_target(&key, entry));
            for target in translation.facts.name_target(&key, named) {
                self.conclude_again(&Asked::RateLimits(target));
            }
        }
        self.dirty.insert((Step::Conclude, key));
    }

    fn object(&mut self, key: ObjectKey) {
        self.delta.translated += 1;
        let translation = &mut *self.translation;
        let entry = self.store.objects().get(&key);
        let before = translation.done.remove(&key);
        if let Some(before) = &before {
            translation.count(key.kind, before.rejected, false);
        }
        let view = View::new(self.store, &translation.facts);
        let outcome = match entry {
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
        for gateway in self.translation.facts.attach(&before.attached, &outcome.attached) {
            self.conclude_again(&Asked::Attached(gateway));
        }
        let rejected = entry.is_some_and(|entry| entry.refused().is_some())
            || !notes.is_empty()
            || status.as_ref().is_some_and(|status| report::is_rejected(status));
        let resources = outcome.resources.into();
        let (identity, attached) = (outcome.identity, outcome.attached);
        Done { asked, resources, identity, status, notes, attached, rejected }
    }

    /// Whether the resources are different.
    fn resources(&mut self, before: &[Arc<Resource>], now: &[Arc<Resource>]) -> bool {
        if before == now {
            return false;
        }
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
