// SPDX-License-Identifier: Apache-2.0
//! The node's end of the state stream.
//!
//! One task keeps a stream to the controller, starts it again when it ends, and hands out each commit
//! as it is complete. The consumer applies a commit and says so with [`AckHandle::applied`]: only then
//! is the controller told, and the state written to disk, from which the next start begins. The data
//! path never waits for any of it. What makes the node who it is, its key, is in the same directory: the
//! join token is shown once, for a certificate that is renewed as long as the stream lives.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::AbortHandle,
};
use weft_identity::{Credential, CredentialError, JoinToken, NodeName, NodeNameError};
use weft_ir::{
    stream::{Position, Rejection},
    subscribe::{Commit, Subscriber},
};
use weft_runtime::{state_dir::StateDirectory, supervise::Supervisor};

mod backoff;
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
    /// The token of a service account, which is shown in the place of the join token's secret.
    pub(crate) account: Option<PathBuf>,
    /// This node's name.
    pub(crate) node: Arc<str>,
    /// The directory that keeps the last good state and the node's credential.
    pub(crate) directory: Arc<StateDirectory>,
}

/// Why the client cannot start. That the controller is away is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum IrClientError {
    /// The name cannot be that of a node.
    #[error("`{node}` cannot be this node's name")]
    Name {
        /// What was given.
        node: Arc<str>,
        /// What is wrong with it.
        #[source]
        source: NodeNameError,
    },
    /// The credential is another node's.
    #[error(transparent)]
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

/// How the node stands to the controller, and to its own files.
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
    /// Nothing newer comes, whether a stream is open or not.
    pub(crate) stuck: Option<Stuck>,
    /// What is wrong with the node's credential, one line each.
    pub(crate) notes: Vec<String>,
    /// Why the last applied state is not on disk.
    pub(crate) unsaved: Option<Arc<str>>,
    /// How often somebody has removed the node's files while it ran.
    pub(crate) lost: u64,
}

/// The controller sends nothing, or the node refuses what it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// Since when.
    pub(crate) since: SystemTime,
    /// Why, and what to do.
    pub(crate) reason: Arc<str>,
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

impl Default for LinkStatus {
    /// Nothing was tried yet.
    fn default() -> LinkStatus {
        LinkStatus {
            connected: false,
            since: SystemTime::now(),
            error: None,
            received: None,
            applied: None,
            stuck: None,
            notes: Vec::new(),
            unsaved: None,
            lost: 0,
        }
    }
}

impl IrClient {
    /// Restores the saved state and starts to connect.
    ///
    /// # Errors
    /// When the directory is another node's. What is damaged is logged and left behind: the node serves what it
    /// can, and `weft status` says what to do.
    pub(crate) fn start(config: IrClientConfig, tasks: &mut Supervisor) -> Result<IrClient, IrClientError> {
        let IrClientConfig { address, token, account, node, directory } = config;
        let name: NodeName =
            node.parse().map_err(|source| IrClientError::Name { node: node.clone(), source })?;
        let credential = directory.path().join(CREDENTIAL);
        let open = move || Credential::open(&credential, name.clone(), token.clone());
        let dial = connect::Dial::new(address, account, open)?;
        let restored = saved::read(&saved::path(directory.path()), &node);
        let subscriber = match &restored {
            Some(restored) => {
                let revision = restored.commit.position.revision;
                tracing::info!(revision, "restored the saved state");
                Subscriber::restored(node.clone(), &restored.commit, restored.same_schema)
            }
            None => Subscriber::new(node.clone()),
        };
        let received = restored.as_ref().map(|restored| restored.commit.position);
        let (states, states_rx) = watch::channel(restored.map(|restored| Arc::new(restored.commit)));
        let (status, link) = watch::channel(LinkStatus { received, ..LinkStatus::default() });
        let (save, to_save) = watch::channel(None);
        let (applied, acks) = mpsc::channel(8);
        let (done, saved) = oneshot::channel();
        let lost = Arc::new(Notify::new());
        let saver = saved::Saver {
            directory,
            node,
            states: to_save,
            status: status.clone(),
            lost: lost.clone(),
            pace: saved::PACE,
        };
        tasks.critical("last good state", saver.keep(done));
        let link_task = link::Link { dial, subscriber, states, status, save, acks, lost };
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
