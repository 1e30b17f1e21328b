// SPDX-License-Identifier: Apache-2.0
//! The thread of one worker: a current-thread runtime that does what control says.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
    time::{interval, sleep},
};
use weft_runtime::supervise::LocalTasks;

use crate::{
    serve::accept::{Accepting, accept},
    state::MeshState,
    upstream::sockets,
    worker::{Worker, WorkerParts},
};

/// How often idle connections to endpoints are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// How often a worker that ends looks whether its last connection is gone.
const LINGER: Duration = Duration::from_millis(20);

/// What control says to a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve this state from the next request on, and listen where it says. The answer comes when both
    /// is done, with the addresses that could not be opened.
    Apply(Arc<MeshState>, oneshot::Sender<Vec<ListenFailure>>),
    /// Accept nothing more, finish what runs, at most until then, and end.
    Drain(Instant),
}

/// A Gateway's address that could not be opened.
#[derive(Debug)]
pub(crate) struct ListenFailure {
    /// The address.
    pub(crate) address: SocketAddr,
    /// Why.
    pub(crate) error: io::Error,
}

/// A running worker, as control sees it.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    /// Takes commands.
    pub(crate) commands: mpsc::Sender<Command>,
    /// The thread; ends after [`Command::Drain`], or when `commands` is dropped.
    pub(crate) thread: thread::JoinHandle<()>,
}

struct Sockets {
    worker: Rc<Worker>,
    open: BTreeMap<SocketAddr, watch::Sender<bool>>,
    limit: usize,
    stop: watch::Sender<bool>,
    tasks: LocalTasks,
}

/// Starts a worker on a thread of its own. `captured` are its sockets for redirected connections;
/// `limit` bounds its client connections.
pub(crate) fn spawn(
    index: usize,
    parts: impl FnOnce() -> WorkerParts + Send + 'static,
    captured: Vec<TcpListener>,
    limit: usize,
) -> io::Result<WorkerThread> {
    let (commands, receiver) = mpsc::channel(4);
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let worker = Worker::new(parts());
            run(worker, captured, limit, receiver).await;
        });
    };
    let thread = thread::Builder::new().name(format!("weft-worker-{index}")).spawn(run)?;
    Ok(WorkerThread { commands, thread })
}

async fn run(
    worker: Rc<Worker>,
    captured: Vec<TcpListener>,
    limit: usize,
    mut commands: mpsc::Receiver<Command>,
) {
    let stop = watch::Sender::new(false);
    let mut sockets = Sockets {
        worker: Rc::clone(&worker),
        open: BTreeMap::new(),
        limit,
        stop,
        tasks: LocalTasks::default(),
    };
    for socket in captured {
        let stopped = sockets.stop.subscribe();
        if let Err(error) = sockets.serve(socket, Accepting::Redirected, stopped) {
            tracing::error!(%error, "a socket for redirected connections cannot be served");
        }
    }
    sockets.tasks.start("sweep of idle connections", sweep(Rc::clone(&worker)));
    let until = loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            // Control sees that nobody takes commands any more, and ends the node.
            end = sockets.tasks.panicked() => return tracing::error!(%end, "a worker ends"),
        };
        match command {
            Some(Command::Apply(state, done)) => {
                let failures = sockets.apply(state);
                // Control has ended when nobody listens.
                drop(done.send(failures));
            }
            Some(Command::Drain(until)) => break until,
            None => break Instant::now(),
        }
    };
    sockets.stop.send_replace(true);
    sockets.open.clear();
    worker.drain().start();
    while worker.connections() > 0 && Instant::now() < until {
        sleep(LINGER).await;
    }
    let left = worker.connections();
    if left > 0 {
        tracing::warn!(connections = left, "connections were cut at the end of the drain");
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        worker.pools().sweep();
    }
}

impl Sockets {
    /// Serves the state first, so that a new listener never meets the old one.
    fn apply(&mut self, state: Arc<MeshState>) -> Vec<ListenFailure> {
        let wanted: Vec<SocketAddr> = state.listen_points().keys().copied().collect();
        self.worker.publish(state);
        self.open.retain(|address, _| wanted.contains(address));
        let mut failures = Vec::new();
        for address in wanted {
            if self.open.contains_key(&address) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let serving = sockets::gateway_listener(address)
                .and_then(|socket| self.serve(socket, Accepting::Gateway(address), stopped));
            match serving {
                Ok(()) => {
                    self.open.insert(address, stop);
                }
                Err(error) => failures.push(ListenFailure { address, error }),
            }
        }
        failures
    }

    fn serve(
        &mut self,
        socket: TcpListener,
        accepting: Accepting,
        stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(socket)?;
        self.tasks.start("listener", accept(Rc::clone(&self.worker), listener, accepting, self.limit, stop));
        Ok(())
    }
}
