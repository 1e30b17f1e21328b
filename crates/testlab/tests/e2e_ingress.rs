// SPDX-License-Identifier: Apache-2.0
//! Requests to pods that have a policy: from pods of both nodes, and from the host.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use weft_ir::Direction;
use weft_testlab::daemon::metrics;
use weft_testlab::peer::tcp;
use weft_testlab::scene::{Scene, address, ask, url};
use weft_testlab::wait;

const SOON: Duration = Duration::from_secs(5);
const QUICK: [&str; 2] = ["--timeout-ms", "700"];

fn scene() -> &'static Scene {
    static SCENE: OnceLock<Result<Scene, String>> = OnceLock::new();
    match SCENE.get_or_init(|| Scene::new().map_err(|error| format!("{error:#}"))) {
        Ok(scene) => scene,
        Err(error) => panic!("no scene: {error}"),
    }
}

#[test]
#[ignore = "needs root"]
fn a_guarded_pod_is_reached_through_the_proxy_and_sees_its_client() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        for server in &scene.nodes {
            let before = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
            let url = url(address(&server.guarded, v6), 8080);
            let summary = scene.request(pods.client.place(), &url, &[]).unwrap();
            assert_eq!(summary.ok(), 1, "{} to {url}: {summary:?}", pods.node.name());
            assert_eq!(summary.seen().unwrap().client.ip(), address(&pods.client, v6));
            let after = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
            assert!(after > before, "{} to {url} was not redirected", pods.node.name());
            let redirected = wait::eventually(SOON, || {
                let flows = scene.mesh.flows("verdict=REDIRECTED&last=500")?;
                let to = Some(address(&server.guarded, v6));
                flows.into_iter().find(|flow| flow.destination.ip == to).context("no flow")
            });
            assert_eq!(redirected.unwrap().policies, ["t/guarded".into()]);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn the_host_of_a_guarded_pod_reaches_it() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let url = url(address(&pods.guarded, v6), 8080);
        let summary = scene.request(&pods.node.place(), &url, &QUICK).unwrap();
        assert_eq!(summary.ok(), 1, "{} to {url}: {summary:?}", pods.node.name());
    }
}

#[test]
#[ignore = "needs root"]
fn another_method_is_denied_with_403_and_a_flow() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        for server in &scene.nodes {
            let path = format!("/{}-{}-{v6}", pods.node.name(), server.node.name());
            let url = format!("http://{}{path}", SocketAddr::new(address(&server.guarded, v6), 8080));
            let summary = scene.request(pods.client.place(), &url, &["--method", "DELETE"]).unwrap();
            assert_eq!(summary.status_count(403), 1, "{url}: {summary:?}");
            assert_eq!(summary.last.unwrap().body.trim(), "Access denied");
            let flow = wait::eventually(SOON, || {
                let flows = scene.mesh.flows("verdict=DROPPED&last=100")?;
                let wanted =
                    |path: &str| flows.iter().find(|f| f.http.as_ref().is_some_and(|h| &*h.path == path));
                wanted(&path).cloned().context("no flow")
            });
            let flow = flow.unwrap();
            assert_eq!(&*flow.source.pod, pods.client.name());
            assert_eq!(&*flow.destination.pod, server.guarded.name());
            assert_eq!(flow.reason.map(|reason| reason.name()), Some("http_policy_denied"));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_no_rule_names_gets_nothing_from_a_guarded_pod() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        for server in &scene.nodes {
            let url = url(address(&server.guarded, v6), 8080);
            let summary = scene.request(pods.outsider.place(), &url, &QUICK).unwrap();
            assert_eq!(summary.ok(), 0, "{} to {url}: {summary:?}", pods.node.name());
        }
    }
}

#[test]
#[ignore = "needs root"]
fn l4_rules_are_decided_in_the_kernel_with_a_drop_flow() {
    let scene = scene();
    let before = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
    for (pods, v6) in scene.clients() {
        for server in &scene.nodes {
            let to = SocketAddr::new(address(&server.closed, v6), 9000).to_string();
            let summary: tcp::Summary = ask(pods.client.place(), &["tcp-client", &to]).unwrap();
            assert_eq!(summary.echoed, 1, "{} to {to}: {summary:?}", pods.node.name());
            let arguments = ["tcp-client", &to, "--timeout-ms", "500"];
            let summary: tcp::Summary = ask(pods.outsider.place(), &arguments).unwrap();
            assert_eq!(summary.connected, 0, "{} to {to}: {summary:?}", pods.node.name());
            let ingress = |verdict: &str, client: &str| {
                wait::eventually(SOON, || {
                    let flows = scene.mesh.flows(&format!("verdict={verdict}&last=500"))?;
                    let found = flows.into_iter().find(|flow| {
                        &*flow.source.pod == client
                            && flow.direction == Direction::Ingress
                            && flow.destination.ip == Some(address(&server.closed, v6))
                    });
                    found.context("no flow")
                })
                .unwrap()
            };
            let allowed = ingress("FORWARDED", pods.client.name());
            assert_eq!(allowed.policies, ["t/closed".into()], "{allowed:?}");
            let dropped = ingress("DROPPED", pods.outsider.name());
            assert_eq!(dropped.reason.map(|reason| reason.name()), Some("policy_denied"));
            assert_eq!(dropped.policies, ["t/closed".into()], "{dropped:?}");
        }
    }
    let after = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
    assert_eq!(after - before, 0.0, "L4 rules need no proxy");
}
