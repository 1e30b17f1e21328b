// SPDX-License-Identifier: Apache-2.0
//! The last good state on disk.

use std::{
    convert::Infallible,
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
    time::timeout,
};
use weft_ir::{
    persist::{self, Restored},
    subscribe::Commit,
};

/// A write costs the whole state, so there is at most one in this time; the newest state wins.
const PAUSE: Duration = Duration::from_secs(2);

/// And a write takes at most one part in this many of the time, however large the state is.
const SHARE: u32 = 50;

/// Makes the directory and returns the path of the state.
pub(super) fn prepare(directory: &Path) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    Ok(directory.join("state.ir"))
}

/// Reads the saved state, if there is one that can be used.
pub(super) fn read(path: &Path) -> Option<Restored> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read the saved state");
            return None;
        }
    };
    persist::decode(&bytes)
        .inspect_err(
            |error| tracing::error!(path = %path.display(), %error, "starting without the saved state"),
        )
        .ok()
}

/// Writes each state that comes, until its sender is gone and the last one is written; says so then.
pub(super) async fn keep(
    path: PathBuf,
    mut states: watch::Receiver<Option<Commit>>,
    done: oneshot::Sender<()>,
) -> Result<(), Infallible> {
    loop {
        let closed = states.changed().await.is_err();
        let begun = Instant::now();
        let state = states.borrow_and_update().clone();
        if let Some(state) = state.filter(|_| !closed) {
            let target = path.clone();
            let written = spawn_blocking(move || write(&target, &persist::encode(&state))).await;
            match written.map_err(io::Error::other).flatten() {
                Ok(()) => tracing::debug!(path = %path.display(), "state saved"),
                Err(error) => tracing::error!(path = %path.display(), %error, "cannot save the state"),
            }
        }
        if closed {
            // Nobody may wait for it.
            done.send(()).unwrap_or_default();
            return Ok(());
        }
        let pause = PAUSE.max(begun.elapsed() * SHARE);
        // Ends early when the sender goes; what came meanwhile is seen by the next turn.
        let gone = async {
            while states.has_changed().is_ok() {
                tokio::time::sleep(PAUSE / 20).await
            }
        };
        drop(timeout(pause, gone).await);
    }
}

/// Writes a file with mode 0600 that is there whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_state_is_left_behind() {
        let home = std::env::temp_dir().join(format!("weft-saved-{}", std::process::id()));
        let path = prepare(&home).unwrap();
        assert_eq!(read(&path), None);
        write(&path, b"nonsense").unwrap();
        assert_eq!(read(&path), None);
        fs::remove_dir_all(home).unwrap();
    }
}
