// SPDX-License-Identifier: Apache-2.0
//! What the way from pod to pod costs: without Weft, with Weft and a NetworkPolicy, with one rule of connection
//! tracking, by a bare `bpf_redirect_peer`; on one node and from node to node.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use weft_ebpf_redirect::bpf::bare;
use weft_testlab::daemon::{Controller, WeftNode};
use weft_testlab::foreign::Rules;
use weft_testlab::lab::{GATEWAY_V4, GATEWAY_V6, Lab, Node, Pod, Shape};
use weft_testlab::manifests::Manifests;
use weft_testlab::wait;

use super::{Options, beside};
use crate::interrupt;
use crate::programs;
use crate::report::{Row, Table};
use crate::stats::Spread;

/// The port of the server.
const PORT: u16 = 8080;
/// How long one run, or the start of a daemon, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    Datagram,
    Stream,
    Rr,
    New,
}

/// What there is between the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// The node's stack alone.
    Nothing,
    /// weft-node, with a policy for both pods.
    Weft,
    /// One nft rule that asks for the state of the connection.
    Tracking,
    /// A program of four instructions that hands packets to the other pod's device.
    Peer,
}

/// What the probe printed.
#[derive(Deserialize)]
struct Time {
    ns: f64,
}

/// Two pods and what is between them. The fields are in the order in which they have to end.
struct Way {
    name: String,
    v6: bool,
    daemons: Vec<(Controller, Vec<WeftNode>)>,
    _links: Vec<OwnedFd>,
    client: Pod,
    server: Pod,
    _lab: Lab,
    ns: Spread,
}

impl Load {
    fn word(self) -> &'static str {
        match self {
            Self::Datagram => "datagram",
            Self::Stream => "stream",
            Self::Rr => "rr",
            Self::New => "new",
        }
    }

    /// So many that a window takes a tenth of a second.
    fn count(self, quick: bool) -> usize {
        let count = match self {
            Self::Datagram => 32_000,
            Self::Stream => 2_000,
            Self::Rr => 8_000,
            Self::New => 2_000,
        };
        if quick { count / 8 } else { count }
    }
}

pub(super) fn run(title: &str, load: Load, options: &Options) -> anyhow::Result<Table> {
    let routed = |lab: &Lab| one_node(lab, Shape::Routed);
    let mut groups = vec![
        group("one node", routed, false, true)?,
        group("one node, IPv6", routed, true, true)?,
        group("one node, bridged", |lab| one_node(lab, Shape::Bridged), false, false)?,
        group("two nodes", two_nodes, false, false)?,
        group("two nodes, IPv6", two_nodes, true, false)?,
    ];
    let count = load.count(options.quick);
    for round in 0..options.rounds {
        for ways in &mut groups {
            let places = ways.len();
            for turn in 0..places {
                interrupt::check()?;
                let way = &mut ways[(turn + round as usize) % places];
                let ns = way.measure(load, count).with_context(|| way.name.clone())?;
                eprintln!("round {}/{} {:>32}: {ns:.0} ns", round + 1, options.rounds, way.name);
                way.ns.push(Some(ns));
            }
        }
    }
    let mut notes = vec![format!(
        "median (min-max) of {} rounds of {count} each; CPU time of one thread on one core that sends and \
         receives, with all that the kernel does on the way; lower is better",
        options.rounds
    )];
    for way in groups.iter().flatten().filter(|way| !way.daemons.is_empty()) {
        notes.push(format!("{}: {}", way.name, way.programs(load, count)?));
    }
    let mut rows = Vec::new();
    for ways in groups {
        let base = ways[0].ns.clone();
        rows.extend(ways.into_iter().map(|way| {
            let ratio = way.ns.ratio_to(&base);
            Row { name: way.name.clone(), cells: vec![way.ns.clone(), ratio] }
        }));
    }
    Ok(Table {
        title: title.to_owned(),
        columns: [format!("CPU ns per {}", load.word()), "ratio to no Weft".to_owned()].into(),
        rows,
        notes,
    })
}

/// The ways of one arrangement of pods; the first is without anything.
fn group(
    name: &str,
    pods: impl Fn(&Lab) -> anyhow::Result<(Pod, Pod)>,
    v6: bool,
    with_peer: bool,
) -> anyhow::Result<Vec<Way>> {
    let mut ways = Vec::new();
    for (between, label) in [
        (Between::Nothing, "no Weft"),
        (Between::Weft, "Weft, NetworkPolicy"),
        (Between::Tracking, "conntrack rule"),
        (Between::Peer, "bare redirect_peer"),
    ] {
        if between == Between::Peer && !with_peer {
            continue;
        }
        eprintln!("preparing {name}: {label}");
        let lab = Lab::new()?;
        let (client, server) = pods(&lab)?;
        let (mut daemons, mut links) = (Vec::new(), Vec::new());
        match between {
            Between::Nothing => {}
            Between::Weft => daemons.push(weft(&lab)?),
            Between::Tracking => lab.nodes().iter().try_for_each(|node| Rules::Track.install(node))?,
            Between::Peer => links = peers(&lab.nodes()[0], &client, &server)?,
        }
        let name = format!("{name}: {label}");
        let way = Way { name, v6, daemons, _links: links, client, server, _lab: lab, ns: Spread::default() };
        // The policy is in force once the state was applied; until then nothing may pass.
        wait::eventually(PATIENCE, || way.measure(Load::Rr, 16).map(drop))
            .with_context(|| format!("{}: {:?}", way.name, way.logs()))?;
        ways.push(way);
        interrupt::check()?;
    }
    Ok(ways)
}

