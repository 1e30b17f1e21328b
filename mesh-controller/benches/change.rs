// SPDX-License-Identifier: Apache-2.0
//! From a changed file to the node that has received it, in clusters of several sizes: CPU time, delay,
//! memory and start.
//!
//! `cargo bench -p weft-mesh-controller --bench change -- 1000 10000 100000`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]

use std::{
    env, fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{net::TcpListener, runtime, time::timeout};
use weft_identity::{NODE_LIFETIME, Registrar};
use weft_ir::subscribe::Subscriber;
use weft_mesh_controller::{
    observed::Observed,
    reconcile::{Reconciler, ReconcilerConfig},
    serve_ir::{IrLimits, IrServer, IrServerConfig},
    source::SourceConfig,
};
use weft_translate::Translator;

#[allow(unreachable_pub, reason = "other benchmarks may use it")]
#[path = "change/cluster.rs"]
mod cluster;
#[path = "../tests/support/node.rs"]
mod node;

use cluster::{Changed, Cluster};
use node::{Member, Stream};

/// Changes of each kind.
const CHANGES: u32 = 20;
/// How long the controller is left alone, to see what it costs then.
const IDLE: Duration = Duration::from_secs(11);
/// Between two changes: longer than a stream of changes can put one off.
const PAUSE: Duration = Duration::from_millis(300);
/// Says to a child which size is its own: each is measured in a process of its own, for the memory.
const SIZE: &str = "WEFT_BENCH_PODS";

fn main() {
    if let Ok(pods) = env::var(SIZE) {
        let cluster = Cluster { pods: pods.parse().unwrap() };
        let runtime = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(measure(cluster));
    }
    // Cargo adds `--bench`.
    let sizes: Vec<String> = env::args().skip(1).filter(|argument| argument.parse::<u32>().is_ok()).collect();
    let sizes = if sizes.is_empty() { vec!["1000".to_owned(), "10000".to_owned()] } else { sizes };
    for pods in sizes {
        let status = Command::new(env::current_exe().unwrap()).env(SIZE, &pods).status().unwrap();
        assert!(status.success(), "{pods} pods: {status}");
    }
}

async fn measure(cluster: Cluster) {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    cluster.write(&source).unwrap();
    println!(
        "{} pods, {} services, {} routes, {} policies, {} nodes",
        cluster.pods,
        cluster.services(),
        cluster.routes(),
        cluster.policies(),
        cluster.nodes()
    );
    let registrar = Arc::new(Registrar::open(&home.path().join("state"), NODE_LIFETIME).unwrap());
    let config = IrServerConfig { registrar: registrar.clone(), accounts: None, limits: IrLimits::default() };
    let server = IrServer::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), config).unwrap();
    let config = ReconcilerConfig {
        source: SourceConfig::Directory { path: source.clone(), allow_empty: false },
        identities: home.path().join("identities.log"),
        translator: Translator::default(),
        print_status: false,
        observed: Observed::default(),
        rescan: Default::default(),
    };
    let empty = resident_mib();
    let (begin, cpu) = (Instant::now(), cpu_time());
    let reconciler = Reconciler::start(config, server.handle().clone()).await.unwrap();
    let (elapsed, cpu) = (begin.elapsed(), cpu_time() - cpu);
    println!(
        "  first state after {elapsed:.1?} ({cpu:.1?} of CPU time), {} MiB resident, {empty} of them before",
        resident_mib()
    );
    let run = tokio::spawn(reconciler.run());

    let mut node = Subscriber::new("a".into());
    let member = Member::join(server.address(), registrar.token(), "a").await.unwrap();
    let mut stream = Stream::open(server.address(), &member, node.hello()).await.unwrap();
    let first = stream.commit(&mut node).await;
    stream.apply(&mut node, first.position).await;
    for kind in Changed::ALL {
        changes(cluster, kind, &source, &mut stream, &mut node).await;
    }
    let cpu = cpu_time();
    tokio::time::sleep(IDLE).await;
    println!("  nothing: {:.1?} of CPU time in {IDLE:?}, {} MiB resident", cpu_time() - cpu, resident_mib());
    run.abort();
    server.shutdown().await;
}

/// Changes objects of one kind, one after the other. The CPU time is that of the process, so with that of
/// the node's end of the stream.
async fn changes(cluster: Cluster, kind: Changed, source: &Path, stream: &mut Stream, node: &mut Subscriber) {
    let mut delays = Vec::new();
    let mut cpus = Vec::new();
    for change in 0..CHANGES {
        // Seven apart, so that no two of the five kinds change one file.
        let (path, text) = cluster.file(kind, 1_000 + kind as u32 + change * 7, 1 + change);
        let new = source.join("new");
        fs::write(&new, text).unwrap();
        tokio::time::sleep(PAUSE).await;
        let (begin, cpu) = (Instant::now(), cpu_time());
        fs::rename(&new, source.join(path)).unwrap();
        let commit = timeout(Duration::from_secs(60), stream.commit(node)).await.unwrap();
        delays.push(begin.elapsed());
        assert!(!commit.changed.is_empty() && commit.changed.len() < 5, "{kind:?}: {:?}", commit.changed);
        stream.apply(node, commit.position).await;
        tokio::time::sleep(PAUSE).await;
        cpus.push(cpu_time() - cpu);
    }
    delays.sort();
    cpus.sort();
    let middle = delays.len() / 2;
    println!(
        "  {kind:?}: {:.2?} of CPU time (at most {:.2?}), received after {:.1?} (at most {:.1?})",
        cpus[middle],
        cpus[cpus.len() - 1],
        delays[middle],
        delays[delays.len() - 1],
    );
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// The CPU time of this process, all threads together.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}
