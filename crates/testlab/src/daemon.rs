// SPDX-License-Identifier: Apache-2.0
//! The daemons under test, as processes of a lab.
//!
//! What they log goes to files; a daemon that does not come up shows the end of its log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use weft_flow_export::Flow;
use weft_flow_export::serve::Line;

use crate::lab::{Lab, Node, WORLD_V4};
use crate::process::{self, Place, Running};
use crate::wait;

pub mod admin;
pub mod metrics;

use metrics::Metrics;

/// How long a daemon may take to be ready; the kernel's check of the programs is most of it.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// How long a daemon may take to end after SIGTERM.
const END_DEADLINE: Duration = Duration::from_secs(15);
/// The lines of a log that are shown.
const LOG_TAIL: usize = 40;

/// A running `weft-controller`.
#[derive(Debug)]
pub struct Controller {
    process: Running,
    address: SocketAddr,
    token: PathBuf,
}

/// A running `weft-node`.
#[derive(Debug)]
pub struct WeftNode {
    process: Running,
    name: String,
    admin: PathBuf,
}

impl Controller {
    /// Starts it in the world of `lab`, reading `manifests`.
    pub fn start(lab: &Lab, manifests: &Path) -> anyhow::Result<Self> {
        let cidrs = "10.244.0.0/16,fd00:244::/32";
        let listen = SocketAddr::new(WORLD_V4.into(), 0);
        Self::start_at(&lab.world_place(), lab.directory(), manifests, listen, Some(cidrs))
    }

    /// Starts it at `place`, with its state below `directory`.
    pub(crate) fn start_at(
        place: &Place,
        directory: &Path,
        manifests: &Path,
        listen: SocketAddr,
        pod_cidrs: Option<&str>,
    ) -> anyhow::Result<Self> {
        let (state, token) = (directory.join("controller"), directory.join("join-token"));
        let source = format!("dir:{}", manifests.display());
        let listen = listen.to_string();
        let mut arguments = vec!["--source", &source, "--listen", &listen, "--print-status"];
        arguments.extend(["--state-dir", text(&state)?, "--join-token-file", text(&token)?]);
        arguments.extend(pod_cidrs.into_iter().flat_map(|cidrs| ["--pod-cidr", cidrs]));
        let mut process =
            place.spawn("weft-controller", &process::program("weft-controller")?, &arguments)?;
        let address = wait::eventually(READY_DEADLINE, || serving(&mut process));
        let address = address.map_err(|error| with_log(error, "weft-controller", &process))?;
        Ok(Self { process, address, token })
    }

    /// Where nodes connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file with the join token.
    pub fn token(&self) -> &Path {
        &self.token
    }

    /// The statuses that it printed until now.
    pub fn statuses(&self) -> String {
        self.process.stdout()
    }

    /// What it logged until now.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Ends it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    /// Ends it, and keeps what is known of it.
    pub fn end(&mut self) -> anyhow::Result<()> {
        self.process.terminate(END_DEADLINE).map(drop)
    }
}

impl WeftNode {
    /// Starts it on `node`, and waits until it is ready.
    pub fn start(node: &Node, controller: &Controller) -> anyhow::Result<Self> {
        let started = Self::spawn(node, controller, &[])?;
        started.wait_ready()
    }

    /// Starts it on `node` with more arguments, and waits for nothing.
    pub fn spawn(node: &Node, controller: &Controller, more: &[&str]) -> anyhow::Result<Self> {
        let (cgroup, bpf) = (text(node.cgroup())?, text(node.bpf())?);
        let mut arguments = vec!["--cgroup", cgroup, "--bpffs", bpf];
        arguments.extend(more);
        Self::spawn_at(&node.place(), node.name(), node.state(), controller, &arguments)
    }

