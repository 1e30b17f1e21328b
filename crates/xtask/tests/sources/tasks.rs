// SPDX-License-Identifier: Apache-2.0
//! Tasks are started by `weft_runtime::supervise`, which names them and sees how they end.

use crate::Source;

/// Whose tasks run for as long as a daemon, or serve peers.
const FOLDERS: [&str; 7] = [
    "node-proxy/src/",
    "mesh-controller/src/",
    "flow-export/src/",
    "cli/src/",
    "crates/runtime/src/",
    "crates/manifests/src/",
    "ebpf-redirect/src/",
];

/// What starts a task, a thread or a process.
const STARTS: [&str; 2] = ["spawn(", "spawn_local("];

/// Where something else is started, or the end of what is started is seen by other means.
const EXCEPTIONS: [(&str, &str); 5] = [
    // This is where.
    ("crates/runtime/src/supervise.rs", ""),
    // The thread of a worker: control sees that it takes no commands any more.
    ("node-proxy/src/serve/thread.rs", "weft-worker-"),
    // The caller's own function of this name, which starts that thread.
    ("node-proxy/src/control/plane.rs", "thread::spawn(index"),
    // The netlink socket: whoever waits for changes sees that it has ended, and opens another.
    ("ebpf-redirect/src/network/watch.rs", "tokio::spawn(connection)"),
    // A process that is waited for, with a deadline.
    ("ebpf-redirect/src/firewall.rs", ".spawn()"),
];

/// Lines that start something which nobody looks after.
pub(crate) fn unsupervised(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| FOLDERS.iter().any(|folder| source.path.starts_with(folder)))
    {
        for (number, line) in source.without_tests().lines().enumerate() {
            let line = line.trim();
            let starts = STARTS.iter().any(|start| line.contains(start));
            let excepted = EXCEPTIONS.iter().any(|(path, part)| source.path == *path && line.contains(part));
            if starts && !excepted && !line.starts_with("//") && !line.contains("fn spawn(") {
                found.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    found
}

#[test]
fn a_bare_spawn_is_found() {
    let source = |text: &str| Source { path: "node-proxy/src/a.rs".into(), text: text.into() };
    assert_eq!(
        unsupervised(&[source("    tokio::spawn(async {});"), source("tasks.spawn_local(x)")]).len(),
        2
    );
    assert!(unsupervised(&[source("spawn_blocking(work).await; // spawn(")]).len() == 1);
    assert!(unsupervised(&[source("spawn_blocking(work).await")]).is_empty());
    assert!(unsupervised(&[source("#[cfg(test)]\nmod tests {\n    tokio::spawn(x);")]).len() == 1);
    assert!(unsupervised(&[source("\n#[cfg(test)]\nmod tests {\n    tokio::spawn(x);")]).is_empty());
}
