// SPDX-License-Identifier: Apache-2.0
//! How long a change of one file takes to reach a node, and what it costs, in a directory of 10,000
//! services with 5 pods each: `cargo bench -p weft-mesh-controller`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, time::timeout};
use weft_identity::{Authority, tls};
use weft_ir::subscribe::Subscriber;
use weft_mesh_controller::{
    observed::Observed,
    reconcile::{Reconciler, ReconcilerConfig},
    serve_ir::{IrLimits, IrServer, IrServerConfig},
};
use weft_translate::Translator;

#[path = "../tests/support/node.rs"]
mod node;

use node::Stream;

const SERVICES: u32 = 10_000;
const PODS: u32 = 5;
const CHANGES: u32 = 20;
/// How long the controller is left alone, to see what it costs then.
const IDLE: Duration = Duration::from_secs(11);

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    fs::create_dir(&source).unwrap();
    for service in 0..SERVICES {
        fs::write(file(&source, service), manifests(service, 80)).unwrap();
    }
    let authority = Authority::open(&home.path().join("state")).unwrap();
    let token = authority.token().clone();
    let config = IrServerConfig {
        tls: tls::controller_server(authority).unwrap(),
        token: token.clone(),
        limits: IrLimits::default(),
    };
    let server = IrServer::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), config).unwrap();
    let config = ReconcilerConfig {
        source: source.clone(),
        identities: home.path().join("identities.json"),
        translator: Translator::default(),
        print_status: false,
        observed: Observed::default(),
        rescan: Default::default(),
    };
    let begin = Instant::now();
    let reconciler = Reconciler::start(config, server.handle().clone()).await.unwrap();
    println!("first state after {:?}, {} MiB resident", begin.elapsed(), resident_mib());
    let run = tokio::spawn(reconciler.run());

    let mut node = Subscriber::new("a".into());
    let bearer = token.authorization();
    let mut stream = Stream::open(server.address(), &token, &bearer, node.hello()).await.unwrap();
    let begin = Instant::now();
    let first = stream.commit(&mut node).await;
    println!("{} resources received after {:?}", first.snapshot.resources.len(), begin.elapsed());
    stream.apply(&mut node, first.position).await;

    let mut times = Vec::new();
    let cpu = cpu_time();
    for change in 0..CHANGES {
        let new = source.join("new");
        fs::write(&new, manifests(change * 7, 8080)).unwrap();
        let begin = Instant::now();
        fs::rename(&new, file(&source, change * 7)).unwrap();
        let commit = timeout(Duration::from_secs(60), stream.commit(&mut node)).await.unwrap();
        times.push(begin.elapsed());
        assert_eq!(commit.changed.len(), 1, "only the service is different");
        stream.apply(&mut node, commit.position).await;
    }
    let cpu = (cpu_time() - cpu) / CHANGES;
    times.sort();
    println!(
        "{CHANGES} changes: median {:?}, longest {:?}, CPU time of each {cpu:?}, {} MiB resident",
        times[times.len() / 2],
        times[times.len() - 1],
        resident_mib()
    );
    let cpu = cpu_time();
    tokio::time::sleep(IDLE).await;
    println!("CPU time while nothing changes: {:?} in {IDLE:?}", cpu_time() - cpu);
    run.abort();
    server.shutdown().await;
}

fn file(source: &Path, service: u32) -> PathBuf {
    source.join(format!("{service:05}.yaml"))
}

/// A service, its endpoints, and the pods behind them.
fn manifests(service: u32, port: u16) -> String {
    let address = |pod: u32| {
        let number = service * PODS + pod;
        format!("10.{}.{}.{}", 64 + (number >> 16), (number >> 8) & 255, number & 255)
    };
    let cluster_ip = format!("10.1.{}.{}", service >> 8, service & 255);
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: bench}}\nspec:\n  \
         clusterIP: {cluster_ip}\n  selector: {{app: s{service}}}\n  ports:\n  - {{name: http, port: {port}, targetPort: 8080}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s{service}-a\n  namespace: bench\n  \
         labels: {{kubernetes.io/service-name: s{service}}}\naddressType: IPv4\nports:\n- {{name: http, port: 8080}}\nendpoints:\n"
    );
    for pod in 0..PODS {
        writeln!(text, "- {{addresses: [{}], nodeName: n{pod}, conditions: {{ready: true}}}}", address(pod))
            .unwrap();
    }
    for pod in 0..PODS {
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: s{service}-{pod}\n  namespace: bench\n  labels: {{app: s{service}}}\n\
             spec: {{nodeName: n{pod}, containers: [{{name: app}}]}}\nstatus: {{phase: Running, podIP: {}}}\n",
            address(pod)
        )
        .unwrap();
    }
    text
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// The CPU time of this process, all threads together.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on every architecture that Linux has an ABI promise for (proc(5), clock ticks).
    Duration::from_millis(ticks * 10)
}
