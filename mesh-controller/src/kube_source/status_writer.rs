// SPDX-License-Identifier: Apache-2.0
//! Writes statuses to the API server: only where one says something else, one at a time, and no more of them than
//! a cluster stands.
//!
//! Whatever brought it about, a status is compared with what the object has, so that one that somebody else removed
//! comes back, and a controller that starts again writes nothing. One that cannot be written is tried again, later
//! each time, while others go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::Duration,
};

use imbl::OrdMap;
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc::Sender, watch},
    time::{Instant, sleep_until, timeout},
};
use weft_api::{
    object::{Kind, ObjectKey},
    status::Status,
};

use super::{
    api::{self, Backoff, Failure},
    list_watch::{Heard, Message},
    live::{Live, LiveObject, WRITTEN},
    merge,
};
use crate::observed::Objects;

/// Who has written a field, for server-side apply. Another name would leave the fields of this one behind.
const MANAGER: &str = "weft-controller";

/// How long a write may take: whoever waits for a status tries again sooner than an API server recovers.
const DEADLINE: Duration = Duration::from_secs(5);

/// Writes each second, and as many at once after a rest: a quarter of the requests that the API server has under way
/// for all service accounts together is more than this, at 10 ms each.
const RATE: f64 = 100.0;

/// Nobody says what statuses mean any more.
#[derive(Debug, thiserror::Error)]
#[error("nobody says any more what statuses mean")]
pub(super) struct Ended;

/// Keeps the statuses in the API server as they are meant.
pub(super) struct StatusWriter {
    client: Client,
    live: Arc<Live>,
    meant: watch::Receiver<Arc<Objects>>,
    /// As it was when its differences were last taken.
    statuses: OrdMap<ObjectKey, Arc<Status>>,
    /// What has to be looked at.
    waiting: BTreeSet<ObjectKey>,
    /// What could not be written, and when it is tried again.
    failed: BTreeMap<ObjectKey, (Instant, Backoff)>,
    /// What has a status of ours.
    written: BTreeSet<ObjectKey>,
    /// Why nothing of a kind can be written.
    trouble: BTreeMap<Kind, String>,
    messages: Sender<Message>,
    allowance: Allowance,
}

impl StatusWriter {
    pub(super) fn new(
        client: Client,
        live: Arc<Live>,
        meant: watch::Receiver<Arc<Objects>>,
        messages: Sender<Message>,
    ) -> StatusWriter {
        StatusWriter {
            client,
            live,
            meant,
            statuses: OrdMap::new(),
            waiting: BTreeSet::new(),
            failed: BTreeMap::new(),
            written: BTreeSet::new(),
            trouble: BTreeMap::new(),
            messages,
            allowance: Allowance::new(Instant::now()),
        }
    }

    /// Writes for as long as somebody says what statuses mean.
    pub(super) async fn run(mut self) -> Result<Infallible, Ended> {
        loop {
            self.look();
            // Of a controller that has not read everything, no status means anything.
            let is_ready = self.meant.borrow().revision > 0;
            match self.waiting.pop_first().filter(|_| is_ready) {
                Some(key) => self.write(key).await,
                None => self.rest().await?,
            }
        }
    }

