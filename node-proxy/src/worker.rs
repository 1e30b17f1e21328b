// SPDX-License-Identifier: Apache-2.0
//! What one worker thread owns: its handle on the state, its pools, its measurements.

pub(crate) mod access;
pub(crate) mod metrics;
pub(crate) mod records;
pub(crate) mod target;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tokio::sync::{mpsc, watch};
use weft_codec::{config::ServerConfig, drain::DrainTrigger};
use weft_ir::stream::Position;

use crate::{
    route::slots::Slot,
    state::{Held, MeshState},
    upstream::{
        balance::{Loads, Picker},
        pool::Pools,
        retry_budget::RetryBudgets,
    },
    worker::{access::Reports, metrics::WorkerMetrics, records::Recorder},
};

/// One worker.
pub struct Worker {
    held: RefCell<Rc<Held>>,
    retired: mpsc::Sender<Arc<MeshState>>,
    position: watch::Sender<Position>,
    reports: Rc<Reports>,
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
    /// Takes records of what has ended.
    pub recorder: Recorder,
    /// Connections to endpoints.
    pub pools: Pools,
    /// How clients are served.
    pub server: ServerConfig,
    /// Connections to endpoints are made in the client's name.
    pub transparent: bool,
}

/// One accepted connection; counted while it lives.
pub(crate) struct Open(Rc<Worker>);

impl Worker {
    /// A worker that serves its first state.
    pub fn new(parts: WorkerParts) -> Rc<Worker> {
        let position = watch::Sender::new(parts.state.position);
        let held = Rc::new(Held::new(parts.state, parts.retired.clone()));
        Rc::new(Worker {
            held: RefCell::new(held),
            retired: parts.retired,
            position,
            reports: Rc::new(Reports { metrics: parts.metrics, recorder: RefCell::new(parts.recorder) }),
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
    pub(crate) fn held(&self) -> Rc<Held> {
        Rc::clone(&self.held.borrow())
    }

    /// Serves a new state from the next request on.
    pub fn publish(&self, state: Arc<MeshState>) {
        let position = state.position;
        let held = Rc::new(Held::new(state, self.retired.clone()));
        drop(self.held.replace(held));
        self.reports.metrics.serves(position);
        self.position.send_replace(position);
    }

    /// Changes with each new state, for relays that must be decided again.
    pub(crate) fn positions(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    /// The worker's counters.
    pub(crate) fn metrics(&self) -> &WorkerMetrics {
        &self.reports.metrics
    }

    /// Where what the worker has to say goes.
    pub(crate) fn reports(&self) -> &Rc<Reports> {
        &self.reports
    }

    /// What is measured about endpoints.
    pub(crate) fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Draws for weighted picks.
    pub(crate) fn with_picker<T>(&self, draw: impl FnOnce(&mut Picker) -> T) -> T {
        draw(&mut self.picker.borrow_mut())
    }

    /// Counts a first try of a request that may be retried.
    pub(crate) fn deposit(&self, upstream: Slot) {
        self.budgets.borrow_mut().deposit(upstream);
    }

    /// Takes one retry from the budget of an upstream.
    pub(crate) fn withdraw(&self, upstream: Slot, now: u64) -> bool {
        self.budgets.borrow_mut().withdraw(upstream, now)
    }

    /// Connections to endpoints.
    pub(crate) fn pools(&self) -> &Pools {
        &self.pools
    }

    /// How clients are served.
    pub(crate) fn server(&self) -> Rc<ServerConfig> {
        Rc::clone(&self.server)
    }

    /// Ends connections when their requests are done.
    pub(crate) fn drain(&self) -> &DrainTrigger {
        &self.drain
    }

    /// Whether connections to endpoints are made in the client's name.
    pub(crate) fn is_transparent(&self) -> bool {
        self.transparent
    }

    /// Client connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Counts a connection until the result is dropped.
    pub(crate) fn open(self: &Rc<Worker>) -> Open {
        self.connections.set(self.connections.get() + 1);
        metrics::add(&self.reports.metrics.opened, 1);
        metrics::add(&self.reports.metrics.open, 1);
        Open(Rc::clone(self))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        metrics::subtract(&self.0.reports.metrics.open, 1);
    }
}
