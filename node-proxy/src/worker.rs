// SPDX-License-Identifier: Apache-2.0
//! What one worker thread owns: its handle on the state, its pools, its measurements.

pub(crate) mod account;
pub(crate) mod heads;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod records;
pub(crate) mod target;

use std::{cell::RefCell, rc::Rc, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    route::slots::Slot,
    state::{Held, MeshState},
    upstream::{
        balance::{Loads, Picker},
        dial::Dialer,
        retry_budget::RetryBudgets,
    },
    worker::{account::Reports, limits::Limits, metrics::WorkerMetrics, records::Recorder},
};

/// One worker.
pub struct Worker {
    held: RefCell<Rc<Held>>,
    retired: mpsc::Sender<Arc<MeshState>>,
    reports: Rc<Reports>,
    picker: RefCell<Picker>,
    loads: Loads,
    budgets: RefCell<RetryBudgets>,
    dialer: Dialer,
    limits: Rc<Limits>,
    connections: usize,
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
    /// Makes connections to endpoints.
    pub dialer: Dialer,
    /// How much and how long peers are borne.
    pub limits: Limits,
    /// Client connections that may be open; more wait in the backlog.
    pub connections: usize,
    /// Connections to endpoints are made in the client's name.
    pub transparent: bool,
}

/// One accepted connection; counted while it lives.
#[derive(Debug)]
pub(crate) struct Open(Rc<Reports>);

impl Worker {
    /// A worker that serves its first state.
    pub fn new(parts: WorkerParts) -> Rc<Worker> {
        let held = Rc::new(Held::new(parts.state, parts.retired.clone()));
        Rc::new(Worker {
            held: RefCell::new(held),
            retired: parts.retired,
            reports: Rc::new(Reports { metrics: parts.metrics, recorder: RefCell::new(parts.recorder) }),
            picker: RefCell::new(Picker::new(parts.seed)),
            loads: Loads::default(),
            budgets: RefCell::default(),
            dialer: parts.dialer,
            limits: Rc::new(parts.limits),
            connections: parts.connections,
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

    /// Makes connections to endpoints.
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// How much and how long peers are borne.
    pub(crate) fn limits(&self) -> Rc<Limits> {
        Rc::clone(&self.limits)
    }

    /// Whether connections to endpoints are made in the client's name.
    pub(crate) fn is_transparent(&self) -> bool {
        self.transparent
    }

    /// Client connections that may be open.
    pub(crate) fn connections_limit(&self) -> usize {
        self.connections
    }

    /// Counts a connection until the result is dropped.
    pub(crate) fn open(self: &Rc<Worker>) -> Open {
        metrics::add(&self.reports.metrics.opened, 1);
        metrics::add(&self.reports.metrics.open, 1);
        Open(Rc::clone(&self.reports))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::subtract(&self.0.metrics.open, 1);
    }
}
