// SPDX-License-Identifier: Apache-2.0
//! Weft: the controller reads manifests with a Gateway, a route and a policy; the node is a Gateway on
//! loopback with one worker. The policy is an L7 rule on the origin's pod, decided on every request.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::peers::{Running, Setup};
use crate::process::{self, LOAD_CORE, PROXY_CORE, Process, beside};
use crate::workload::Protocol;

/// How long the controller may take to listen.
const START: Duration = Duration::from_secs(10);

/// Starts the controller and the node.
pub(crate) fn start(setup: &Setup<'_>) -> anyhow::Result<Running> {
    let [address, control] = process::free_addresses()?;
    let manifests = setup.folder.join("manifests");
    fs::create_dir_all(&manifests)?;
    fs::write(manifests.join("bench.yaml"), objects(setup, address))?;
    let token = setup.folder.join("token");
    let controller = start_controller(setup, control)?;
    let state = setup.folder.join("node");
    let log = setup.folder.join("weft-node.log");
    let program = beside("weft-node")?;
    let own = [
        program.to_string_lossy().into_owned(),
        "--node".into(),
        "bench".into(),
        "--controller".into(),
        control.to_string(),
        "--join-token-file".into(),
        token.to_string_lossy().into_owned(),
        "--state-dir".into(),
        state.to_string_lossy().into_owned(),
        "--admin".into(),
        format!("unix:{}", setup.folder.join("node.sock").display()),
        "--listen-address".into(),
        address.ip().to_string(),
        "--workers".into(),
        "1".into(),
        "--no-redirect".into(),
    ];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let mut process = Process::start(PROXY_CORE, &[setup.prefix, &own].concat(), &log)?;
    process.wait_for(address, &log)?;
    Ok(Running { address, process, _beside: vec![controller] })
}

fn start_controller(setup: &Setup<'_>, control: SocketAddr) -> anyhow::Result<Process> {
    let path = |name: &str| setup.folder.join(name).to_string_lossy().into_owned();
    let program = beside("weft-controller")?;
    let log = setup.folder.join("weft-controller.log");
    let command = [
        program.to_string_lossy().into_owned(),
        "--source".into(),
        format!("dir:{}", path("manifests")),
        "--listen".into(),
        control.to_string(),
        "--state-dir".into(),
        path("controller"),
        "--join-token-file".into(),
        path("token"),
    ];
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut controller = Process::start(LOAD_CORE, &command, &log)?;
    controller.wait_for(control, &log)?;
    wait_for_file(&setup.folder.join("token"))?;
    Ok(controller)
}

fn wait_for_file(file: &std::path::Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    while !file.exists() {
        if Instant::now() > deadline {
            bail!("the controller wrote no {}", file.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The objects: the origin as a pod of this node behind a Service, a Gateway, a route, a policy.
fn objects(setup: &Setup<'_>, address: SocketAddr) -> String {
    let (prefix, allowed) = (setup.protocol.prefix(), setup.protocol.allowed_path());
    let protocol = match setup.protocol {
        Protocol::Http1 => "http",
        Protocol::Http2 => "kubernetes.io/h2c",
    };
    TEMPLATE
        .replace("ORIGIN_IP", &setup.origin.ip().to_string())
        .replace("ORIGIN_PORT", &setup.origin.port().to_string())
        .replace("GATEWAY_PORT", &address.port().to_string())
        .replace("APP_PROTOCOL", protocol)
        .replace("PREFIX", prefix)
        .replace("ALLOWED_PATH", allowed)
}

const TEMPLATE: &str = include_str!("weft.yaml");
