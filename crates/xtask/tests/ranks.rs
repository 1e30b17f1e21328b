// SPDX-License-Identifier: Apache-2.0
//! The shape of the crate graph: dependencies point one way, and pure crates stay pure.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Rank of each package: a package depends only on packages of lower rank (ARCHITECTURE.md).
const RANKS: &[(&str, u8)] = &[
    ("weft-time", 0),
    ("weft-api", 1),
    ("weft-ir", 1),
    ("weft-manifests", 1),
    ("weft-matching", 1),
    ("weft-runtime", 1),
    ("weft-ebpf-common", 1),
    ("weft-gateway-api", 2),
    ("weft-grpc", 2),
    ("weft-http", 2),
    ("weft-identity", 2),
    ("weft-policy", 2),
    ("weft-translate", 3),
    ("weft-ebpf-redirect", 3),
    ("weft-flow-export", 3),
    ("weft-mesh-controller", 4),
    ("weft-node-proxy", 4),
    ("weft-cli", 4),
    ("weft-testlab", 5),
    ("weft-benches", 6),
];

/// Packages that do no I/O and hold no connection.
const PURE: [&str; 8] = [
    "weft-api",
    "weft-http",
    "weft-ir",
    "weft-matching",
    "weft-policy",
    "weft-gateway-api",
    "weft-time",
    "weft-translate",
];

/// What a pure package must not pull in, at any depth.
const IMPURE: [&str; 10] =
    ["tokio", "hyper", "hyper-util", "h2", "rustls", "aya", "kube", "kube-client", "tonic", "rtnetlink"];

/// The packages of the workspace and the graph of everything that they pull in.
struct Graph {
    names: BTreeMap<String, String>,
    members: BTreeSet<String>,
    /// Ids of the packages that a package depends on, with every kind of dependency in use.
    edges: BTreeMap<String, Vec<(String, Vec<Kind>)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

impl Graph {
    fn load() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let kind = |value: &Value| match value["kind"].as_str() {
            None => Kind::Normal,
            Some("build") => Kind::Build,
            Some(_) => Kind::Dev,
        };
        let dependencies = |node: &Value| {
            list(&node["deps"])
                .iter()
                .map(|dep| (text(&dep["pkg"]), list(&dep["dep_kinds"]).iter().map(kind).collect()))
                .collect()
        };
        Self {
            names: list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect(),
            members: list(&metadata["workspace_members"]).iter().map(text).collect(),
            edges: list(&metadata["resolve"]["nodes"])
                .iter()
                .map(|node| (text(&node["id"]), dependencies(node)))
                .collect(),
        }
    }

    /// Every package that `package` is built from, by name, with the path that leads to it.
    fn normal_tree(&self, package: &str) -> BTreeMap<&str, String> {
        let root = self.members.iter().find(|id| self.names[*id] == package).unwrap();
        let mut found = BTreeMap::new();
        let mut open = vec![(root.as_str(), package.to_owned())];
        while let Some((id, path)) = open.pop() {
            let normal = self.edges[id].iter().filter(|(_, kinds)| kinds.contains(&Kind::Normal));
            for (dependency, _) in normal {
                let name = self.names[dependency].as_str();
                if !found.contains_key(name) {
                    let path = format!("{path} > {name}");
                    found.insert(name, path.clone());
                    open.push((dependency, path));
                }
            }
        }
        found
    }
}

fn rank(package: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == package).map(|(_, rank)| *rank)
}

#[test]
fn every_package_has_a_rank() {
    let graph = Graph::load();
    let members: BTreeSet<&str> =
        graph.members.iter().map(|id| graph.names[id].as_str()).filter(|name| *name != "xtask").collect();
    let ranked: BTreeSet<&str> = RANKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(members, ranked);
}

#[test]
fn dependencies_point_to_lower_ranks() {
    let graph = Graph::load();
    let mut wrong = Vec::new();
    for id in &graph.members {
        for (dependency, kinds) in &graph.edges[id] {
            let (from, to) = (&graph.names[id], &graph.names[dependency]);
            let (Some(own), Some(other)) = (rank(from), rank(to)) else { continue };
            let kind = if kinds.iter().all(|kind| *kind == Kind::Dev) { " (for tests)" } else { "" };
            if own <= other {
                wrong.push(format!("{from} (rank {own}) -> {to} (rank {other}){kind}"));
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies against the ranks:\n{}", wrong.join("\n"));
}

#[test]
fn pure_crates_pull_in_no_io() {
    let graph = Graph::load();
    for package in PURE {
        let tree = graph.normal_tree(package);
        for name in IMPURE {
            assert!(!tree.contains_key(name), "{package} must not pull in {name}: {}", tree[name]);
        }
    }
}

#[test]
fn controller_and_node_meet_only_in_the_ir() {
    let graph = Graph::load();
    assert!(!graph.normal_tree("weft-node-proxy").contains_key("weft-mesh-controller"));
    assert!(!graph.normal_tree("weft-node-proxy").contains_key("weft-translate"));
    assert!(!graph.normal_tree("weft-mesh-controller").contains_key("weft-node-proxy"));
    assert!(!graph.normal_tree("weft-mesh-controller").contains_key("weft-ebpf-redirect"));
}

#[test]
fn xtask_depends_on_no_workspace_crate() {
    let graph = Graph::load();
    let xtask = graph.members.iter().find(|id| graph.names[*id] == "xtask").unwrap();
    let ours: Vec<&String> =
        graph.edges[xtask].iter().map(|(id, _)| id).filter(|id| graph.members.contains(*id)).collect();
    assert!(ours.is_empty(), "xtask depends on {ours:?}");
}

#[test]
fn no_parser_of_http_but_ours_is_on_the_data_path() {
    let graph = Graph::load();
    let names_a_parser = |id: &&String| {
        let direct = graph.edges[*id].iter().filter(|(_, kinds)| kinds.contains(&Kind::Normal));
        direct
            .map(|(dependency, _)| graph.names[dependency].as_str())
            .any(|name| name == "httparse" || name == "h2")
    };
    let found: Vec<&str> =
        graph.members.iter().filter(names_a_parser).map(|id| graph.names[id].as_str()).collect();
    // The benchmarks have an origin of their own.
    assert_eq!(found, ["weft-benches"], "they name httparse or h2");
}
