// SPDX-License-Identifier: Apache-2.0
//! Every task of a daemon. One that is to run for good has a name: its end ends the daemon, or it is started
//! again. One that serves a peer ends alone, and a panic in it is counted.

use std::{
    any::Any,
    collections::BTreeMap,
    error::Error,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
    registry::Registry,
};
use thiserror::Error;
use tokio::{
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tracing::error;

use crate::readiness::ReadinessHandle;

/// The first pause before a task is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a task is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A task that ran this long begins again with the first pause.
const LONG_ENOUGH: Duration = Duration::from_secs(60);
/// A task that was started again and ran this long is well.
const STEADY: Duration = Duration::from_secs(5);

/// Panics of tasks in this process.
static PANICS: AtomicU64 = AtomicU64::new(0);
/// Tasks that were started again in this process.
static RESTARTS: AtomicU64 = AtomicU64::new(0);

/// The error of a task, whatever it is.
pub type TaskError = Box<dyn Error + Send + Sync>;

/// Why a critical task ended.
#[derive(Debug, Error)]
pub enum CriticalEnd {
    /// It returned, although it was to run for good.
    #[error("the critical task `{0}` ended")]
    Returned(&'static str),
    /// It failed.
    #[error("the critical task `{name}` failed")]
    Failed {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: TaskError,
    },
    /// It panicked.
    #[error("the critical task `{name}` panicked: {message}")]
    Panicked {
        /// Its name.
        name: &'static str,
        /// What it said.
        message: String,
    },
}

/// The tasks of a daemon, on the runtime that starts them. Dropped, it aborts them all.
#[derive(Default)]
pub struct Supervisor {
    critical: JoinSet<Result<(), TaskError>>,
    names: Vec<(Id, &'static str)>,
    restarted: JoinSet<()>,
    failing: Failing,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("critical", &self.names).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// No tasks, and nobody is told of those that fail.
    pub fn new() -> Supervisor {
        Supervisor::default()
    }

    /// No tasks. The condition holds as long as none of those that are started again has just failed.
    pub fn reporting(ready: ReadinessHandle) -> Supervisor {
        ready.ready();
        let failing = Failing { tasks: Arc::default(), ready: Some(Arc::new(ready)) };
        Supervisor { failing, ..Supervisor::default() }
    }

    /// Starts a task whose end, for whatever reason, ends the daemon.
    pub fn critical<F, E>(&mut self, name: &'static str, task: F) -> AbortHandle
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError>,
    {
        let handle = self.critical.spawn(async move { task.await.map_err(Into::into) });
        self.names.push((handle.id(), name));
        handle
    }

    /// Starts a task that is started again, after a growing pause, whenever it ends or panics.
    pub fn restarted<S, F, E>(&mut self, name: &'static str, mut start: S)
    where
        S: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError>,
    {
        let failing = self.failing.clone();
        self.restarted.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let begun = Instant::now();
                let mut once = JoinSet::new();
                let task = start();
                once.spawn(async move { task.await.map_err(Into::into) });
                let ended = match timeout(STEADY, once.join_next()).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        failing.is_well(name);
                        once.join_next().await
                    }
                };
                let why = match ended {
                    Some(Ok(Err(source))) => {
                        let source: TaskError = source;
                        format!("failed: {}", chain(&*source))
                    }
                    Some(Err(join)) => format!("panicked: {}", panic_message(join)),
                    Some(Ok(Ok(()))) | None => "ended".to_owned(),
                };
                if begun.elapsed() >= LONG_ENOUGH {
                    pause = FIRST_PAUSE;
                }
                error!(task = name, why, ?pause, "a task ended and is started again");
                failing.fails(name, why);
                sleep(pause).await;
                RESTARTS.fetch_add(1, Ordering::Relaxed);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Waits until a critical task ends. Never returns without critical tasks. Safe to cancel.
    pub async fn failed(&mut self) -> CriticalEnd {
        match self.critical.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, Ok(())))) => CriticalEnd::Returned(self.name(id)),
            Some(Ok((id, Err(source)))) => CriticalEnd::Failed { name: self.name(id), source },
            Some(Err(join)) => {
                CriticalEnd::Panicked { name: self.name(join.id()), message: panic_message(join) }
            }
        }
    }

    /// Waits until all critical tasks have ended, as they do when the daemon has told them to.
    pub async fn ended(&mut self) {
        while self.critical.join_next().await.is_some() {}
    }

    fn name(&self, id: Id) -> &'static str {
        self.names.iter().find(|(known, _)| *known == id).map_or("unknown", |(_, name)| name)
    }
}

