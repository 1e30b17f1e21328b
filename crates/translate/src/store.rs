// SPDX-License-Identifier: Apache-2.0
//! The objects of all sources, and the last good version of each.
//!
//! A source is a file of a directory, or whatever else has a name. An object whose new text cannot be
//! read keeps its last good version; everything else of its source goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::{Serialize, Serializer};
use serde_json::Value;
use weft_api::object::{DecodeError, Kind, ObjectKey};

use crate::memo::Good;

mod documents;

use documents::Found;

/// Something that the user should know and that no status says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The source's name.
    pub source: Arc<str>,
    /// The line, from 1; 0 where the whole source is meant.
    pub line: u32,
    /// The object, where one could be named.
    #[serde(serialize_with = "as_text", skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectKey>,
    /// What is wrong.
    pub message: Arc<str>,
    /// The text is not YAML, so that nobody can tell what it names.
    pub unreadable: bool,
}

impl Problem {
    /// A source that cannot be read, from a line on or, with line 0, at all.
    pub fn unread(source: &str, line: u32, message: &str) -> Problem {
        Problem { source: source.into(), line, object: None, message: message.into(), unreadable: true }
    }
}

fn as_text<S: Serializer>(object: &Option<ObjectKey>, serializer: S) -> Result<S::Ok, S::Error> {
    match object {
        Some(object) => serializer.collect_str(object),
        None => serializer.serialize_none(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: ", self.source)?,
            line => write!(f, "{}:{line}: ", self.source)?,
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// An object of the store.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The last version that could be read.
    pub good: Option<Arc<Good>>,
    /// The newest text, where it could not be read.
    pub refused: Option<Refused>,
    /// Counts the texts, or is what the object says itself.
    pub generation: i64,
    /// The newest text.
    value: Arc<Value>,
    /// Where it is.
    place: (Arc<str>, u32),
}

impl Entry {
    /// The source and line of the object's newest text.
    pub fn place(&self) -> (&Arc<str>, u32) {
        (&self.place.0, self.place.1)
    }
}

/// A text that could not be read.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What it holds; null where it is not YAML.
    pub value: Arc<Value>,
    /// Why.
    pub error: DecodeError,
}

/// An object that Weft has no business with, such as a Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The line, from 1.
    pub line: u32,
    /// Its `apiVersion`.
    pub api_version: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
}

/// All objects. A change costs what it touches, and a look at every source.
#[derive(Debug, Default)]
pub struct Store {
    sources: BTreeMap<Arc<str>, Source>,
    objects: BTreeMap<ObjectKey, Entry>,
    /// The sources that name an object, in their order.
    claims: BTreeMap<ObjectKey, Vec<Arc<str>>>,
    /// What is wrong with objects, besides what their sources say.
    of_objects: BTreeMap<ObjectKey, Vec<Problem>>,
    problems: Vec<Problem>,
}

#[derive(Debug, Default)]
struct Source {
    found: Vec<Found>,
    /// Where in `found` each object is, once or more.
    places: BTreeMap<ObjectKey, Vec<usize>>,
    problems: Vec<Problem>,
    foreign: Vec<Foreign>,
    /// Objects that an earlier text had, kept because a part of the newest cannot be read.
    held: BTreeSet<ObjectKey>,
}

