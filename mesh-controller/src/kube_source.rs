// SPDX-License-Identifier: Apache-2.0
//! The objects of a Kubernetes cluster, as its API server tells of them.
//!
//! Each kind is listed and watched by a task of its own (`list_watch`); what they hear comes here in order, and goes
//! to the same store as the objects of files. Nothing is translated before every kind was listed once. An object is
//! gone when the server says so, or when a later list that is complete does not have it; while nothing is heard,
//! everything stays as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use weft_api::object::Kind;
use weft_ir::stream::Versions;
use weft_runtime::supervise::{CriticalEnd, Supervisor};
use weft_translate::{Problem, Severity, Store};

mod api;
mod list_watch;
mod live;
mod merge;
mod status_writer;

use list_watch::{Heard, ListWatch, Message, version_of};
use live::{Live, WRITTEN};
use status_writer::StatusWriter;

use crate::observed::Observed;

/// How long nothing must be heard before changes are told: those that are made together come within less.
const QUIET: Duration = Duration::from_millis(3);
/// How long changes that keep coming can put one off.
const LONGEST: Duration = Duration::from_millis(100);
/// How many changes may wait: the tasks wait where it takes longer to take them than to read them.
const WAITING: usize = 1_024;

/// What stands for the whole source in problems.
const NAME: &str = "kubernetes";

/// Follows every kind.
pub(crate) struct KubeSource {
    store: Store,
    kinds: BTreeMap<Kind, Known>,
    messages: mpsc::Receiver<Message>,
    heard: Vec<Message>,
    tasks: Supervisor,
    /// For whoever writes statuses.
    live: Arc<Live>,
}

/// What is known of one kind.
#[derive(Debug, Default)]
struct Known {
    /// Its objects, by the names of their sources, each with its version.
    objects: BTreeMap<String, u64>,
    /// What the list that is under way has named.
    listing: Option<BTreeSet<String>>,
    /// Up to where everything is known; nothing before the first list is complete.
    version: Option<u64>,
    /// Whether the API server serves the kind.
    is_served: bool,
    trouble: Option<String>,
    /// Why its statuses cannot be written.
    unwritten: Option<String>,
}

/// Objects that are other now, or gone, by the names of their sources.
type Changes = BTreeMap<String, Option<Value>>;

impl KubeSource {
    /// Begins to read every kind, and to write the statuses that are observed.
    pub(crate) fn start(client: &Client, observed: &Observed) -> KubeSource {
        let (sender, messages) = mpsc::channel(WAITING);
        let mut tasks = Supervisor::new();
        for kind in Kind::ALL {
            let reader = ListWatch::new(client.clone(), kind, sender.clone());
            tasks.critical("kubernetes objects", async move { reader.run().await.map(drop) });
        }
        let live = Arc::<Live>::default();
        let writer = StatusWriter::new(client.clone(), live.clone(), observed.watch(), sender);
        tasks.critical("kubernetes statuses", async move { writer.run().await.map(drop) });
        KubeSource { live, ..KubeSource::over(messages, tasks) }
    }

    fn over(messages: mpsc::Receiver<Message>, tasks: Supervisor) -> KubeSource {
        let kinds = Kind::ALL.into_iter().map(|kind| (kind, Known::default())).collect();
        let live = Arc::default();
        KubeSource { store: Store::default(), kinds, messages, heard: Vec::new(), tasks, live }
    }

