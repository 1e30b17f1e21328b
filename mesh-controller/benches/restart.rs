// SPDX-License-Identifier: Apache-2.0
//! A restart of the controller under many nodes that hold its state: time until all have resumed, bytes, and the
//! controller's CPU time. Each node is a TLS stream from an address and with a certificate of its own.
//!
//! `cargo bench -p weft-mesh-controller --bench restart -- 4000 300`: pods, then nodes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime,
    task::JoinSet,
    time::{sleep, timeout},
};
use weft_identity::{NODE_LIFETIME, Registrar};
use weft_ir::{
    stream::{Ack, FromNode, Hello, ToNode},
    subscribe::Subscriber,
};

#[allow(dead_code, unreachable_pub, reason = "made for another benchmark")]
#[path = "change/cluster.rs"]
mod cluster;
#[path = "../tests/support/node.rs"]
mod node;

use cluster::Cluster;
use node::{Member, RECEIVED, SENT, Stream};

/// Starts and restarts, of which the median counts.
const ROUNDS: usize = 5;
/// The pause of a node before it tries again: the first of weft-node.
const RETRY: Duration = Duration::from_millis(200);
/// A start that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(120);

fn main() {
    // Cargo adds `--bench`.
    let mut numbers = env::args().skip(1).filter_map(|argument| argument.parse::<u32>().ok());
    let (pods, nodes) = (numbers.next().unwrap_or(4_000), numbers.next().unwrap_or(300));
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(pods, nodes));
}

async fn measure(pods: u32, nodes: u32) {
    let home = tempfile::tempdir().unwrap();
    let address = free_address();
    Cluster { pods }.write(&home.path().join("source")).unwrap();
    let members = members(&home.path().join("state"), nodes);

    let controller = Controller::start(home.path(), address);
    let mut first = Subscriber::new("node-0".into());
    let mut stream = opened(&members[0], address, &first.hello()).await;
    let commit = stream.commit(&mut first).await;
    stream.apply(&mut first, commit.position).await;
    let snapshot = RECEIVED.load(Ordering::Relaxed);
    println!(
        "{} resources ({pods} pods); a snapshot is {snapshot} B with TLS; {nodes} nodes",
        commit.snapshot.resources.len()
    );
    // What is acknowledged is held by all from here on.
    drop(stream);
    controller.stop();

    let mut members = members;
    let mut rounds = Vec::new();
    for _round in 0..ROUNDS {
        let (round, back) = restart(home.path(), address, members, &first.hello()).await;
        println!("  {round}");
        rounds.push(round);
        members = back;
    }
    rounds.sort_by_key(|round| round.resumed);
    println!("  median: {}", rounds[ROUNDS / 2]);
}

/// What a restart has cost.
struct Round {
    /// From the start of the process until the last node has its answer.
    resumed: Duration,
    /// The controller's CPU time until then.
    cpu: Duration,
    /// The CPU time of all nodes until then.
    nodes_cpu: Duration,
    sent: u64,
    received: u64,
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Round { resumed, cpu, nodes_cpu, sent, received } = self;
        write!(
            f,
            "all resumed {resumed:.2?} after the start, {cpu:.2?} of CPU time in the controller ({nodes_cpu:.2?} in \
             the nodes); {sent} B to the controller, {received} B from it"
        )
    }
}

/// Starts the controller while all nodes try to reach it, and waits until each was told what it lacks.
async fn restart(
    home: &Path,
    address: SocketAddr,
    members: Vec<Member>,
    held: &Hello,
) -> (Round, Vec<Member>) {
    let (sent, received) = (SENT.load(Ordering::Relaxed), RECEIVED.load(Ordering::Relaxed));
    let mut nodes = JoinSet::new();
    for member in members {
        let hello = Hello { node: member.credential.node().shared().clone(), ..held.clone() };
        nodes.spawn(async move {
            let mut stream = opened(&member, address, &hello).await;
            let revision = loop {
                if let ToNode::Batch(batch) = stream.next().await.unwrap()
                    && batch.last
                {
                    break batch.position.revision;
                }
            };
            stream.outbound.send(FromNode::Ack(Ack { revision, ..Ack::default() })).await.unwrap();
            (member, stream)
        });
    }
    let (begin, own) = (Instant::now(), cpu_time());
    let controller = Controller::start(home, address);
    let resumed = timeout(LONGEST, nodes.join_all()).await.expect("all resume in time");
    let round = Round {
        resumed: begin.elapsed(),
        cpu: controller.cpu_time(),
        nodes_cpu: cpu_time() - own,
        sent: SENT.load(Ordering::Relaxed) - sent,
        received: RECEIVED.load(Ordering::Relaxed) - received,
    };
    let (members, streams): (Vec<_>, Vec<_>) = resumed.into_iter().unzip();
    drop(streams);
    controller.stop();
    (round, members)
}

/// Tries until there is a stream.
async fn opened(member: &Member, address: SocketAddr, hello: &Hello) -> Stream {
    loop {
        match Stream::open(address, member, hello.clone()).await {
            Ok(stream) => return stream,
            Err(_) => sleep(RETRY).await,
        }
    }
}

fn name(number: u32) -> String {
    format!("node-{number}")
}

/// Nodes that have joined, each from an address of its own.
fn members(state: &Path, nodes: u32) -> Vec<Member> {
    let registrar = Registrar::open(state, NODE_LIFETIME).unwrap();
    let member = |number: u32| {
        let from = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number));
        let mut member = Member::stranger(registrar.token(), &name(number));
        let (node, request) = (member.credential.node().clone(), member.credential.request().unwrap());
        let chain = registrar.join(&node, &request, from, SystemTime::now()).unwrap();
        member.credential.accept(chain).unwrap();
        member.from = Some(from);
        member
    };
    (0..nodes).map(member).collect()
}

/// A port that was free a moment ago: it has to be the same after a restart.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The controller as a process of its own.
struct Controller(Child);

impl Controller {
    fn start(home: &Path, address: SocketAddr) -> Controller {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-controller"));
        command.arg("--source").arg(format!("dir:{}", home.join("source").display()));
        command.arg("--state-dir").arg(home.join("state")).args(["--listen", &address.to_string()]);
        Controller(command.args(["--log", "warn"]).stdin(Stdio::null()).spawn().unwrap())
    }

    /// User and system time, in clock ticks of 10 ms (proc(5), USER_HZ).
    fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    fn stop(mut self) {
        let status = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(status.success() && self.0.wait().unwrap().success());
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It has ended already, but where the benchmark has failed.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The CPU time of this process, all threads together.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}
