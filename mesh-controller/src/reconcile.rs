// SPDX-License-Identifier: Apache-2.0
//! From a change of the source to a commit: scan, translate, keep the identities, publish, report.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::Notify, time::sleep_until};
use weft_ir::publish::Change;
use weft_runtime::supervise::chain;
use weft_translate::{Delta, Problem, Translation, Translator};

use crate::{
    dir_source::Changed,
    identity_file::{IdentityFile, IdentityFileError},
    observed::{Objects, Observed},
    serve_ir::{IrHandle, Stopped},
    source::{Noticed, Source, SourceConfig, SourceError},
    status::StatusBook,
};

/// How long to wait before identities that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What ends the controller.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The source cannot be read at the start, or nothing reads it any more.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The identities cannot be read, or not be written at the start.
    #[error(transparent)]
    Identities(#[from] IdentityFileError),
    /// The server of the nodes has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What the reconciler works with.
pub struct ReconcilerConfig {
    /// Where objects come from.
    pub source: SourceConfig,
    /// The file of the identity numbers.
    pub identities: PathBuf,
    /// The settings of the translation.
    pub translator: Translator,
    /// Whether changed statuses and problems are printed on standard output.
    pub print_status: bool,
    /// Where others see how the objects stand.
    pub observed: Observed,
    /// Makes it look at the source at once.
    pub rescan: Arc<Notify>,
}

/// Keeps the published state equal to the source.
pub struct Reconciler {
    config: ReconcilerConfig,
    handle: IrHandle,
    source: Source,
    translation: Translation,
    identities: IdentityFile,
    book: StatusBook,
    /// What could not be read, or not well, at the last scan.
    unread: Vec<Problem>,
    /// What was wrong in the last translation.
    of_translation: Vec<Problem>,
    /// What stands, as far as the nodes have no part in it.
    objects: Objects,
    revision: u64,
}

impl fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Reconciler {
    /// Reads the source for the first time and publishes it. Of an API server it waits for everything, however long
    /// that takes: what it waits for is said as a problem.
    ///
    /// # Errors
    /// When nobody can tell what a file or a document of one names, and so nothing is published.
    pub async fn start(config: ReconcilerConfig, handle: IrHandle) -> Result<Reconciler, ReconcileError> {
        let source = Source::open(&config.source, &config.observed).await?;
        let (file, identities) = IdentityFile::open(&config.identities)?;
        let book = StatusBook::new(handle.patience());
        let mut reconciler = Reconciler {
            source,
            translation: Translation::new(config.translator.clone(), identities),
            identities: file,
            config,
            handle,
            book,
            unread: Vec::new(),
            of_translation: Vec::new(),
            objects: Objects::default(),
            revision: 0,
        };
        while !reconciler.source.is_whole() {
            let noticed = reconciler.source.changed().await?;
            reconciler.source.take(noticed).await?;
            if reconciler.unread_changed() {
                reconciler.report(Vec::new());
            }
        }
        reconciler.unread_changed();
        let mut delta = reconciler.translate();
        reconciler.save(&mut delta)?;
        reconciler.publish(delta).await?;
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
        let rescan = self.config.rescan.clone();
        loop {
            let due = self.book.due();
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                    let lines = self.book.answered(&acks.borrow().clone());
                    self.report(lines);
                }
                noticed = self.source.changed() => self.source_changed(noticed?).await?,
                () = rescan.notified() => self.source_changed(Noticed::Files(Changed::Everything)).await?,
                changed = acks.changed() => {
                    changed.or(Err(Stopped))?;
                    let lines = self.book.answered(&acks.borrow_and_update().clone());
                    self.report(lines);
                }
            }
        }
    }

    async fn source_changed(&mut self, noticed: Noticed) -> Result<(), ReconcileError> {
        let taken = self.source.take(noticed).await?;
        let same = !self.unread_changed();
        if !taken {
            if !same {
                self.report(Vec::new());
            }
            if self.objects.withheld.is_none() {
                // A file that was only touched says that what it holds is what holds now.
                self.handle.publish(Change { versions: self.source.versions(), ..Change::default() }).await?;
            }
            return Ok(());
        }
        let mut delta = self.translate();
        while let Err(error) = self.save(&mut delta) {
            let error = chain(&error);
            tracing::error!(error, "cannot keep the identities, and so publishing nothing new");
            let line = format!("nothing new is published, since the identities cannot be kept: {error}");
            self.objects.disk = Arc::new(vec![line]);
            self.config.observed.set(self.objects.clone());
            tokio::time::sleep(RETRY).await;
        }
        self.publish(delta).await
    }

    /// Takes what the source says about itself, and tells whether that is other than before.
    fn unread_changed(&mut self) -> bool {
        self.objects.files = self.source.len() as u64;
        let unread = self.source.problems();
        if unread == self.unread {
            return false;
        }
        self.unread = unread;
        self.objects.withheld = self.source.withheld();
        self.set_problems();
        true
    }

    fn translate(&mut self) -> Delta {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let started = Instant::now();
        let delta = self.translation.update(self.source.store_mut(), now);
        let duration = started.elapsed();
        self.config.observed.translated(duration);
        tracing::debug!(objects = delta.translated, ?duration, "translated");
        delta
    }

    /// Keeps what happened to the identities before any node hears of them.
    fn save(&mut self, delta: &mut Delta) -> Result<(), IdentityFileError> {
        self.identities.append(&delta.identities, self.translation.identities())?;
        delta.identities = Vec::new();
        self.objects.identities_rewritten = self.identities.rewritten();
        let rewritten = (self.identities.rewritten() > 0).then(|| {
            let path = self.config.identities.display();
            format!("{path} was removed while the controller ran, and is written again: who has removed it?")
        });
        self.objects.disk = Arc::new(rewritten.into_iter().collect());
        Ok(())
    }

    async fn publish(&mut self, mut delta: Delta) -> Result<(), ReconcileError> {
        let mut change = std::mem::take(&mut delta.change);
        change.versions = self.source.versions();
        self.book.nodes_changed(&change);
        let (changed, gone) = (change.upserts.len(), change.removes.len());
        let revision = self.handle.publish(change).await?;
        if revision != self.revision {
            tracing::info!(revision, changed, gone, "published");
        }
        self.revision = revision;
        self.objects.revision = revision;
        self.objects.counts = Arc::new(self.translation.counts());
        let nodes = self.handle.watch_acks().borrow().clone();
        let lines = self.book.translated(&delta, revision, &nodes);
        if let Some(of_translation) = delta.problems {
            self.of_translation = of_translation;
            self.set_problems();
        }
        self.report(lines);
        Ok(())
    }

    /// All problems: those of the files, and those of the last translation.
    fn set_problems(&mut self) {
        let mut problems = self.unread.clone();
        problems.extend(self.of_translation.iter().cloned());
        problems.sort();
        self.objects.problems = Arc::new(problems);
    }

    /// Says what is new: to whoever reads the output, and to whoever asks.
    #[allow(clippy::print_stdout, reason = "statuses are what the user asked to see")]
    fn report(&mut self, statuses: Vec<String>) {
        let problems = self.book.problem_news(&self.objects.problems);
        for problem in &problems.new {
            tracing::warn!("{problem}");
        }
        for problem in &problems.gone {
            tracing::info!("no longer: {problem}");
        }
        for line in statuses.into_iter().chain(problems.lines()) {
            if self.config.print_status {
                println!("{line}");
            } else {
                tracing::debug!("{line}");
            }
        }
        self.objects.statuses = self.book.statuses().clone();
        self.config.observed.set(self.objects.clone());
    }
}
