// SPDX-License-Identifier: Apache-2.0
//! What changes while traffic runs: routes, weft-node itself, and its end.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use weft_flow_export::Reason;
use weft_testlab::daemon::{self, WeftNode};
use weft_testlab::lab::Node;
use weft_testlab::peer::{client, tcp};
use weft_testlab::scene::{Scene, ask, url};
use weft_testlab::wait;

const SOON: Duration = Duration::from_secs(10);

#[test]
#[ignore = "needs root"]
fn a_changed_route_fails_no_request() {
    let scene = Scene::new().unwrap();
    let url = url(scene.web.v4.into(), 80);
    let arguments = ["client", &url, "--concurrency", "4", "--pause-ms", "1"];
    let mut load = scene.nodes[0].client.start(&arguments).unwrap();
    let route = scene.mesh.manifests.read("route.yaml").unwrap();
    for (one, two) in [(100, 0), (0, 100), (50, 50)] {
        let edited = route.replacen("weight: 50", &format!("weight: {one}"), 1).replacen(
            "weight: 50}",
            &format!("weight: {two}}}"),
            1,
        );
        let edited = if one == 50 { route.clone() } else { edited };
        scene.mesh.manifests.write("route.yaml", &edited).unwrap();
        let asked = f64::from(two) / 100.0;
        let applied = wait::eventually(SOON, || {
            let arguments = ["client", &url, "--requests", "100"];
            let summary: client::Summary = ask(scene.nodes[0].client.place(), &arguments)?;
            let share = summary.version_count("2") as f64 / 100.0;
            ensure!((share - asked).abs() < 0.2, "{share} of version 2, asked for {asked}");
            Ok(())
        });
        assert!(applied.is_ok(), "{applied:?}");
    }
    load.stop().unwrap();
    let summary: client::Summary = load.answer().unwrap();
    assert_eq!(summary.ok(), summary.sent, "{:?} {:?}", summary.status, summary.failures);
    assert!(summary.sent > 100, "{summary:?}");
}

#[test]
#[ignore = "needs root"]
fn restarting_weft_node_leaves_connections_of_the_kernel_alone() {
    let mut scene = Scene::new().unwrap();
    let client = scene.nodes[0].client.clone();
    let plain = SocketAddr::new(scene.plain.v4.into(), 9000).to_string();
    let mut held = client.start(&["tcp-client", &plain, "--hold", "--pause-ms", "5"]).unwrap();
    let url = url(scene.web.v4.into(), 80);
    let proxied = ["client", &url, "--mode", "close", "--concurrency", "2", "--pause-ms", "5"];
    let mut proxied = client.start(&proxied).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let node = scene.nodes[0].node.clone();
    scene.mesh.nodes.remove(0).stop().unwrap();
    // New connections to a service that nothing names need no daemon.
    let fresh: tcp::Summary = ask(client.place(), &["tcp-client", &plain, "--connections", "5"]).unwrap();
    assert_eq!(fresh.echoed, 5, "{fresh:?}");
    let started = WeftNode::start(&node, &scene.mesh.controller).unwrap();
    scene.mesh.nodes.insert(0, started);
    let again = wait::eventually(SOON, || {
        let summary = scene.request(client.place(), &url, &[])?;
        ensure!(summary.ok() == 1, "{:?} {:?}", summary.status, summary.failures);
        Ok(())
    });
    assert!(again.is_ok(), "{again:?}");
    held.stop().unwrap();
    let held: tcp::Summary = held.answer().unwrap();
    assert!(held.failures.is_empty() && held.echoed > 20, "{held:?}");
    proxied.stop().unwrap();
    let proxied: client::Summary = proxied.answer().unwrap();
    let failed = proxied.sent - proxied.ok();
    println!(
        "proxied requests during a restart: {failed} of {} failed: {:?}",
        proxied.sent, proxied.failures
    );
    // The SYN of a new connection waits for the new process; nothing is refused and nothing passes by.
    let refused = proxied.failures.keys().filter(|why| why.contains("refused")).count();
    assert_eq!(refused, 0, "{:?}", proxied.failures);
}

/// New connections without a pause, and a kept one that is used now and then: those whose proxy hands over.
struct Load {
    opened: weft_testlab::process::Running,
    kept: weft_testlab::process::Running,
}

impl Load {
    fn start(scene: &Scene) -> anyhow::Result<Load> {
        let pod = &scene.nodes[0].client;
        let url = url(scene.web.v4.into(), 80);
        // 8 that each wait 40 ms: two hundred in a second.
        let opened = ["client", &url, "--mode", "close", "--concurrency", "8", "--pause-ms", "40"];
        let kept = ["client", &url, "--concurrency", "4", "--pause-ms", "300"];
        Ok(Load { opened: pod.start(&opened)?, kept: pod.start(&kept)? })
    }

