// SPDX-License-Identifier: Apache-2.0
//! The last good state on disk.

use std::{
    convert::Infallible,
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, oneshot, watch},
    task::spawn_blocking,
    time::timeout,
};
use weft_ir::{
    persist::{self, Restored},
    subscribe::Commit,
};
use weft_runtime::{state_dir::StateDirectory, supervise::chain};

use super::{CREDENTIAL, LinkStatus};

/// The file of the state.
const STATE: &str = "state.ir";

/// How often the state is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// A write costs the whole state, so there is at most one in this time; the newest state wins.
    pause: Duration,
    /// And a write takes at most one part in this many of the time, however large the state is.
    share: u32,
    /// What could not be written is tried again after this time, also if nothing newer comes.
    retry: Duration,
}

/// How often weft-node writes its state.
pub(super) const PACE: Pace =
    Pace { pause: Duration::from_secs(2), share: 50, retry: Duration::from_secs(10) };

/// Where the state of a node is.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(STATE)
}

/// Reads the saved state, if there is one of this node that can be used.
pub(super) fn read(path: &Path, node: &str) -> Option<Restored> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read the saved state");
            return None;
        }
    };
    let restored = persist::decode(&bytes)
        .inspect_err(
            |error| tracing::error!(path = %path.display(), %error, "starting without the saved state"),
        )
        .ok()?;
    if &*restored.node != node {
        let (path, of) = (path.display(), &restored.node);
        tracing::error!(%path, %of, node, "starting without the saved state, which is another node's");
        return None;
    }
    Some(restored)
}

/// Keeps the last applied state on disk.
pub(super) struct Saver {
    pub(super) directory: Arc<StateDirectory>,
    pub(super) node: Arc<str>,
    pub(super) states: watch::Receiver<Option<Commit>>,
    /// Where it says what is wrong.
    pub(super) status: watch::Sender<LinkStatus>,
    /// Told when somebody has removed the files of the node.
    pub(super) lost: Arc<Notify>,
    /// [`PACE`], faster in tests.
    pub(super) pace: Pace,
}

impl Saver {
    /// Writes each state that comes, until its sender is gone and the last one is written; says so then.
    pub(super) async fn keep(mut self, done: oneshot::Sender<()>) -> Result<(), Infallible> {
        let mut unsaved = false;
        loop {
            let next = if unsaved {
                timeout(self.pace.retry, self.states.changed()).await.unwrap_or(Ok(()))
            } else {
                self.states.changed().await
            };
            let begun = Instant::now();
            let state = self.states.borrow_and_update().clone();
            if let Some(state) = state.filter(|_| next.is_ok() || unsaved) {
                unsaved = !self.save(state).await;
            }
            if next.is_err() {
                // Nobody may wait for it.
                done.send(()).unwrap_or_default();
                return Ok(());
            }
            let pause = self.pace.pause.max(begun.elapsed() * self.pace.share);
            // Ends early when the sender goes; what came meanwhile is seen by the next turn.
            let gone = async {
                while self.states.has_changed().is_ok() {
                    tokio::time::sleep(self.pace.pause / 20).await
                }
            };
            drop(timeout(pause, gone).await);
        }
    }

    /// Writes a state; false where that failed, which is told.
    async fn save(&self, state: Commit) -> bool {
        let (directory, node) = (self.directory.clone(), self.node.clone());
        let written = spawn_blocking(move || {
            let is_new = directory.restore().map_err(|error| chain(&error))?;
            let target = path(directory.path());
            write(&target, &persist::encode(&node, &state))
                .map_err(|error| format!("cannot write {}: {error}", target.display()))?;
            Ok(is_new || !directory.path().join(CREDENTIAL).exists())
        });
        let written: Result<bool, String> = written.await.unwrap_or_else(|error| Err(error.to_string()));
        let path = self.directory.path().display();
        let problem = match &written {
            Ok(_) => None,
            Err(error) => Some(Arc::from(format!(
                "the last state is not saved, and a restart begins with an older one: {error}"
            ))),
        };
        match &written {
            Ok(true) => {
                tracing::error!(%path, "somebody has removed the files of the node: they are written again");
                self.lost.notify_one();
            }
            Ok(false) => tracing::debug!(%path, "state saved"),
            Err(error) => tracing::error!(error, "cannot save the state"),
        }
        let lost = u64::from(written == Ok(true));
        self.status.send_if_modified(|link| {
            let changed = link.unsaved != problem || lost > 0;
            link.unsaved = problem;
            link.lost += lost;
            changed
        });
        written.is_ok()
    }
}

