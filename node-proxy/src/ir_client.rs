// SPDX-License-Identifier: Apache-2.0
//! The node's end of the state stream.
//!
//! One task keeps a stream to the controller, starts it again when it ends, and hands out each commit
//! as it is complete. The consumer applies a commit and says so with [`AckHandle::applied`]: only then
//! is the controller told, and the state written to disk, from which the next start begins. The data
//! path never waits for any of it. What makes the node who it is, its key, is in the same directory: the
//! join token is shown once, for a certificate that is renewed as long as the stream lives.

use std::{io, path::PathBuf, sync::Arc, time::SystemTime};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};
use weft_identity::{Credential, CredentialError, JoinToken, NodeNameError};
use weft_ir::{
    stream::{Position, Rejection},
    subscribe::{Commit, Subscriber},
};
use weft_runtime::supervise::Supervisor;

mod backoff;
mod codec;
mod connect;
mod link;
mod renewal;
mod saved;

/// The file of the node's key and certificate in its state directory.
const CREDENTIAL: &str = "credential.pem";

/// What the client needs.
#[derive(Clone, Debug)]
pub(crate) struct IrClientConfig {
    /// The controller's `host:port`.
    pub(crate) address: String,
    /// The join token that the controller wrote: it is exchanged for the node's own certificate.
    pub(crate) token: JoinToken,
    /// This node's name.
    pub(crate) node: Arc<str>,
    /// The directory that keeps the last good state and the node's credential; made if it is not there.
    pub(crate) state_dir: PathBuf,
}

/// Why the client cannot start. That the controller is away is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum IrClientError {
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}", path.display())]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name cannot be that of a node.
    #[error("`{node}` cannot be this node's name")]
    Name {
        /// What was given.
        node: Arc<str>,
        /// What is wrong with it.
        #[source]
        source: NodeNameError,
    },
    /// The node's credential cannot be used.
    #[error("cannot use the node's credential")]
    Credential(#[from] CredentialError),
}

/// The running client. Dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct IrClient {
    states: watch::Receiver<Option<Arc<Commit>>>,
    link: watch::Receiver<LinkStatus>,
    acks: AckHandle,
    link_task: AbortHandle,
    saved: oneshot::Receiver<()>,
}

/// How the node stands to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkStatus {
    /// A stream is open.
    pub(crate) connected: bool,
    /// Since when it is open, or not.
    pub(crate) since: SystemTime,
    /// Why the last try or stream ended.
    pub(crate) error: Option<Arc<str>>,
    /// The last commit that is complete here.
    pub(crate) received: Option<Position>,
    /// The last commit that the node has applied.
    pub(crate) applied: Option<Position>,
}

/// Says what the node has applied.
#[derive(Clone, Debug)]
pub(crate) struct AckHandle {
    applied: mpsc::Sender<Applied>,
}

#[derive(Debug)]
struct Applied {
    position: Position,
    refused: Vec<Rejection>,
}

impl LinkStatus {
    fn begin(received: Option<Position>) -> LinkStatus {
        LinkStatus { connected: false, since: SystemTime::now(), error: None, received, applied: None }
    }
}

impl IrClient {
    /// Restores the saved state and starts to connect.
    ///
    /// # Errors
    /// When the state directory cannot be used. A damaged state is logged and left behind.
    pub(crate) fn start(config: IrClientConfig, tasks: &mut Supervisor) -> Result<IrClient, IrClientError> {
        let path = saved::prepare(&config.state_dir)
            .map_err(|source| IrClientError::StateDirectory { path: config.state_dir.clone(), source })?;
        let name = config.node.parse();
        let name = name.map_err(|source| IrClientError::Name { node: config.node.clone(), source })?;
        let credential = Credential::open(&config.state_dir.join(CREDENTIAL), name, config.token)?;
        let restored = saved::read(&path);
        let subscriber = match &restored {
            Some(restored) => {
                let revision = restored.commit.position.revision;
                tracing::info!(revision, "restored the saved state");
                Subscriber::restored(config.node.clone(), &restored.commit, restored.same_schema)
            }
            None => Subscriber::new(config.node.clone()),
        };
        let received = restored.as_ref().map(|restored| restored.commit.position);
        let (states, states_rx) = watch::channel(restored.map(|restored| Arc::new(restored.commit)));
        let (status, link) = watch::channel(LinkStatus::begin(received));
        let (save, to_save) = watch::channel(None);
        let (applied, acks) = mpsc::channel(8);
        let (done, saved) = oneshot::channel();
        tasks.critical("last good state", saved::keep(path, to_save, done));
        let dial = connect::Dial::new(config.address, credential);
        let link_task = link::Link { dial, subscriber, states, status, save, acks };
        let link_task = tasks.critical("state stream", link_task.run());
        Ok(IrClient { states: states_rx, link, acks: AckHandle { applied }, link_task, saved })
    }

    /// The state to apply, and each that follows; nothing while the node has none. A commit that comes
    /// before the last one was applied takes its place, and its `changed` and `removed` hold both.
    pub(crate) fn states(&self) -> watch::Receiver<Option<Arc<Commit>>> {
        self.states.clone()
    }

    /// Whether the node hears from the controller.
    pub(crate) fn link(&self) -> watch::Receiver<LinkStatus> {
        self.link.clone()
    }

    /// Says what the node has applied.
    pub(crate) fn acks(&self) -> AckHandle {
        self.acks.clone()
    }
}

impl Drop for IrClient {
    fn drop(&mut self) {
        // What keeps the state ends by itself, once it has written what is left.
        self.link_task.abort();
    }
}

impl IrClient {
    /// Ends the stream, and waits until the last applied state is on disk.
    pub(crate) async fn shutdown(mut self) {
        self.link_task.abort();
        if (&mut self.saved).await.is_err() {
            tracing::error!("the last state was not saved");
        }
    }
}

impl AckHandle {
    /// The node has applied this commit: its tables are live, except for the resources that it names.
    /// Every refused resource of the state is named each time, not only those of the last commit.
    pub(crate) async fn applied(&self, position: Position, refused: Vec<Rejection>) {
        // The client has ended when nobody listens.
        drop(self.applied.send(Applied { position, refused }).await);
    }
}

#[cfg(test)]
mod tests;
