// SPDX-License-Identifier: Apache-2.0
//! From a change of the source to a commit: scan, translate, keep the identities, publish, report.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::Notify, task::JoinError, time::sleep_until};
use weft_ir::{publish::Change, stream::Versions};
use weft_manifests::{Fault, Manifests, Scan};
use weft_runtime::supervise::chain;
use weft_translate::{Delta, Problem, Severity, Translation, Translator};

use crate::{
    dir_source::{Changed, DirWatch, WatchError},
    identity_file::{IdentityFile, IdentityFileError},
    intake::Intake,
    observed::{Objects, Observed},
    serve_ir::{IrHandle, Stopped},
    status::StatusBook,
};

/// The part of the source that has a version: there is only one.
const FILES: &str = "files";

/// How long to wait before identities that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What ends the controller.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The source cannot be read at the start, so that nobody can tell what it names.
    #[error("{0}; nothing was published")]
    Source(#[from] Fault),
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
    /// Whether a source without any object is believed.
    pub allow_empty_source: bool,
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
#[derive(Debug)]
pub struct Reconciler {
    config: ReconcilerConfig,
    handle: IrHandle,
    source: Option<Manifests>,
    watch: DirWatch,
    intake: Intake,
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

impl Reconciler {
    /// Reads the source for the first time and publishes it.
    ///
    /// # Errors
    /// When nobody can tell what a file or a document of one names, and so nothing is published.
    pub async fn start(config: ReconcilerConfig, handle: IrHandle) -> Result<Reconciler, ReconcileError> {
        // The watch comes first, so that no change falls between it and the scan.
        let watch = DirWatch::start(&config.source)?;
        let (file, identities) = IdentityFile::open(&config.identities)?;
        let book = StatusBook::new(handle.patience());
        let intake = Intake::new(&config.source, config.allow_empty_source);
        let mut reconciler = Reconciler {
            source: Some(Manifests::new([config.source.clone()])),
            translation: Translation::new(config.translator.clone(), identities),
            identities: file,
            config,
            handle,
            watch,
            intake,
            book,
            unread: Vec::new(),
            of_translation: Vec::new(),
            objects: Objects::default(),
            revision: 0,
        };
        let scan = reconciler.scan(Changed::Everything).await?;
        if let Some(fault) = scan.faults.iter().find(|fault| fault.hides) {
            return Err(fault.clone().into());
        }
        reconciler.unread = problems(&scan.faults);
        reconciler.intake.take(scan);
        if let Some(reason) = reconciler.intake.withheld() {
            let path = reconciler.config.source.display().to_string();
            return Err(ReconcileError::Empty { path, reason });
        }
        let mut problems = reconciler.intake.store().problems();
        if let Some(problem) = problems.find(|problem| problem.severity == Severity::Unrecognized) {
            return Err(ReconcileError::Unrecognized(problem.to_string()));
        }
        drop(problems);
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
                changed = self.watch.changed() => self.source_changed(changed).await?,
                () = rescan.notified() => self.source_changed(Changed::Everything).await?,
                changed = acks.changed() => {
                    changed.or(Err(Stopped))?;
                    let lines = self.book.answered(&acks.borrow_and_update().clone());
                    self.report(lines);
                }
            }
        }
    }

    async fn source_changed(&mut self, changed: Changed) -> Result<(), ReconcileError> {
        let scan = self.scan(changed).await?;
        let mut unread = problems(&scan.faults);
        let taken = self.intake.take(scan);
        unread.extend(self.intake.problems());
        let same = unread == self.unread;
        if !same {
            self.unread = unread;
            self.objects.withheld = self.intake.withheld();
            self.set_problems();
        }
        if !taken {
            if !same {
                self.report(Vec::new());
            }
            if self.objects.withheld.is_none() {
                // A file that was only touched says that what it holds is what holds now.
                self.handle.publish(Change { versions: self.versions(), ..Change::default() }).await?;
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

    async fn scan(&mut self, changed: Changed) -> Result<Scan, ReconcileError> {
        let root = &self.config.source;
        let mut source = self.source.take().unwrap_or_else(|| Manifests::new([root.clone()]));
        let (source, scan) = tokio::task::spawn_blocking(move || {
            let scan = match changed {
                Changed::Everything => source.scan(),
                Changed::Paths(paths) => source.look(&paths),
            };
            (source, scan)
        })
        .await?;
        self.objects.files = source.len() as u64;
        self.source = Some(source);
        Ok(scan)
    }

    fn translate(&mut self) -> Delta {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let started = Instant::now();
        let delta = self.translation.update(self.intake.store_mut(), now);
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
        change.versions = self.versions();
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

    /// What the source is known up to.
    fn versions(&self) -> Versions {
        Versions::of(FILES, self.source.as_ref().map_or(0, Manifests::version))
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

/// What cannot be read, as problems.
fn problems(faults: &[Fault]) -> Vec<Problem> {
    let problem = |fault: &Fault| {
        let kept = if fault.hides { "; what was read before stays" } else { "" };
        let message = format!("{}{kept}", fault.reason);
        let severity = if fault.hides { Severity::Unrecognized } else { Severity::Note };
        Problem { severity, ..Problem::unread(&fault.path.display().to_string(), fault.line, &message) }
    };
    faults.iter().map(problem).collect()
}
