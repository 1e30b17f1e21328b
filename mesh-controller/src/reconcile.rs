// SPDX-License-Identifier: Apache-2.0
//! From a change of the source to a commit: scan, translate, keep the identities, publish, report.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::task::JoinError;
use weft_translate::{Identities, Store, Translation, Translator};

use crate::{
    dir_source::{DirSource, DirWatch, Scan, SourceError},
    identity_file::{self, IdentityFileError},
    serve_ir::{IrHandle, Stopped},
    status::StatusBook,
};

/// How long to wait before identities that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What ends the controller.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The source cannot be read at the start, so that nobody can tell what it names.
    #[error("the source cannot be read, and so nothing was published")]
    Source(#[from] SourceError),
    /// A file is not YAML at the start.
    #[error("{0}; nothing was published")]
    NotYaml(String),
    /// The identities cannot be read, or not be written at the start.
    #[error(transparent)]
    Identities(#[from] IdentityFileError),
    /// The server of the nodes has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The scan ended early.
    #[error("the scan of the source ended early")]
    Scan(#[from] JoinError),
}

/// What the reconciler works with.
#[derive(Debug)]
pub struct ReconcilerConfig {
    /// The directory of manifests.
    pub source: PathBuf,
    /// The file of the identity numbers.
    pub identities: PathBuf,
    /// The settings of the translation.
    pub translator: Translator,
    /// Whether changed statuses are printed on standard output.
    pub print_status: bool,
}

/// Keeps the published state equal to the source.
#[derive(Debug)]
pub struct Reconciler {
    config: ReconcilerConfig,
    handle: IrHandle,
    source: Option<DirSource>,
    watch: DirWatch,
    store: Store,
    identities: Identities,
    saved: Identities,
    book: StatusBook,
    revision: u64,
}

impl Reconciler {
    /// Reads the source for the first time and publishes it.
    ///
    /// # Errors
    /// When a file cannot be read or is not YAML: what it names is not known, and so nothing is published.
    pub async fn start(config: ReconcilerConfig, handle: IrHandle) -> Result<Reconciler, ReconcileError> {
        // The watch comes first, so that no change falls between it and the scan.
        let watch = DirWatch::start(&config.source)?;
        let identities = identity_file::load(&config.identities)?;
        let mut reconciler = Reconciler {
            source: Some(DirSource::new(config.source.clone())),
            config,
            handle,
            watch,
            store: Store::default(),
            saved: identities.clone(),
            identities,
            book: StatusBook::default(),
            revision: 0,
        };
        let scan = reconciler.scan().await?;
        if let Some(error) = scan.errors.into_iter().next() {
            return Err(error.into());
        }
        reconciler.apply(scan.changed, scan.removed);
        if let Some(problem) = reconciler.store.problems().iter().find(|problem| problem.unreadable) {
            return Err(ReconcileError::NotYaml(problem.to_string()));
        }
        let translation = reconciler.translate();
        reconciler.save()?;
        reconciler.publish(translation).await?;
        Ok(reconciler)
    }

    /// The revision that was published last.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Follows the source and the nodes until the server stops.
    ///
    /// # Errors
    /// When the server has stopped.
    pub async fn run(mut self) -> Result<(), ReconcileError> {
        let mut acks = self.handle.watch_acks();
        loop {
            tokio::select! {
                () = self.watch.changed() => self.source_changed().await?,
                changed = acks.changed() => {
                    changed.or(Err(Stopped))?;
                    self.report();
                }
            }
        }
    }

    async fn source_changed(&mut self) -> Result<(), ReconcileError> {
        let scan = self.scan().await?;
        for error in &scan.errors {
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, reason, "keeping what was read before");
        }
        if scan.is_empty() {
            return Ok(());
        }
        self.apply(scan.changed, scan.removed);
        let translation = self.translate();
        while let Err(error) = self.save() {
            tracing::error!(%error, "cannot keep the identities, and so publishing nothing new");
            tokio::time::sleep(RETRY).await;
        }
        self.publish(translation).await
    }

    async fn scan(&mut self) -> Result<Scan, ReconcileError> {
        let root = &self.config.source;
        let mut source = self.source.take().unwrap_or_else(|| DirSource::new(root.clone()));
        let (source, scan) = tokio::task::spawn_blocking(move || {
            let scan = source.scan();
            (source, scan)
        })
        .await?;
        self.source = Some(source);
        Ok(scan)
    }

    fn apply(&mut self, changed: Vec<(String, String)>, removed: Vec<String>) {
        let changed = changed.iter().map(|(name, text)| (&**name, &**text));
        self.store.apply_all(changed, removed.iter().map(String::as_str));
    }

    fn translate(&mut self) -> Translation {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let started = Instant::now();
        let translation = self.config.translator.translate(&self.store, &mut self.identities, now);
        let duration_ms = started.elapsed().as_millis();
        tracing::debug!(resources = translation.resources.len(), %duration_ms, "translated");
        translation
    }

    /// Keeps the identities before any node hears of them.
    fn save(&mut self) -> Result<(), IdentityFileError> {
        if self.identities != self.saved {
            identity_file::save(&self.config.identities, &self.identities)?;
            self.saved = self.identities.clone();
        }
        Ok(())
    }

    async fn publish(&mut self, translation: Translation) -> Result<(), ReconcileError> {
        for problem in self.book.new_problems(translation.problems) {
            tracing::warn!("{problem}");
        }
        let resources = translation.resources.len();
        let revision = self.handle.publish(translation.resources).await?;
        if revision != self.revision {
            tracing::info!(revision, resources, "published");
        }
        self.revision = revision;
        self.book.translated(translation.statuses, revision);
        self.report();
        Ok(())
    }

    #[allow(clippy::print_stdout, reason = "statuses are what the user asked to see")]
    fn report(&mut self) {
        let nodes = self.handle.watch_acks().borrow().clone();
        for line in self.book.news(&nodes) {
            if self.config.print_status {
                println!("{line}");
            } else {
                tracing::debug!("{line}");
            }
        }
    }
}
