// SPDX-License-Identifier: Apache-2.0
//! Time of `connect(2)` from a pod to another: to the pod's own address, to a ClusterIP through an nft
//! map as kube-proxy has one, and to a ClusterIP through Weft's program at `connect(2)`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use weft_testlab::daemon::{Controller, WeftNode};
use weft_testlab::lab::{Lab, Node, Pod, Shape};
use weft_testlab::manifests::Manifests;
use weft_testlab::process::Running;
use weft_testlab::wait;

use super::{Options, beside};
use crate::interrupt;
use crate::report::{Row, Table};
use crate::stats::Spread;

/// Numbers of services to compare.
const SERVICES: [u16; 2] = [10, 10_000];
/// The port of every service, and of the listener.
const PORT: u16 = 8080;
/// How long one run of connections, or the start of a daemon, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the probe printed.
#[derive(Deserialize)]
struct Times {
    p50_us: f64,
    p99_us: f64,
}

/// One way from pod to pod, measured round by round.
struct Way {
    name: String,
    pair: Pair,
    target: Ipv4Addr,
    p50_us: Spread,
    p99_us: Spread,
}

/// A client and a listening server on one node of a lab. The fields are in the order in which they have
/// to end: processes before the lab.
struct Pair {
    _daemons: Vec<(Controller, WeftNode)>,
    _listener: Running,
    client: Pod,
    server: Pod,
    node: Node,
    lab: Lab,
}

pub(super) fn run(title: &str, options: &Options) -> anyhow::Result<Table> {
    let mut ways = vec![plain()?];
    for services in SERVICES {
        eprintln!("preparing an nft map of {services} services");
        ways.push(nft(services)?);
        interrupt::check()?;
    }
    for services in SERVICES {
        eprintln!("preparing Weft with {services} services");
        ways.push(weft(services)?);
        interrupt::check()?;
    }
    let count = if options.quick { 500 } else { 5_000 };
    for round in 0..options.rounds {
        for way in &mut ways {
            interrupt::check()?;
            let times = way.pair.measure(way.target, count).with_context(|| way.name.clone())?;
            eprintln!("round {}/{} {:>22}: p50 {:.1} us", round + 1, options.rounds, way.name, times.p50_us);
            way.p50_us.push(Some(times.p50_us));
            way.p99_us.push(Some(times.p99_us));
        }
    }
    let plain = ways[0].p50_us.clone();
    let row = |way: Way| {
        let ratio = way.p50_us.ratio_to(&plain);
        Row { name: way.name, cells: vec![way.p50_us, way.p99_us, ratio] }
    };
    Ok(Table {
        title: title.to_owned(),
        columns: ["p50 us", "p99 us", "ratio to plain"].map(str::to_owned).into(),
        rows: ways.into_iter().map(row).collect(),
        notes: vec![format!(
            "median (min-max) of {} rounds of {count} connections each; lower is better; the listener runs on \
             the other core",
            options.rounds
        )],
    })
}

/// Without any service: the address of the pod itself.
fn plain() -> anyhow::Result<Way> {
    let pair = Pair::start()?;
    let target = pair.server.ip4();
    Ok(Way::new("plain, pod address", pair, target))
}

/// One look-up in a map for all services: the fastest form of the rules that kube-proxy writes.
fn nft(services: u16) -> anyhow::Result<Way> {
    let pair = Pair::start()?;
    let rules = pair.lab.directory().join("services.nft");
    fs::write(&rules, nft_rules(services, pair.server.ip4()))?;
    pair.client.netns().run("nft", &["-f", &rules.to_string_lossy()])?;
    Ok(Way::new(&format!("nft map, {services} services"), pair, service(services - 1)))
}

