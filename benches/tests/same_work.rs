// SPDX-License-Identifier: Apache-2.0
//! Requests through each proxy that is compared: what the origin sees, and what is refused, is the same.
//!
//! Weft and the relay are built here and always take part; HAProxy and Envoy do where `cargo xtask setup
//! --bench` has installed them, and each scenario of a benchmark asks them again before it measures.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HARNESS: &str = env!("CARGO_BIN_EXE_weft-bench");

/// The harness in front of these peers, with Envoy as `cargo xtask bench` would name it.
fn same_work(peers: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(HARNESS)
        .args(["same-work", "--peers", &peers.join(","), "--json"])
        .arg(folder.path().join("bench.json"))
        .env("WEFT_BENCH_ENVOY", envoy())
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap()
}

fn envoy() -> PathBuf {
    let target = Path::new(HARNESS).ancestors().nth(2).unwrap();
    target.join("tools/envoy/envoy/_bin/envoy")
}

fn has_haproxy() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join("haproxy").exists())
}

#[test]
fn every_proxy_adds_and_refuses_the_same() {
    let daemons = ["weft-node", "weft-controller"].map(|name| Path::new(HARNESS).with_file_name(name));
    for daemon in &daemons {
        let name = daemon.display();
        assert!(daemon.exists(), "no {name}: cargo build --workspace --bins, as `cargo xtask test` does");
    }
    let mut peers = vec!["weft", "relay"];
    peers.extend(has_haproxy().then_some("haproxy"));
    peers.extend(envoy().exists().then_some("envoy"));
    let output = same_work(&peers);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    // One line for each protocol.
    let decides = text.lines().filter(|line| line.contains("denies another method and path")).count();
    assert_eq!(decides, (peers.len() - 1) * 2, "{peers:?}: {text}");
}
