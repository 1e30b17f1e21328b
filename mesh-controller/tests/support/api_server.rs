// SPDX-License-Identifier: Apache-2.0
//! As much of an API server as lists and watches are: versions, bookmarks, pages, lists as streams, compaction, and
//! the answers with which it refuses.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// How a resource is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// 503
    Unavailable,
    /// 403
    Forbidden,
    /// 404
    Missing,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// Before this version nothing can be watched.
    compacted: u64,
    /// No watch can go on.
    forgetful: bool,
    objects: BTreeMap<(String, String), Value>,
    /// Every change, by its version: the resource, the type of event, the object.
    history: Vec<(u64, String, &'static str, Value)>,
    faults: BTreeMap<String, Fault>,
    /// What is said of a token.
    reviews: BTreeMap<String, Value>,
    requests: Vec<String>,
}

/// An API server that runs for as long as this.
pub(crate) struct ApiServer {
    address: String,
    state: Arc<Mutex<State>>,
    /// Counts changes; a watch ends at every change of the second.
    changes: Arc<watch::Sender<(u64, u64)>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl ApiServer {
    pub(crate) async fn start(streams: bool) -> ApiServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { version: 100, ..State::default() }));
        let changes = Arc::new(watch::channel((0, 0)).0);
        let (of_task, notify) = (state.clone(), changes.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, changes) = (of_task.clone(), notify.clone());
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (state, changes) = (state.clone(), changes.clone());
                    async move {
                        if request.method() == "POST" {
                            return Ok::<_, Infallible>(review(request, &state).await);
                        }
                        if request.method() == "PATCH" {
                            return Ok::<_, Infallible>(apply_status(request, &state, &changes).await);
                        }
                        Ok(answer(&request, &state, changes.subscribe(), streams))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        ApiServer { address, state, changes, task }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    pub(crate) fn put(&self, resource: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let key = (resource.to_owned(), name(&object));
        let event = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        state.objects.insert(key, object.clone());
        state.history.push((version, resource.to_owned(), event, object));
        drop(state);
        self.changes.send_modify(|(changes, _)| *changes += 1);
    }

    pub(crate) fn delete(&self, resource: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let mut object = state.objects.remove(&(resource.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        state.history.push((version, resource.to_owned(), "DELETED", object));
        drop(state);
        self.changes.send_modify(|(changes, _)| *changes += 1);
    }

    pub(crate) fn fault(&self, resource: &str, fault: Fault) {
        self.state.lock().unwrap().faults.insert(resource.to_owned(), fault);
    }

    /// Has a token mean this, in the words of a review's status.
    #[allow(dead_code, reason = "not every test program has tokens")]
    pub(crate) fn token(&self, token: &str, status: Value) {
        self.state.lock().unwrap().reviews.insert(token.to_owned(), status);
    }

    /// The status that an object has.
    pub(crate) fn status(&self, resource: &str, name: &str) -> Value {
        self.state.lock().unwrap().objects[&(resource.to_owned(), name.to_owned())]["status"].clone()
    }

    /// Waits until the status of an object is as it should be.
    pub(crate) async fn status_is(
        &self,
        resource: &str,
        name: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut changes = self.changes.subscribe();
        let found = async {
            loop {
                let status = self.status(resource, name);
                if holds(&status) {
                    return status;
                }
                changes.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), found).await;
        found.unwrap_or_else(|_| panic!("not so in time: {:#}", self.status(resource, name)))
    }

    /// Ends every watch.
    pub(crate) fn cut(&self) {
        self.changes.send_modify(|(_, cuts)| *cuts += 1);
    }

    /// Forgets the history.
    pub(crate) fn compact(&self) {
        let mut state = self.state.lock().unwrap();
        state.compacted = state.version;
        state.history.clear();
    }

    /// As if etcd were restored from a backup from before the first object.
    pub(crate) fn restore(&self) {
        let mut state = self.state.lock().unwrap();
        state.objects.clear();
        state.history.clear();
        (state.version, state.compacted) = (50, 50);
    }

    /// Has every watch begin with a list.
    pub(crate) fn forget(&self) {
        self.state.lock().unwrap().forgetful = true;
    }

    /// How often something was asked for: `list services`, `watch pods`.
    pub(crate) fn requests(&self, what: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|one| *one == what).count()
    }
}

fn name(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap();
    metadata["namespace"].as_str().map_or(name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

fn answer(
    request: &Request<Incoming>,
    state: &Arc<Mutex<State>>,
    changes: watch::Receiver<(u64, u64)>,
    streams: bool,
) -> Response<Body> {
    if let Some(node) = request.uri().path().strip_prefix("/api/v1/nodes/") {
        let found = state.lock().unwrap().objects.get(&("nodes".to_owned(), node.to_owned())).cloned();
        return found.map_or_else(|| refusal(404, "not found"), |node| body(200, &node));
    }
    let resource = request.uri().path().rsplit('/').next().unwrap().to_owned();
    let query: BTreeMap<&str, &str> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|part| part.split_once('='))
        .collect();
    let mut now = state.lock().unwrap();
    let is_watch = query.contains_key("watch");
    let verb = if is_watch { "watch" } else { "list" };
    now.requests.push(format!("{verb} {resource}"));
    match now.faults.get(&resource).copied().unwrap_or(Fault::None) {
        Fault::None => {}
        Fault::Unavailable => return refusal(503, "the server is not there"),
        Fault::Forbidden => return refusal(403, &format!("you cannot {verb} resource \"{resource}\"")),
        Fault::Missing => return refusal(404, "the server could not find the requested resource"),
    }
    if !is_watch {
        return list(&now, &resource, &query);
    }
    let is_list = query.contains_key("sendInitialEvents");
    if is_list && !streams {
        // As a server without the feature says, and as one says whose etcd is too old for it.
        return match &*resource {
            "services" => refusal(422, "sendInitialEvents: Forbidden"),
            _ => refusal(500, "the required storage feature RequestWatchProgress is disabled"),
        };
    }
    let from = query.get("resourceVersion").map_or(now.version, |version| version.parse().unwrap());
    if !is_list && (from < now.compacted || now.forgetful) {
        return refusal(410, "too old resource version");
    }
    if !is_list && from > now.version {
        return refusal(504, "Too large resource version");
    }
    let mut first = String::new();
    if is_list {
        for (_, object) in now.objects.iter().filter(|((of, _), _)| *of == resource) {
            first.push_str(&line("ADDED", object));
        }
        let end = json!({"metadata": {
            "resourceVersion": now.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"},
        }});
        first.push_str(&line("BOOKMARK", &typed(end)));
    }
    let last = if is_list { now.version } else { from };
    drop(now);
    watching(first, last, resource, state.clone(), changes)
}

/// A review of a token; one that nobody has made known is not valid.
async fn review(request: Request<Incoming>, state: &Arc<Mutex<State>>) -> Response<Body> {
    assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let asked: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(asked["spec"]["audiences"], json!(["weft"]));
    let invalid = json!({"authenticated": false, "error": "invalid bearer token"});
    let token = asked["spec"]["token"].as_str().unwrap();
    let status = state.lock().unwrap().reviews.get(token).cloned().unwrap_or(invalid);
    body(201, &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}))
}

