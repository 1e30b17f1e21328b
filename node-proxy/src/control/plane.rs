// SPDX-License-Identifier: Apache-2.0
//! All workers of the node, as one thing to which control gives states.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    ops::RangeInclusive,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use tokio::sync::{mpsc, watch};
use weft_ebpf_redirect::PodConnections;
use weft_flow_export::FlowRing;
use weft_ir::{ResourceKey, Snapshot};

use crate::{
    control::flow::WorkerFlows,
    serve::thread::{self, ListenFailure, WorkerThread},
    state::{
        MeshState,
        compile::{Compiler, Rejected},
    },
    upstream::{
        dial::{DialConfig, Dialer},
        sockets,
    },
    worker::{
        WorkerParts,
        limits::Limits,
        metrics::WorkerMetrics,
        records::{self, Recorder},
    },
};

/// Slots for what a worker has to say: 1 MiB. Control has to empty half of it within 40 ms where a worker
/// ends 50,000 requests a second.
const RECORD_SLOTS: usize = 4096;
/// States that wait to be freed.
const RETIRED: usize = 64;

/// How the workers are to be.
#[derive(Clone, Debug)]
pub struct PlaneConfig {
    /// The node's name.
    pub node: Arc<str>,
    /// Threads; at least 1.
    pub workers: usize,
    /// Client connections of one worker; more wait in the backlog.
    pub connections: usize,
    /// Where listeners without addresses of their own listen; every address of the node when empty.
    pub listen_addresses: Vec<IpAddr>,
    /// Longest time for a connection to an endpoint to be established.
    pub connect_timeout: Duration,
    /// How the kernel programs and the workers know each other; nothing where nothing is redirected.
    pub redirect: Option<Redirect>,
}

/// How the kernel programs and the workers know each other.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// The mark of the proxy's own packets.
    pub(crate) mark: u32,
    /// The proxy's ports in every pod's name.
    pub(crate) ports: RangeInclusive<u16>,
    /// What pods have open themselves.
    pub(crate) taken: PodConnections,
}

/// The running workers.
#[derive(Debug)]
pub struct Plane {
    compiler: Compiler,
    workers: Vec<WorkerThread>,
    metrics: Vec<Arc<WorkerMetrics>>,
    captured: Vec<u16>,
    retired: mpsc::Receiver<Arc<MeshState>>,
    rejected: Vec<Rejected>,
    ring: FlowRing,
    /// By which state what the workers say has names.
    naming: watch::Sender<Arc<MeshState>>,
}

/// A worker has ended, which it never does by itself.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("worker {0} has ended")]
pub struct WorkerGone(pub usize);

impl Plane {
    /// Opens sockets and starts the workers; what they have to say is a source of the ring, which somebody
    /// has to keep up with ([`FlowRing::keep_up`]).
    pub fn start(config: &PlaneConfig, ring: &FlowRing) -> io::Result<Plane> {
        let (retired, freed) = mpsc::channel(RETIRED);
        let state = Arc::new(MeshState::empty(&config.node));
        let mut plane = Plane {
            compiler: Compiler::new(Arc::clone(&config.node), config.listen_addresses.clone()),
            workers: Vec::new(),
            metrics: Vec::new(),
            captured: Vec::new(),
            retired: freed,
            rejected: Vec::new(),
            ring: ring.clone(),
            naming: watch::Sender::new(Arc::clone(&state)),
        };
        for index in 0..config.workers.max(1) {
            let (recorder, records) = records::ring(RECORD_SLOTS, ring.full());
            ring.add_source(Box::new(WorkerFlows::new(records, plane.naming.subscribe())));
            let metrics = Arc::new(WorkerMetrics::default());
            let sockets = plane.capture(config)?;
            let parts = {
                let (config, state, retired) = (config.clone(), Arc::clone(&state), retired.clone());
                let metrics = Arc::clone(&metrics);
                move || parts(index, &config, state, retired, metrics, recorder)
            };
            plane.workers.push(thread::spawn(index, parts, sockets)?);
            plane.metrics.push(metrics);
        }
        Ok(plane)
    }

    /// The counters of all workers.
    pub(crate) fn metrics(&self) -> &[Arc<WorkerMetrics>] {
        &self.metrics
    }

    /// What of the last snapshot cannot be used.
    pub(crate) fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// The state that the workers serve.
    pub(crate) fn state(&self) -> &Arc<MeshState> {
        self.compiler.state()
    }

    /// The ports of the sockets for redirected connections, by worker; the same in both families.
    pub(crate) fn captured(&self) -> &[u16] {
        &self.captured
    }

    /// Makes addresses of the node's devices the node's, in later states too.
    ///
    /// # Errors
    /// When a worker has ended.
    pub(crate) async fn set_device_addresses(&mut self, devices: &[IpAddr]) -> Result<(), WorkerGone> {
        if let Some(state) = self.compiler.set_device_addresses(devices) {
            // The listeners are those of the last state, whose failures are known.
            self.serve(&state).await?;
        }
        Ok(())
    }

