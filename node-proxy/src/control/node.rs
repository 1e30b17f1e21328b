// SPDX-License-Identifier: Apache-2.0
//! The control side of `weft-node`: starts everything, and ends it in order. Nothing here is on the data
//! path.

use std::{
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use thiserror::Error;
use tokio::sync::{Mutex, watch};
use weft_ebpf_redirect::{DEFAULT_MARK, DEFAULT_PORTS, Datapath, DatapathError, PodConnections};
use weft_flow_export::FlowRing;
use weft_identity::{JoinToken, TokenError};
use weft_runtime::{
    admin::{AdminServeError, AdminServer},
    drain,
    readiness::{Readiness, ReadinessHandle},
    signals::{Shutdown, ShutdownSignals},
    state_dir::{Holder, StateDirectory, StateDirectoryError},
    supervise::{self, CriticalEnd, Supervisor},
};

use crate::{
    control::{
        admin::{self, Watched},
        apply::{Applier, Kernel},
        config::{Config, KernelConfig, RawConfig},
        handover::{Predecessor, Successor, Successors},
        kernel::{self, CounterQuestions, KernelCounters},
        link::describe,
        plane::{Plane, PlaneConfig, Redirect, WorkerGone},
    },
    ir_client::{IrClient, IrClientConfig, IrClientError},
    state::MeshState,
};

/// How much longer than for its requests another process may take to end.
const HANDOVER: Duration = Duration::from_secs(5);
/// How long cleaning up waits for a process that was told to end and drains.
const CLEAN_UP_PATIENCE: Duration = Duration::from_secs(60);

/// How long connections whose first packet came before the hand-over may take to be accepted: a repeated SYN-ACK
/// comes after one second (RFC 6298 section 2).
const SETTLE: Duration = Duration::from_millis(1_500);

/// How long a process serves on that nobody relieves, with a state that grows old.
const LONELY: Duration = Duration::from_secs(60);

/// How long the admin endpoint may take to end.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// How often it is looked whether the controller has said how to join.
const PUBLISHED: Duration = Duration::from_secs(1);

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
    #[error("the file {} holds no join token: give the file that the controller wrote", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokenError,
    },
    /// It only says which controller it is.
    #[error(
        "the join token in {} has no secret, and nothing else speaks for the node: give the file that the controller \
         wrote, or --account-token-file", .0.display()
    )]
    NoSecret(PathBuf),
    /// Another process has the state directory, or it cannot be used.
    #[error(transparent)]
    StateDirectory(#[from] StateDirectoryError),
    /// A process runs on what is to be removed.
    #[error("{holder} runs with the state directory {}: stop that first, or its pods are without policy", path.display())]
    Runs {
        /// The state directory.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// A worker's sockets or thread could not be made.
    #[error("cannot start the workers")]
    Workers(#[source] io::Error),
    /// The socket or the lock of the hand-over between processes cannot be used.
    #[error("cannot hand over between processes in the state directory")]
    HandOver(#[source] io::Error),
    /// Another process was to take over, and none does.
    #[error("another weft-node has taken the state directory and then ended: start one again")]
    Alone,
    /// There is no cgroup to attach to.
    #[error(
        "cannot find the cgroup of this node's pods: mount cgroup v2 (in a pod, a hostPath volume of the node's /sys/fs/cgroup), or give --cgroup"
    )]
    Cgroup(#[source] io::Error),
    /// The kernel programs cannot be used.
    #[error("cannot use the kernel's part; see weft-node --check, or serve gateways only with --no-redirect")]
    Datapath(#[source] DatapathError),
    /// Signals cannot be caught.
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
    /// The state client.
    #[error(transparent)]
    Client(#[from] IrClientError),
    /// The admin endpoint.
    #[error(transparent)]
    Admin(#[from] AdminServeError),
    /// A task that is to run for good has ended.
    #[error(transparent)]
    Task(CriticalEnd),
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
    let token = tokio::select! {
        token = join_token(&config) => token?,
        signal = signals.next() => {
            tracing::info!(?signal, "ending before the start");
            return Ok(());
        }
    };
    // Two processes would fight for the name, and for the kernel's tables.
    let (directory, predecessor) = tokio::select! {
        taken = take_directory(&config) => taken?,
        signal = signals.next() => {
            tracing::info!(?signal, "ending before the start");
            return Ok(());
        }
    };
    let successors = Successors::listen(directory.path()).map_err(NodeError::HandOver)?;
    let ring = FlowRing::new(config.flows);
    let readiness = Readiness::new();
    let state_ready = readiness.add("state", "waiting for the first state from the controller");
    let mut tasks = Supervisor::reporting(readiness.add("tasks", "starting"));
    let (counters, questions) = KernelCounters::channel();
    let kernel = match &config.kernel {
        Some(kernel) => {
            let ready = readiness.add("kernel", "the kernel's tables are not written yet");
            let in_the_way = readiness.add("hooks", "not looked at yet");
            in_the_way.ready();
            let ready = [ready, in_the_way];
            Some(start_kernel(&config, kernel, questions, ready, &ring, &mut tasks).await?)
        }
        None => {
            tracing::warn!(
                "no kernel programs: only Gateway listeners are served, and no L3/L4 policy is enforced"
            );
            None
        }
    };
    let taken = kernel.as_ref().map(|kernel| kernel.datapath.pod_connections());
    let taken = taken.transpose().map_err(NodeError::Datapath)?;
    let plane = Plane::start(&plane_config(&config, taken), &ring).map_err(NodeError::Workers)?;
    tasks.critical("flows of the workers", ends(ring.clone().keep_up()));
    let client = IrClientConfig {
        address: config.controller.clone(),
        token,
        account: config.account_token_file.clone(),
        node: Arc::clone(&config.node),
        directory: Arc::clone(&directory),
    };
    let client = IrClient::start(client, &mut tasks)?;
    let link = client.link();
    let controller = readiness.add("controller", "not tried yet");
    // It always holds, since a node serves its last state without one.
    controller.describe(move || describe(&link.borrow(), SystemTime::now()));
    let admin = AdminServer::bind(&config.admin).await?;
    let (admin_drain, admin_watch) = drain::channel();
    let guess = watch::Sender::new(None);
    let unowned = kernel.as_ref().map(|kernel| kernel.unowned.subscribe());
    let watched = Watched { link: client.link(), guess: guess.subscribe(), unowned };
    let routes = admin::routes(&config, &readiness, &plane, &ring, counters, watched);
    tasks.critical("admin endpoint", admin.serve(routes, admin_watch));
    tracing::info!(node = %config.node, workers = config.workers, admin = %config.admin, "started");

    let mut applier = Applier { plane, acks: client.acks(), ready: state_ready, kernel, guess, predecessor };
    let mut successor = None;
    let ended = tokio::select! {
        result = applier.run(client.states()) => result.map_err(NodeError::from),
        end = tasks.failed() => Err(NodeError::Task(end)),
        signal = signals.next() => {
            tracing::info!(?signal, "ending: running requests may finish, a second signal ends at once");
            Ok(())
        }
        next = successors.next() => {
            tracing::info!("another process takes over");
            successor = Some(next);
            Ok(())
        }
    };
    directory.ending();
    if successor.is_none() {
        applier.stop_redirects();
    }
    client.shutdown().await;
    if let Some(successor) = successor {
        admin_drain.drain(ADMIN_DRAIN).await;
        // The kernel's events have one reader.
        drop(tasks);
        return hand_over(&config, &directory, successor, applier, signals).await;
    }
    let until = Instant::now() + if ended.is_ok() { config.drain_timeout } else { Duration::ZERO };
    let give = Give { successors, directory, tasks, admin: admin_drain };
    drain(applier, until, give, &mut signals).await;
    ended
}

/// What a process that drains has no more use for.
struct Give {
    successors: Successors,
    directory: Arc<StateDirectory>,
    tasks: Supervisor,
    admin: drain::DrainTrigger,
}

/// Lets running requests finish. Who comes meanwhile to take over need not wait for it.
async fn drain(applier: Applier, until: Instant, give: Give, signals: &mut ShutdownSignals) {
    let Give { successors, directory, tasks, admin } = give;
    // Whatever is not given away lives on until the admin endpoint has ended.
    let (mut admin, mut tasks) = (Some(admin), Some(tasks));
    let giving = async {
        let mut successor = successors.next().await;
        if let Some(admin) = admin.take() {
            admin.drain(ADMIN_DRAIN).await;
        }
        drop(tasks.take());
        if let Err(error) = directory.release() {
            tracing::error!(%error, "the next process waits until this one has ended");
        }
        successor.give().await.ok();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = applier.plane.drain(until) => {}
        () = giving => {}
        Shutdown::Terminate | Shutdown::Interrupt = signals.next() => {
            tracing::warn!("ending at once on the second signal");
        }
    }
    if let Some(admin) = admin {
        admin.drain(ADMIN_DRAIN).await;
    }
}

/// Takes the state directory, from the process that has it where that is wanted and answers.
async fn take_directory(config: &Config) -> Result<(Arc<StateDirectory>, Option<Predecessor>), NodeError> {
    let path = &config.state_dir;
    let taken = StateDirectory::take(path, Duration::ZERO).await;
    let predecessor = match &taken {
        Err(StateDirectoryError::InUse { .. }) if config.take_over => Predecessor::ask(path).await,
        _ => None,
    };
    let taken = match taken {
        Err(StateDirectoryError::InUse { .. }) => {
            StateDirectory::take(path, config.drain_timeout + HANDOVER).await
        }
        taken => taken,
    };
    Ok((Arc::new(taken?), predecessor))
}

/// Gives another process what there can only be one of, serves until that one does, and drains. Then it holds nothing,
/// and waits to be ended: whoever started it would start it again, and it would take over in turn.
async fn hand_over(
    config: &Config,
    directory: &StateDirectory,
    mut successor: Successor,
    mut applier: Applier,
    mut signals: ShutdownSignals,
) -> Result<(), NodeError> {
    directory.release().map_err(NodeError::HandOver)?;
    let relieved = tokio::select! {
        relieved = async { successor.give().await.is_ok() && successor.serves().await } => relieved,
        signal = signals.next() => {
            tracing::warn!(?signal, "ending before the next process serves");
            applier.stop_redirects();
            applier.plane.drain(Instant::now() + config.drain_timeout).await;
            return Ok(());
        }
    };
    let lonely = !relieved && {
        tracing::error!("the process that was to take over has gone away, serving on with the last state");
        tokio::select! {
            () = applier.serve_until_another_does() => false,
            () = tokio::time::sleep(LONELY) => true,
            _ = signals.next() => true,
        }
    };
    if !lonely {
        // Whoever has begun to connect here is accepted here.
        tokio::time::sleep(SETTLE).await;
    }
    applier.stop_redirects();
    applier.plane.drain(Instant::now() + config.drain_timeout).await;
    if !relieved && lonely {
        return Err(NodeError::Alone);
    }
    tracing::info!("another process serves: waiting to be ended");
    signals.next().await;
    Ok(())
}

/// A task that cannot fail.
async fn ends(task: impl Future<Output = ()>) -> Result<(), Infallible> {
    task.await;
    Ok(())
}

/// The join token. Where a service account speaks for the node, the controller may not have published it yet.
async fn join_token(config: &Config) -> Result<JoinToken, NodeError> {
    let mut said = false;
    loop {
        match read_token(config) {
            Ok(token) if token.has_secret() || config.account_token_file.is_some() => return Ok(token),
            Ok(_) => return Err(NodeError::NoSecret(config.join_token_file.clone())),
            Err(error) if config.account_token_file.is_none() => return Err(error),
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!(
                        "waiting for the controller to say how to join: {}",
                        supervise::chain(&error)
                    );
                }
                tokio::time::sleep(PUBLISHED).await;
            }
        }
    }
}

fn read_token(config: &Config) -> Result<JoinToken, NodeError> {
    let path = &config.join_token_file;
    let text =
        fs::read_to_string(path).map_err(|source| NodeError::TokenFile { path: path.clone(), source })?;
    let token: JoinToken =
        text.trim().parse().map_err(|source| NodeError::Token { path: path.clone(), source })?;
    if let Some(exposed) = weft_identity::exposed(path).filter(|_| token.has_secret()) {
        tracing::warn!("{exposed}");
    }
    Ok(token)
}

fn plane_config(config: &Config, taken: Option<PodConnections>) -> PlaneConfig {
    PlaneConfig {
        node: Arc::clone(&config.node),
        workers: config.workers,
        connections: config.connections_per_worker,
        listen_addresses: config.listen_addresses.clone(),
        connect_timeout: config.connect_timeout,
        redirect: taken.map(|taken| Redirect {
            mark: DEFAULT_MARK.from_proxy,
            ports: DEFAULT_PORTS.0..=DEFAULT_PORTS.1,
            taken,
        }),
    }
}

async fn start_kernel(
    config: &Config,
    kernel: &KernelConfig,
    questions: CounterQuestions,
    [ready, in_the_way]: [ReadinessHandle; 2],
    ring: &FlowRing,
    tasks: &mut Supervisor,
) -> Result<Kernel, NodeError> {
    let datapath =
        kernel::datapath_config(&config.node, kernel, &config.state_dir).map_err(NodeError::Cgroup)?;
    let datapath = Datapath::attach(datapath).await.map_err(NodeError::Datapath)?;
    let events = datapath.events().map_err(NodeError::Datapath)?;
    let states = watch::Sender::new(Arc::new(MeshState::empty(&config.node)));
    let (reading, flows, events) = (states.subscribe(), ring.clone(), Arc::new(Mutex::new(events)));
    tasks.restarted("flows of the kernel", move || {
        let (events, reading, flows) = (Arc::clone(&events), reading.clone(), flows.clone());
        async move { kernel::report(&mut *events.lock().await, reading, flows).await }
    });
    Ok(Kernel {
        datapath,
        ready,
        questions,
        states,
        ring: ring.clone(),
        pending: None,
        listening: false,
        in_the_way,
        unowned: watch::Sender::default(),
    })
}

/// Removes everything that the node left in the kernel. Not from under a process that runs: its pods would be open
/// at once, and it would not make it again.
///
/// # Errors
/// When something could not be removed, or a process has the state directory.
pub async fn clean_up(raw: &RawConfig) -> Result<(), NodeError> {
    let path = raw.state_directory();
    // One that is not there is nobody's, and is not made to be looked at.
    let _held = match path.try_exists() {
        Ok(false) => None,
        _ => Some(unused(&path).await?),
    };
    let config = raw.kernel();
    let datapath = kernel::datapath_config(raw.node_name(), &config, &path).map_err(NodeError::Cgroup)?;
    Datapath::cleanup(&datapath).await.map_err(NodeError::Datapath)
}

/// The state directory of a node on which no process runs any more.
async fn unused(path: &Path) -> Result<StateDirectory, NodeError> {
    match StateDirectory::take(path, CLEAN_UP_PATIENCE).await {
        Err(StateDirectoryError::InUse { path, holder }) => Err(NodeError::Runs { path, holder }),
        taken => Ok(taken?),
    }
}