    /// How many requests there were, of which none has failed.
    fn end(self) -> anyhow::Result<u64> {
        let mut sent = 0;
        for (what, mut load) in [("new connections", self.opened), ("kept ones", self.kept)] {
            load.stop()?;
            let summary: client::Summary = load.answer()?;
            ensure!(summary.ok() == summary.sent, "{what}: {:?} {:?}", summary.status, summary.failures);
            sent += summary.sent;
        }
        Ok(sent)
    }
}

/// What a process that takes over says: that it asks, that it has what there is only one of, that it serves.
const STEPS: [&str; 3] =
    ["taking over from the process", "weft_node_proxy::control::node: started", "applied a state"];

/// Waits until a process has said something.
fn says(node: &WeftNode, what: &str) -> anyhow::Result<()> {
    wait::eventually(SOON, || {
        ensure!(node.log().contains(what), "{what:?} is not in {}", node.log());
        Ok(())
    })
}

/// Starts a process that takes over, and waits until it serves.
fn take_over(scene: &Scene, node: &Node) -> anyhow::Result<WeftNode> {
    let next = WeftNode::spawn(node, &scene.mesh.controller, &["--take-over"])?;
    says(&next, STEPS[2])?;
    Ok(next)
}

#[test]
#[ignore = "needs root"]
fn a_process_takes_over_from_another_and_nothing_fails() {
    let mut scene = Scene::new().unwrap();
    let node = scene.nodes[0].node.clone();
    let load = Load::start(&scene).unwrap();
    for _ in 0..3 {
        let next = take_over(&scene, &node).unwrap();
        let old = std::mem::replace(&mut scene.mesh.nodes[0], next);
        says(&old, "another process serves").unwrap();
        // It takes nothing of the new one with it.
        old.stop().unwrap();
    }
    let sent = load.end().unwrap();
    assert!(sent > 500, "{sent} requests");
}

#[test]
#[ignore = "needs root"]
fn whoever_is_killed_in_a_hand_over_leaves_the_other_serving() {
    let mut scene = Scene::new().unwrap();
    let node = scene.nodes[0].node.clone();
    let url = url(scene.web.v4.into(), 80);
    let answers = |scene: &Scene, when: &str| {
        let answered = wait::eventually(SOON, || {
            let summary = scene.request(scene.nodes[0].client.place(), &url, &[])?;
            ensure!(summary.ok() == 1, "{:?} {:?}", summary.status, summary.failures);
            Ok(())
        });
        assert!(answered.is_ok(), "{when}: {answered:?}");
    };
    // The new one is killed: the old one goes on, and the next one takes over from whoever has it.
    for step in STEPS {
        let load = Load::start(&scene).unwrap();
        let next = WeftNode::spawn(&node, &scene.mesh.controller, &["--take-over"]).unwrap();
        says(&next, step).unwrap();
        next.kill().unwrap();
        if step == STEPS[0] {
            load.end().unwrap();
        } else {
            drop(load);
        }
        let next = take_over(&scene, &node).unwrap();
        drop(std::mem::replace(&mut scene.mesh.nodes[0], next));
        answers(&scene, &format!("the new one was killed after {step:?}"));
    }
    // The old one is killed.
    for step in STEPS {
        let next = WeftNode::spawn(&node, &scene.mesh.controller, &["--take-over"]).unwrap();
        says(&next, step).unwrap();
        std::mem::replace(&mut scene.mesh.nodes[0], next).kill().unwrap();
        answers(&scene, &format!("the old one was killed after {step:?}"));
    }
    // The wrong order: the old one is told to end first, and the new one comes while it drains.
    let next = WeftNode::spawn(&node, &scene.mesh.controller, &["--take-over"]).unwrap();
    std::mem::replace(&mut scene.mesh.nodes[0], next).stop().unwrap();
    answers(&scene, "the wrong order");
}

#[test]
#[ignore = "needs root"]
fn a_cleaned_node_is_as_it_was() {
    let mut scene = Scene::new().unwrap();
    let node = scene.nodes[0].node.clone();
    scene.mesh.nodes.remove(0).stop().unwrap();
    assert_ne!(state(&node).unwrap(), Vec::<String>::new(), "a stopped weft-node keeps its programs");
    daemon::clean_node(&node).unwrap();
    assert_eq!(state(&node).unwrap(), Vec::<String>::new());
    // Pods reach each other without Weft as before it.
    let to = SocketAddr::new(scene.nodes[1].plain.ip4().into(), 9000).to_string();
    let summary: tcp::Summary = ask(scene.nodes[0].client.place(), &["tcp-client", &to]).unwrap();
    assert_eq!(summary.echoed, 1, "{summary:?}");
}

