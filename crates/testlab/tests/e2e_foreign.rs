// SPDX-License-Identifier: Apache-2.0
//! The redirect beside kube-proxy's translation, a CNI's masquerade and a firewall's rules.

use std::net::SocketAddr;
use std::sync::OnceLock;

use weft_testlab::foreign::Rules;
use weft_testlab::peer::{client, tcp};
use weft_testlab::scene::{ForeignTargets, Scene, address, ask, url};

fn rules(targets: &ForeignTargets) -> Vec<Rules> {
    let mut all = vec![Rules::Masquerade, Rules::DropInvalid, Rules::Track];
    for v6 in [false, true] {
        let endpoints = targets.pods.iter().map(|pod| SocketAddr::new(address(pod, v6), 9000)).collect();
        let service = SocketAddr::new(targets.plain.ip(v6), 9000);
        all.push(Rules::ServiceNat { service, endpoints });
        // kube-proxy knows the service with a route too; it would send its requests past the route.
        let endpoints = targets.pods.iter().map(|pod| SocketAddr::new(address(pod, v6), 1)).collect();
        all.push(Rules::ServiceNat { service: SocketAddr::new(targets.web.ip(v6), 80), endpoints });
    }
    all
}

fn scene() -> &'static Scene {
    static SCENE: OnceLock<Result<Scene, String>> = OnceLock::new();
    match SCENE.get_or_init(|| Scene::with(rules).map_err(|error| format!("{error:#}"))) {
        Ok(scene) => scene,
        Err(error) => panic!("no scene: {error}"),
    }
}

#[test]
#[ignore = "needs root"]
fn routes_hold_beside_the_rules_of_others() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        for to in ["1", "2"] {
            let url = url(scene.web.ip(v6), 80);
            let header = format!("x-to: {to}");
            let arguments = ["client", &url, "--mode", "close", "--requests", "20", "--header", &header];
            let summary: client::Summary = ask(pods.client.place(), &arguments).unwrap();
            let place = pods.node.name();
            assert_eq!(
                summary.ok(),
                20,
                "{place} v6={v6} to {to}: {:?} {:?}",
                summary.status,
                summary.failures
            );
            assert_eq!(summary.seen().unwrap().client.ip(), address(&pods.client, v6));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn hosts_are_redirected_beside_the_rules_of_others() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let summary = scene.request(&pods.node.place(), &url(scene.web.ip(v6), 80), &[]).unwrap();
        assert_eq!(summary.ok(), 1, "{} v6={v6}: {:?}", pods.node.name(), summary.failures);
    }
}

#[test]
#[ignore = "needs root"]
fn guarded_pods_stay_guarded_beside_the_rules_of_others() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        for server in &scene.nodes {
            let url = url(address(&server.guarded, v6), 8080);
            let get = scene.request(pods.client.place(), &url, &[]).unwrap();
            assert_eq!(get.ok(), 1, "{} to {url}: {:?} {:?}", pods.node.name(), get.status, get.failures);
            assert_eq!(get.seen().unwrap().client.ip(), address(&pods.client, v6));
            let post = scene.request(pods.client.place(), &url, &["--method", "POST"]).unwrap();
            assert_eq!(
                post.status_count(403),
                1,
                "{} to {url}: {:?} {:?}\n{}",
                pods.node.name(),
                post.status,
                post.failures,
                scene.logs()
            );
        }
    }
}

#[test]
#[ignore = "needs root"]
fn plain_services_are_reached_beside_the_rules_of_others() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let service = SocketAddr::new(scene.plain.ip(v6), 9000).to_string();
        for place in [pods.client.place(), &pods.node.place()] {
            let arguments = ["tcp-client", &service, "--connections", "10"];
            let summary: tcp::Summary = ask(place, &arguments).unwrap();
            assert_eq!(summary.echoed, 10, "{} {service}: {summary:?}", pods.node.name());
        }
    }
}
