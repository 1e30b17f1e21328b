// SPDX-License-Identifier: Apache-2.0
//! The objects of one kind: a list, then every change, for ever.
//!
//! A list comes as a stream where the API server has that (`WatchList`), and in pages elsewhere; both are
//! consistent reads, so that no cache that lags behind answers. One that is older than what was told already is
//! refused all the same. After a failure a watch goes on where it was; only where the server has forgotten that
//! point everything is listed again.

use std::{convert::Infallible, time::Duration};

use futures_util::{StreamExt, pin_mut};
use kube::{Client, core::WatchEvent};
use serde_json::Value;
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep, timeout},
};
use weft_api::object::Kind;

use super::api::{self, Backoff, Failure, get, number};

/// How long the server keeps a watch open, in seconds: a connection that has died is noticed soon after.
const WATCH: u64 = 120;

/// How much later than that the end of a watch may come.
const LATE: Duration = Duration::from_secs(10);

/// How long the server may take to begin with a watch: a cache that initialises answers within that or refuses.
const OPENING: Duration = Duration::from_secs(30);

/// A watch that ends within this time has hardly begun.
const SHORT: Duration = Duration::from_secs(1);

/// How often it is looked whether a kind that was not there has come.
const ABSENT: Duration = Duration::from_secs(5);

/// How often in a row a kind whose objects were read has to be missing: a server that starts may not know it yet.
const GONE_AFTER: u32 = 3;

/// Marks the bookmark at the end of a list that comes as a stream (KEP-3157).
const END_OF_LIST: &str = "k8s.io/initial-events-end";

/// What is heard about one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// A list begins: objects of which nothing is said until its end are gone.
    Begin,
    /// An object as it is now.
    Object(Value),
    /// An object that is gone, as it was last.
    Gone(Value),
    /// The list is complete: this is how everything of the kind was at this version.
    Complete(u64),
    /// Everything up to this version was told.
    At(u64),
    /// The API server has no such kind, as of this version of everything.
    Missing(u64),
    /// Nothing new is heard, and why.
    Trouble(String),
    /// It is heard again.
    Fine,
    /// Statuses of the kind cannot be written, and why; or they can again.
    Unwritten(Option<String>),
}

/// What is heard, and of which kind.
pub(super) type Message = (Kind, Heard);

/// Nobody listens any more.
#[derive(Debug, thiserror::Error)]
#[error("the source has ended")]
pub(super) struct Closed;

/// Why a list or watch has ended early.
enum End {
    Failed(Failure),
    Closed,
}

impl From<Closed> for End {
    fn from(_: Closed) -> End {
        End::Closed
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failed(failure)
    }
}

/// Reads one kind.
pub(super) struct ListWatch {
    client: Client,
    kind: Kind,
    /// Which of the kind's versions is served.
    version: usize,
    sender: Sender<Message>,
    /// Whether lists come as streams.
    streams: bool,
    /// Up to where everything was told.
    last: u64,
    /// Whether a watch can go on from there.
    listed: bool,
    /// Whether a list was complete, and the kind has not gone since.
    known: bool,
    /// Whether trouble was told.
    troubled: bool,
    backoff: Backoff,
    absent: u32,
}

impl ListWatch {
    pub(super) fn new(client: Client, kind: Kind, sender: Sender<Message>) -> ListWatch {
        ListWatch {
            client,
            kind,
            version: 0,
            sender,
            streams: true,
            last: 0,
            listed: false,
            known: false,
            troubled: false,
            backoff: Backoff::default(),
            absent: 0,
        }
    }

    /// Tells everything for as long as somebody listens.
    pub(super) async fn run(mut self) -> Result<Infallible, Closed> {
        loop {
            let (began, was_listed) = (Instant::now(), self.listed);
            let verb = if self.streams || was_listed { "watch" } else { "list" };
            let ended = if was_listed { self.watch().await } else { self.list().await };
            match ended {
                // A server that ends watches at once is not asked at once again.
                Ok(()) if was_listed && began.elapsed() < SHORT => sleep(api::jittered(SHORT)).await,
                Ok(()) => {}
                Err(End::Closed) => return Err(Closed),
                Err(End::Failed(failure)) => {
                    // A watch goes on where it was, until the server has forgotten that.
                    self.listed &= !matches!(failure, Failure::Expired | Failure::Missing);
                    self.failed(verb, &failure).await?;
                }
            }
        }
    }

    /// Says what is wrong, and waits.
    async fn failed(&mut self, verb: &str, failure: &Failure) -> Result<(), Closed> {
        match failure {
            Failure::Expired => return Ok(()),
            Failure::Missing => return self.missing().await,
            Failure::Invalid(_) if self.streams && !self.listed => {
                tracing::debug!(kind = self.kind.name(), "no lists as streams: {failure}");
                self.streams = false;
                return Ok(());
            }
            Failure::Forbidden(_) | Failure::Invalid(_) | Failure::Other(_) => {}
        }
        let resource = api::resource(self.kind);
        let hint = match failure {
            Failure::Forbidden(_) => " (grant the verbs `list` and `watch` of it)",
            _ => "",
        };
        self.troubled = true;
        self.tell(Heard::Trouble(format!("cannot {verb} {resource}{hint}: {failure}"))).await?;
        sleep(self.backoff.pause()).await;
        Ok(())
    }

    /// The kind is not served in this version. The next is tried at once, and all again later.
    async fn missing(&mut self) -> Result<(), Closed> {
        self.version = (self.version + 1) % self.kind.versions().len().max(1);
        if self.version != 0 {
            return Ok(());
        }
        self.absent += 1;
        if !self.known || self.absent >= GONE_AFTER {
            // What is told of other kinds may be older than this.
            match api::present(&self.client).await {
                Ok(present) => {
                    self.last = self.last.max(present);
                    self.known = false;
                    self.tell(Heard::Missing(self.last)).await?;
                }
                Err(error) => tracing::debug!(kind = self.kind.name(), "{error}"),
            }
        }
        sleep(api::jittered(ABSENT)).await;
        Ok(())
    }