/// The tasks that have failed and are not well again.
#[derive(Clone, Debug, Default)]
struct Failing {
    tasks: Arc<Mutex<BTreeMap<&'static str, String>>>,
    ready: Option<Arc<ReadinessHandle>>,
}

impl Failing {
    fn fails(&self, name: &'static str, why: String) {
        self.change(|tasks| drop(tasks.insert(name, why)));
    }

    fn is_well(&self, name: &'static str) {
        self.change(|tasks| drop(tasks.remove(name)));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<&'static str, String>)) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut tasks);
        let Some(ready) = &self.ready else { return };
        match tasks.first_key_value() {
            None => ready.ready(),
            Some((name, why)) => ready.not_ready(&format!("task `{name}` {why}")),
        }
    }
}

/// The tasks that serve peers: connections, streams, answers. Each ends with its peer, and a panic ends only
/// that one. A clone starts tasks of the same name.
#[derive(Clone, Copy, Debug)]
pub struct PeerTasks(&'static str);

impl PeerTasks {
    /// Tasks of this name.
    pub const fn new(name: &'static str) -> PeerTasks {
        PeerTasks(name)
    }

    /// Starts one on the runtime of the caller.
    pub fn start(self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.watched(task));
    }

    /// Starts one on the thread of the caller, which has a `LocalSet`.
    pub fn start_local(self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(self.watched(task));
    }

    async fn watched(self, task: impl Future<Output = ()>) {
        let _watch = PanicWatch(self.0);
        task.await;
    }
}

/// Counts a panic that ended what one peer had, where that is no task.
pub fn count_panic() {
    PANICS.fetch_add(1, Ordering::Relaxed);
}

/// The tasks of one thread with a `LocalSet` that serve nobody in particular. They may end; a panic is the end
/// of the thread's work, which [`LocalTasks::panicked`] tells. Dropped, it aborts them all.
#[derive(Debug, Default)]
pub struct LocalTasks {
    tasks: JoinSet<()>,
    names: Vec<(Id, &'static str)>,
}

impl LocalTasks {
    /// Starts one.
    pub fn start(&mut self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        let handle = self.tasks.spawn_local(task);
        self.names.push((handle.id(), name));
    }

    /// Waits until one panics. Safe to cancel.
    pub async fn panicked(&mut self) -> CriticalEnd {
        loop {
            let (id, join) = match self.tasks.join_next_with_id().await {
                None => std::future::pending().await,
                Some(Ok((id, ()))) => (id, None),
                Some(Err(join)) => (join.id(), Some(join)),
            };
            let at = self.names.iter().position(|(known, _)| *known == id);
            let name = at.map_or("unknown", |at| self.names.swap_remove(at).1);
            if let Some(join) = join {
                return CriticalEnd::Panicked { name, message: panic_message(join) };
            }
        }
    }
}

/// Counts the panic that drops it.
struct PanicWatch(&'static str);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            PANICS.fetch_add(1, Ordering::Relaxed);
            error!(task = self.0, "a task for one peer panicked; the others go on");
        }
    }
}

/// Adds what became of tasks to a registry.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(TaskMetrics));
}

#[derive(Debug)]
struct TaskMetrics;

