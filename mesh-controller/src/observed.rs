// SPDX-License-Identifier: Apache-2.0
//! How the objects stand, for those who ask: the admin endpoint and the metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use imbl::OrdMap;
use prometheus_client::metrics::histogram::Histogram;
use serde::{Serialize, Serializer};
use tokio::sync::watch;
use weft_api::{object::ObjectKey, status::Status};
use weft_translate::{ObjectCounts, ObjectStatus, Problem};

/// Upper bounds of the time of a translation, in seconds.
const TRANSLATION_BOUNDS: [f64; 10] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.1, 1.0, 5.0];

/// How the objects stand. A clone shows the same.
#[derive(Clone, Debug)]
pub struct Observed {
    objects: watch::Sender<Arc<Objects>>,
    translations: Histogram,
}

/// How the objects stand at one revision. A clone shares everything with the original.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Objects {
    /// The revision; 0 before the first.
    pub revision: u64,
    /// The status of every object that has one, with what the nodes have answered.
    #[serde(serialize_with = "as_list")]
    pub statuses: OrdMap<ObjectKey, Arc<Status>>,
    /// What is wrong now, and in which file and line, by file.
    pub problems: Arc<Vec<Problem>>,
    /// Why nothing of the source is taken in, where it has no object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<&'static str>,
    /// What is wrong with the controller's own files, one line each.
    pub disk: Arc<Vec<String>>,
    /// How often the file of the identities was written again, because somebody had removed it.
    pub identities_rewritten: u64,
    /// Files that have been read.
    pub files: u64,
    /// How many objects there are of each kind.
    pub counts: Arc<BTreeMap<&'static str, ObjectCounts>>,
}

fn as_list<S: Serializer>(
    statuses: &OrdMap<ObjectKey, Arc<Status>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let status = |(object, status): (&ObjectKey, &Arc<Status>)| ObjectStatus {
        object: object.clone(),
        status: status.clone(),
    };
    serializer.collect_seq(statuses.iter().map(status))
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
    pub(crate) fn translations(&self) -> &Histogram {
        &self.translations
    }

    pub(crate) fn translated(&self, duration: Duration) {
        self.translations.observe(duration.as_secs_f64());
    }

    pub(crate) fn set(&self, objects: Objects) {
        self.objects.send_replace(Arc::new(objects));
    }
}