    /// Waits until something was heard and nothing more comes at once. Cancel safe.
    ///
    /// # Errors
    /// When a task that reads has ended.
    pub(crate) async fn changed(&mut self) -> Result<(), CriticalEnd> {
        if self.heard.is_empty() {
            tokio::select! {
                message = self.messages.recv() => self.heard.extend(message),
                end = self.tasks.failed() => return Err(end),
            }
        }
        let latest = Instant::now() + LONGEST;
        while self.heard.len() < WAITING {
            let until = latest.min(Instant::now() + QUIET);
            match timeout_at(until, self.messages.recv()).await {
                Ok(Some(message)) => self.heard.push(message),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// Takes what was heard into the store, and tells whether the objects may be others now.
    pub(crate) fn take(&mut self) -> bool {
        let was_whole = self.is_whole();
        let mut changes = Changes::new();
        for (kind, heard) in std::mem::take(&mut self.heard) {
            let Some(known) = self.kinds.get_mut(&kind) else { continue };
            if WRITTEN.contains(&kind) {
                self.live.hear(kind, &heard);
            }
            known.hear(kind, heard, &mut changes);
        }
        let is_other = !changes.is_empty() || was_whole != self.is_whole();
        let gone: Vec<&String> =
            changes.iter().filter(|(_, object)| object.is_none()).map(|(name, _)| name).collect();
        let gone: Vec<String> = gone.into_iter().cloned().collect();
        let there = changes.iter_mut().filter_map(|(name, object)| Some((&**name, object.take()?)));
        self.store.apply_objects(there, gone.iter().map(String::as_str));
        is_other && self.is_whole()
    }

    /// Whether every kind was listed once, or is known not to exist.
    pub(crate) fn is_whole(&self) -> bool {
        self.kinds.values().all(|known| known.version.is_some())
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.kinds.values().map(|known| known.objects.len()).sum()
    }

    /// Up to where each kind is known.
    pub(crate) fn versions(&self) -> Versions {
        let version = |(kind, known): (&Kind, &Known)| Some((api::resource(*kind).into(), known.version?));
        Versions(self.kinds.iter().filter_map(version).collect())
    }

    /// What cannot be read, and why.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let of_kind = |(kind, known): (&Kind, &Known)| {
            let trouble = known.trouble.as_deref()?;
            let so = match known.version {
                Some(_) => "what was read before stays",
                None => "nothing is published before everything was read once",
            };
            let message = format!("{trouble}; {so}");
            tracing::debug!(kind = kind.name(), "{message}");
            Some(Problem { severity: Severity::Unrecognized, ..Problem::unread(NAME, 0, &message) })
        };
        let unwritten = self.kinds.values().filter_map(|known| known.unwritten.as_deref());
        let unwritten =
            unwritten.map(|why| Problem { severity: Severity::Note, ..Problem::unread(NAME, 0, why) });
        self.kinds.iter().filter_map(of_kind).chain(unwritten).collect()
    }

    /// The objects, for the translation, which takes what changed.
    pub(crate) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

impl Known {
    fn hear(&mut self, kind: Kind, heard: Heard, changes: &mut Changes) {
        match heard {
            Heard::Begin => self.listing = Some(BTreeSet::new()),
            Heard::Object(object) => self.object(kind, object, changes),
            Heard::Gone(object) => self.gone(kind, &object, changes),
            Heard::Complete(version) => self.complete(kind, version, changes),
            Heard::At(version) => self.at(version),
            Heard::Missing(version) => self.missing(kind, version, changes),
            Heard::Trouble(why) => self.trouble = Some(why),
            Heard::Fine => self.trouble = None,
            Heard::Unwritten(why) => self.unwritten = why,
        }
    }

    fn object(&mut self, kind: Kind, object: Value, changes: &mut Changes) {
        let (Some(name), Ok(version)) = (source(kind, &object), version_of(&object)) else { return };
        if let Some(listing) = &mut self.listing {
            listing.insert(name.clone());
        }
        // A list may tell again what is known, from a server that is behind.
        if self.objects.get(&name).is_some_and(|known| *known >= version) {
            return;
        }
        self.objects.insert(name.clone(), version);
        if self.listing.is_none() {
            self.at(version);
        }
        changes.insert(name, Some(object));
    }

    fn gone(&mut self, kind: Kind, object: &Value, changes: &mut Changes) {
        let (Some(name), Ok(version)) = (source(kind, object), version_of(object)) else { return };
        // Made again under the same name since.
        if self.objects.get(&name).is_none_or(|known| *known > version) {
            return;
        }
        self.objects.remove(&name);
        if let Some(listing) = &mut self.listing {
            listing.remove(&name);
        } else {
            self.at(version);
        }
        changes.insert(name, None);
    }

    /// What the list has not named is gone.
    fn complete(&mut self, kind: Kind, version: u64, changes: &mut Changes) {
        let listed = self.listing.take().unwrap_or_default();
        let gone: Vec<String> = self.objects.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            self.objects.remove(&name);
            changes.insert(name, None);
        }
        if !std::mem::replace(&mut self.is_served, true) {
            tracing::debug!(kind = kind.name(), objects = self.objects.len(), "reading a kind");
        }
        self.trouble = None;
        self.at(version);
    }

    /// Without its kind nothing of it exists.
    fn missing(&mut self, kind: Kind, version: u64, changes: &mut Changes) {
        if self.is_served || self.version.is_none() {
            tracing::info!(
                "the API server does not serve {}: it is read as soon as somebody installs it",
                api::resource(kind)
            );
        }
        (self.is_served, self.listing, self.trouble) = (false, None, None);
        let gone = std::mem::take(&mut self.objects).into_keys().map(|name| (name, None));
        changes.extend(gone);
        self.at(version);
    }

    fn at(&mut self, version: u64) {
        self.version = self.version.max(Some(version));
    }
}

/// The name of the source that holds an object, which is its place in the API.
fn source(kind: Kind, object: &Value) -> Option<String> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let (name, resource) = (text("/metadata/name")?, api::resource(kind));
    Some(match text("/metadata/namespace") {
        Some(namespace) => format!("{resource}/{namespace}/{name}"),
        None => format!("{resource}/{name}"),
    })
}

#[cfg(test)]
mod tests;