impl Collector for TaskMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = [
            ("weft_task_panics", "panics of tasks", &PANICS),
            ("weft_task_restarts", "tasks that ended and were started again", &RESTARTS),
        ];
        for (name, help, count) in counters {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count.load(Ordering::Relaxed)).encode(descriptor)?;
        }
        Ok(())
    }
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn panic_message(join: JoinError) -> String {
    if join.is_panic() {
        PANICS.fetch_add(1, Ordering::Relaxed);
    }
    let said = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or("no message".to_owned(), |text| (*text).to_owned()),
    };
    join.try_into_panic().map_or_else(|join| join.to_string(), said)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        io,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_critical_task_is_named() {
        let mut supervisor = Supervisor::new();
        supervisor.critical("forever", std::future::pending::<Result<(), Infallible>>());
        supervisor.critical("ir stream", async { Err::<(), _>(io::Error::other("no address")) });
        let end = supervisor.failed().await;
        assert_eq!(chain(&end), "the critical task `ir stream` failed: no address");
    }

    #[tokio::test]
    async fn a_critical_task_that_returns_or_panics_ends_the_daemon() {
        let mut supervisor = Supervisor::new();
        supervisor.critical("short", async { Ok::<(), Infallible>(()) });
        assert_eq!(supervisor.failed().await.to_string(), "the critical task `short` ended");
        supervisor.critical("broken", async {
            if true {
                panic!("no {}", "luck");
            }
            Ok::<(), Infallible>(())
        });
        assert_eq!(supervisor.failed().await.to_string(), "the critical task `broken` panicked: no luck");
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_names_a_task_that_fails_until_it_is_well_again() {
        let readiness = crate::readiness::Readiness::new();
        let mut supervisor = Supervisor::reporting(readiness.add("tasks", ""));
        let mut starts = 0;
        supervisor.restarted("exporter", move || {
            starts += 1;
            let first = starts == 1;
            async move {
                assert!(!first, "no luck");
                std::future::pending::<Result<(), Infallible>>().await
            }
        });
        assert!(readiness.is_ready());
        sleep(FIRST_PAUSE / 2).await;
        assert_eq!(readiness.conditions()[0].message, "task `exporter` panicked: no luck");
        sleep(STEADY * 2).await;
        assert!(readiness.is_ready());
    }

    #[tokio::test]
    async fn a_task_of_a_thread_may_end_and_its_panic_is_told() {
        let local = tokio::task::LocalSet::new();
        let end = local.run_until(async {
            let mut tasks = LocalTasks::default();
            tasks.start("listener", async {});
            tasks.start("sweep", async { panic!("no luck") });
            tasks.panicked().await
        });
        assert_eq!(end.await.to_string(), "the critical task `sweep` panicked: no luck");
    }

    #[tokio::test]
    async fn a_panic_for_one_peer_is_counted_and_ends_nobody_else() {
        let tasks = PeerTasks::new("connection");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let before = PANICS.load(Ordering::Relaxed);
        tasks.start(async { panic!("a peer's bytes") });
        tasks.start(async move { sender.send(()).unwrap() });
        receiver.await.unwrap();
        let counted = async {
            while PANICS.load(Ordering::Relaxed) == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), counted).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn other_tasks_start_again_with_growing_pauses() {
        let mut supervisor = Supervisor::new();
        let starts = Arc::new(AtomicU32::new(0));
        let counted = starts.clone();
        supervisor.restarted("exporter", move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(start != 1, "the second start panics");
                Err::<(), _>(io::Error::other("refused"))
            }
        });
        // Starts at 0, 100, 300, 700 and 1500 ms.
        sleep(Duration::from_millis(1600)).await;
        assert_eq!(starts.load(Ordering::Relaxed), 5);
        sleep(Duration::from_secs(3600)).await;
        let later = starts.load(Ordering::Relaxed);
        assert!((100..140).contains(&later), "{later}");
    }
}