    /// Waits until there may be something to write.
    async fn rest(&mut self) -> Result<(), Ended> {
        let due = self.failed.values().map(|(due, _)| *due).min();
        let again = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = self.meant.changed() => changed.or(Err(Ended)),
            () = self.live.changed.notified() => Ok(()),
            () = again => Ok(()),
        }
    }

    /// Collects what may have to be written: what is meant differently, what was changed there, what is due again.
    fn look(&mut self) {
        let meant = self.meant.borrow_and_update().statuses.clone();
        for difference in self.statuses.diff(&meant) {
            let key = match difference {
                imbl::ordmap::DiffItem::Add(key, _) | imbl::ordmap::DiffItem::Remove(key, _) => key,
                imbl::ordmap::DiffItem::Update { new: (key, _), .. } => key,
            };
            self.waiting.insert(key.clone());
        }
        self.statuses = meant;
        self.waiting.extend(self.live.take_changed());
        self.waiting.retain(|key| WRITTEN.contains(&key.kind));
        let now = Instant::now();
        let due = |(key, (due, _)): (&ObjectKey, &(Instant, Backoff))| (*due <= now).then(|| key.clone());
        self.waiting.extend(self.failed.iter().filter_map(due));
        // What waits for its time is not tried before.
        self.waiting.retain(|key| self.failed.get(key).is_none_or(|(due, _)| *due <= now));
    }

    async fn write(&mut self, key: ObjectKey) {
        let Some(live) = self.live.of(&key) else {
            self.failed.remove(&key);
            self.written.remove(&key);
            return;
        };
        let meant = self.statuses.get(&key).cloned();
        let was_written = self.written.contains(&key);
        let Some(write) = merge::write(key.kind, meant.as_deref(), &live.status(), was_written) else {
            self.failed.remove(&key);
            if meant.is_some() {
                self.written.insert(key);
            }
            return;
        };
        self.allowance.take().await;
        match self.apply(&key, &live, write).await {
            Ok(object) => {
                if let Ok(version) = super::version_of(&object) {
                    self.live.set(key.clone(), LiveObject::of(&object, version));
                }
                self.failed.remove(&key);
                self.tell(key.kind, None);
                if meant.is_some() {
                    self.written.insert(key)
                } else {
                    self.written.remove(&key)
                };
            }
            Err(Failure::Missing) => {
                self.failed.remove(&key);
                self.live.remove(&key);
            }
            Err(failure) => {
                tracing::debug!(object = %key, "no status is written: {failure}");
                if matches!(failure, Failure::Forbidden(_)) {
                    let resource = api::resource(key.kind);
                    let why = format!(
                        "cannot write statuses (grant the verb `patch` of {resource}, subresource status)"
                    );
                    self.tell(key.kind, Some(format!("{why}: {failure}")));
                }
                let (_, mut backoff) =
                    self.failed.remove(&key).unwrap_or((Instant::now(), Backoff::default()));
                let due = Instant::now() + backoff.pause();
                self.failed.insert(key, (due, backoff));
            }
        }
    }

    async fn apply(&self, key: &ObjectKey, live: &LiveObject, write: merge::Write) -> Result<Value, Failure> {
        let version = live.api_version.rsplit('/').next().unwrap_or_default();
        let mut metadata = json!({"name": &*key.name});
        if !key.namespace.is_empty() {
            metadata["namespace"] = (&*key.namespace).into();
        }
        if write.is_exact {
            metadata["resourceVersion"] = live.version.to_string().into();
        }
        let body = json!({
            "apiVersion": live.api_version, "kind": key.kind.name(), "metadata": metadata, "status": write.status,
        });
        let path = api::object_path(key, version);
        let request = http::Request::patch(format!("{path}/status?fieldManager={MANAGER}&force=true"))
            .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(body.to_string().into_bytes())
            .map_err(|error| Failure::Other(error.to_string()))?;
        let answer = timeout(DEADLINE, self.client.request(request)).await;
        answer.map_err(|_late| Failure::slow(DEADLINE))?.map_err(Failure::from)
    }

    /// Says why nothing of a kind can be written, or that it can again. Where too much is heard to take that now, it
    /// is said with the next.
    fn tell(&mut self, kind: Kind, why: Option<String>) {
        if self.trouble.get(&kind) != why.as_ref()
            && self.messages.try_send((kind, Heard::Unwritten(why.clone()))).is_ok()
        {
            match why {
                Some(why) => drop(self.trouble.insert(kind, why)),
                None => drop(self.trouble.remove(&kind)),
            }
        }
    }
}

/// How many writes may be made now.
#[derive(Debug)]
struct Allowance {
    left: f64,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        Allowance { left: RATE, since: now }
    }

    /// Waits until one more may be made.
    async fn take(&mut self) {
        let now = Instant::now();
        self.left = (self.left + now.duration_since(self.since).as_secs_f64() * RATE).min(RATE);
        self.since = now;
        self.left -= 1.0;
        if self.left < 0.0 {
            sleep_until(now + Duration::from_secs_f64(-self.left / RATE)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_writes_is_spread_out() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(begin);
        for _ in 0..100 {
            allowance.take().await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO, "as many as a second may have");
        for _ in 0..200 {
            allowance.take().await;
        }
        let took = begin.elapsed().as_secs_f64();
        assert!((1.9..2.2).contains(&took), "{took}");
    }
}