    async fn list(&mut self) -> Result<(), End> {
        if self.streams { self.list_as_stream().await } else { self.list_in_pages().await }
    }

    async fn list_as_stream(&mut self) -> Result<(), End> {
        let query = format!(
            "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&\
             timeoutSeconds={WATCH}"
        );
        self.stream(&query, true).await
    }

    async fn list_in_pages(&mut self) -> Result<(), End> {
        let mut more = String::new();
        loop {
            let first = more.is_empty();
            let page = api::page(&self.client, self.kind, self.served(), &more).await?;
            let version = number(&page.metadata.resource_version)?;
            self.not_older(version)?;
            if first {
                self.tell(Heard::Begin).await?;
            }
            for object in page.items {
                self.object(object).await?;
            }
            more = page.metadata.more;
            if more.is_empty() {
                return Ok(self.complete(version).await?);
            }
        }
    }

    /// Whether what a list says is not older than what was told.
    fn not_older(&self, version: u64) -> Result<(), Failure> {
        if version >= self.last {
            return Ok(());
        }
        Err(Failure::Other(format!(
            "the API server has its state as of version {version}, which is older than {}, up to which it was read \
             before: if etcd was restored from a backup, restart the controller",
            self.last
        )))
    }

    async fn complete(&mut self, version: u64) -> Result<(), Closed> {
        (self.last, self.listed, self.known, self.absent) = (version, true, true, 0);
        self.fine().await?;
        self.tell(Heard::Complete(version)).await
    }

    async fn watch(&mut self) -> Result<(), End> {
        let query =
            format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH}&resourceVersion={}", self.last);
        self.stream(&query, false).await
    }

    /// Tells what a watch says until the server ends it. One that is a list first has to come to its end.
    async fn stream(&mut self, query: &str, mut listing: bool) -> Result<(), End> {
        let uri = format!("{}?{query}", api::path(self.kind, self.served()));
        let request = get(&uri, self.kind, false)?;
        let opening = timeout(OPENING, self.client.request_events::<Value>(request)).await;
        let events = opening.map_err(|_late| Failure::slow(OPENING))?.map_err(Failure::from)?;
        pin_mut!(events);
        if listing {
            self.tell(Heard::Begin).await?;
        } else {
            self.fine().await?;
        }
        let limit = Duration::from_secs(WATCH) + LATE;
        loop {
            match timeout(limit, events.next()).await.map_err(|_late| Failure::slow(limit))? {
                Some(event) => listing = self.event(event.map_err(Failure::from)?, listing).await?,
                None if listing => {
                    return Err(Failure::Other("the list ended before it was complete".into()).into());
                }
                None => return Ok(()),
            }
        }
    }

    /// Takes an event, and tells whether the list that it belongs to goes on.
    async fn event(&mut self, event: WatchEvent<Value>, listing: bool) -> Result<bool, End> {
        let version = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = version_of(&object)?;
                self.object(object).await?;
                version
            }
            WatchEvent::Deleted(object) => {
                let version = version_of(&object)?;
                self.tell(Heard::Gone(object)).await?;
                version
            }
            WatchEvent::Bookmark(bookmark) => {
                let version = number(&bookmark.metadata.resource_version)?;
                if listing && bookmark.metadata.annotations.contains_key(END_OF_LIST) {
                    self.not_older(version)?;
                    self.complete(version).await?;
                    return Ok(false);
                }
                if !listing {
                    self.tell(Heard::At(version)).await?;
                }
                version
            }
            WatchEvent::Error(status) => return Err(Failure::of(status.code, status.message).into()),
        };
        // Objects of a list come in any order.
        self.last = if listing { self.last } else { self.last.max(version) };
        Ok(listing)
    }

    /// Tells an object with its type, which the entries of a list do not have.
    async fn object(&mut self, mut object: Value) -> Result<(), Closed> {
        let group = self.kind.group();
        let slash = if group.is_empty() { "" } else { "/" };
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".into(), format!("{group}{slash}{}", self.served()).into());
            fields.insert("kind".into(), self.kind.name().into());
        }
        self.tell(Heard::Object(slim(object))).await
    }

    fn served(&self) -> &'static str {
        self.kind.versions().get(self.version).copied().unwrap_or_default()
    }

    async fn fine(&mut self) -> Result<(), Closed> {
        self.backoff.reset();
        if std::mem::take(&mut self.troubled) { self.tell(Heard::Fine).await } else { Ok(()) }
    }

    async fn tell(&self, heard: Heard) -> Result<(), Closed> {
        self.sender.send((self.kind, heard)).await.or(Err(Closed))
    }
}

/// The version of an object.
pub(super) fn version_of(object: &Value) -> Result<u64, Failure> {
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    number(version.unwrap_or_default())
}

/// Leaves out what nobody reads and what makes objects large: the books of server-side apply, the copy that
/// kubectl keeps, and fields that are `null`, which are as good as absent.
fn slim(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    without_nulls(&mut object);
    object
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_reads_is_dropped() {
        let object = json!({
            "metadata": {
                "name": "a", "managedFields": [{"manager": "x"}], "creationTimestamp": null,
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "b": "c"},
            },
            "spec": {"list": [{"x": null, "y": 1}]},
        });
        let slim = slim(object);
        let expected = json!({
            "metadata": {"name": "a", "annotations": {"b": "c"}}, "spec": {"list": [{"y": 1}]},
        });
        assert_eq!(slim, expected);
    }
}
