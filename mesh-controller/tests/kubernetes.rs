// SPDX-License-Identifier: Apache-2.0
//! The way of an object from an API server to a commit. The server here speaks lists and watches as Kubernetes does,
//! and fails on demand; `cargo xtask cluster test` has the real one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use weft_identity::{NODE_LIFETIME, Registrar};
use weft_mesh_controller::{
    observed::{Objects, Observed},
    reconcile::{ReconcileError, Reconciler, ReconcilerConfig},
    serve_ir::{IrLimits, IrServer, IrServerConfig},
    source::SourceConfig,
};
use weft_translate::Translator;

#[path = "support/api_server.rs"]
mod api_server;

use api_server::{ApiServer, Fault};

const DEADLINE: Duration = Duration::from_secs(20);

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "managedFields": [{"manager": "x"}]},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
    })
}

/// A reconciler that follows the API server.
struct Running {
    _state: tempfile::TempDir,
    _server: IrServer,
    observed: Observed,
    run: tokio::task::JoinHandle<Result<(), ReconcileError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.run.abort();
    }
}

impl Running {
    async fn start(api: &ApiServer) -> Running {
        let state = tempfile::tempdir().unwrap();
        let registrar = Arc::new(Registrar::open(&state.path().join("state"), NODE_LIFETIME).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limits = IrLimits::default();
        let server = IrServer::start(listener, IrServerConfig { registrar, accounts: None, limits }).unwrap();
        let observed = Observed::default();
        let config = ReconcilerConfig {
            source: SourceConfig::Kubernetes(api.client()),
            identities: state.path().join("identities.log"),
            translator: Translator::default(),
            print_status: false,
            observed: observed.clone(),
            rescan: Arc::default(),
        };
        let handle = server.handle().clone();
        let run = tokio::spawn(async move { Reconciler::start(config, handle).await?.run().await });
        Running { _state: state, _server: server, observed, run }
    }

    async fn stands(&self, what: &str, holds: impl Fn(&Objects) -> bool) -> Arc<Objects> {
        let mut objects = self.observed.watch();
        let found = timeout(DEADLINE, objects.wait_for(|objects| holds(objects))).await;
        let Ok(found) = found else {
            panic!("not so in time: {what}: {:#?}", self.observed.watch().borrow())
        };
        found.unwrap().clone()
    }

    async fn services(&self, count: u64) -> Arc<Objects> {
        let has = |objects: &Objects| objects.counts.get("Service").is_some_and(|one| one.accepted == count);
        self.stands(&format!("{count} services"), |objects| objects.revision > 0 && has(objects)).await
    }
}

#[tokio::test]
async fn objects_of_an_api_server_are_followed() {
    for streams in [true, false] {
        let api = ApiServer::start(streams).await;
        // More than one page has.
        (0..3).for_each(|at| api.put("services", service(&format!("s{at}"))));
        let running = Running::start(&api).await;
        let first = running.services(3).await;
        assert_eq!(first.revision, 1, "the first state is one commit");
        api.put("services", service("s3"));
        running.services(4).await;
        api.delete("services", "shop/s0");
        running.services(3).await;
        assert_eq!(api.requests("list services") == 0, streams);
    }
}

#[tokio::test]
async fn an_api_server_that_is_away_changes_nothing_and_what_was_deleted_meanwhile_is_gone_then() {
    let api = ApiServer::start(true).await;
    (0..3).for_each(|at| api.put("services", service(&format!("s{at}"))));
    let running = Running::start(&api).await;
    let first = running.services(3).await;
    api.fault("services", Fault::Unavailable);
    api.delete("services", "shop/s0");
    api.cut();
    let away = running
        .stands("said", |objects| objects.problems.iter().any(|one| one.message.contains("503")))
        .await;
    assert_eq!((away.revision, away.counts["Service"].accepted), (first.revision, 3));
    // What happened meanwhile cannot be watched any more.
    api.compact();
    api.fault("services", Fault::None);
    let after = running.services(2).await;
    assert_eq!(after.problems.len(), 0, "{:?}", after.problems);
    assert_eq!(after.revision, first.revision + 1, "only what is gone was a change");
}

#[tokio::test]
async fn a_verb_that_is_not_granted_is_named_and_nothing_is_published_before() {
    let api = ApiServer::start(true).await;
    api.put("services", service("a"));
    api.fault("networkpolicies", Fault::Forbidden);
    let running = Running::start(&api).await;
    let waits = running.stands("named", |objects| !objects.problems.is_empty()).await;
    let message = waits.problems[0].to_string();
    for part in
        ["networkpolicies.networking.k8s.io", "grant the verbs `list` and `watch`", "nothing is published"]
    {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(waits.revision, 0);
    api.fault("networkpolicies", Fault::None);
    running.services(1).await;
}

#[tokio::test]
async fn a_kind_that_is_installed_later_is_picked_up() {
    let api = ApiServer::start(true).await;
    api.fault("gatewayclasses", Fault::Missing);
    api.fault("httproutes", Fault::Missing);
    let running = Running::start(&api).await;
    let without = running.stands("published", |objects| objects.revision > 0).await;
    assert_eq!(without.problems.len(), 0, "{:?}", without.problems);
    api.fault("gatewayclasses", Fault::None);
    let class =
        json!({"metadata": {"name": "weft"}, "spec": {"controllerName": "weft.dev/gateway-controller"}});
    api.put("gatewayclasses", class);
    running.stands("accepted", |objects| !objects.statuses.is_empty()).await;
}

#[tokio::test]
async fn a_server_with_an_older_state_is_not_believed() {
    let api = ApiServer::start(true).await;
    (0..3).for_each(|at| api.put("services", service(&format!("s{at}"))));
    let running = Running::start(&api).await;
    let first = running.services(3).await;
    let says = |objects: &Objects, part: &str| objects.problems.iter().any(|one| one.message.contains(part));
    api.restore();
    api.cut();
    running.stands("a watch fails", |objects| says(objects, "Too large resource version")).await;
    api.forget();
    let said = running.stands("a list is refused", |objects| says(objects, "older than")).await;
    assert_eq!((said.revision, said.counts["Service"].accepted), (first.revision, 3));
}

fn class() -> Value {
    json!({"metadata": {"name": "weft"}, "spec": {"controllerName": "weft.dev/gateway-controller"}})
}

fn gateway() -> Value {
    json!({
        "metadata": {"name": "g", "namespace": "shop", "generation": 1},
        "spec": {"gatewayClassName": "weft", "listeners": [{"name": "http", "protocol": "HTTP", "port": 8080}]},
    })
}

fn route(generation: u64, backend: &str) -> Value {
    json!({
        "metadata": {"name": "r", "namespace": "shop", "generation": generation},
        "spec": {
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"}],
            "rules": [{"backendRefs": [{"name": backend, "port": 80}]}],
        },
    })
}

fn condition<'a>(of: &'a Value, kind: &str) -> Option<&'a Value> {
    of["conditions"].as_array()?.iter().find(|one| one["type"] == kind)
}

