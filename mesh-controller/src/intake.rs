// SPDX-License-Identifier: Apache-2.0
//! What a scan of the source means for the store: what is taken in, and what is held back.
//!
//! Two things are not believed. A source that has no object any more removes nothing: a mount that is not there
//! and a checkout under way look like that. And a file that is gone while one that cannot be read appears may
//! have been renamed: what it held stays until that one can be read, or is gone too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use weft_manifests::{Fault, Scan};
use weft_translate::{Problem, Store};

/// Why a source without any object is refused, and what to do.
pub(crate) const EMPTY: &str = "holds no object that is read: put the manifests there, or start the controller with --allow-empty-source";

/// Brings what is read into the store.
#[derive(Debug)]
pub struct Intake {
    store: Store,
    /// The source's name, for what is said of all of it.
    source: PathBuf,
    /// Whether a source without any object is believed.
    allow_empty: bool,
    /// Files that cannot be read.
    unread: BTreeSet<PathBuf>,
    /// Files that are gone and whose objects stay, with the files that may be what became of them.
    kept: BTreeMap<String, BTreeSet<PathBuf>>,
    /// What would leave no object; at first that is nothing at all.
    withheld: Option<Changes>,
}

/// Files that have another text, and files that are gone.
#[derive(Debug, Default)]
struct Changes {
    changed: BTreeMap<String, String>,
    removed: BTreeSet<String>,
}

impl Changes {
    /// Adds later ones.
    fn then(&mut self, changed: Vec<(String, String)>, removed: Vec<String>) {
        for name in removed {
            self.changed.remove(&name);
            self.removed.insert(name);
        }
        for (name, text) in changed {
            self.removed.remove(&name);
            self.changed.insert(name, text);
        }
    }

    fn changed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.changed.iter().map(|(name, text)| (&**name, &**text))
    }

    fn removed(&self) -> impl Iterator<Item = &str> {
        self.removed.iter().map(String::as_str)
    }
}

impl Intake {
    /// Nothing is read yet. `allow_empty` believes a source that has no object.
    pub fn new(source: &Path, allow_empty: bool) -> Intake {
        Intake {
            store: Store::default(),
            source: source.to_owned(),
            allow_empty,
            unread: BTreeSet::new(),
            kept: BTreeMap::new(),
            withheld: (!allow_empty).then(Changes::default),
        }
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The objects, for the translation, which takes what changed.
    pub(crate) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Why nothing of the source is taken in, where it has no object.
    pub fn withheld(&self) -> Option<&'static str> {
        self.withheld.as_ref().map(|_| EMPTY)
    }

    /// Takes in what a scan found, and tells whether the objects may be others now.
    pub fn take(&mut self, scan: Scan) -> bool {
        let unread: BTreeSet<PathBuf> = scan.faults.iter().filter_map(hidden).collect();
        if scan.is_empty() && unread == self.unread {
            return false;
        }
        let mut broken: BTreeSet<PathBuf> = unread.difference(&self.unread).cloned().collect();
        self.unread = unread;
        let mut changes = self.withheld.take().unwrap_or_default();
        changes.then(scan.changed, scan.removed);
        if !self.allow_empty && self.would_be_empty(&changes, &broken) {
            self.withheld = Some(changes);
            return false;
        }
        self.store.apply_all(changes.changed(), []);
        let unrecognized = changes.changed.keys().filter(|name| self.store.is_unrecognized(name));
        broken.extend(unrecognized.map(PathBuf::from));
        for name in changes.changed.keys() {
            self.kept.remove(name);
        }
        let (may_be_renamed, gone): (Vec<String>, Vec<String>) =
            changes.removed.into_iter().partition(|name| !broken.is_empty() && self.store.has_objects(name));
        self.store.apply_all([], gone.iter().map(String::as_str));
        let known = self.let_go(&broken);
        self.store.apply_all([], known.iter().map(String::as_str));
        self.store.keep_all(may_be_renamed.iter().map(String::as_str));
        self.kept.extend(may_be_renamed.into_iter().map(|name| (name, broken.clone())));
        true
    }

    /// Whether nothing would be left. What is gone counts only where it is not kept for a file that broke.
    fn would_be_empty(&self, changes: &Changes, broken: &BTreeSet<PathBuf>) -> bool {
        let gone = changes.removed().chain(self.kept.keys().map(String::as_str));
        self.store.would_be_empty(changes.changed(), gone.filter(|_| broken.is_empty()))
    }

    /// Looks again at what became of files that are gone; those of which that is known are kept no longer.
    fn let_go(&mut self, broken: &BTreeSet<PathBuf>) -> BTreeSet<String> {
        let (store, unread) = (&self.store, &self.unread);
        let is_broken = |path: &PathBuf| {
            unread.contains(path) || path.to_str().is_some_and(|name| store.is_unrecognized(name))
        };
        let is_there = |path: &PathBuf| store.sources().any(|name| Path::new(&**name).starts_with(path));
        for became in self.kept.values_mut() {
            let (still, other): (BTreeSet<_>, BTreeSet<_>) =
                std::mem::take(became).into_iter().partition(is_broken);
            *became = still;
            // What it may have become may have been renamed in its turn.
            if !other.iter().all(is_there) {
                became.extend(broken.iter().cloned());
            }
        }
        let known: BTreeSet<String> =
            self.kept.iter().filter(|(_, became)| became.is_empty()).map(|(name, _)| name.clone()).collect();
        self.kept.retain(|_, became| !became.is_empty());
        known
    }

    /// What is held back, and why.
    pub fn problems(&self) -> Vec<Problem> {
        let problem = |source: &Path, message: &str| {
            let source = source.display().to_string();
            Problem::unread(&source, 0, &format!("{message}; what was read before stays"))
        };
        let withheld = self.withheld().map(|message| problem(&self.source, message));
        let kept = self.kept.iter().map(|(name, became)| {
            let became = became.first().map(|path| path.display().to_string()).unwrap_or_default();
            problem(Path::new(name), &format!("is gone while {became}, which may be it, cannot be read"))
        });
        withheld.into_iter().chain(kept).collect()
    }
}

/// The file or directory of which nobody knows what it holds.
fn hidden(fault: &Fault) -> Option<PathBuf> {
    fault.hides.then(|| fault.path.clone())
}

#[cfg(test)]
mod tests;
