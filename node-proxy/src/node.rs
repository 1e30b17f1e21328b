// SPDX-License-Identifier: Apache-2.0
//! The control side of `weft-node`: takes each commit of the state, has workers and kernel apply it, and
//! says so to the controller. Nothing here is on the data path.

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{sync::watch, task::JoinSet};
use weft_flow_export::{FlowQuery, FlowRing, serve as serve_flows};
use weft_identity::{JoinToken, token::TokenError};
use weft_ir::{stream::Rejection, subscribe::Commit};
use weft_runtime::{
    admin::{AdminRequest, AdminResponse, AdminRoutes, AdminServeError, AdminServer},
    drain,
    readiness::{Readiness, ReadinessHandle},
    signals::{Shutdown, ShutdownSignals},
};

use crate::{
    config::Config,
    export::DataPathMetrics,
    ir_client::{AckHandle, IrClient, IrClientConfig, IrClientError},
    plane::{Plane, PlaneConfig, WorkerGone},
};

/// How long the admin endpoint may take to end.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// Why the node cannot start, or had to end.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The join token's file cannot be read.
    #[error("cannot read the join token in {}: give the file that the controller wrote", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The join token is not one.
    #[error("the file {} holds no join token", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokenError,
    },
    /// A worker's sockets or thread could not be made.
    #[error("cannot start the workers")]
    Workers(#[source] io::Error),
    /// Signals cannot be caught.
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
    /// The state client.
    #[error(transparent)]
    Client(#[from] IrClientError),
    /// The admin endpoint.
    #[error(transparent)]
    Admin(#[from] AdminServeError),
    /// A worker has ended.
    #[error(transparent)]
    Worker(#[from] WorkerGone),
}

/// Runs the node until a signal ends it.
///
/// # Errors
/// When it cannot start, or a worker ends.
pub async fn run(config: Config) -> Result<(), NodeError> {
    let mut signals = ShutdownSignals::install().map_err(NodeError::Signals)?;
    let token = read_token(&config)?;
    let ring = FlowRing::new(config.flows);
    let readiness = Readiness::new();
    let state_ready = readiness.add("state", "waiting for the first state from the controller");
    let (plane, queues) = Plane::start(&plane_config(&config), &ring).map_err(NodeError::Workers)?;
    let mut tasks = JoinSet::new();
    for queue in queues {
        tasks.spawn(queue.drain());
    }
    let admin = AdminServer::bind(&config.admin).await?;
    let (admin_drain, admin_watch) = drain::channel();
    let routes = admin_routes(&config, &readiness, &plane, &ring);
    tasks.spawn(async move {
        let Ok(()) = admin.serve(routes, admin_watch).await;
    });
    let client = IrClient::spawn(IrClientConfig {
        address: config.controller.clone(),
        token,
        node: Arc::clone(&config.node),
        state_dir: config.state_dir.clone(),
    })?;
    tracing::info!(node = %config.node, workers = config.workers, admin = %config.admin, "started");

    let mut applier = Applier { plane, acks: client.acks(), ready: state_ready };
    let ended = tokio::select! {
        result = applier.run(client.states()) => result,
        signal = signals.next() => {
            tracing::info!(?signal, "ending: running requests may finish, a second signal ends at once");
            Ok(())
        }
    };
    client.shutdown().await;
    let until = Instant::now() + if ended.is_ok() { config.drain_timeout } else { Duration::ZERO };
    tokio::select! {
        () = applier.plane.drain(until) => {}
        Shutdown::Terminate | Shutdown::Interrupt = signals.next() => {
            tracing::warn!("ending at once on the second signal");
        }
    }
    admin_drain.drain(ADMIN_DRAIN).await;
    ended
}

fn read_token(config: &Config) -> Result<JoinToken, NodeError> {
    let path = &config.join_token_file;
    let text =
        fs::read_to_string(path).map_err(|source| NodeError::TokenFile { path: path.clone(), source })?;
    text.trim().parse().map_err(|source| NodeError::Token { path: path.clone(), source })
}

fn plane_config(config: &Config) -> PlaneConfig {
    PlaneConfig {
        node: Arc::clone(&config.node),
        workers: config.workers,
        connections: config.connections_per_worker,
        listen_addresses: config.listen_addresses.clone(),
        connect_timeout: config.connect_timeout,
        redirect: None,
    }
}

fn admin_routes(config: &Config, readiness: &Readiness, plane: &Plane, ring: &FlowRing) -> AdminRoutes {
    let mut registry = Registry::default();
    let metrics = DataPathMetrics::new(plane.metrics().to_vec(), ring.clone());
    registry.register_collector(Box::new(metrics));
    let (config, ring) = (config.clone(), ring.clone());
    AdminRoutes::new(readiness.clone(), Arc::new(registry)).value("/config", move || config.clone()).get(
        "/flows",
        move |request| {
            let answer = flows(&ring, &request);
            async move { answer }
        },
    )
}

fn flows(ring: &FlowRing, request: &AdminRequest) -> AdminResponse {
    match FlowQuery::parse(&request.query) {
        Ok(query) => {
            let (pieces, making) = serve_flows::serve(ring, query);
            // Ends when the client goes away, since that drops the receiver.
            tokio::spawn(making);
            AdminResponse::stream("application/x-ndjson", pieces)
        }
        Err(error) => AdminResponse::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// Applies commits one after the other.
struct Applier {
    plane: Plane,
    acks: AckHandle,
    ready: ReadinessHandle,
}

impl Applier {
    /// Runs until a worker ends.
    async fn run(&mut self, mut states: watch::Receiver<Option<Arc<Commit>>>) -> Result<(), NodeError> {
        loop {
            let commit = states.borrow_and_update().clone();
            if let Some(commit) = commit {
                self.apply(&commit).await?;
            }
            if states.changed().await.is_err() {
                // The client never ends before this task; without it the last state goes on.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn apply(&mut self, commit: &Commit) -> Result<(), NodeError> {
        let begun = Instant::now();
        let undecoded: Vec<_> = commit.rejected.keys().cloned().collect();
        let rejected = self.plane.apply(&commit.snapshot, &undecoded).await?;
        for rejected in &rejected {
            tracing::warn!(resource = %rejected.key, error = rejected.error, "a resource cannot be used");
        }
        let refused = rejected
            .into_iter()
            .map(|rejected| Rejection { key: rejected.key, message: rejected.error.into() })
            .collect();
        self.acks.applied(commit.position, refused).await;
        self.ready.ready();
        tracing::info!(
            revision = commit.snapshot.revision,
            duration_ms = begun.elapsed().as_millis() as u64,
            "applied a state"
        );
        Ok(())
    }
}
