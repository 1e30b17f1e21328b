// SPDX-License-Identifier: Apache-2.0
//! From a received batch to the state that workers serve and the tables that the kernel is to have, on one
//! node of clusters of several sizes: CPU time of one change of each kind, memory, start. The writes to the
//! kernel are not part of it.
//!
//! `cargo bench -p weft-node-proxy --bench change -- 1000 10000 100000`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]

use std::{env, fs, hint::black_box, process::Command, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use weft_ebpf_redirect::desired::Desired;
use weft_ir::{
    Resource,
    publish::{Change, Publisher},
    subscribe::{Commit, Progress, Subscriber},
};
use weft_node_proxy::{Compiler, MeshState};

#[path = "change/cluster.rs"]
mod cluster;

use cluster::{Cluster, Kind, NODE};

/// Changes of each kind.
const CHANGES: u32 = 20;
/// Says to a child which size is its own: each is measured in a process of its own, for the memory.
const SIZE: &str = "WEFT_BENCH_PODS";

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    if let Ok(pods) = env::var(SIZE) {
        return measure(Cluster { pods: pods.parse().unwrap() });
    }
    // Cargo adds `--bench`.
    let sizes: Vec<String> = env::args().skip(1).filter(|argument| argument.parse::<u32>().is_ok()).collect();
    let sizes = if sizes.is_empty() { vec!["1000".to_owned(), "10000".to_owned()] } else { sizes };
    for pods in sizes {
        let status = Command::new(env::current_exe().unwrap()).env(SIZE, &pods).status().unwrap();
        assert!(status.success(), "{pods} pods: {status}");
    }
}

/// The two ends of a stream, and what the node makes of what comes.
struct Node {
    publisher: Publisher,
    name: Arc<str>,
    subscriber: Subscriber,
    compiler: Compiler,
    desired: Desired,
}

/// CPU time of the parts of one change.
#[derive(Clone, Copy, Default)]
struct Cost {
    receive: Duration,
    compile: Duration,
    tables: Duration,
}

impl Cost {
    fn all(&self) -> Duration {
        self.receive + self.compile + self.tables
    }
}

impl Node {
    fn new() -> Node {
        let name: Arc<str> = NODE.into();
        let mut subscriber = Subscriber::new(Arc::clone(&name));
        let mut publisher = Publisher::new(1);
        publisher.on_hello(subscriber.hello()).unwrap();
        let compiler = Compiler::new(Arc::clone(&name), vec![]);
        Node { publisher, subscriber, compiler, desired: Desired::empty(&name), name }
    }

    fn change(&mut self, upserts: Vec<Resource>) -> Cost {
        self.publisher.commit(Change { upserts, ..Change::default() });
        let frames = self.publisher.next_batch(&self.name).unwrap();
        let mut commit = None;
        let receive = timed(|| {
            for frame in frames {
                if let Progress::Commit(done) = self.subscriber.frame(frame).unwrap() {
                    commit = Some(done);
                }
            }
        });
        let commit: Arc<Commit> = commit.unwrap();
        let mut state: Option<Arc<MeshState>> = None;
        let compile = timed(|| {
            let (compiled, rejected) = self.compiler.compile(&commit.snapshot, &[]);
            assert!(rejected.is_empty(), "{rejected:?}");
            state = Some(compiled);
        });
        let state = state.unwrap();
        let tables = timed(|| {
            let next = self.desired.next(&commit.snapshot, state.services(), state.policies());
            // What the kernel's tables are compared by.
            black_box(self.desired.services.diff(&next.services).count());
            black_box(self.desired.identities.diff(&next.identities).count());
            self.desired = next;
        });
        let ack = self.subscriber.applied(commit.position, vec![]).unwrap();
        self.publisher.on_ack(&self.name, ack).unwrap();
        Cost { receive, compile, tables }
    }
}

fn measure(cluster: Cluster) {
    println!(
        "{} pods, {} services, {} endpoints, {} routes, {} policies",
        cluster.pods,
        cluster.services(),
        cluster.endpoints(),
        cluster.routes(),
        cluster.policies()
    );
    let mut node = Node::new();
    let empty = resident_mib();
    let first = node.change(cluster.resources());
    println!(
        "  first state: {:.0?} of CPU time (receive {:.0?}, compile {:.0?}, tables {:.0?}), {} MiB resident with the publisher, {empty} of them before",
        first.all(),
        first.receive,
        first.compile,
        first.tables,
        resident_mib()
    );
    for kind in Kind::ALL {
        let mut costs: Vec<Cost> = (0..CHANGES)
            .map(|change| node.change(cluster.changed(kind, 1 + change * 7, 1 + change)))
            .collect();
        costs.sort_by_key(Cost::all);
        let (middle, most) = (costs[costs.len() / 2], costs[costs.len() - 1]);
        println!(
            "  {kind:?}: {:.2?} of CPU time (receive {:.2?}, compile {:.2?}, tables {:.2?}; at most {:.2?})",
            middle.all(),
            middle.receive,
            middle.compile,
            middle.tables,
            most.all()
        );
    }
    println!("  afterwards {} MiB resident", resident_mib());
}

fn timed(work: impl FnOnce()) -> Duration {
    let before = cpu_time();
    work();
    cpu_time() - before
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// The CPU time of this thread, which does everything.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}
