// SPDX-License-Identifier: Apache-2.0
//! How the objects stand, for those who ask: the admin endpoint and the metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;
use tokio::sync::watch;
use weft_api::object::ObjectKey;
use weft_translate::{ObjectStatus, Problem, Store, report};

/// Upper bounds of the time of a translation, in seconds.
const TRANSLATION_BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// How the objects stand. A clone shows the same.
#[derive(Clone, Debug)]
pub struct Observed {
    objects: watch::Sender<Arc<Objects>>,
    translations: Histogram,
}

/// How the objects stand at one revision.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Objects {
    /// The revision; 0 before the first.
    pub revision: u64,
    /// The status of every object that has one, with what the nodes have answered.
    pub statuses: Vec<ObjectStatus>,
    /// What is wrong now, and in which file and line, by file.
    pub problems: Arc<Vec<Problem>>,
    /// Files that have been read.
    pub files: u64,
    /// How many objects there are of each kind.
    pub counts: Arc<BTreeMap<&'static str, ObjectCounts>>,
}

/// How many objects there are of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObjectCounts {
    /// They are served.
    pub accepted: u64,
    /// They are refused or have a problem.
    pub rejected: u64,
}

impl Objects {
    /// How many files have a problem.
    pub fn rejected_files(&self) -> u64 {
        self.problems.iter().map(|problem| &problem.source).collect::<BTreeSet<_>>().len() as u64
    }
}

impl Default for Observed {
    fn default() -> Observed {
        Observed { objects: watch::Sender::default(), translations: Histogram::new(TRANSLATION_BOUNDS) }
    }
}

impl Observed {
    /// How the objects stand, now and after every change.
    pub fn watch(&self) -> watch::Receiver<Arc<Objects>> {
        self.objects.subscribe()
    }

    /// How long translations took, in seconds.
    pub fn translations(&self) -> &Histogram {
        &self.translations
    }

    pub(crate) fn translated(&self, duration: Duration) {
        self.translations.observe(duration.as_secs_f64());
    }

    pub(crate) fn set(&self, objects: Objects) {
        self.objects.send_replace(Arc::new(objects));
    }
}

/// Counts the objects of a store, given what its translation says of them.
pub(crate) fn count(
    store: &Store,
    statuses: &[ObjectStatus],
    problems: &[Problem],
) -> BTreeMap<&'static str, ObjectCounts> {
    let rejected = statuses.iter().filter(|one| report::is_rejected(&one.status));
    let rejected = rejected.map(|one| &one.object);
    let named = problems.iter().filter_map(|problem| problem.object.as_ref());
    let rejected: BTreeSet<&ObjectKey> = rejected.chain(named).collect();
    let mut counts: BTreeMap<&'static str, ObjectCounts> = BTreeMap::new();
    for (key, entry) in store.objects() {
        let counts = counts.entry(key.kind.name()).or_default();
        if entry.refused().is_some() || rejected.contains(key) {
            counts.rejected += 1;
        } else {
            counts.accepted += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use weft_translate::{Identities, Translator};

    use super::*;

    #[test]
    fn objects_are_counted_by_kind_and_by_what_became_of_them() {
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
        let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n\
                     spec: {parentRefs: [{name: none}]}\n";
        let mut store = Store::default();
        store.apply("a.yaml", service);
        store.apply("b.yaml", &service.replace("name: a", "name: b").replace("80", "eighty"));
        store.apply("r.yaml", route);
        let translation = Translator::default().translate(&store, &mut Identities::default(), 0);
        let counts = count(&store, &translation.statuses, &translation.problems);
        assert_eq!(counts["Service"], ObjectCounts { accepted: 1, rejected: 1 });
        assert_eq!(counts["HTTPRoute"], ObjectCounts { accepted: 0, rejected: 1 });
    }
}
