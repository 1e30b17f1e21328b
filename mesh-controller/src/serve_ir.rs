// SPDX-License-Identifier: Apache-2.0
//! Serves the state to nodes: one gRPC stream per node, over TLS 1.3.
//!
//! One task owns the publisher. Every stream has a task that reads what its node says; what a node is
//! sent goes through a channel with room for the one batch that may be in flight. Who opens a stream has
//! shown the certificate of the node that it speaks for; the join token only buys that certificate.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use weft_identity::{Registrar, tls};
use weft_ir::publish::{Change, MAX_NODES, NodeReport};
use weft_runtime::supervise::{CriticalEnd, Supervisor, chain};

use crate::node_accounts::NodeAccounts;

mod accept;
mod actor;
mod attempts;
mod counters;
mod join;
mod pending;
mod rivals;
mod service;
mod session;

use actor::Command;
pub use counters::{Counter, StreamCounters};

/// What the server needs.
#[derive(Clone, Debug)]
pub struct IrServerConfig {
    /// Decides who is which node.
    pub registrar: Arc<Registrar>,
    /// Says it of pods, where there is a cluster to ask.
    pub accounts: Option<NodeAccounts>,
    /// Bounds of connections and waits.
    pub limits: IrLimits,
}

/// Bounds of connections and waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrLimits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once that have not opened a stream as a node yet.
    pub pending: usize,
    /// Of those, as many as one address may have.
    pub pending_per_address: usize,
    /// The time for a TLS handshake, again for the stream, and again for the hello.
    pub greeting: Duration,
    /// A node that takes longer to acknowledge is shown as overdue.
    pub acknowledgement: Duration,
    /// A node that takes longer to answer a ping is not there: a newer stream takes the place of its own.
    pub ping: Duration,
}

impl Default for IrLimits {
    /// One connection per node, and one more while a node replaces a broken one. All nodes of a rack may
    /// share an address and come at once, but one address can take only a small part of the places of
    /// those that nobody knows yet. A node writes its kernel maps in well under a second, and answers a ping
    /// between two states.
    fn default() -> IrLimits {
        IrLimits {
            connections: 2 * MAX_NODES,
            pending: 1024,
            pending_per_address: 128,
            greeting: Duration::from_secs(10),
            acknowledgement: Duration::from_secs(30),
            ping: Duration::from_secs(3),
        }
    }
}

/// The running server. Dropping it ends every stream.
#[derive(Debug)]
pub struct IrServer {
    address: SocketAddr,
    handle: IrHandle,
    stop: watch::Sender<bool>,
    tasks: Supervisor,
}

/// Publishes states, and tells how far the nodes are.
#[derive(Clone, Debug)]
pub struct IrHandle {
    commands: mpsc::Sender<Command>,
    reports: watch::Receiver<Arc<IrReport>>,
    counters: Arc<StreamCounters>,
    registrar: Arc<Registrar>,
    patience: Duration,
}

/// How far the nodes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IrReport {
    /// Names this run of the controller.
    pub epoch: u64,
    /// The last commit; 0 before the first.
    pub revision: u64,
    /// Every node that was seen since the start.
    pub nodes: BTreeMap<Arc<str>, NodeReport>,
    /// The connected nodes that were sent a revision and have not acknowledged it.
    pub waiting: BTreeMap<Arc<str>, Waiting>,
    /// The nodes whose stream has ended, and when.
    pub gone: BTreeMap<Arc<str>, Instant>,
    /// The nodes that another process has spoken as.
    pub contested: BTreeMap<Arc<str>, Contested>,
}

/// Another process than the one that has a node's stream has its credential too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contested {
    /// How often it was refused.
    pub refused: u64,
    /// When it was refused last.
    pub last: Instant,
    /// Where it came from.
    pub from: IpAddr,
    /// Where the stream comes from that the node has.
    pub open_from: IpAddr,
}

/// A revision that a node was sent and has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The revision.
    pub revision: u64,
    /// When it was sent.
    pub since: Instant,
    /// Whether that is longer ago than [`IrLimits::acknowledgement`].
    pub overdue: bool,
}

impl IrReport {
    /// The connected nodes that have not applied a revision.
    pub fn behind(&self, revision: u64) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.iter().filter_map(move |(node, report)| {
            (report.connected && report.applied.unwrap_or(0) < revision).then_some(node)
        })
    }

    /// Whether a node should have acknowledged long ago.
    pub fn is_overdue(&self, node: &str) -> bool {
        self.waiting.get(node).is_some_and(|waiting| waiting.overdue)
    }
}

/// The server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state server has stopped")]
pub struct Stopped;

/// Commands that may wait for the publisher's task: some from each of many nodes at once.
const COMMANDS: usize = 1024;

/// Connections that wait for the service to take them.
const ARRIVALS: usize = 16;