fn one_node(lab: &Lab, shape: Shape) -> anyhow::Result<(Pod, Pod)> {
    let node = lab.add_node("node1", shape)?;
    Ok((node.add_pod("bench", "client")?, node.add_pod("bench", "server")?))
}

fn two_nodes(lab: &Lab) -> anyhow::Result<(Pod, Pod)> {
    let one = lab.add_node("node1", Shape::Routed)?;
    let two = lab.add_node("node2", Shape::Routed)?;
    Ok((one.add_pod("bench", "client")?, two.add_pod("bench", "server")?))
}

/// Both pods are held to a policy in both directions, which allows them each other.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: bench, namespace: bench}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {}}]
    ports: [{port: 8080, protocol: TCP}, {port: 8080, protocol: UDP}]
  egress:
  - to: [{podSelector: {}}]
    ports: [{port: 8080, protocol: TCP}, {port: 8080, protocol: UDP}]
";

fn weft(lab: &Lab) -> anyhow::Result<(Controller, Vec<WeftNode>)> {
    let manifests = Manifests::new(lab)?;
    manifests.write_cluster(lab)?;
    manifests.write("policy.yaml", POLICY)?;
    let controller = Controller::start(lab, manifests.directory())?;
    let nodes: anyhow::Result<Vec<WeftNode>> =
        lab.nodes().iter().map(|node| WeftNode::start(node, &controller)).collect();
    Ok((controller, nodes?))
}

/// What each pod sends goes to the other one's device at once, as long as what is returned lives. So do their
/// questions for neighbours, which they therefore have to know.
fn peers(node: &Node, client: &Pod, server: &Pod) -> anyhow::Result<Vec<OwnedFd>> {
    let (client, server) = (known_gateway(node, client)?, known_gateway(node, server)?);
    node.netns().within(|| {
        let (to, back) =
            (bare::attach_redirect_peer(client, server)?, bare::attach_redirect_peer(server, client)?);
        Ok(vec![to, back])
    })?
}

/// Tells a pod for good who its gateways are; the index of its device on the node.
fn known_gateway(node: &Node, pod: &Pod) -> anyhow::Result<u32> {
    let line = node.netns().run("ip", &["-o", "link", "show", "dev", pod.device()])?;
    let (index, rest) = line.split_once(':').context("ip shows no index")?;
    let mac =
        rest.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).context("no MAC address")?;
    for gateway in [GATEWAY_V4, GATEWAY_V6] {
        pod.netns().ip(&format!("neigh replace {gateway} lladdr {mac} dev eth0 nud permanent"))?;
    }
    Ok(index.parse()?)
}

impl Way {
    fn measure(&self, load: Load, count: usize) -> anyhow::Result<f64> {
        let program = beside("weft-bench-path")?;
        let ip = if self.v6 { self.server.ip6().into() } else { self.server.ip4().into() };
        let address = SocketAddr::new(ip, PORT).to_string();
        let netns = self.server.netns().path();
        let arguments = [
            "-c",
            "1",
            &program.to_string_lossy(),
            load.word(),
            &netns.to_string_lossy(),
            &address,
            &address,
        ];
        let count = count.to_string();
        let arguments: Vec<&str> = arguments.into_iter().chain([count.as_str()]).collect();
        let mut probe = self.client.place().spawn("probe", Path::new("/usr/bin/taskset"), &arguments)?;
        probe.finish(PATIENCE)?;
        Ok(probe.answer::<Time>()?.ns)
    }

    /// How often each of Weft's programs runs for one of the load, and how long each time.
    fn programs(&self, load: Load, count: usize) -> anyhow::Result<String> {
        let _counting = programs::Counting::start()?;
        let nodes: Vec<u32> =
            self.daemons.iter().flat_map(|(_, nodes)| nodes.iter().map(WeftNode::pid)).collect();
        let before = programs::runs(&nodes)?;
        self.measure(load, count)?;
        Ok(programs::since(&before, &programs::runs(&nodes)?, count))
    }

    fn logs(&self) -> Vec<String> {
        self.daemons.iter().flat_map(|(_, nodes)| nodes.iter().map(WeftNode::log)).collect()
    }
}