/// Weft's program on `connect(2)`, with the services brought by controller and node as for any pod.
fn weft(services: u16) -> anyhow::Result<Way> {
    let mut pair = Pair::start()?;
    let manifests = Manifests::new(&pair.lab)?;
    manifests.write_cluster(&pair.lab)?;
    let numbers: Vec<u16> = (0..services).collect();
    for (file, chunk) in numbers.chunks(500).enumerate() {
        let objects: String = chunk.iter().map(|number| service_objects(*number, &pair.server)).collect();
        manifests.write(&format!("services-{file}.yaml"), &objects)?;
    }
    let controller = Controller::start(&pair.lab, manifests.directory())?;
    let node = WeftNode::start(&pair.node, &controller)?;
    pair._daemons.push((controller, node));
    let target = service(services - 1);
    wait::eventually(PATIENCE, || pair.measure(target, 1).map(drop))?;
    if pair.client.netns().run("nft", &["list", "ruleset"])?.contains("dnat") {
        bail!("the pod's namespace translates addresses by nft: this would not measure Weft");
    }
    Ok(Way::new(&format!("Weft, {services} services"), pair, target))
}

/// A Service without a route, so that the kernel alone serves it, and its one endpoint.
fn service_objects(number: u16, server: &Pod) -> String {
    let (address, name) = (service(number), format!("s{number}"));
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: bench, name: {name}}}\nspec:\n  \
         clusterIP: {address}\n  clusterIPs: [{address}]\n  ports:\n  \
         - {{name: tcp, port: {PORT}, targetPort: {PORT}, protocol: TCP}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  namespace: bench\n  \
         name: {name}-1\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
         ports:\n- {{name: tcp, port: {PORT}, protocol: TCP}}\nendpoints:\n- addresses: [{endpoint}]\n  \
         conditions: {{ready: true}}\n  nodeName: {node}\n  \
         targetRef: {{kind: Pod, namespace: {namespace}, name: {pod}}}\n",
        endpoint = server.ip4(),
        node = server.node(),
        namespace = server.namespace(),
        pod = server.name(),
    )
}

fn nft_rules(services: u16, endpoint: Ipv4Addr) -> String {
    let mut rules = String::from(
        "table ip bench {\n  map services {\n    type ipv4_addr . inet_service : ipv4_addr . inet_service\n    \
         elements = {\n",
    );
    for number in 0..services {
        rules.push_str(&format!("      {} . {PORT} : {endpoint} . {PORT},\n", service(number)));
    }
    rules.push_str(
        "    }\n  }\n  chain output {\n    type nat hook output priority -100\n    \
         meta l4proto tcp dnat ip to ip daddr . tcp dport map @services\n  }\n}\n",
    );
    rules
}

/// The address of a service: the lab keeps 10.96.0.0/16 for them.
fn service(number: u16) -> Ipv4Addr {
    let [high, low] = (number + 10).to_be_bytes();
    Ipv4Addr::new(10, 96, high, low)
}

impl Way {
    fn new(name: &str, pair: Pair, target: Ipv4Addr) -> Self {
        Self { name: name.to_owned(), pair, target, p50_us: Spread::default(), p99_us: Spread::default() }
    }
}

impl Pair {
    /// A lab with one routed node, and the listener in one of its two pods.
    fn start() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let node = lab.add_node("node1", Shape::Routed)?;
        let client = node.add_pod("bench", "client")?;
        let server = node.add_pod("bench", "server")?;
        let address = format!("0.0.0.0:{PORT}");
        let program = beside("weft-bench-connect")?;
        let mut listener = server.place().spawn(
            "listener",
            Path::new("/usr/bin/taskset"),
            &["-c", "1", &program.to_string_lossy(), "listen", &address],
        )?;
        wait::eventually(PATIENCE, || listener.ready_line().map(drop))?;
        Ok(Self { client, server, _daemons: Vec::new(), _listener: listener, node, lab })
    }

    fn measure(&self, target: Ipv4Addr, count: usize) -> anyhow::Result<Times> {
        let program = beside("weft-bench-connect")?;
        let (address, count) = (format!("{target}:{PORT}"), count.to_string());
        let mut probe = self.client.place().spawn(
            "probe",
            Path::new("/usr/bin/taskset"),
            &["-c", "0", &program.to_string_lossy(), "to", &address, &count],
        )?;
        probe.finish(PATIENCE)?;
        probe.answer()
    }
}