    /// Compiles a snapshot and has every worker serve it from its next request on. Yields what of it
    /// cannot be used. `undecoded` names resources that this node could not read.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn apply(
        &mut self,
        snapshot: &Snapshot,
        undecoded: &[ResourceKey],
    ) -> Result<Vec<Rejected>, WorkerGone> {
        let (state, mut rejected) = self.compiler.compile(snapshot, undecoded);
        for failure in self.serve(&state).await?.into_values() {
            reject_listeners(snapshot, &failure, &mut rejected);
        }
        self.rejected.clone_from(&rejected);
        Ok(rejected)
    }

    /// Has every worker serve a state from its next request on; yields the addresses on which it cannot.
    async fn serve(
        &mut self,
        state: &Arc<MeshState>,
    ) -> Result<BTreeMap<SocketAddr, ListenFailure>, WorkerGone> {
        let mut answers = Vec::with_capacity(self.workers.len());
        for (index, worker) in self.workers.iter().enumerate() {
            answers.push(worker.apply(Arc::clone(state)).map_err(|_gone| WorkerGone(index))?);
        }
        let mut failures = BTreeMap::new();
        for (index, answer) in answers.into_iter().enumerate() {
            let failed = answer.await.map_err(|_closed| WorkerGone(index))?;
            failures.extend(failed.into_iter().map(|failure| (failure.address, failure)));
        }
        // What was said until now was said of the last state, in which it still has its names.
        self.ring.pull();
        self.naming.send_replace(Arc::clone(state));
        // States that no request uses any more are freed here, off the data path.
        while self.retired.try_recv().is_ok() {}
        Ok(failures)
    }

    /// Waits until a worker has ended. Safe to cancel.
    pub(crate) async fn gone(&self) -> WorkerGone {
        let closed = |(index, worker): (usize, &WorkerThread)| {
            let mut ended = worker.ended.clone();
            Box::pin(async move {
                // Nothing is ever sent: only the end makes it ready.
                while ended.changed().await.is_ok() {}
                index
            })
        };
        WorkerGone(select_all(self.workers.iter().enumerate().map(closed)).await.0)
    }

    /// Ends the workers: nothing new is accepted, what runs may finish until then.
    pub async fn drain(self, until: Instant) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        for worker in self.workers {
            // A worker that is gone already needs no drain.
            worker.drain(until).ok();
            threads.push(worker.thread);
        }
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().filter_map(|thread| thread.join().err()).count()
        });
        match joined.await {
            Ok(0) => {}
            Ok(count) => tracing::error!(count, "workers ended with a panic"),
            Err(error) => tracing::error!(%error, "waiting for the workers failed"),
        }
    }

    fn capture(&mut self, config: &PlaneConfig) -> io::Result<Vec<TcpListener>> {
        let Some(redirect) = &config.redirect else { return Ok(Vec::new()) };
        let sockets = sockets::transparent_listeners(redirect.mark)?;
        if let Some(socket) = sockets.first() {
            self.captured.push(socket.local_addr()?.port());
        }
        Ok(sockets)
    }
}

fn parts(
    index: usize,
    config: &PlaneConfig,
    state: Arc<MeshState>,
    retired: mpsc::Sender<Arc<MeshState>>,
    metrics: Arc<WorkerMetrics>,
    recorder: Recorder,
) -> WorkerParts {
    let seed = u64::from(std::process::id()) << 16 | index as u64;
    let dialer = Dialer::new(
        DialConfig {
            mark: config.redirect.as_ref().map(|redirect| redirect.mark),
            ports: config.redirect.as_ref().map_or(1..=u16::MAX, |redirect| redirect.ports.clone()),
            taken: config.redirect.as_ref().map(|redirect| redirect.taken.clone()),
            connect_timeout: config.connect_timeout,
        },
        // Only the low bits matter: they spread workers over the port block.
        seed as u32,
    );
    WorkerParts {
        seed,
        state,
        retired,
        metrics,
        recorder,
        dialer,
        limits: Limits::default(),
        connections: config.connections,
        transparent: config.redirect.is_some(),
    }
}

/// Names the listeners behind an address that could not be opened. An address of another node is no
/// failure: that node opens it.
fn reject_listeners(snapshot: &Snapshot, failure: &ListenFailure, rejected: &mut Vec<Rejected>) {
    let ListenFailure { address, error } = failure;
    if error.kind() == io::ErrorKind::AddrNotAvailable || sockets::no_such_family(error) {
        tracing::info!(%address, %error, "a gateway address is not on this node");
        return;
    }
    tracing::error!(%address, %error, "a gateway address cannot be opened");
    for listener in snapshot.listeners().filter(|listener| listener.port == address.port()) {
        if listener.addresses.is_empty() || listener.addresses.contains(&address.ip()) {
            let error = format!("cannot listen on {address}: {error}");
            rejected.push(Rejected { key: listener.key(), error });
        }
    }
}
