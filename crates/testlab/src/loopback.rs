// SPDX-License-Identifier: Apache-2.0
//! Weft without the kernel's part, on the loopback device: a controller, weft-node as a gateway, and the
//! two versions of the example behind it. It needs no root and no namespace.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;

use crate::daemon::{Controller, WeftNode};
use crate::manifests::{Manifests, example, node_object};
use crate::peer::client;
use crate::process::{Place, Running};
use crate::wait;

/// The host that the example's route is for.
pub const HOST: &str = "shop.example.com";

/// The name of the one node, as in the manifests.
const NODE: &str = "loopback";
/// What makes weft-node a gateway on loopback.
const ONLY: [&str; 3] = ["--no-redirect", "--listen-address", "127.0.0.1"];
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The versions, where they are, and their services: all of 127.0.0.0/8 is loopback, and the endpoints
/// have addresses that are not the gateway's own.
const VERSIONS: [(&str, Ipv4Addr, Ipv4Addr); 2] = [
    ("v1", Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(10, 96, 0, 1)),
    ("v2", Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(10, 96, 0, 2)),
];
/// What the directories of all gateways on loopback begin with; the process follows.
const PREFIX: &str = "weft-loopback-";
const DEADLINE: Duration = Duration::from_secs(30);
const APPLIED: Duration = Duration::from_secs(5);

/// The gateway and what is around it. The processes end before the directory goes.
#[derive(Debug)]
pub struct Loopback {
    _servers: Vec<Running>,
    /// The gateway.
    pub node: WeftNode,
    /// The controller.
    pub controller: Controller,
    /// What it reads: `gateway.yaml` and `policy.yaml` of the example, and `cluster.yaml`.
    pub manifests: Manifests,
    /// Where the gateway listens.
    pub address: SocketAddr,
    place: Place,
    directory: Directory,
}

