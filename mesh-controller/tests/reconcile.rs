// SPDX-License-Identifier: Apache-2.0
//! The way of a change, from a file to a commit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{fs, path::Path, time::Duration};

use tokio::{net::TcpListener, time::timeout};
use weft_identity::{Authority, tls};
use weft_mesh_controller::{
    reconcile::{ReconcileError, Reconciler, ReconcilerConfig},
    serve_ir::{IrServer, IrServerConfig},
};
use weft_translate::Translator;

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n";

async fn server(state: &Path) -> IrServer {
    let authority = Authority::open(state).unwrap();
    let token = authority.token().clone();
    let tls = tls::controller_server(authority).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    IrServer::start(listener, IrServerConfig { tls, token }).unwrap()
}

fn config(root: &Path) -> ReconcilerConfig {
    ReconcilerConfig {
        source: root.join("source"),
        identities: root.join("identities.json"),
        translator: Translator::default(),
        print_status: false,
    }
}

/// Waits until this revision is published.
async fn published(server: &IrServer, revision: u64) {
    let mut reports = server.handle().watch_acks();
    let found = reports.wait_for(|report| report.revision >= revision);
    timeout(Duration::from_secs(10), found).await.expect("published in time").unwrap();
}

#[tokio::test]
async fn a_change_of_a_file_becomes_a_commit_and_an_error_does_not() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("source")).unwrap();
    let file = root.path().join("source/a.yaml");
    fs::write(&file, SERVICE).unwrap();
    let server = server(&root.path().join("state")).await;
    let reconciler = Reconciler::start(config(root.path()), server.handle().clone()).await.unwrap();
    assert_eq!(reconciler.revision(), 1);
    let run = tokio::spawn(reconciler.run());
    // The first change cannot be read, and so must not be a commit of its own: the second is the next.
    fs::write(&file, SERVICE.replace("80", "eighty")).unwrap();
    let other = root.path().join("source/b.yaml");
    fs::write(&other, SERVICE.replace("name: a", "name: b")).unwrap();
    published(&server, 2).await;
    fs::remove_file(&other).unwrap();
    published(&server, 3).await;
    run.abort();
    server.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_read_at_the_start_stops_it_before_the_first_publish() {
    let root = tempfile::tempdir().unwrap();
    let server = server(&root.path().join("state")).await;
    let error = Reconciler::start(config(root.path()), server.handle().clone()).await.unwrap_err();
    assert!(matches!(error, ReconcileError::Source(_)), "{error}");
    fs::create_dir(root.path().join("source")).unwrap();
    let file = root.path().join("source/a.yaml");
    fs::write(&file, [0xff]).unwrap();
    let error = Reconciler::start(config(root.path()), server.handle().clone()).await.unwrap_err();
    assert!(matches!(error, ReconcileError::Source(_)), "{error}");
    fs::write(&file, "spec: [\n").unwrap();
    let error = Reconciler::start(config(root.path()), server.handle().clone()).await.unwrap_err();
    assert!(error.to_string().contains("a.yaml:"), "{error}");
    assert_eq!(server.handle().watch_acks().borrow().revision, 0);
    server.shutdown().await;
}
