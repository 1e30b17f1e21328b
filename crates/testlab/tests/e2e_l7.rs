// SPDX-License-Identifier: Apache-2.0
//! What a policy lets pods send, calls of gRPC methods, and upgraded connections, through the redirect.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use weft_flow_export::Flow;
use weft_testlab::daemon::metrics;
use weft_testlab::lab::Pod;
use weft_testlab::peer::{client, raw, tcp};
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

/// Waits for a flow that was refused between two addresses, and that `wanted` describes further.
fn refused(source: IpAddr, destination: IpAddr, wanted: impl Fn(&Flow) -> bool) -> Flow {
    let found = wait::eventually(SOON, || {
        let flows = scene().mesh.flows("verdict=DROPPED&last=200")?;
        let fits = |flow: &Flow| {
            flow.source.ip == Some(source) && flow.destination.ip == Some(destination) && wanted(flow)
        };
        flows.into_iter().rfind(fits).with_context(|| format!("no flow of {source} to {destination}"))
    });
    match found {
        Ok(flow) => flow,
        Err(error) => panic!("{error:#}"),
    }
}

fn at(pod: &Pod, v6: bool) -> SocketAddr {
    SocketAddr::new(address(pod, v6), 8080)
}

#[test]
#[ignore = "needs root"]
fn an_l7_rule_for_what_a_pod_sends_is_decided_by_its_proxy() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let own = address(&pods.reader, v6);
        for server in &scene.nodes {
            let before = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
            let to = at(&server.web, v6);
            let path = format!("http://{to}/{}-{v6}", pods.node.name());
            let summary = scene.request(pods.reader.place(), &path, &[]).unwrap();
            assert_eq!(summary.ok(), 1, "{} to {path}: {summary:?}", pods.node.name());
            assert_eq!(summary.seen().unwrap().client.ip(), own);
            let after = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
            assert!(after > before, "{} to {path} was not redirected", pods.node.name());

            let summary = scene.request(pods.reader.place(), &path, &["--method", "DELETE"]).unwrap();
            assert_eq!(summary.status_count(403), 1, "{} to {path}: {summary:?}", pods.node.name());
            let flow = refused(own, to.ip(), |flow| {
                flow.http.as_ref().is_some_and(|http| &*http.method == "DELETE")
            });
            assert_eq!(flow.reason.map(|reason| reason.name()), Some("http_policy_denied"));
            assert_eq!(flow.policies.iter().map(|name| &**name).collect::<Vec<_>>(), ["t/reader"]);
            assert_eq!(&*flow.node, pods.node.name(), "the client's node decides");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn an_l7_rule_for_what_a_pod_sends_holds_behind_a_route() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let service = url(scene.web.ip(v6), 80);
        for (method, status) in [("GET", 200), ("DELETE", 403)] {
            let summary = scene.request(pods.reader.place(), &service, &["--method", method]).unwrap();
            assert_eq!(summary.status_count(status), 1, "{} {method}: {summary:?}", pods.node.name());
        }
    }
}

#[test]
#[ignore = "needs root"]
fn what_no_rule_lets_a_pod_send_is_dropped_in_the_kernel() {
    let scene = scene();
    let before = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
    for (pods, v6) in scene.clients() {
        for server in &scene.nodes {
            let to = SocketAddr::new(address(&server.plain, v6), 9000);
            let arguments = ["tcp-client", &to.to_string(), "--timeout-ms", "500"];
            let summary: tcp::Summary = ask(pods.reader.place(), &arguments).unwrap();
            assert_eq!(summary.connected, 0, "{} to {to}: {summary:?}", pods.node.name());
            let flow = refused(address(&pods.reader, v6), to.ip(), |flow| flow.destination.port == 9000);
            assert_eq!(flow.reason.map(|reason| reason.name()), Some("policy_denied"));
        }
    }
    let after = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
    assert_eq!(after - before, 0.0, "an L4 decision needs no proxy");
}

#[test]
#[ignore = "needs root"]
fn a_policy_allows_one_method_of_a_grpc_service() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        for server in &scene.nodes {
            let call = |method: &str| -> client::Summary {
                let url = format!("http://{}/shop.Checkout/{method}", at(&server.guarded, v6));
                let more = ["--mode", "h2", "--grpc", "--requests", "2"];
                ask(pods.client.place(), &[&["client", &url][..], &more, &QUICK].concat()).unwrap()
            };
            let allowed = call("Pay");
            assert_eq!(allowed.ok(), 2, "{}: {allowed:?}", pods.node.name());
            assert_eq!(allowed.last.as_ref().and_then(client::Answer::grpc_status), Some("0"));
            // PERMISSION_DENIED, in an answer that ends with its head.
            let denied = call("Refund");
            assert_eq!(denied.version.len(), 0, "no server answered: {denied:?}");
            assert_eq!(denied.last.as_ref().and_then(client::Answer::grpc_status), Some("7"), "{denied:?}");
            refused(address(&pods.client, v6), address(&server.guarded, v6), |flow| {
                flow.http.as_ref().is_some_and(|http| &*http.path == "/shop.Checkout/Refund")
            });
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_websocket_passes_the_proxy_in_both_directions_until_it_is_closed() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let guarded = at(&pods.guarded, v6);
        for to in [SocketAddr::new(scene.web.ip(v6), 80), guarded] {
            let offer = format!(
                r"GET /chat HTTP/1.1\r\nhost: {to}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            // A text frame with a mask of zeroes (RFC 6455 section 5.2).
            let frame = r"\x81\x85\x00\x00\x00\x00hello";
            let arguments =
                ["raw", &to.to_string(), "--text", &offer, "--after-answer", frame, "--half-close"];
            let answer: raw::Answer =
                ask(pods.client.place(), &[&arguments[..], &["--read-ms", "3000"]].concat()).unwrap();
            assert!(answer.text.starts_with("HTTP/1.1 101 "), "{} to {to}: {answer:?}", pods.node.name());
            assert!(answer.text.ends_with("hello"), "{} to {to}: {answer:?}", pods.node.name());
            assert!(answer.closed && answer.error.is_none(), "{} to {to}: {answer:?}", pods.node.name());
        }
    }
}
