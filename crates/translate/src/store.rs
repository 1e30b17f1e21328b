// SPDX-License-Identifier: Apache-2.0
//! The objects of all sources.
//!
//! A source is a file of a directory, or whatever else has a name. An object is valid or refused by its own
//! text alone, whatever it was before: every store that was given the same texts holds the same. Only where
//! nobody can tell what a document names does its source keep what it had.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use weft_api::object::{Kind, ObjectKey};

mod documents;
mod entry;
mod found;
mod problems;

use documents::Source;
pub use entry::{Entry, Refused};
use problems::ProblemSet;
pub use problems::{Problem, Severity};

/// All objects. A change costs what the texts hold that it touches.
#[derive(Debug, Default)]
pub struct Store {
    sources: BTreeMap<Arc<str>, Source>,
    objects: BTreeMap<ObjectKey, Entry>,
    /// The sources that name an object, in their order.
    claims: BTreeMap<ObjectKey, Vec<Arc<str>>>,
    /// What is wrong with objects, besides what their sources say.
    of_objects: BTreeMap<ObjectKey, Vec<Problem>>,
    problems: ProblemSet,
    changed: BTreeSet<ObjectKey>,
    /// How many sources have an object.
    filled: usize,
}

/// What a source holds, before it is read.
enum Input<'a> {
    Text(&'a str),
    Object(Value),
}

impl Store {
    /// Replaces everything that a source has.
    pub fn apply(&mut self, source: &str, text: &str) {
        self.apply_all([(source, text)], []);
    }

    /// Forgets a source and what it has.
    pub fn remove(&mut self, source: &str) {
        self.apply_all([], [source]);
    }

