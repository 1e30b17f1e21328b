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
use weft_api::object::{DecodeError, Decoded, Object, ObjectKey};

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
    pub good: Option<Arc<Decoded<Object>>>,
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

/// All objects.
#[derive(Debug, Default)]
pub struct Store {
    sources: BTreeMap<Arc<str>, Source>,
    objects: BTreeMap<ObjectKey, Entry>,
    problems: Vec<Problem>,
}

#[derive(Debug, Default)]
struct Source {
    found: Vec<Found>,
    problems: Vec<Problem>,
    foreign: Vec<Foreign>,
    /// Objects that an earlier text had, kept because a part of the newest cannot be read.
    held: BTreeSet<ObjectKey>,
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
        for (source, text) in changed {
            self.read(source, text);
        }
        for source in removed {
            self.sources.remove(source);
        }
        self.rebuild();
    }

    fn read(&mut self, source: &str, text: &str) {
        let name: Arc<str> = source.into();
        let documents::Reading { found, problems, foreign, .. } = documents::read(&name, text);
        let mut held = BTreeSet::new();
        if problems.iter().any(|problem| problem.unreadable && problem.object.is_none()) {
            let before = self.sources.get(&name);
            let named: BTreeSet<&ObjectKey> = found.iter().map(|found| &found.key).collect();
            held = before
                .into_iter()
                .flat_map(|source| source.found.iter().map(|found| &found.key).chain(&source.held))
                .filter(|key| !named.contains(key))
                .cloned()
                .collect();
        }
        self.sources.insert(name, Source { found, problems, foreign, held });
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

    /// What is wrong now, in the order of the sources.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Decides anew which source every object comes from: of several the first by name, then by line.
    fn rebuild(&mut self) {
        let mut before = std::mem::take(&mut self.objects);
        let mut problems = Vec::new();
        for (name, source) in &self.sources {
            problems.extend(source.problems.iter().cloned());
            for found in &source.found {
                let problem = |message: String| Problem {
                    source: name.clone(),
                    line: found.error_line(),
                    object: Some(found.key.clone()),
                    message: message.into(),
                    unreadable: false,
                };
                if let Some(first) = self.objects.get(&found.key) {
                    let (source, line) = first.place();
                    problems.push(problem(format!("is also at {source}:{line}, which is used")));
                    continue;
                }
                let entry = found.entry(name, before.remove(&found.key));
                if let Some(refused) = &entry.refused
                    && !refused.value.is_null()
                {
                    let kept = if entry.good.is_some() { "; the last good version stays" } else { "" };
                    problems.push(problem(format!("{}{kept}", refused.error)));
                }
                self.objects.insert(found.key.clone(), entry);
            }
        }
        for key in self.sources.values().flat_map(|source| &source.held) {
            if let Some(entry) = before.remove(key) {
                self.objects.entry(key.clone()).or_insert(entry);
            }
        }
        for problem in problems.iter_mut().filter(|problem| problem.unreadable) {
            let kept = match &problem.object {
                Some(key) => self.objects.get(key).is_some_and(|entry| entry.good.is_some()),
                None => self.sources.get(&problem.source).is_some_and(|source| !source.held.is_empty()),
            };
            if kept {
                problem.message = format!("{}; the last good version stays", problem.message).into();
            }
        }
        self.problems = problems;
    }
}

#[cfg(test)]
mod tests;
