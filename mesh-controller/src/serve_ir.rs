// SPDX-License-Identifier: Apache-2.0
//! Serves the state to nodes: one gRPC stream per node, over TLS 1.3.
//!
//! One task owns the publisher. Every stream has a task that reads what its node says; what a node is
//! sent goes through a channel with room for the one batch that may be in flight.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use weft_identity::JoinToken;
use weft_ir::{Resource, ResourceKey, publish::NodeReport};

mod accept;
mod actor;
mod codec;
mod service;

use actor::Command;

/// What the server needs.
#[derive(Clone, Debug)]
pub struct IrServerConfig {
    /// From `weft_identity::tls::controller_server`.
    pub tls: Arc<ServerConfig>,
    /// What nodes must bring.
    pub token: JoinToken,
}

/// The running server. Dropping it ends every stream.
#[derive(Debug)]
pub struct IrServer {
    address: SocketAddr,
    handle: IrHandle,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Publishes states, and tells how far the nodes are.
#[derive(Clone, Debug)]
pub struct IrHandle {
    commands: mpsc::Sender<Command>,
    reports: watch::Receiver<Arc<IrReport>>,
}

/// How far the nodes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IrReport {
    /// The last commit; 0 before the first.
    pub revision: u64,
    /// Every node that was seen since the start.
    pub nodes: BTreeMap<Arc<str>, NodeReport>,
}

impl IrReport {
    /// The connected nodes that have not applied a revision.
    pub fn behind(&self, revision: u64) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.iter().filter_map(move |(node, report)| {
            (report.connected && report.applied.unwrap_or(0) < revision).then_some(node)
        })
    }
}

/// The server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state server has stopped")]
pub struct Stopped;

/// Commands that may wait for the publisher's task: some from each of many nodes at once.
const COMMANDS: usize = 1024;

/// How long [`IrServer::shutdown`] waits for connections to close.
const SHUTDOWN: Duration = Duration::from_secs(2);

impl IrServer {
    /// Starts to serve. Nodes are sent nothing before the first [`IrHandle::publish`].
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn start(listener: TcpListener, config: IrServerConfig) -> io::Result<IrServer> {
        let address = listener.local_addr()?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (report, reports) = watch::channel(Arc::default());
        let (stop, stopped) = watch::channel(false);
        let service = service::StateService::new(config.token, commands.clone());
        let incoming = accept::incoming(listener, TlsAcceptor::from(config.tls), stopped.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(actor::run(epoch(), inbox, report, stopped.clone()));
        tasks.spawn(service::serve(service, incoming, stopped));
        Ok(IrServer { address, handle: IrHandle { commands, reports }, stop, tasks })
    }

    /// The address that nodes can reach.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Publishes, and tells how far nodes are.
    pub fn handle(&self) -> &IrHandle {
        &self.handle
    }

    /// Ends every stream, then the server. Nodes keep their state and try again.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(SHUTDOWN, all).await.is_err() {
            tracing::warn!("closing state streams that did not end in time");
        }
    }
}

impl IrHandle {
    /// Makes this the state of every node, as one commit, and returns its revision. Publishing the same
    /// state again makes no commit.
    ///
    /// # Errors
    /// When the server has stopped.
    pub async fn publish(&self, state: BTreeMap<ResourceKey, Resource>) -> Result<u64, Stopped> {
        let (reply, revision) = oneshot::channel();
        self.commands.send(Command::Publish { state, reply }).await.or(Err(Stopped))?;
        revision.await.or(Err(Stopped))
    }

    /// How far the nodes are, now and after every change.
    pub fn watch_acks(&self) -> watch::Receiver<Arc<IrReport>> {
        self.reports.clone()
    }
}

/// Names this run: nanoseconds since 1970, which no two starts share.
fn epoch() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
