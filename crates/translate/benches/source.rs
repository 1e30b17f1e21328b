// SPDX-License-Identifier: Apache-2.0
//! What reading a directory costs: `cargo bench -p weft-translate`. Time and memory of a scan of 24,000 files,
//! of reading their objects, of a scan when nothing changed, and of texts that stand for much.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]

use std::{fmt::Write as _, fs, time::Instant};

use weft_manifests::{Manifests, Scan};
use weft_translate::Store;

/// A service, its slice and three pods to a file.
const FILES: u32 = 24_000;

fn main() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..FILES {
        fs::write(directory.path().join(format!("{number}.yaml")), manifests(number)).unwrap();
    }
    let mut source = Manifests::new([directory.path().to_owned()]);
    let mut store = Store::default();
    let before = resident_mib();
    let scan = timed("first scan", || source.scan());
    println!("{} MiB of text", scan.changed.iter().map(|(_, text)| text.len()).sum::<usize>() >> 20);
    timed("reading its objects", || apply(&mut store, &scan));
    drop(scan);
    println!("{} objects, {} MiB resident more", store.objects().len(), resident_mib() - before);
    let scan = timed("scan when nothing changed", || source.scan());
    assert!(scan.is_empty() && scan.faults.is_empty());
    fs::write(directory.path().join("7.yaml"), manifests(7).replace("port: 80", "port: 81")).unwrap();
    let scan = timed("scan after one change", || source.scan());
    timed("reading one change", || apply(&mut store, &scan));
    assert_eq!(store.take_changes().len(), store.objects().len(), "all of them are new once");

    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
    let aliases = format!("{service}a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(20_000));
    timed("1 MiB, with 20,000 aliases of one text", || Store::default().apply("a", &aliases));
    let foreign =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: [{}]\n", "1,".repeat(7 << 20));
    timed("14 MiB of somebody else's", || Store::default().apply("a", &foreign));
}

fn apply(store: &mut Store, scan: &Scan) {
    let changed = scan.changed.iter().map(|(name, text)| (&**name, &**text));
    store.apply_all(changed, scan.removed.iter().map(String::as_str));
}

fn manifests(number: u32) -> String {
    let (high, low) = (number / 250, number % 250);
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: shop}}\nspec:\n  clusterIP: \
         10.{high}.0.{low}\n  ports:\n  - {{name: http, port: 80}}\n---\napiVersion: discovery.k8s.io/v1\nkind: \
         EndpointSlice\nmetadata:\n  name: s{number}-a\n  namespace: shop\n  labels: \
         {{kubernetes.io/service-name: s{number}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\n\
         endpoints:\n"
    );
    for pod in 0..3 {
        writeln!(text, "- addresses: [10.{high}.{}.{low}]", pod + 1).unwrap();
    }
    for pod in 0..3 {
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: s{number}-{pod}\n  namespace: shop\n  labels: {{app: \
             s{number}, tier: backend}}\nspec:\n  nodeName: node-{}\n  containers:\n  - name: app\n    ports: \
             [{{name: http, containerPort: 8080}}]\nstatus: {{phase: Running, podIP: 10.{high}.{}.{low}}}\n",
            number % 100,
            pod + 1
        )
        .unwrap();
    }
    text
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = run();
    println!("{what}: {:?}", begin.elapsed());
    result
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}