#[test]
#[ignore = "needs root"]
fn a_node_changes_from_links_to_filters_under_traffic_and_cleans_both_up() {
    let mut scene = Scene::new().unwrap();
    let client = scene.nodes[0].client.clone();
    let node = scene.nodes[0].node.clone();
    let plain = SocketAddr::new(scene.plain.v4.into(), 9000).to_string();
    let mut held = client.start(&["tcp-client", &plain, "--hold", "--pause-ms", "5"]).unwrap();
    scene.mesh.nodes.remove(0).stop().unwrap();
    let started = WeftNode::spawn(&node, &scene.mesh.controller, &["--attachment", "clsact"]).unwrap();
    scene.mesh.nodes.insert(0, started.wait_ready().unwrap());
    let filters = node.netns().run("tc", &["filter", "show", "dev", "eth0", "ingress"]).unwrap();
    assert!(filters.contains("weft_from_uplink"), "{filters}");
    let url = url(scene.web.v4.into(), 80);
    let again = wait::eventually(SOON, || {
        let summary = scene.request(client.place(), &url, &[])?;
        ensure!(summary.ok() == 1, "{:?} {:?}", summary.status, summary.failures);
        Ok(())
    });
    assert!(again.is_ok(), "{again:?}");
    held.stop().unwrap();
    let held: tcp::Summary = held.answer().unwrap();
    assert!(held.failures.is_empty() && held.echoed > 20, "{held:?}");
    scene.mesh.nodes.remove(0).stop().unwrap();
    daemon::clean_node(&node).unwrap();
    assert_eq!(state(&node).unwrap(), Vec::<String>::new());
}

/// All that is there on a node because of Weft.
fn state(node: &Node) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    if node.bpf().exists() {
        for entry in std::fs::read_dir(node.bpf())? {
            found.push(format!("pin {}", entry?.path().display()));
        }
    }
    let lines = |arguments: &[&str]| node.netns().run("ip", arguments);
    for rule in [lines(&["rule"])?, lines(&["-6", "rule"])?] {
        found.extend(rule.lines().filter(|line| line.contains("fwmark")).map(|line| format!("rule {line}")));
    }
    found.extend(
        lines(&["link"])?.lines().filter(|line| line.contains("weft")).map(|line| format!("link {line}")),
    );
    let tables = node.netns().run("nft", &["list", "tables"])?;
    found.extend(tables.lines().filter(|line| line.contains("weft")).map(|line| format!("nft {line}")));
    let filters = node.netns().run("tc", &["filter", "show", "dev", "eth0", "ingress"])?;
    found.extend(filters.lines().map(|line| format!("tc {line}")));
    let qdiscs = node.netns().run("tc", &["qdisc", "show"])?;
    found.extend(qdiscs.lines().filter(|line| line.contains("clsact")).map(|line| format!("tc {line}")));
    Ok(found)
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_is_refused_sends_nothing_and_says_why() {
    let scene = Scene::new().unwrap();
    let (client, manifests) = (&scene.nodes[0].client, &scene.mesh.manifests);
    let plain = SocketAddr::new(scene.plain.v4.into(), 9000).to_string();
    let connects = |wanted: u64| {
        wait::eventually(SOON, || {
            let arguments = ["tcp-client", &plain, "--timeout-ms", "500"];
            let summary: tcp::Summary = ask(client.place(), &arguments)?;
            ensure!(summary.connected == wanted, "{summary:?}");
            Ok(())
        })
        .unwrap();
    };
    connects(1);
    let pods = manifests.read("cluster-pods.yaml").unwrap();
    let label = format!("  name: {}\n  labels:\n    app: ", client.name());
    assert!(pods.contains(&label), "{pods}");
    manifests.write("cluster-pods.yaml", &pods.replace(&label, &format!("{label}no label of "))).unwrap();
    connects(0);
    let dropped = wait::eventually(SOON, || {
        let flows = scene.mesh.flows("verdict=DROPPED&last=500")?;
        let found = flows.into_iter().find(|flow| &*flow.source.pod == client.name());
        found.context("no flow")
    });
    assert_eq!(dropped.unwrap().reason, Some(Reason::NoPolicyConfig));
    manifests.write("cluster-pods.yaml", &pods).unwrap();
    connects(1);
}
