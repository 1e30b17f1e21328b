// SPDX-License-Identifier: Apache-2.0
//! One process takes over from another without a connection that is lost in between.
//!
//! The new one asks at a socket in the state directory. The old one ends its stream and its admin endpoint, gives the
//! directory away and says so, but goes on serving with the state that it has. Once the new one has written the
//! kernel's tables and its own listeners, it says so in turn, and the old one drains. Whoever of both goes away in
//! between leaves the other serving: the old one puts its listeners back, the new one starts as after a restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};

const SOCKET: &str = "handover.sock";
/// What the new process asks, with the version of this exchange.
const ASK: &[u8; 8] = b"weft-ho1";
const YOURS: u8 = b'y';
const SERVING: u8 = b's';
/// How long who connects may take to ask.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the old process may take to give: its last state goes to disk, and readers of flows are cut off.
const GIVING: Duration = Duration::from_secs(10);

/// Where a process hears of the next one.
#[derive(Debug)]
pub(crate) struct Successors {
    listener: UnixListener,
    path: PathBuf,
}

/// The next process, which has asked.
#[derive(Debug)]
pub(crate) struct Successor(UnixStream);

/// The process before, which has given what there can only be one of.
#[derive(Debug)]
pub(crate) struct Predecessor(UnixStream);

impl Successors {
    /// Listens in a state directory that this process has.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn listen(directory: &Path) -> io::Result<Successors> {
        let path = directory.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Successors { listener: UnixListener::bind(&path)?, path })
    }

    /// Waits for the next process.
    pub(crate) async fn next(&self) -> Successor {
        loop {
            match self.listener.accept().await {
                Ok((mut stream, _)) => {
                    let mut asked = [0; ASK.len()];
                    let read = timeout(PATIENCE, stream.read_exact(&mut asked)).await;
                    if matches!(read, Ok(Ok(_))) && asked == *ASK {
                        return Successor(stream);
                    }
                    tracing::warn!("somebody who is no weft-node has connected to the hand-over socket");
                }
                Err(error) => {
                    tracing::error!(%error, path = %self.path.display(), "no process can take over");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    }
}

impl Successor {
    /// Says that the directory, the name and the admin endpoint are free.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) async fn give(&mut self) -> io::Result<()> {
        self.0.write_all(&[YOURS]).await
    }

    /// Waits until it serves; false when it has gone away before.
    pub(crate) async fn serves(&mut self) -> bool {
        self.0.read_u8().await.is_ok_and(|said| said == SERVING)
    }
}

impl Predecessor {
    /// Asks the process that has a state directory to give it. None where nobody answers there.
    pub(crate) async fn ask(directory: &Path) -> Option<Predecessor> {
        let mut stream = UnixStream::connect(directory.join(SOCKET)).await.ok()?;
        stream.write_all(ASK).await.ok()?;
        tracing::info!("taking over from the process that runs");
        let given = timeout(GIVING, stream.read_u8()).await;
        matches!(given, Ok(Ok(YOURS))).then_some(Predecessor(stream))
    }

    /// Tells it that this process serves.
    pub(crate) async fn relieve(mut self) {
        if let Err(error) = self.0.write_all(&[SERVING]).await {
            tracing::warn!(%error, "the process before has ended on its own");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_side_hears_when_the_other_serves_or_goes_away() {
        let home = tempfile::tempdir().unwrap();
        assert!(Predecessor::ask(home.path()).await.is_none(), "nobody is there");
        let successors = Successors::listen(home.path()).unwrap();
        for relieves in [true, false] {
            let old = async {
                let mut successor = successors.next().await;
                successor.give().await.unwrap();
                successor.serves().await
            };
            let new = async {
                let predecessor = Predecessor::ask(home.path()).await.unwrap();
                if relieves {
                    predecessor.relieve().await;
                }
            };
            assert_eq!(tokio::join!(old, new).0, relieves);
        }
        // An old process that dies before it gives.
        let old = async { drop(successors.next().await) };
        assert!(tokio::join!(old, Predecessor::ask(home.path())).1.is_none());
        // Somebody who asks for something else is no successor.
        let mut stranger = UnixStream::connect(home.path().join(SOCKET)).await.unwrap();
        stranger.write_all(b"GET / HTTP").await.unwrap();
        let next = timeout(Duration::from_millis(100), successors.next()).await;
        assert!(next.is_err());
    }
}
