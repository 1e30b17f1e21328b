// SPDX-License-Identifier: Apache-2.0
//! The thread of one worker: turns, and between them what control says.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Waker};
use tokio::sync::{oneshot, watch};

use crate::{
    serve::{engine::Engine, listening::Accepting},
    state::MeshState,
    upstream::sockets,
    worker::{Worker, WorkerParts, target::Ends},
};

/// How often a worker that ends looks whether its time is over.
const LINGER: Duration = Duration::from_millis(20);

/// What control says to a worker.
#[derive(Debug)]
enum Command {
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
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    /// Closed when the worker has ended.
    pub(crate) ended: watch::Receiver<()>,
    /// The thread; ends after [`WorkerThread::drain`], or when this is dropped.
    pub(crate) thread: thread::JoinHandle<()>,
}

/// The worker has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

impl WorkerThread {
    /// Has it serve a state; the answer comes when it does.
    pub(crate) fn apply(&self, state: Arc<MeshState>) -> Result<oneshot::Receiver<Vec<ListenFailure>>, Gone> {
        let (done, answer) = oneshot::channel();
        self.say(Command::Apply(state, done))?;
        Ok(answer)
    }

    /// Has it end, at most until then.
    pub(crate) fn drain(&self, until: Instant) -> Result<(), Gone> {
        self.say(Command::Drain(until))
    }

    fn say(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).map_err(|_ended| Gone)?;
        self.waker.wake().map_err(|_ended| Gone)
    }
}

/// Starts a worker on a thread of its own. `captured` are its sockets for redirected connections.
pub(crate) fn spawn(
    index: usize,
    parts: impl FnOnce() -> WorkerParts + Send + 'static,
    captured: Vec<TcpListener>,
) -> io::Result<WorkerThread> {
    let (commands, receiver) = mpsc::channel();
    let (end, ended) = watch::channel(());
    let (made, waker) = mpsc::channel();
    let run = move || {
        // Dropped with the thread, however it ends.
        let _end = end;
        match Engine::new(Worker::new(parts())) {
            Ok((engine, waker)) => {
                let waker = Arc::new(waker);
                // Who starts it waits for this.
                drop(made.send(Ok(Arc::clone(&waker))));
                run(engine, captured, &receiver);
            }
            Err(error) => drop(made.send(Err(error))),
        }
    };
    let thread = thread::Builder::new().name(format!("weft-worker-{index}")).spawn(run)?;
    let waker = waker.recv().map_err(|_ended| io::Error::other("a worker ended before it began"))??;
    Ok(WorkerThread { commands, waker, ended, thread })
}

fn run(mut engine: Engine, captured: Vec<TcpListener>, commands: &mpsc::Receiver<Command>) {
    for socket in captured {
        if let Err(error) = engine.listen(socket, Accepting::Redirected) {
            tracing::error!(%error, "a socket for redirected connections cannot be served");
        }
    }
    let mut events = Engine::events();
    let until = loop {
        if let Err(error) = engine.turn(&mut events, None) {
            // Control sees that nobody takes commands any more, and ends the node.
            return tracing::error!(%error, "a worker cannot wait for its sockets");
        }
        if let Some(until) = listen_to_control(&mut engine, commands) {
            break until;
        }
    };
    engine.drain();
    while !engine.is_empty() && Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now()).min(LINGER);
        if let Err(error) = engine.turn(&mut events, Some(left)) {
            tracing::error!(%error, "a worker cannot wait for its sockets");
            break;
        }
    }
    engine.cut_what_is_left();
}

/// Does what control has said; yields until when the worker is to end, once it is.
fn listen_to_control(engine: &mut Engine, commands: &mpsc::Receiver<Command>) -> Option<Instant> {
    loop {
        match commands.try_recv() {
            Ok(Command::Apply(state, done)) => {
                let failures = apply(engine, state);
                // Control has ended when nobody listens.
                drop(done.send(failures));
            }
            Ok(Command::Drain(until)) => return Some(until),
            Err(mpsc::TryRecvError::Empty) => return None,
            Err(mpsc::TryRecvError::Disconnected) => return Some(Instant::now()),
        }
    }
}

/// Serves the state first, so that a new listener never meets the old one.
fn apply(engine: &mut Engine, state: Arc<MeshState>) -> Vec<ListenFailure> {
    let wanted: Vec<SocketAddr> = state.listen_points().keys().copied().collect();
    engine.publish(state);
    engine.keep_listeners(|accepting| match accepting {
        Accepting::Redirected => true,
        Accepting::Gateway(address) => wanted.contains(&address),
    });
    let mut failures = Vec::new();
    for address in wanted {
        if engine.listens_on(address) {
            continue;
        }
        let opened = sockets::gateway_listener(address)
            .and_then(|socket| engine.listen(socket, Accepting::Gateway(address)));
        if let Err(error) = opened {
            failures.push(ListenFailure { address, error });
        }
    }
    failures
}

/// A worker on the caller's thread, which is given its connections and its turns by hand.
pub struct Turns {
    engine: Engine,
    events: Events,
}

impl Turns {
    /// A worker with nothing open.
    ///
    /// # Errors
    /// When there is no descriptor for its set of sockets.
    pub fn new(worker: Rc<Worker>) -> io::Result<Turns> {
        let (engine, _waker) = Engine::new(worker)?;
        Ok(Turns { engine, events: Engine::events() })
    }

    /// Takes a connection as if it had come with these ends, and reads requests from it.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn admit(&mut self, socket: TcpStream, ends: Ends) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        self.engine.admit(mio::net::TcpStream::from_std(socket), ends).map(|_number| ())
    }

    /// Serves a new state from the next request on.
    pub fn publish(&mut self, state: Arc<MeshState>) {
        self.engine.publish(state);
    }

    /// Puts the clock of its deadlines forward.
    pub fn pass(&mut self, time: Duration) {
        self.engine.ahead += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    }

    /// One turn, of what is there.
    ///
    /// # Errors
    /// When sockets cannot be waited for.
    pub fn turn(&mut self) -> io::Result<()> {
        self.engine.turn(&mut self.events, Some(Duration::ZERO))
    }
}
