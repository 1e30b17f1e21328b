// SPDX-License-Identifier: Apache-2.0
//! The directory of what a daemon must not lose. One process at a time has it.
//!
//! The lock is on the directory itself, so that it needs no room on a full disk, and the kernel gives it back
//! however the process ends. The file `pid` only says whom to look for.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::time::{Instant, sleep};

/// Who has it: a process number, and [`ENDING`] once it is told to end.
const PID: &str = "pid";
const ENDING: &str = "ending";

/// How long a process may have the directory that was not told to end: whoever restarts it may be about to.
const GRACE: Duration = Duration::from_secs(3);

/// How often it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Why the directory cannot be used.
#[derive(Debug, Error)]
pub enum StateDirectoryError {
    /// It cannot be made or locked.
    #[error("cannot use the state directory {}: make it writable, or name another with --state-dir", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it, and two would fight for one name.
    #[error(
        "the state directory {} is used by {holder}: stop that, or give this one its own with --state-dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
}

/// Who has a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process number, as it sees itself; nothing where it could not say.
    pub pid: Option<u32>,
    /// It was told to end.
    pub ending: bool,
}

/// A directory that no other process has as long as this lives.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    held: Mutex<File>,
}

impl StateDirectory {
    /// Makes the directory where it is not there, and takes it. Waits as long as `patience` for a process that
    /// was told to end, and a moment for any other.
    ///
    /// # Errors
    /// When it cannot be made, or another process keeps it.
    pub async fn take(path: &Path, patience: Duration) -> Result<StateDirectory, StateDirectoryError> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            let error = match open(path) {
                Ok(held) => return Ok(StateDirectory { path: path.to_owned(), held: Mutex::new(held) }),
                Err(error) => error,
            };
            let StateDirectoryError::InUse { holder, .. } = &error else { return Err(error) };
            let limit = if holder.ending { patience } else { GRACE.min(patience) };
            if begun.elapsed() >= limit {
                return Err(error);
            }
            if !told {
                tracing::info!(path = %path.display(), %holder, "waiting for the state directory");
                told = true;
            }
            sleep(PAUSE).await;
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it to whoever takes it next, before this process has ended. Nothing may be written in it from here on.
    ///
    /// # Errors
    /// When the lock cannot be given back; it is when the process ends.
    pub fn release(&self) -> io::Result<()> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).unlock()
    }

    /// Tells who waits for it that this process is about to end.
    pub fn ending(&self) {
        write_pid(&self.path, true);
    }

    /// Makes it again where somebody has removed it, or put another in its place; true where that was so.
    ///
    /// # Errors
    /// When it cannot be made, or another process has taken it.
    pub fn restore(&self) -> Result<bool, StateDirectoryError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if is_at(&held, &self.path) {
            return Ok(false);
        }
        *held = open(&self.path)?;
        Ok(true)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "the process with pid {pid}")?,
            None => f.write_str("another process")?,
        }
        f.write_str(if self.ending { ", which does not end" } else { "" })
    }
}

fn open(path: &Path) -> Result<File, StateDirectoryError> {
    let failed = |source| StateDirectoryError::Io { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let directory = File::open(path).map_err(failed)?;
    match directory.try_lock() {
        Ok(()) if is_at(&directory, path) => {
            write_pid(path, false);
            Ok(directory)
        }
        Ok(()) => Err(failed(io::Error::other("it was replaced at this moment"))),
        Err(TryLockError::WouldBlock) => {
            Err(StateDirectoryError::InUse { path: path.to_owned(), holder: holder(path) })
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn is_at(directory: &File, path: &Path) -> bool {
    match (directory.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn holder(path: &Path) -> Holder {
    let text = fs::read_to_string(path.join(PID)).unwrap_or_default();
    let (pid, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    Holder { pid: pid.parse().ok(), ending: rest == ENDING }
}

/// What it says helps people only: a disk that is full or read-only keeps nobody from starting.
fn write_pid(path: &Path, ending: bool) {
    let word = if ending { format!(" {ENDING}") } else { String::new() };
    if let Err(error) = fs::write(path.join(PID), format!("{}{word}\n", std::process::id())) {
        tracing::warn!(path = %path.display(), %error, "cannot say in `pid` who has the state directory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_second_process_is_told_who_has_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state");
        let first = StateDirectory::take(&path, PATIENCE).await.unwrap();
        let begun = Instant::now();
        let error = StateDirectory::take(&path, PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(error.contains("--state-dir"), "{error}");
        assert!(begun.elapsed() < PATIENCE / 2, "who does not end is not waited for");
        drop(first);
        StateDirectory::take(&path, PATIENCE).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_told_to_end_is_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let first = StateDirectory::take(home.path(), PATIENCE).await.unwrap();
        first.ending();
        let next = StateDirectory::take(home.path(), PATIENCE);
        let ends = async {
            sleep(PATIENCE / 2).await;
            drop(first);
        };
        let (next, ()) = tokio::join!(next, ends);
        let next = next.unwrap();
        next.ending();
        let error = StateDirectory::take(home.path(), PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains("which does not end"), "{error}");
    }

    #[tokio::test]
    async fn a_directory_that_was_removed_is_made_and_taken_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/state");
        let directory = StateDirectory::take(&path, PATIENCE).await.unwrap();
        assert!(!directory.restore().unwrap());
        fs::remove_dir_all(home.path().join("a")).unwrap();
        assert!(directory.restore().unwrap() && !directory.restore().unwrap());
        assert!(matches!(open(&path), Err(StateDirectoryError::InUse { .. })), "it is ours again");
        fs::rename(&path, home.path().join("old")).unwrap();
        let other = open(&path).unwrap();
        assert!(matches!(directory.restore(), Err(StateDirectoryError::InUse { .. })));
        drop(other);
        assert!(directory.restore().unwrap());
    }

    #[test]
    fn a_place_that_cannot_be_used_is_named_with_the_fix() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        let error = open(&home.path().join("file/state")).unwrap_err().to_string();
        assert!(error.contains("file/state") && error.contains("--state-dir"), "{error}");
    }
}
