// SPDX-License-Identifier: Apache-2.0
//! What one worker thread owns: its handle on the state, its pools, its measurements.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tokio::sync::{mpsc, watch};
use weft_codec::{config::ServerConfig, drain::DrainTrigger};

use crate::{
    access::RecordSink,
    balance::{Loads, Picker},
    metrics::{self, WorkerMetrics},
    pool::Pools,
    retry_budget::RetryBudgets,
    slots::Slot,
    state::MeshState,
};

/// One worker.
pub struct Worker {
    held: RefCell<Rc<Held>>,
    retired: mpsc::Sender<Arc<MeshState>>,
    revision: watch::Sender<u64>,
    metrics: Arc<WorkerMetrics>,
    sink: Box<dyn RecordSink>,
    picker: RefCell<Picker>,
    loads: Loads,
    budgets: RefCell<RetryBudgets>,
    pools: Pools,
    server: Rc<ServerConfig>,
    drain: DrainTrigger,
    connections: Cell<usize>,
    transparent: bool,
}

/// The parts that a worker is made of.
pub struct WorkerParts {
    /// Differs between workers.
    pub seed: u64,
    /// The first state.
    pub state: Arc<MeshState>,
    /// Takes states that nobody uses any more, to free them elsewhere.
    pub retired: mpsc::Sender<Arc<MeshState>>,
    /// The worker's counters.
    pub metrics: Arc<WorkerMetrics>,
    /// Takes finished records.
    pub sink: Box<dyn RecordSink>,
    /// Connections to endpoints.
    pub pools: Pools,
    /// How clients are served.
    pub server: ServerConfig,
    /// Connections to endpoints are made in the client's name.
    pub transparent: bool,
}

/// A state in use by a worker. Counted without atomics; when the last request of a replaced state has
/// ended, the state goes back to the control thread to be freed there.
pub struct Held {
    state: Option<Arc<MeshState>>,
    retired: mpsc::Sender<Arc<MeshState>>,
}

/// One accepted connection; counted while it lives.
pub struct Open(Rc<Worker>);

impl Worker {
    /// A worker that serves its first state.
    pub fn new(parts: WorkerParts) -> Rc<Worker> {
        let revision = watch::Sender::new(parts.state.revision);
        let held = Rc::new(Held { state: Some(parts.state), retired: parts.retired.clone() });
        Rc::new(Worker {
            held: RefCell::new(held),
            retired: parts.retired,
            revision,
            metrics: parts.metrics,
            sink: parts.sink,
            picker: RefCell::new(Picker::new(parts.seed)),
            loads: Loads::default(),
            budgets: RefCell::default(),
            pools: parts.pools,
            server: Rc::new(parts.server),
            drain: DrainTrigger::new(),
            connections: Cell::new(0),
            transparent: parts.transparent,
        })
    }

    /// The state for a request that begins now.
    pub fn held(&self) -> Rc<Held> {
        Rc::clone(&self.held.borrow())
    }

    /// Serves a new state from the next request on.
    pub fn publish(&self, state: Arc<MeshState>) {
        let revision = state.revision;
        let held = Rc::new(Held { state: Some(state), retired: self.retired.clone() });
        drop(self.held.replace(held));
        self.metrics.revision.store(revision, std::sync::atomic::Ordering::Relaxed);
        self.revision.send_replace(revision);
    }

    /// Changes with each new state, for relays that must be decided again.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The worker's counters.
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// Where finished records go.
    pub fn sink(&self) -> &dyn RecordSink {
        self.sink.as_ref()
    }

    /// What is measured about endpoints.
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Draws for weighted picks.
    pub fn with_picker<T>(&self, draw: impl FnOnce(&mut Picker) -> T) -> T {
        draw(&mut self.picker.borrow_mut())
    }

    /// Counts a first try of a request that may be retried.
    pub fn deposit(&self, cluster: Slot) {
        self.budgets.borrow_mut().deposit(cluster);
    }

    /// Takes one retry from the budget of a cluster.
    pub fn withdraw(&self, cluster: Slot, now: u64) -> bool {
        self.budgets.borrow_mut().withdraw(cluster, now)
    }

    /// Connections to endpoints.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// How clients are served.
    pub fn server(&self) -> Rc<ServerConfig> {
        Rc::clone(&self.server)
    }

    /// Ends connections when their requests are done.
    pub fn drain(&self) -> &DrainTrigger {
        &self.drain
    }

    /// Whether connections to endpoints are made in the client's name.
    pub fn is_transparent(&self) -> bool {
        self.transparent
    }

    /// Client connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Counts a connection until the result is dropped.
    pub fn open(self: &Rc<Worker>) -> Open {
        self.connections.set(self.connections.get() + 1);
        metrics::add(&self.metrics.opened, 1);
        metrics::add(&self.metrics.open, 1);
        Open(Rc::clone(self))
    }
}

impl Held {
    /// The state.
    pub fn state(&self) -> &MeshState {
        self.state.as_ref().expect("invariant: only drop takes the state")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            // A full queue means that control is busy: the state is then freed here.
            drop(self.retired.try_send(state));
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("revision", &self.state().revision).finish_non_exhaustive()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        metrics::subtract(&self.0.metrics.open, 1);
    }
}