#[tokio::test]
async fn statuses_are_written_once_and_parents_of_others_stay() {
    let api = ApiServer::start(true).await;
    let namespace = json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}}});
    api.put("namespaces", namespace);
    api.put("services", service("a"));
    api.put("gatewayclasses", class());
    api.put("gateways", gateway());
    let foreign = json!({
        "parentRef": {"name": "other"}, "controllerName": "example.com/other",
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Odd"}],
    });
    let mut first = route(1, "a");
    first["status"] = json!({"parents": [foreign.clone()]});
    api.put("httproutes", first);
    let running = Running::start(&api).await;
    let ours = |status: &Value| status["parents"].as_array().map_or(0, Vec::len) == 2;
    let status = api.status_is("httproutes", "shop/r", ours).await;
    assert_eq!(status["parents"][0], foreign, "what is another's stays at its place");
    let own = &status["parents"][1];
    assert_eq!(own["parentRef"], route(1, "a")["spec"]["parentRefs"][0], "as it is written");
    assert_eq!(condition(own, "Accepted").unwrap()["status"], "True", "{own:#}");
    assert_eq!(condition(own, "ResolvedRefs").unwrap()["observedGeneration"], 1, "{own:#}");
    let accepted = |status: &Value| condition(status, "Accepted").is_some_and(|one| one["status"] == "True");
    api.status_is("gateways", "shop/g", accepted).await;
    api.status_is("gatewayclasses", "weft", accepted).await;
    // Its change of generation is a write, and so is its end; another's object is none.
    let mut next = route(2, "a");
    next["status"] = api.status("httproutes", "shop/r");
    api.put("httproutes", next);
    let generation = |status: &Value| {
        condition(&status["parents"][1], "Accepted").is_some_and(|one| one["observedGeneration"] == 2)
    };
    let second = api.status_is("httproutes", "shop/r", generation).await;
    let time =
        |status: &Value| condition(&status["parents"][1], "Accepted").unwrap()["lastTransitionTime"].clone();
    assert_eq!(time(&second), time(&status), "what has not changed has its time from before");
    let writes = api.requests("patch httproutes");
    api.put("services", service("b"));
    running.services(2).await;
    drop(running);
    // A controller that starts again finds everything written.
    let again = Running::start(&api).await;
    again.services(2).await;
    api.delete("gateways", "shop/g");
    let gone = |status: &Value| {
        condition(&status["parents"][1], "Accepted").is_none_or(|one| one["status"] == "False")
    };
    let last = api.status_is("httproutes", "shop/r", gone).await;
    assert_eq!(last["parents"][0], foreign);
    assert_eq!(api.requests("patch httproutes"), writes + 1);
}

#[tokio::test]
async fn statuses_that_may_not_be_written_are_named_and_written_later() {
    let api = ApiServer::start(true).await;
    api.fault("status", Fault::Forbidden);
    api.put("gatewayclasses", class());
    let running = Running::start(&api).await;
    let says = |objects: &Objects| {
        let part = "grant the verb `patch` of gatewayclasses.gateway.networking.k8s.io, subresource status";
        objects.problems.iter().any(|one| one.message.contains(part))
    };
    running.stands("named", says).await;
    api.fault("status", Fault::None);
    api.status_is("gatewayclasses", "weft", |status| condition(status, "Accepted").is_some()).await;
    running.stands("no longer named", |objects| !says(objects)).await;
}
