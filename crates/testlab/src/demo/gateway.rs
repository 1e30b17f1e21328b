// SPDX-License-Identifier: Apache-2.0
//! The demo without the kernel's part: the Gateway of the example on loopback, without root.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::shop::example;
use super::steps::{near, shares};
use super::table::Table;
use crate::daemon::{Controller, WeftNode};
use crate::manifests::{Manifests, node_object};
use crate::peer::client;
use crate::process::Place;
use crate::wait;

const APPLIED: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(30);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where the endpoints are: addresses of the loopback network that are not the gateway's own.
const ENDPOINTS: [(&str, Ipv4Addr, Ipv4Addr); 2] = [
    ("v1", Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(10, 96, 0, 1)),
    ("v2", Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(10, 96, 0, 2)),
];

/// Runs servers, controller and weft-node as plain processes, and claims what needs no redirect.
pub(super) fn run(keep: bool, table: &mut Table) -> anyhow::Result<()> {
    let directory = Directory::new()?;
    let place = Place { netns: None, cgroup: None, logs: directory.0.join("logs") };
    let port = free_port()?;
    let manifests = Manifests::create(&directory.0)?;
    let mut servers = Vec::new();
    let mut text = node_object("loopback", &[LOOPBACK.into()]);
    text.push_str("---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    for (version, address, service) in ENDPOINTS {
        let listen = SocketAddr::new(address.into(), 0).to_string();
        let mut server = place.serve(version, &["http", "--version", version, "--listen", &listen])?;
        let address: SocketAddr = server.ready_line()?.parse()?;
        text.push_str(&endpoint(version, address, service));
        servers.push(server);
    }
    manifests.write("cluster.yaml", &text)?;
    let gateway = std::fs::read_to_string(example("gateway.yaml")?)?;
    ensure!(gateway.contains("port: 8080"), "the example's gateway has another port");
    manifests.write("gateway.yaml", &gateway.replace("port: 8080", &format!("port: {port}")))?;
    table.progress("the controller, and weft-node as a gateway");
    let listen = SocketAddr::new(LOOPBACK.into(), 0);
    let controller = Controller::start_at(&place, &directory.0, manifests.directory(), listen, None)?;
    let state = directory.0.join("node");
    std::fs::create_dir(&state)?;
    let only = ["--no-redirect", "--listen-address", "127.0.0.1"];
    let node = WeftNode::spawn_at(&place, "loopback", &state, &controller, &only)?.wait_ready()?;
    claims(&place, port, &manifests, table)?;
    table.print();
    if keep {
        println!("\nTo try:\n  curl -i -H 'Host: shop.example.com' http://{LOOPBACK}:{port}/");
        println!("  $EDITOR {}", manifests.directory().join("gateway.yaml").display());
        super::wait_for_interrupt()?;
    }
    node.stop()?;
    controller.stop()
}

fn claims(place: &Place, port: u16, manifests: &Manifests, table: &mut Table) -> anyhow::Result<()> {
    let url = format!("http://{LOOPBACK}:{port}/pay");
    let ask = |more: &[&str]| -> anyhow::Result<client::Summary> {
        let host = ["client", &url, "--host", "shop.example.com"];
        place.ask("client", &[&host, more].concat(), DEADLINE)
    };
    table.progress("2000 requests to the Gateway");
    wait::eventually(APPLIED, || {
        let one = ask(&["--requests", "1"])?;
        ensure!(one.ok() == 1, "the first request: {:?} {:?}", one.status, one.failures);
        Ok(())
    })?;
    let summary = ask(&["--requests", "2000", "--concurrency", "4"])?;
    table.claim("canary split", "90 / 10", &shares(&summary), near(&summary, 10.0));
    table.progress("editing the HTTPRoute to 50/50 while requests run");
    let load_arguments = ["client", &url, "--host", "shop.example.com", "--pause-ms", "1"];
    let mut load = place.peer("load", &load_arguments)?;
    let text = manifests.read("gateway.yaml")?;
    let text = text.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50");
    manifests.write("gateway.yaml", &text)?;
    let after = wait::eventually(APPLIED, || {
        let after = ask(&["--requests", "1000", "--concurrency", "4"])?;
        ensure!(near(&after, 50.0), "still {}", shares(&after));
        Ok(after)
    })?;
    load.stop()?;
    let during: client::Summary = load.answer()?;
    table.claim("split after the edit", "50 / 50", &shares(&after), near(&after, 50.0));
    let failed = during.sent - during.ok();
    let seen = format!("{failed} of {}", during.sent);
    table.claim("failed during the change", "0", &seen, failed == 0 && during.sent > 0);
    let stranger: client::Summary =
        place.ask("client", &["client", &url, "--host", "other.example.com", "--requests", "1"], DEADLINE)?;
    let seen = format!("{:?}", stranger.status);
    table.claim("a host that no route has", "404", &seen, stranger.status_count(404) == 1);
    Ok(())
}

fn endpoint(version: &str, address: SocketAddr, service: Ipv4Addr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: shop, name: checkout-{version}}}\n\
         spec:\n  clusterIP: {service}\n  clusterIPs: [\"{service}\"]\n  \
         ports: [{{name: http, port: 80, targetPort: {port}, protocol: TCP, appProtocol: http}}]\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  namespace: shop\n  \
         name: checkout-{version}\n  labels: {{kubernetes.io/service-name: checkout-{version}}}\n\
         addressType: IPv4\nports: [{{name: http, port: {port}, protocol: TCP}}]\n\
         endpoints: [{{addresses: [\"{ip}\"], conditions: {{ready: true}}}}]\n"
    )
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((LOOPBACK, 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?.port())
}

/// A directory that is removed when dropped.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("weft-demo-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        std::fs::create_dir(path.join("logs"))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        // What is left in a temporary directory harms nobody.
        std::fs::remove_dir_all(path).ok();
    }
}