/// Writes a file with mode 0600 that is there whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    // Half a file takes room where there is none.
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use weft_ir::{
        Snapshot,
        stream::{Position, Versions},
    };
    use weft_runtime::state_dir::StateDirectory;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn commit(revision: u64) -> Commit {
        Commit {
            position: Position { epoch: 1, revision },
            versions: Versions::default(),
            snapshot: Snapshot { epoch: 1, revision, ..Snapshot::default() },
            changed: Vec::new(),
            removed: Vec::new(),
            rejected: Default::default(),
        }
    }

    struct Home {
        home: tempfile::TempDir,
        states: watch::Sender<Option<Commit>>,
        status: watch::Receiver<LinkStatus>,
        lost: Arc<Notify>,
        done: oneshot::Receiver<()>,
        saver: tokio::task::JoinHandle<Result<(), Infallible>>,
    }

    impl Home {
        async fn start() -> Home {
            let home = tempfile::tempdir().unwrap();
            let directory = StateDirectory::take(&home.path().join("state"), DEADLINE).await.unwrap();
            let (states, to_save) = watch::channel(None);
            let link = LinkStatus { since: SystemTime::now(), ..LinkStatus::default() };
            let (status, link) = watch::channel(link);
            let (done, saved) = oneshot::channel();
            let lost = Arc::new(Notify::new());
            let saver = Saver {
                directory: Arc::new(directory),
                node: "a".into(),
                states: to_save,
                status,
                lost: lost.clone(),
                // A slow disk makes no long pauses here.
                pace: Pace { pause: Duration::from_millis(20), share: 0, retry: Duration::from_millis(100) },
            };
            fs::write(home.path().join("state").join(CREDENTIAL), "key").unwrap();
            let saver = tokio::spawn(saver.keep(done));
            Home { home, states, status: link, lost, done: saved, saver }
        }

        fn path(&self) -> PathBuf {
            path(&self.home.path().join("state"))
        }

        fn saved(&self) -> Option<u64> {
            read(&self.path(), "a").map(|restored| restored.commit.position.revision)
        }

        async fn says(&mut self, like: impl FnMut(&LinkStatus) -> bool) {
            timeout(DEADLINE, self.status.wait_for(like)).await.expect("in time").unwrap();
        }

        async fn end(self) -> Option<u64> {
            drop(self.states);
            timeout(DEADLINE, self.done).await.expect("in time").unwrap();
            self.saver.await.unwrap().unwrap();
            read(&path(&self.home.path().join("state")), "a")
                .map(|restored| restored.commit.position.revision)
        }
    }

    #[test]
    fn a_damaged_state_and_one_of_another_node_are_left_behind() {
        let home = tempfile::tempdir().unwrap();
        let path = path(home.path());
        assert_eq!(read(&path, "a"), None);
        write(&path, b"nonsense").unwrap();
        assert_eq!(read(&path, "a"), None);
        write(&path, &persist::encode(&"a".into(), &commit(1))).unwrap();
        assert!(read(&path, "a").is_some());
        assert_eq!(read(&path, "b"), None);
    }

    #[tokio::test]
    async fn a_directory_that_is_removed_while_it_runs_is_made_again_and_told() {
        let mut home = Home::start().await;
        home.states.send_replace(Some(commit(1)));
        assert_eq!(home.saved_soon(1).await, Some(1));
        fs::remove_dir_all(home.home.path().join("state")).unwrap();
        home.states.send_replace(Some(commit(2)));
        home.says(|link| link.lost == 1).await;
        timeout(DEADLINE, home.lost.notified()).await.expect("whoever has the credential is told");
        assert_eq!(home.end().await, Some(2));
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_told_and_tried_again() {
        let mut home = Home::start().await;
        // A directory in the place of the file: neither root nor anybody else can write there.
        fs::create_dir(home.path()).unwrap();
        home.states.send_replace(Some(commit(1)));
        home.says(|link| link.unsaved.as_ref().is_some_and(|why| why.contains("state.ir"))).await;
        assert!(!home.path().with_extension("new").exists(), "nothing is left half");
        fs::remove_dir(home.path()).unwrap();
        home.says(|link| link.unsaved.is_none()).await;
        assert_eq!(home.saved(), Some(1), "although nothing newer came");
        assert_eq!(home.end().await, Some(1));
    }

    impl Home {
        async fn saved_soon(&self, revision: u64) -> Option<u64> {
            let looking = async {
                while self.saved() != Some(revision) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(DEADLINE, looking).await.expect("in time");
            self.saved()
        }
    }
}
