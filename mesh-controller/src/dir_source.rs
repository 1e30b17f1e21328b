// SPDX-License-Identifier: Apache-2.0
//! Notices when a directory of manifests may have changed.
//!
//! Every change leads to a scan of the whole directory (`weft_manifests`), so that lost events cannot
//! leave it behind. Links are not watched: what is behind one is seen by the next regular scan.

use std::{path::Path, path::PathBuf, time::Duration};

use notify::{
    Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, sleep_until},
};

/// How long nothing must change before a scan, so that a file is not read while it is written.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long a stream of changes can put off a scan.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(2);
/// When a scan happens all the same: links may point to where no event comes from.
pub const RESCAN: Duration = Duration::from_secs(5);

/// The directory cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {path}: {hint}", hint = hint(.source))]
pub struct WatchError {
    /// The path.
    path: PathBuf,
    /// Why.
    source: notify::Error,
}

fn hint(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::PathNotFound => {
            "it does not exist: create it, or name another with --source".into()
        }
        notify::ErrorKind::MaxFilesWatch => {
            "the kernel has no watches left: raise fs.inotify.max_user_watches".into()
        }
        notify::ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    }
}

/// Tells when the directory may have changed.
#[derive(Debug)]
pub struct DirWatch {
    events: mpsc::Receiver<()>,
    /// The first and the last event since the last scan.
    dirty: Option<(Instant, Instant)>,
    rescan: Instant,
    _watcher: RecommendedWatcher,
}

impl DirWatch {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the directory does not exist, may not be read, or the kernel has no watches left.
    pub fn start(root: &Path) -> Result<DirWatch, WatchError> {
        let failed = |source| WatchError { path: root.to_owned(), source };
        // One event is as good as many: a full channel already means that something changed.
        let (sender, events) = mpsc::channel(1);
        let notice = move |event: notify::Result<notify::Event>| {
            // The scan itself opens and reads; only what may have changed something counts.
            let reading = event.is_ok_and(|event| {
                let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
                event.kind.is_access() && event.kind != closed
            });
            if !reading && let Err(TrySendError::Closed(())) = sender.try_send(()) {
                tracing::debug!("nobody watches the source any more");
            }
        };
        // Links in a circle would be watched over and over.
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(notice, config).map_err(failed)?;
        watcher.watch(root, RecursiveMode::Recursive).map_err(failed)?;
        Ok(DirWatch { events, dirty: None, rescan: Instant::now() + RESCAN, _watcher: watcher })
    }

    /// Waits until the directory may have changed and is quiet again. Cancel safe.
    pub async fn changed(&mut self) {
        loop {
            let scan = match self.dirty {
                Some((first, last)) => (first + LONGEST_DEBOUNCE).min(last + DEBOUNCE),
                None => self.rescan,
            };
            tokio::select! {
                Some(()) = self.events.recv() => {
                    let now = Instant::now();
                    self.dirty = Some((self.dirty.map_or(now, |(first, _)| first), now));
                }
                () = sleep_until(scan) => {
                    self.dirty = None;
                    self.rescan = Instant::now() + RESCAN;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_change_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::start(directory.path()).unwrap();
        fs::write(directory.path().join("a.yaml"), "a").unwrap();
        timeout(RESCAN / 2, watch.changed()).await.expect("an event, not the rescan");
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_again_and_again_loses_no_event() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::start(directory.path()).unwrap();
        fs::write(directory.path().join("a.yaml"), "a").unwrap();
        let noticed = async { while timeout(DEBOUNCE / 10, watch.changed()).await.is_err() {} };
        timeout(RESCAN / 2, noticed).await.expect("as when acknowledgements come all the time");
    }

    #[tokio::test]
    async fn links_in_a_circle_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        // Followed, these are two to the power of twenty directories.
        for depth in 0..20 {
            let (here, next) = (directory.path().join(depth.to_string()), format!("../{}", depth + 1));
            fs::create_dir(&here).unwrap();
            symlink(&next, here.join("a")).unwrap();
            symlink(&next, here.join("b")).unwrap();
        }
        let mut watch = DirWatch::start(directory.path()).unwrap();
        fs::write(directory.path().join("a.yaml"), "a").unwrap();
        timeout(RESCAN / 2, watch.changed()).await.expect("an event, not the rescan");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named_with_what_to_do() {
        let error = DirWatch::start(Path::new("/nowhere/at-all")).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot watch /nowhere/at-all: it does not exist: create it, or name another with --source"
        );
    }
}
