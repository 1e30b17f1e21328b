// SPDX-License-Identifier: Apache-2.0
//! Requests from outside of the cluster through a Gateway, without the redirect.

use std::net::IpAddr;
use std::time::Duration;

use weft_testlab::lab::{Lab, Shape};
use weft_testlab::manifests::{self, Manifests, Port};
use weft_testlab::mesh::Mesh;
use weft_testlab::peer::client;
use weft_testlab::scene::url;

const DEADLINE: Duration = Duration::from_secs(20);

const GATEWAY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: weft}
spec: {controllerName: weft.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: t}
spec:
  gatewayClassName: weft
  listeners: [{name: http, protocol: HTTP, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: front, namespace: t}
spec:
  parentRefs: [{name: front}]
  rules:
  - backendRefs: [{name: web, port: 80}]
"#;

#[test]
#[ignore = "needs root"]
fn the_world_reaches_pods_of_every_node_through_any_nodes_gateway() {
    let lab = Lab::new().unwrap();
    let nodes = [lab.add_node("n1", Shape::Routed).unwrap(), lab.add_node("n2", Shape::Bridged).unwrap()];
    let pods: Vec<_> = nodes.iter().map(|node| node.add_pod("t", "web").unwrap()).collect();
    let manifests = Manifests::new(&lab).unwrap();
    let http = [Port { name: "http", port: 80, target: 8080, protocol: "TCP" }];
    manifests.write_service(manifests::allocate(&lab), "t", "web", &http, &[&pods[0], &pods[1]]).unwrap();
    manifests.write("gateway.yaml", GATEWAY).unwrap();
    let _servers: Vec<_> = ["1", "2"]
        .iter()
        .zip(&pods)
        .map(|(version, pod)| pod.serve(&["http", "--version", version]).unwrap())
        .collect();
    let mesh = Mesh::start_with(lab, manifests, &["--no-redirect"]).unwrap();
    for node in &nodes {
        for address in [IpAddr::from(node.ip4()), node.ip6().into()] {
            let url = url(address, 80);
            let arguments = ["client", &url, "--requests", "100"];
            let summary: client::Summary = mesh.lab.world_place().ask("world", &arguments, DEADLINE).unwrap();
            assert_eq!(summary.ok(), 100, "{url}: {:?} {:?}", summary.status, summary.failures);
            assert_eq!(summary.version.len(), 2, "{url}: {:?}", summary.version);
        }
    }
    for node in mesh.nodes {
        node.stop().unwrap();
    }
    mesh.controller.stop().unwrap();
}
