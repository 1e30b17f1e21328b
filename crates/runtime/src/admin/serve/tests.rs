// SPDX-License-Identifier: Apache-2.0
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use http::StatusCode;
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    admin::AdminResponse,
    drain::{self, DrainTrigger, Drained},
    readiness::Readiness,
};

const SOON: Duration = Duration::from_secs(10);

struct Fixture {
    path: std::path::PathBuf,
    readiness: Readiness,
    trigger: DrainTrigger,
    server: JoinHandle<Result<(), Infallible>>,
    _folder: tempfile::TempDir,
}

async fn start(routes: impl FnOnce(AdminRoutes) -> AdminRoutes) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/admin.sock");
    let readiness = Readiness::new();
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    counter.inc();
    registry.register("weft_test_events", "Events", counter);
    let routes = routes(AdminRoutes::new(readiness.clone(), Arc::new(registry)));
    let server = AdminServer::bind(&AdminAddress::Unix(path.clone())).await.unwrap();
    let (trigger, watch) = drain::channel();
    let server = tokio::spawn(server.serve(routes, watch));
    Fixture { path, readiness, trigger, server, _folder: folder }
}

impl Fixture {
    async fn ask(&self, line: &str) -> String {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

#[tokio::test]
async fn health_readiness_and_metrics_are_answered() {
    let fixture = start(|routes| routes.value("/config", || ["a", "b"])).await;
    assert!(fixture.ask("GET /healthz").await.starts_with("HTTP/1.1 200"));
    let state = fixture.readiness.add("state", "no state yet");
    let unready = fixture.ask("GET /readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("no state yet"), "{unready}");
    state.ready();
    assert!(fixture.ask("GET /readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = fixture.ask("GET /metrics").await;
    assert!(metrics.contains("weft_test_events_total 1"), "{metrics}");
    assert!(fixture.ask("GET /config").await.contains("\"b\""));
    assert!(fixture.ask("POST /config").await.starts_with("HTTP/1.1 405"));
    let missing = fixture.ask("GET /nowhere").await;
    assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("/readyz"), "{missing}");
}

#[tokio::test]
async fn the_socket_is_private_and_replaces_a_dead_one() {
    let fixture = start(|routes| routes).await;
    assert_eq!(fs::metadata(&fixture.path).unwrap().mode() & 0o777, 0o600);
    let address = AdminAddress::Unix(fixture.path.clone());
    assert!(matches!(AdminServer::bind(&address).await, Err(AdminServeError::InUse { .. })));
    fixture.server.abort();
    assert!(fixture.server.await.unwrap_err().is_cancelled());
    assert!(fixture.path.exists(), "a killed server leaves its socket behind");
    let server = AdminServer::bind(&address).await.unwrap();
    assert_eq!(server.address(), &address);
}

#[tokio::test]
async fn streams_end_with_the_drain_and_with_the_client() {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = std::sync::Mutex::new(Some(receiver));
    let fixture = start(move |routes| {
        routes.get("/flows", move |request| {
            assert_eq!(request.query, "follow");
            let answer = match receiver.lock().unwrap().take() {
                Some(pieces) => AdminResponse::stream("application/json", pieces),
                None => AdminResponse::text(StatusCode::GONE, ""),
            };
            async move { answer }
        })
    })
    .await;
    let mut stream = UnixStream::connect(&fixture.path).await.unwrap();
    stream.write_all(b"GET /flows?follow HTTP/1.1\r\nhost: weft\r\n\r\n").await.unwrap();
    sender.send(Bytes::from_static(b"piece-1\n")).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("piece-1") {
        assert!(timeout(SOON, stream.read_buf(&mut seen)).await.unwrap().unwrap() > 0);
    }
    drop(stream);
    timeout(SOON, sender.closed()).await.unwrap();
    assert_eq!(fixture.trigger.drain(SOON).await, Drained::Complete);
    fixture.server.await.unwrap().unwrap();
    assert!(!fixture.path.exists());
}
