// SPDX-License-Identifier: Apache-2.0
//! Where objects come from: a directory of manifests, or the API server of a cluster.

use std::path::PathBuf;

use kube::Client;
use tokio::task::JoinError;
use weft_ir::stream::Versions;
use weft_manifests::Fault;
use weft_runtime::supervise::CriticalEnd;
use weft_translate::{Problem, Store};

use crate::{
    dir_source::{Changed, WatchError},
    kube_source::KubeSource,
    observed::Observed,
};

mod directory;

use directory::Directory;

/// Where objects come from.
#[derive(Clone)]
pub enum SourceConfig {
    /// The manifests below a directory.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whether it is believed when it has no object.
        allow_empty: bool,
    },
    /// The API server that this client reaches.
    Kubernetes(Client),
}

/// Why nothing can be read of a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source cannot be read at the start, so that nobody can tell what it names.
    #[error("{0}; nothing was published")]
    Unread(#[from] Fault),
    /// The source cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The source has no object at the start.
    #[error("{path}: {reason}; nothing was published")]
    Empty {
        /// The directory.
        path: String,
        /// What to do.
        reason: &'static str,
    },
    /// Nobody can tell what a document names at the start.
    #[error("{0}; nothing was published")]
    Unrecognized(String),
    /// The scan ended early.
    #[error("the scan of the source ended early")]
    Scan(#[from] JoinError),
    /// What reads from the API server has ended.
    #[error(transparent)]
    Ended(#[from] CriticalEnd),
}

/// What may have changed.
#[derive(Debug)]
pub(crate) enum Noticed {
    /// Some files, or any.
    Files(Changed),
    /// What the API server told.
    Objects,
}

/// A source that is being read.
pub(crate) enum Source {
    Directory(Box<Directory>),
    Kubernetes(Box<KubeSource>),
}

impl Source {
    /// Begins to read; statuses that are observed go back to an API server. A directory is read as a whole before this returns; what the API server has comes later.
    ///
    /// # Errors
    /// When a directory cannot be read, or nobody can tell what some of it names.
    pub(crate) async fn open(config: &SourceConfig, observed: &Observed) -> Result<Source, SourceError> {
        Ok(match config {
            SourceConfig::Directory { path, allow_empty } => {
                Source::Directory(Box::new(Directory::open(path, *allow_empty).await?))
            }
            SourceConfig::Kubernetes(client) => {
                Source::Kubernetes(Box::new(KubeSource::start(client, observed)))
            }
        })
    }

    /// Whether everything was read once, so that what is not there does not exist.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Source::Directory(_) => true,
            Source::Kubernetes(source) => source.is_whole(),
        }
    }

    /// Waits until something may have changed. Cancel safe.
    ///
    /// # Errors
    /// When nothing reads the source any more.
    pub(crate) async fn changed(&mut self) -> Result<Noticed, SourceError> {
        Ok(match self {
            Source::Directory(source) => Noticed::Files(source.changed().await),
            Source::Kubernetes(source) => {
                source.changed().await?;
                Noticed::Objects
            }
        })
    }

    /// Takes what may have changed into the store, and tells whether the objects may be others now.
    ///
    /// # Errors
    /// When the disk cannot be asked.
    pub(crate) async fn take(&mut self, noticed: Noticed) -> Result<bool, SourceError> {
        match (self, noticed) {
            (Source::Directory(source), Noticed::Files(changed)) => source.take(changed).await,
            (Source::Directory(_), Noticed::Objects) => Ok(false),
            (Source::Kubernetes(source), _) => Ok(source.take()),
        }
    }

    /// What cannot be read, or is held back.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        match self {
            Source::Directory(source) => source.problems(),
            Source::Kubernetes(source) => source.problems(),
        }
    }

    /// Why nothing of the source is taken in.
    pub(crate) fn withheld(&self) -> Option<&'static str> {
        match self {
            Source::Directory(source) => source.withheld(),
            Source::Kubernetes(_) => None,
        }
    }

    /// How many files or objects were read.
    pub(crate) fn len(&self) -> usize {
        match self {
            Source::Directory(source) => source.len(),
            Source::Kubernetes(source) => source.len(),
        }
    }

    /// What the source is known up to.
    pub(crate) fn versions(&self) -> Versions {
        match self {
            Source::Directory(source) => source.versions(),
            Source::Kubernetes(source) => source.versions(),
        }
    }

    /// The objects, for the translation, which takes what changed.
    pub(crate) fn store_mut(&mut self) -> &mut Store {
        match self {
            Source::Directory(source) => source.store_mut(),
            Source::Kubernetes(source) => source.store_mut(),
        }
    }
}