/// Server-side apply of a status, as if nobody else had a field in it but in lists that are one value.
async fn apply_status(
    request: Request<Incoming>,
    state: &Arc<Mutex<State>>,
    changes: &watch::Sender<(u64, u64)>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    assert_eq!(request.headers()["content-type"], "application/apply-patch+yaml");
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let applied: Value = serde_json::from_slice(&bytes).unwrap();
    let parts: Vec<&str> = path.rsplit('/').collect();
    let ["status", _, resource, ..] = parts[..] else { panic!("{path}") };
    let mut now = state.lock().unwrap();
    now.requests.push(format!("patch {resource}"));
    if now.faults.get("status") == Some(&Fault::Forbidden) {
        return refusal(403, &format!("you cannot patch resource \"{resource}/status\""));
    }
    let version = now.version + 1;
    let Some(object) = now.objects.get_mut(&(resource.to_owned(), name(&applied))) else {
        return refusal(404, "not found");
    };
    let exact = applied["metadata"].get("resourceVersion");
    if exact.is_some_and(|exact| *exact != object["metadata"]["resourceVersion"]) {
        return refusal(409, "the object has been modified");
    }
    object["status"] = applied["status"].clone();
    object["metadata"]["resourceVersion"] = version.to_string().into();
    let object = object.clone();
    now.version = version;
    now.history.push((version, resource.to_owned(), "MODIFIED", object.clone()));
    changes.send_modify(|(changes, _)| *changes += 1);
    body(200, &object)
}

/// A page has two objects, whatever is asked for.
fn list(state: &State, resource: &str, query: &BTreeMap<&str, &str>) -> Response<Body> {
    let from: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
    let all: Vec<&Value> =
        state.objects.iter().filter(|((of, _), _)| of == resource).map(|(_, object)| object).collect();
    let items: Vec<&Value> = all.iter().skip(from).take(2).copied().collect();
    let more = if from + 2 < all.len() { (from + 2).to_string() } else { String::new() };
    let metadata = json!({"resourceVersion": state.version.to_string(), "continue": more});
    body(200, &json!({"metadata": metadata, "items": items}))
}

fn watching(
    first: String,
    last: u64,
    resource: String,
    state: Arc<Mutex<State>>,
    changes: watch::Receiver<(u64, u64)>,
) -> Response<Body> {
    let cuts = changes.borrow().1;
    let begin = (Some(first), last, changes);
    let lines = futures_util::stream::unfold(begin, move |(first, mut last, mut changes)| {
        let (state, resource) = (state.clone(), resource.clone());
        async move {
            if let Some(text) = first.filter(|text| !text.is_empty()) {
                return Some((text, (None, last, changes)));
            }
            loop {
                if changes.borrow_and_update().1 != cuts {
                    return None;
                }
                let mut text = String::new();
                {
                    let state = state.lock().unwrap();
                    for (version, of, event, object) in &state.history {
                        if *version > last && *of == resource {
                            text.push_str(&line(event, object));
                            last = *version;
                        }
                    }
                }
                if !text.is_empty() {
                    return Some((text, (None, last, changes)));
                }
                changes.changed().await.ok()?;
            }
        }
    });
    let frames = lines.map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

fn line(event: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": event, "object": object}))
}

/// Bookmarks have a type, which kube wants to see.
fn typed(mut object: Value) -> Value {
    object["apiVersion"] = "v1".into();
    object["kind"] = "Any".into();
    object
}

fn refusal(code: u16, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    });
    body(code, &status)
}

fn body(code: u16, value: &Value) -> Response<Body> {
    let body = BodyExt::boxed_unsync(Full::new(Bytes::from(value.to_string())));
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
