// SPDX-License-Identifier: Apache-2.0
//! What must hold before a daemon says that it is ready.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio::sync::watch;

/// The named conditions of a daemon. A clone is the same set.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<&'static str, State>>>,
    changed: watch::Sender<()>,
}

#[derive(Clone)]
struct State {
    holds: bool,
    message: Message,
}

#[derive(Clone)]
enum Message {
    Text(String),
    /// Asked for when somebody looks.
    Now(Arc<dyn Fn() -> String + Send + Sync>),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("holds", &self.holds).finish_non_exhaustive()
    }
}

/// One condition as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds.
    pub ready: bool,
    /// Why it does not, or what it is about.
    pub message: String,
}

/// Sets one condition. When it is dropped, the condition no longer holds.
#[derive(Debug)]
pub struct ReadinessHandle {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// No conditions: ready.
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// Adds a condition that does not hold yet. `message` says what is waited for.
    pub fn add(&self, name: &'static str, message: &str) -> ReadinessHandle {
        let handle = ReadinessHandle { readiness: self.clone(), name };
        handle.set(false, message);
        handle
    }

    /// Whether all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(|state| state.holds)
    }

    /// Every condition, by name.
    pub fn conditions(&self) -> Vec<Condition> {
        let condition = |(name, state): (&&'static str, &State)| Condition {
            name,
            ready: state.holds,
            message: match &state.message {
                Message::Text(text) => text.clone(),
                Message::Now(text) => text(),
            },
        };
        // What they have to say may take a lock of its own.
        let states = self.lock().clone();
        states.iter().map(condition).collect()
    }

    /// Waits until all conditions hold. Safe to cancel.
    pub async fn ready(&self) {
        let mut changed = self.changed.subscribe();
        while !self.is_ready() {
            // The sender lives in `self`, so this only returns at a change.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadinessHandle {
    /// The condition holds.
    pub fn ready(&self) {
        self.set(true, "ok");
    }

    /// The condition holds, and there is something to say about it.
    pub fn note(&self, message: &str) {
        self.set(true, message);
    }

    /// The condition holds, and there is something to say about it whenever somebody looks.
    pub fn describe(&self, message: impl Fn() -> String + Send + Sync + 'static) {
        self.put(State { holds: true, message: Message::Now(Arc::new(message)) });
    }

    /// The condition does not hold, and why.
    pub fn not_ready(&self, message: &str) {
        self.set(false, message);
    }

    fn set(&self, holds: bool, message: &str) {
        self.put(State { holds, message: Message::Text(message.to_owned()) });
    }

    fn put(&self, state: State) {
        self.readiness.lock().insert(self.name, state);
        self.readiness.changed.send_replace(());
    }
}

impl Drop for ReadinessHandle {
    fn drop(&mut self) {
        self.not_ready("its task ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_waits_for_every_condition() {
        let readiness = Readiness::new();
        let (state, maps) = (readiness.add("state", "no state yet"), readiness.add("maps", "not loaded"));
        state.ready();
        assert!(!readiness.is_ready());
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        maps.ready();
        waiting.await.unwrap();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_condition_says_how_it_stands_when_somebody_looks() {
        let (readiness, age) = (Readiness::new(), Arc::new(Mutex::new(0)));
        let (handle, seen) = (readiness.add("controller", "not tried yet"), age.clone());
        handle.describe(move || format!("since {} s", seen.lock().unwrap()));
        assert!(readiness.is_ready());
        *age.lock().unwrap() = 7;
        assert_eq!(readiness.conditions()[0].message, "since 7 s");
    }

    #[test]
    fn a_task_that_ended_takes_its_condition_with_it() {
        let readiness = Readiness::new();
        let handle = readiness.add("state", "no state yet");
        handle.ready();
        drop(handle);
        assert!(!readiness.is_ready());
        let expected = Condition { name: "state", ready: false, message: "its task ended".to_owned() };
        assert_eq!(readiness.conditions(), [expected]);
    }
}
