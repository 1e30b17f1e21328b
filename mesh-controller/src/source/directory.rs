// SPDX-License-Identifier: Apache-2.0
//! The manifests below a directory, as a source.

use std::path::{Path, PathBuf};

use weft_ir::stream::Versions;
use weft_manifests::{Fault, Manifests, Scan};
use weft_translate::{Problem, Severity, Store};

use super::SourceError;
use crate::{
    dir_source::{Changed, DirWatch},
    intake::Intake,
};

/// The part of the source that has a version: there is only one.
const FILES: &str = "files";

/// Keeps a store equal to a directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Nothing while a scan has them.
    manifests: Option<Manifests>,
    watch: DirWatch,
    intake: Intake,
    /// What could not be read, or not well, at the last scan.
    unread: Vec<Problem>,
}

impl Directory {
    /// Reads everything for the first time.
    pub(super) async fn open(path: &Path, allow_empty: bool) -> Result<Directory, SourceError> {
        let mut directory = Directory {
            path: path.to_owned(),
            manifests: None,
            // The watch comes first, so that no change falls between it and the scan.
            watch: DirWatch::start(path)?,
            intake: Intake::new(path, allow_empty),
            unread: Vec::new(),
        };
        let scan = directory.scan(Changed::Everything).await?;
        if let Some(fault) = scan.faults.iter().find(|fault| fault.hides) {
            return Err(fault.clone().into());
        }
        directory.unread = problems(&scan.faults);
        directory.intake.take(scan);
        if let Some(reason) = directory.intake.withheld() {
            return Err(SourceError::Empty { path: path.display().to_string(), reason });
        }
        let mut problems = directory.intake.store().problems();
        if let Some(problem) = problems.find(|problem| problem.severity == Severity::Unrecognized) {
            return Err(SourceError::Unrecognized(problem.to_string()));
        }
        drop(problems);
        Ok(directory)
    }

    /// Waits until the directory may have changed. Cancel safe.
    pub(super) async fn changed(&mut self) -> Changed {
        self.watch.changed().await
    }

    /// Takes what may have changed into the store, and tells whether the objects may be others now.
    pub(super) async fn take(&mut self, changed: Changed) -> Result<bool, SourceError> {
        let scan = self.scan(changed).await?;
        self.unread = problems(&scan.faults);
        let taken = self.intake.take(scan);
        self.unread.extend(self.intake.problems());
        Ok(taken)
    }

    async fn scan(&mut self, changed: Changed) -> Result<Scan, SourceError> {
        let root = &self.path;
        let mut manifests = self.manifests.take().unwrap_or_else(|| Manifests::new([root.clone()]));
        let (manifests, scan) = tokio::task::spawn_blocking(move || {
            let scan = match changed {
                Changed::Everything => manifests.scan(),
                Changed::Paths(paths) => manifests.look(&paths),
            };
            (manifests, scan)
        })
        .await?;
        self.manifests = Some(manifests);
        Ok(scan)
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        self.unread.clone()
    }

    pub(super) fn withheld(&self) -> Option<&'static str> {
        self.intake.withheld()
    }

    pub(super) fn len(&self) -> usize {
        self.manifests.as_ref().map_or(0, Manifests::len)
    }

    pub(super) fn versions(&self) -> Versions {
        Versions::of(FILES, self.manifests.as_ref().map_or(0, Manifests::version))
    }

    pub(super) fn store_mut(&mut self) -> &mut Store {
        self.intake.store_mut()
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
