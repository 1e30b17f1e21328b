// SPDX-License-Identifier: Apache-2.0
//! Tasks with names: the end of a critical one ends the daemon, others are started again.

use std::{any::Any, error::Error, fmt, future::Future, time::Duration};

use thiserror::Error;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep},
};
use tracing::{debug, error};

/// The first pause before a task is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a task is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A task that ran this long begins again with the first pause.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

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

/// The tasks of a daemon, on the runtime that spawns them. Dropped, it aborts them all.
#[derive(Default)]
pub struct Supervisor {
    critical: JoinSet<Result<(), TaskError>>,
    names: Vec<(Id, &'static str)>,
    restarted: JoinSet<()>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("critical", &self.names).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// No tasks.
    pub fn new() -> Supervisor {
        Supervisor::default()
    }

    /// Starts a task whose end, for whatever reason, ends the daemon.
    pub fn critical<F, E>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError>,
    {
        let handle = self.critical.spawn(async move { task.await.map_err(Into::into) });
        self.names.push((handle.id(), name));
    }

    /// Starts a task that is started again, after a growing pause, whenever it ends or panics.
    pub fn restarted<S, F, E>(&mut self, name: &'static str, mut start: S)
    where
        S: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError>,
    {
        self.restarted.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let begun = Instant::now();
                let mut once = JoinSet::new();
                let task = start();
                once.spawn(async move { task.await.map_err(Into::into) });
                match once.join_next().await {
                    Some(Ok(Ok(()))) => debug!(task = name, "task ended, starting it again"),
                    Some(Ok(Err(source))) => {
                        let source: TaskError = source;
                        error!(task = name, error = %chain(&*source), "task failed, starting it again");
                    }
                    Some(Err(join)) => {
                        error!(task = name, error = panic_message(join), "task panicked, starting it again");
                    }
                    None => {}
                }
                if begun.elapsed() >= LONG_ENOUGH {
                    pause = FIRST_PAUSE;
                }
                sleep(pause).await;
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

    fn name(&self, id: Id) -> &'static str {
        self.names.iter().find(|(known, _)| *known == id).map_or("unknown", |(_, name)| name)
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