    /// Starts it at `place`, with its state in `state`.
    pub(crate) fn spawn_at(
        place: &Place,
        name: &str,
        state: &Path,
        controller: &Controller,
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let admin = state.join("admin.sock");
        let (address, socket) = (controller.address.to_string(), format!("unix:{}", admin.display()));
        let mut arguments =
            vec!["--drain-timeout-ms", "2000", "--node", name, "--controller", &address, "--admin", &socket];
        arguments.extend(["--join-token-file", text(&controller.token)?, "--state-dir", text(state)?]);
        arguments.extend(more);
        let process = place.spawn("weft-node", &process::program("weft-node")?, &arguments)?;
        Ok(Self { process, name: name.to_owned(), admin })
    }

    /// Waits until it says that it is ready.
    pub fn wait_ready(mut self) -> anyhow::Result<Self> {
        let ready = wait::eventually(READY_DEADLINE, || {
            if !self.process.is_running() {
                return Ok(false);
            }
            admin::get(&self.admin, "/readyz").map(|_| true)
        });
        match ready {
            Ok(true) => Ok(self),
            Ok(false) => Err(with_log(anyhow::anyhow!("it ended"), "weft-node", &self.process)),
            Err(error) => Err(with_log(error, "weft-node", &self.process)),
        }
    }

    /// The name of its node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The socket of its admin endpoint.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it logged until now.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Its metrics.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        admin::get(&self.admin, "/metrics").map(|text| Metrics::parse(&text))
    }

    /// Its last flows that match `query`, for example `verdict=DROPPED&last=5`; oldest first.
    pub fn flows(&self, query: &str) -> anyhow::Result<Vec<Flow>> {
        let text = admin::get(&self.admin, &format!("/flows?{query}"))?;
        let mut flows = Vec::new();
        for line in text.lines() {
            match serde_json::from_str(line).with_context(|| format!("the flow {line:?}"))? {
                Line::Flow(flow) => flows.push(*flow),
                Line::Lost { .. } => {}
            }
        }
        Ok(flows)
    }

    /// Ends it with SIGTERM.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let status = self.process.terminate(END_DEADLINE)?;
        if !status.success() {
            return Err(with_log(anyhow::anyhow!("it ended with {status}"), "weft-node", &self.process));
        }
        Ok(())
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.process.kill()?)
    }
}

/// What `weft-node --check` says about this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelCheck {
    /// It has what the redirect needs.
    Fit,
    /// It has not; this is the table of what is there and what is missing.
    Lacking(String),
}

/// Asks weft-node whether the kernel has what the redirect needs; an error when it does not say.
pub(crate) fn check_kernel() -> anyhow::Result<KernelCheck> {
    let output = std::process::Command::new(process::program("weft-node")?).arg("--check").output()?;
    let table = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(KernelCheck::Fit);
    }
    if table.is_empty() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("weft-node --check: {}: {}", output.status, why.lines().next().unwrap_or_default());
    }
    Ok(KernelCheck::Lacking(table))
}

/// Removes all that weft-node left on `node`.
pub fn clean_node(node: &Node) -> anyhow::Result<()> {
    let arguments = [
        "--cleanup",
        "--node",
        node.name(),
        "--cgroup",
        text(node.cgroup())?,
        "--bpffs",
        text(node.bpf())?,
        "--state-dir",
        text(node.state())?,
    ];
    let mut process = node.place().spawn("weft-node-cleanup", &process::program("weft-node")?, &arguments)?;
    process.finish(END_DEADLINE)
}

/// The address in the line that the controller logs once it serves.
fn serving(process: &mut Running) -> anyhow::Result<SocketAddr> {
    let log = process.stderr();
    if let Some(line) = log.lines().find(|line| line.contains("serving nodes")) {
        let address = line.split_whitespace().find_map(|field| field.strip_prefix("address="));
        return address.context("the line has no address")?.parse().context("the address of the controller");
    }
    if !process.is_running() {
        bail!("it ended");
    }
    bail!("it does not serve yet")
}

fn with_log(error: anyhow::Error, name: &str, process: &Running) -> anyhow::Error {
    let log = process.stderr();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
    error.context(format!("{name} is not ready; the end of its log:\n{tail}"))
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path is not UTF-8")
}
