// SPDX-License-Identifier: Apache-2.0
//! Requests to the API server, and what its refusals mean.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::Client;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::timeout;
use weft_api::object::{Kind, ObjectKey};

/// How long an answer may take, of a whole page at most. The server gives itself 60 s
/// (`--request-timeout`).
const ANSWER: Duration = Duration::from_secs(60);

/// How many objects of a list come at once, as with kubectl: a page of pods has a few megabytes.
const PAGE: u32 = 500;

/// The first and the longest pause after a failure, as client-go's reflector has them; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));

/// Why the API server did not answer what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// What was known is too old to go on from (410).
    #[error("the API server has forgotten what came after the last change that was read")]
    Expired,
    /// The resource does not exist (404).
    #[error("the API server does not serve it")]
    Missing,
    /// The account may not (401, 403).
    #[error("the API server does not allow it: {0}")]
    Forbidden(String),
    /// The request cannot be served as it is (400, 422; 500 where etcd before 3.4.25 or 3.5.8 cannot tell how far a
    /// watch is, without which there is no list as a stream).
    #[error("the API server refuses the request: {0}")]
    Invalid(String),
    /// Anything else; it may be better next time.
    #[error("{0}")]
    Other(String),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => Failure::of(status.code, status.message),
            error => Failure::Other(weft_runtime::supervise::chain(&error)),
        }
    }
}

impl Failure {
    /// Nothing came in time.
    pub(super) fn slow(limit: Duration) -> Failure {
        Failure::Other(format!("nothing came within {} s", limit.as_secs()))
    }

    /// By the code of an answer or of an event.
    pub(super) fn of(code: u16, message: String) -> Failure {
        match code {
            410 => Failure::Expired,
            404 => Failure::Missing,
            401 | 403 => Failure::Forbidden(message),
            400 | 422 | 500 => Failure::Invalid(message),
            _ => Failure::Other(format!("{message} ({code})")),
        }
    }
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) metadata: PageMetadata,
    #[serde(default = "Vec::new")]
    pub(super) items: Vec<Value>,
}

/// What a page says of the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMetadata {
    pub(super) resource_version: String,
    /// Names the next page; empty at the last.
    #[serde(default, rename = "continue")]
    pub(super) more: String,
}

/// The path of a kind's objects, of all namespaces.
pub(super) fn path(kind: Kind, version: &str) -> String {
    match kind.group() {
        "" => format!("/api/{version}/{}", kind.plural()),
        group => format!("/apis/{group}/{version}/{}", kind.plural()),
    }
}

/// The path of an object.
pub(super) fn object_path(key: &ObjectKey, version: &str) -> String {
    let of_kind = path(key.kind, version);
    let (group, resource) = of_kind.rsplit_once('/').unwrap_or_default();
    match &*key.namespace {
        "" => format!("{of_kind}/{}", key.name),
        namespace => format!("{group}/namespaces/{namespace}/{resource}/{}", key.name),
    }
}

/// The name of a kind's resource, as RBAC has it.
pub(super) fn resource(kind: Kind) -> String {
    match kind.group() {
        "" => kind.plural().to_owned(),
        group => format!("{}.{group}", kind.plural()),
    }
}

/// A page of a list: from the begin, or where the last one ended.
pub(super) async fn page(client: &Client, kind: Kind, version: &str, more: &str) -> Result<Page, Failure> {
    let path = path(kind, version);
    let list = if more.is_empty() { String::new() } else { format!("&continue={more}") };
    let request = get(&format!("{path}?limit={PAGE}{list}"), kind, true)?;
    answer(client, request).await
}

async fn answer<T: DeserializeOwned>(client: &Client, request: http::Request<Vec<u8>>) -> Result<T, Failure> {
    let answer = timeout(ANSWER, client.request(request)).await;
    answer.map_err(|_late| Failure::slow(ANSWER))?.map_err(Failure::from)
}

/// The present version of all that the API server has.
pub(super) async fn present(client: &Client) -> Result<u64, Failure> {
    let request = get("/api/v1/namespaces?limit=1", Kind::Namespace, true)?;
    let page: Page = answer(client, request).await?;
    number(&page.metadata.resource_version)
}

/// A request of objects. Of a Namespace only the metadata is wanted.
pub(super) fn get(uri: &str, kind: Kind, is_list: bool) -> Result<http::Request<Vec<u8>>, Failure> {
    let list = if is_list { "List" } else { "" };
    let accept = match kind {
        Kind::Namespace => format!("application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1"),
        _ => "application/json".to_owned(),
    };
    let request = http::Request::get(uri).header(http::header::ACCEPT, accept);
    request.body(Vec::new()).map_err(|error| Failure::Other(error.to_string()))
}

/// A version as a number: within one resource they can be compared (KEP-5504; always so with etcd).
pub(super) fn number(version: &str) -> Result<u64, Failure> {
    let parsed = version.parse();
    parsed.map_err(|_text| Failure::Other(format!("its resourceVersion `{version}` is no number")))
}

/// How long to wait after a failure: twice as long each time, and a part of it by chance.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something went well.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next pause: between half of the whole and all of it.
    pub(super) fn pause(&mut self) -> Duration {
        let (first, longest) = PAUSES;
        let whole = first.saturating_mul(1 << self.failures.min(10)).min(longest);
        self.failures = self.failures.saturating_add(1);
        jittered(whole)
    }
}

/// Between half of a time and all of it.
pub(super) fn jittered(whole: Duration) -> Duration {
    let chance = RandomState::new().hash_one(0_u8) % 1_024;
    whole / 2 + (whole / 2).mul_f64(chance as f64 / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_path_and_its_name() {
        assert_eq!(path(Kind::Pod, "v1"), "/api/v1/pods");
        assert_eq!(path(Kind::HttpRoute, "v1"), "/apis/gateway.networking.k8s.io/v1/httproutes");
        let key =
            |namespace: &str| ObjectKey { kind: Kind::Pod, namespace: namespace.into(), name: "a".into() };
        assert_eq!(object_path(&key("shop"), "v1"), "/api/v1/namespaces/shop/pods/a");
        assert_eq!(object_path(&key(""), "v1"), "/api/v1/pods/a");
        assert_eq!(
            (resource(Kind::Node), resource(Kind::NetworkPolicy)),
            ("nodes".to_owned(), "networkpolicies.networking.k8s.io".to_owned())
        );
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses[0] >= PAUSES.0 / 2 && pauses[0] <= PAUSES.0, "{pauses:?}");
        assert!(pauses[19] >= PAUSES.1 / 2 && pauses[19] <= PAUSES.1, "{pauses:?}");
        backoff.reset();
        assert!(backoff.pause() <= PAUSES.0);
    }
}