    /// Replaces everything that each of some sources has, and forgets others, in one step: an object
    /// that moves from one source to another is never gone in between.
    pub fn apply_all<'a>(
        &mut self,
        changed: impl IntoIterator<Item = (&'a str, &'a str)>,
        removed: impl IntoIterator<Item = &'a str>,
    ) {
        self.replace_all(changed.into_iter().map(|(source, text)| (source, Input::Text(text))), removed);
    }

    /// As [`Store::apply_all`], of sources that have one object each, as a server gives it: without fields that
    /// are `null`.
    pub fn apply_objects<'a>(
        &mut self,
        changed: impl IntoIterator<Item = (&'a str, Value)>,
        removed: impl IntoIterator<Item = &'a str>,
    ) {
        let changed = changed.into_iter().map(|(source, object)| (source, Input::Object(object)));
        self.replace_all(changed, removed);
    }

    fn replace_all<'a>(
        &mut self,
        changed: impl IntoIterator<Item = (&'a str, Input<'a>)>,
        removed: impl IntoIterator<Item = &'a str>,
    ) {
        let mut touched = BTreeSet::new();
        for (source, content) in changed {
            self.replace(source, Some(content), &mut touched);
        }
        for source in removed {
            self.replace(source, None, &mut touched);
        }
        for key in touched {
            self.decide(key);
        }
    }

    /// Keeps what sources have that are gone, as far as no other source names it.
    pub fn keep_all<'a>(&mut self, gone: impl IntoIterator<Item = &'a str>) {
        let mut touched = BTreeSet::new();
        for source in gone {
            let Some(source) = self.sources.get_mut(source) else { continue };
            source.found.outdate();
            touched.extend(source.found.keys().cloned());
        }
        touched.into_iter().for_each(|key| self.decide(key));
    }

    /// Puts the content in the place of what its source had, and collects what either touches.
    fn replace(&mut self, source: &str, content: Option<Input<'_>>, touched: &mut BTreeSet<ObjectKey>) {
        let (name, old) =
            self.sources.remove_entry(source).unwrap_or_else(|| (source.into(), Source::default()));
        self.problems.remove(&old.problems);
        self.filled -= usize::from(!old.found.is_empty());
        for key in old.found.keys() {
            if let Some(claims) = self.claims.get_mut(key) {
                claims.retain(|other| *other != name);
            }
            touched.insert(key.clone());
        }
        let Some(content) = content else { return };
        let mut new = match content {
            Input::Text(text) => Source::read(&name, text, &self.objects),
            Input::Object(object) => Source::of_object(&name, object, &self.objects),
        };
        if new.unrecognized > 0 {
            new.keep(old);
        }
        self.problems.add(&new.problems);
        self.filled += usize::from(!new.found.is_empty());
        for key in new.found.keys() {
            let claims = self.claims.entry(key.clone()).or_default();
            claims.insert(claims.partition_point(|other| *other < name), name.clone());
            touched.insert(key.clone());
        }
        self.sources.insert(name, new);
    }

    /// The names of the sources.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sources.keys()
    }

    /// Whether a source has an object.
    pub fn has_objects(&self, source: &str) -> bool {
        self.sources.get(source).is_some_and(|source| !source.found.is_empty())
    }

    /// Whether nobody can tell what some document of a source names.
    pub fn is_unrecognized(&self, source: &str) -> bool {
        self.sources.get(source).is_some_and(|source| source.unrecognized > 0)
    }

    /// Whether there would be no object left, and nothing that might be one, once these sources have these
    /// texts and others are gone. Reads the texts where no other source has an object, up to the first that
    /// has one.
    pub fn would_be_empty<'a>(
        &self,
        changed: impl IntoIterator<Item = (&'a str, &'a str)>,
        removed: impl IntoIterator<Item = &'a str>,
    ) -> bool {
        let changed: Vec<_> = changed.into_iter().collect();
        let touched = changed.iter().map(|(source, _)| *source).chain(removed);
        let filled: BTreeSet<_> = touched.filter(|source| self.has_objects(source)).collect();
        let is_empty = |(name, text): &(&str, &str)| {
            let source = Source::read(&Arc::from(*name), text, &self.objects);
            source.found.is_empty() && source.unrecognized == 0
        };
        filled.len() == self.filled && changed.iter().all(is_empty)
    }

    /// How many objects there are of each kind that is none of Weft's business, by `apiVersion` and kind.
    pub fn foreign(&self) -> BTreeMap<(Arc<str>, Arc<str>), usize> {
        let mut all = BTreeMap::new();
        for (kind, count) in self.sources.values().flat_map(|source| &source.foreign) {
            *all.entry(kind.clone()).or_default() += count;
        }
        all
    }

    /// Every object, in the order of the keys.
    pub fn objects(&self) -> &BTreeMap<ObjectKey, Entry> {
        &self.objects
    }

    /// The objects of one kind, in the order of the keys.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Entry)> + use<'_> {
        let first = ObjectKey { kind, namespace: "".into(), name: "".into() };
        self.objects.range(first..).take_while(move |(key, _)| key.kind == kind)
    }

    /// The objects of one kind in one namespace, in the order of the keys.
    pub(crate) fn of_namespace(
        &self,
        kind: Kind,
        namespace: &Arc<str>,
    ) -> impl Iterator<Item = (&ObjectKey, &Entry)> + use<'_> {
        let first = ObjectKey { kind, namespace: namespace.clone(), name: "".into() };
        let namespace = namespace.clone();
        let all = self.objects.range(first..);
        all.take_while(move |(key, _)| key.kind == kind && key.namespace == namespace)
    }

    /// Another number as soon as something else may be wrong.
    pub(crate) fn problems_version(&self) -> u64 {
        self.problems.version()
    }

    /// What is wrong now, in the order of the sources and lines.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// The objects that are new, gone, different, at another place or in other problems than when this was
    /// asked last.
    pub fn take_changes(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.changed)
    }

    /// Decides anew which source an object comes from: of several the first by name, then by line.
    fn decide(&mut self, key: ObjectKey) {
        let claims = self.claims.get(&key).map(Vec::as_slice).unwrap_or_default();
        let (entry, problems) = used(&self.sources, claims, &key);
        if claims.is_empty() {
            self.claims.remove(&key);
        }
        let before = self.of_objects.remove(&key).unwrap_or_default();
        let mut changed = before != problems;
        self.problems.remove(&before);
        self.problems.add(&problems);
        if !problems.is_empty() {
            self.of_objects.insert(key.clone(), problems);
        }
        changed |= self.objects.get(&key) != entry.as_ref();
        match entry {
            Some(entry) => drop(self.objects.insert(key.clone(), entry)),
            None => drop(self.objects.remove(&key)),
        }
        if changed {
            self.changed.insert(key);
        }
    }
}

/// The entry of an object, given the sources that name it, and what is wrong with it. What is kept of an earlier
/// text counts where no other names the object.
fn used(
    sources: &BTreeMap<Arc<str>, Source>,
    claims: &[Arc<str>],
    key: &ObjectKey,
) -> (Option<Entry>, Vec<Problem>) {
    let of_sources = claims.iter().filter_map(|name| Some((name, sources.get(name)?)));
    let all: Vec<_> =
        of_sources.flat_map(|(name, source)| source.found.of(key).map(move |found| (name, found))).collect();
    let only_kept = all.iter().all(|(_, found)| found.kept);
    let mut found = all.into_iter().filter(|(_, found)| only_kept || !found.kept);
    let Some((source, first)) = found.next() else { return (None, Vec::new()) };
    let problem = |source: &Arc<str>, line: u32, message: Arc<str>, severity| Problem {
        source: source.clone(),
        line,
        object: Some(key.clone()),
        message,
        severity,
    };
    let mut problems = Vec::new();
    if let Err(refused) = &first.content {
        problems.push(problem(source, refused.line, refused.error.to_string().into(), Severity::Refused));
    }
    if let Some((line, message)) = &first.note {
        problems.push(problem(source, *line, message.clone(), Severity::Note));
    }
    let line = first.line;
    let others = found.map(|(other, found)| {
        let message = format!("is also at {source}:{line}, which is used").into();
        problem(other, found.line, message, Severity::Refused)
    });
    problems.extend(others);
    (Some(Entry { content: first.content.clone(), place: (source.clone(), line) }), problems)
}

#[cfg(test)]
mod tests;