impl Loopback {
    /// Starts everything, and returns when the first request was answered.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// The same with more arguments for the server of v2.
    pub fn start_with(more: &[&str]) -> anyhow::Result<Self> {
        let directory = Directory::new()?;
        let place = Place { netns: None, cgroup: None, logs: directory.0.join("logs") };
        let address = free_address()?;
        let manifests = Manifests::create(&directory.0)?;
        let mut cluster = node_object(NODE, &[LOOPBACK.into()], &[]);
        cluster.push_str("---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
        let (mut servers, mut ports) = (Vec::new(), String::new());
        for (version, ip, service) in VERSIONS {
            let listen = SocketAddr::new(ip.into(), 0).to_string();
            let mut arguments = vec!["http", "--version", version, "--listen", &listen];
            arguments.extend(more.iter().filter(|_| version == "v2"));
            let mut server = place.serve(version, &arguments)?;
            let endpoint: SocketAddr = server.ready_line()?.parse()?;
            cluster.push_str(&pod_behind_service(version, endpoint, service));
            ports.push_str(&format!("      - {{port: \"{}\", protocol: TCP}}\n", endpoint.port()));
            servers.push(server);
        }
        manifests.write("cluster.yaml", &cluster)?;
        let gateway = replaced("gateway.yaml", "port: 8080", &format!("port: {}", address.port()))?;
        manifests.write("gateway.yaml", &gateway)?;
        let port = "      - port: \"8080\"\n        protocol: TCP\n";
        manifests.write("policy.yaml", &replaced("policy.yaml", port, &ports)?)?;
        let listen = SocketAddr::new(LOOPBACK.into(), 0);
        let controller = Controller::start_at(&place, &directory.0, manifests.directory(), listen, None)?;
        let state = directory.0.join("node");
        fs::create_dir(&state)?;
        let node = WeftNode::spawn_at(&place, NODE, &state, &controller, &ONLY)?.wait_ready()?;
        let loopback = Self { _servers: servers, node, controller, manifests, address, place, directory };
        wait::eventually(APPLIED, || {
            let one = loopback.requests(&["--requests", "1"])?;
            ensure!(one.ok() == 1, "the first request: {:?} {:?}", one.status, one.failures);
            Ok(())
        })?;
        Ok(loopback)
    }

    /// The URL that the example's route serves.
    pub fn url(&self) -> String {
        format!("http://{}/pay", self.address)
    }

    /// Sends requests for the example's host to the gateway, until all are answered.
    pub fn requests(&self, more: &[&str]) -> anyhow::Result<client::Summary> {
        self.ask(&[&["client", &self.url(), "--host", HOST], more].concat())
    }

    /// Runs a peer to its end, and reads its answer.
    pub fn ask<T: DeserializeOwned>(&self, arguments: &[&str]) -> anyhow::Result<T> {
        self.place.ask("peer", arguments, DEADLINE)
    }

    /// Starts a client that sends requests until it is stopped.
    pub fn load(&self, more: &[&str]) -> anyhow::Result<Running> {
        self.place.peer("load", &[&["client", &self.url(), "--host", HOST], more].concat())
    }

    /// Writes the example's route with other weights.
    pub fn set_weights(&self, one: u32, two: u32) -> anyhow::Result<()> {
        let mut text = self.manifests.read("gateway.yaml")?;
        for (version, weight) in [("v1", one), ("v2", two)] {
            let start = format!("{{name: checkout-{version}, port: 80, weight: ");
            let (before, rest) = text.split_once(&start).context("the route has another form")?;
            let (_, after) = rest.split_once('}').context("the route has another form")?;
            text = format!("{before}{start}{weight}}}{after}");
        }
        self.manifests.write("gateway.yaml", &text)
    }

    /// Has the example's route retry requests that are answered with 503.
    pub fn add_retries(&self) -> anyhow::Result<()> {
        let text = self.manifests.read("gateway.yaml")?;
        let rule = "  rules:\n  - backendRefs:";
        ensure!(text.contains(rule), "the route has another form");
        let retry = "  rules:\n  - retry: {codes: [503], attempts: 2, backoff: 10ms}\n    backendRefs:";
        self.manifests.write("gateway.yaml", &text.replace(rule, retry))
    }

    /// Puts the example's rate limit on the route.
    pub(crate) fn add_rate_limit(&self) -> anyhow::Result<()> {
        let text = replaced("ratelimit.yaml", "    name: canary", "    name: shop")?;
        self.manifests.write("ratelimit.yaml", &text)
    }

    /// Ends the controller, then starts weft-node again.
    pub fn restart_without_controller(mut self) -> anyhow::Result<Self> {
        self.controller.end()?;
        let state = self.directory.0.join("node");
        self.node.stop()?;
        self.node = WeftNode::spawn_at(&self.place, NODE, &state, &self.controller, &ONLY)?.wait_ready()?;
        Ok(self)
    }

    /// Ends the daemons; an error when one does not end well.
    pub fn stop(self) -> anyhow::Result<()> {
        self.node.stop()?;
        self.controller.stop()
    }
}

fn replaced(file: &str, from: &str, to: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(example(file)?)?;
    ensure!(text.contains(from), "the example's {file} has no {from:?}");
    Ok(text.replace(from, to))
}

fn pod_behind_service(version: &str, endpoint: SocketAddr, service: Ipv4Addr) -> String {
    let (ip, port): (IpAddr, u16) = (endpoint.ip(), endpoint.port());
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  namespace: shop\n  name: checkout-{version}\n  \
         labels: {{app: checkout, version: {version}}}\nspec: {{nodeName: loopback}}\n\
         status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}]}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: shop, name: checkout-{version}}}\n\
         spec:\n  clusterIP: {service}\n  clusterIPs: [\"{service}\"]\n  \
         ports: [{{name: http, port: 80, targetPort: {port}, protocol: TCP, appProtocol: http}}]\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  namespace: shop\n  \
         name: checkout-{version}\n  labels: {{kubernetes.io/service-name: checkout-{version}}}\n\
         addressType: IPv4\nports: [{{name: http, port: {port}, protocol: TCP}}]\n\
         endpoints: [{{addresses: [\"{ip}\"], conditions: {{ready: true}}, nodeName: loopback}}]\n"
    )
}

/// An address whose port was free a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((LOOPBACK, 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?)
}

/// Removes the directories of processes that ended without doing so; other users' stay.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// A directory that is removed when dropped.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new() -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        fs::create_dir(path.join("logs"))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left in a temporary directory harms nobody.
        fs::remove_dir_all(&self.0).ok();
    }
}