/// How soon a controller notices that an operator has made a name free. A look costs a listing of at most
/// 10,000 names.
const SWEEP: Duration = Duration::from_secs(5);

/// How long [`IrServer::shutdown`] waits for connections to close.
const SHUTDOWN: Duration = Duration::from_secs(2);

impl IrServer {
    /// Starts to serve. Nodes are sent nothing before the first [`IrHandle::publish`].
    ///
    /// # Errors
    /// When the listener has no address, or the controller's certificate cannot be made.
    pub fn start(listener: TcpListener, config: IrServerConfig) -> io::Result<IrServer> {
        let address = listener.local_addr()?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (report, reports) = watch::channel(Arc::default());
        let (stop, stopped) = watch::channel(false);
        let counters = Arc::new(StreamCounters::default());
        let IrServerConfig { registrar, accounts, limits } = config;
        let tls = tls::controller_server(&registrar).map_err(io::Error::other)?;
        let registration = join::Registration {
            registrar: registrar.clone(),
            accounts,
            attempts: Default::default(),
            counters: counters.clone(),
        };
        let service = service::StateService::new(registration, limits.greeting, commands.clone());
        let entrance = accept::Entrance::new(TlsAcceptor::from(tls), limits, counters.clone());
        let (ready, connections) = mpsc::channel(ARRIVALS);
        let incoming = accept::incoming(connections);
        let actor = actor::Actor::new(epoch(), limits, counters.clone());
        let mut tasks = Supervisor::new();
        tasks.critical("publisher", actor.run(inbox, report, stopped.clone()));
        tasks.critical("state listener", entrance.accept(listener, stopped.clone(), ready));
        tasks.critical("state service", service::serve(service, incoming, stopped.clone()));
        tasks.critical("names of nodes", sweep(registrar.clone(), stopped));
        Ok(IrServer {
            address,
            handle: IrHandle { commands, reports, counters, registrar, patience: limits.acknowledgement },
            stop,
            tasks,
        })
    }

    /// The address that nodes can reach.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Publishes, and tells how far nodes are.
    pub fn handle(&self) -> &IrHandle {
        &self.handle
    }

    /// Waits until a part of the server ends by itself, which none should. Safe to cancel.
    pub async fn failed(&mut self) -> CriticalEnd {
        self.tasks.failed().await
    }

    /// Ends every stream, then the server. Nodes keep their state and try again.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if timeout(SHUTDOWN, self.tasks.ended()).await.is_err() {
            tracing::warn!("closing state streams that did not end in time");
        }
    }
}

impl IrHandle {
    /// Changes the state of every node, as one commit, and returns its revision. What changes nothing makes
    /// no commit.
    ///
    /// # Errors
    /// When the server has stopped.
    pub async fn publish(&self, change: Change) -> Result<u64, Stopped> {
        let (reply, revision) = oneshot::channel();
        self.commands.send(Command::Publish { change, reply }).await.or(Err(Stopped))?;
        revision.await.or(Err(Stopped))
    }

    /// How far the nodes are, now and after every change.
    pub fn watch_acks(&self) -> watch::Receiver<Arc<IrReport>> {
        self.reports.clone()
    }

    /// How long a node may take to acknowledge.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Who is which node.
    pub fn registrar(&self) -> &Registrar {
        &self.registrar
    }

    /// What became of connections and streams since the start.
    pub fn counters(&self) -> &StreamCounters {
        &self.counters
    }
}

/// Looks after the names of nodes until the server stops: drops those that are free, writes those again whose
/// files somebody has removed, and names those that cannot be read.
async fn sweep(registrar: Arc<Registrar>, mut stopped: watch::Receiver<bool>) -> Result<(), Infallible> {
    let (mut rewritten, mut problems) = (0, Vec::new());
    loop {
        let (looking, now) = (registrar.clone(), SystemTime::now());
        match spawn_blocking(move || looking.sweep(now)).await.map_err(io::Error::other) {
            Ok(Ok(0)) => {}
            Ok(Ok(names)) => tracing::info!(names, "names of nodes are free again"),
            Ok(Err(error)) => tracing::error!(error = chain(&error), "cannot look after the names of nodes"),
            Err(error) => tracing::error!(%error, "cannot look after the names of nodes"),
        }
        let names = registrar.rewritten() - rewritten;
        if names > 0 {
            tracing::error!(
                names,
                "files of names of nodes were removed while the controller ran: written again"
            );
            rewritten += names;
        }
        let now = registrar.problems();
        now.iter()
            .filter(|problem| !problems.contains(*problem))
            .for_each(|problem| tracing::error!("{problem}"));
        problems = now;
        if timeout(SWEEP, stopped.changed()).await.is_ok() {
            return Ok(());
        }
    }
}

/// Names this run: nanoseconds since 1970, which no two starts share.
fn epoch() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