impl Source {
    /// Every object that it names or keeps.
    fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.places.keys().chain(&self.held)
    }
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
        let mut touched = BTreeSet::new();
        for (source, text) in changed {
            let new = self.read(source, text);
            self.swap(source, Some(new), &mut touched);
        }
        for source in removed {
            self.swap(source, None, &mut touched);
        }
        self.rebuild(touched);
    }

    fn read(&self, source: &str, text: &str) -> Source {
        let name: Arc<str> = source.into();
        let documents::Reading { found, problems, foreign, .. } = documents::read(&name, text);
        let mut places: BTreeMap<ObjectKey, Vec<usize>> = BTreeMap::new();
        for (place, found) in found.iter().enumerate() {
            places.entry(found.key.clone()).or_default().push(place);
        }
        let mut held = BTreeSet::new();
        if problems.iter().any(|problem| problem.unreadable && problem.object.is_none()) {
            let before = self.sources.get(&name).into_iter().flat_map(Source::keys);
            held = before.filter(|key| !places.contains_key(key)).cloned().collect();
        }
        Source { found, places, problems, foreign, held }
    }

    /// Puts a new text's content in the place of what a source had, and collects what either touches.
    fn swap(&mut self, source: &str, new: Option<Source>, touched: &mut BTreeSet<ObjectKey>) {
        if let Some(old) = self.sources.remove(source) {
            for key in old.places.keys() {
                if let Some(claims) = self.claims.get_mut(key) {
                    claims.retain(|name| &**name != source);
                }
            }
            touched.extend(old.keys().cloned());
        }
        let Some(new) = new else { return };
        let name: Arc<str> = source.into();
        for key in new.places.keys() {
            let claims = self.claims.entry(key.clone()).or_default();
            let place = claims.partition_point(|other| *other < name);
            claims.insert(place, name.clone());
        }
        touched.extend(new.keys().cloned());
        self.sources.insert(name, new);
    }

    /// The names of the sources.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sources.keys()
    }

    /// The objects of a source that are not read because they are none of Weft's business.
    pub fn foreign(&self, source: &str) -> &[Foreign] {
        self.sources.get(source).map_or(&[], |source| &source.foreign)
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

    /// What is wrong now, in the order of the sources and lines.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Decides anew which source each of some objects comes from: of several the first by name, then by
    /// line.
    fn rebuild(&mut self, touched: BTreeSet<ObjectKey>) {
        let holding: Vec<&Source> = self.sources.values().filter(|source| !source.held.is_empty()).collect();
        for key in touched {
            let before = self.objects.remove(&key);
            let claims = self.claims.get(&key).map(Vec::as_slice).unwrap_or_default();
            let (entry, problems) = decide(&self.sources, claims, &key, before);
            let entry = entry
                .filter(|_| !claims.is_empty() || holding.iter().any(|source| source.held.contains(&key)));
            if claims.is_empty() {
                self.claims.remove(&key);
            }
            match problems.is_empty() {
                true => drop(self.of_objects.remove(&key)),
                false => drop(self.of_objects.insert(key.clone(), problems)),
            }
            if let Some(entry) = entry {
                self.objects.insert(key, entry);
            }
        }
        self.problems = self.all_problems();
    }

    fn all_problems(&self) -> Vec<Problem> {
        let of_sources = self.sources.values().flat_map(|source| &source.problems);
        let mut problems: Vec<Problem> =
            of_sources.chain(self.of_objects.values().flatten()).cloned().collect();
        for problem in problems.iter_mut().filter(|problem| problem.unreadable) {
            let kept = match &problem.object {
                Some(key) => self.objects.get(key).is_some_and(|entry| entry.good.is_some()),
                None => self.sources.get(&problem.source).is_some_and(|source| !source.held.is_empty()),
            };
            if kept {
                problem.message = format!("{}; the last good version stays", problem.message).into();
            }
        }
        problems.sort();
        problems
    }
}

/// The entry of an object, given the sources that name it, and what is wrong with it; the entry of before
/// where none does.
fn decide(
    sources: &BTreeMap<Arc<str>, Source>,
    claims: &[Arc<str>],
    key: &ObjectKey,
    mut before: Option<Entry>,
) -> (Option<Entry>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut used: Option<Entry> = None;
    let found =
        claims.iter().filter_map(|name| Some((name, sources.get(name)?))).flat_map(|(name, source)| {
            let places = source.places.get(key).into_iter().flatten();
            places.filter_map(move |place| Some((name, source.found.get(*place)?)))
        });
    for (name, found) in found {
        let problem = |message: String| Problem {
            source: name.clone(),
            line: found.error_line(),
            object: Some(key.clone()),
            message: message.into(),
            unreadable: false,
        };
        if let Some(first) = &used {
            let (source, line) = first.place();
            problems.push(problem(format!("is also at {source}:{line}, which is used")));
            continue;
        }
        let entry = found.entry(name, before.take());
        if let Some(refused) = &entry.refused
            && !refused.value.is_null()
        {
            let kept = if entry.good.is_some() { "; the last good version stays" } else { "" };
            problems.push(problem(format!("{}{kept}", refused.error)));
        }
        used = Some(entry);
    }
    (used.or(before), problems)
}

#[cfg(test)]
mod tests;
