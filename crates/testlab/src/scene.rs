// SPDX-License-Identifier: Apache-2.0
//! The scene of the end-to-end tests: a routed and a bridged node with the same pods on each.
//!
//! On node `n1` (routed) and `n2` (bridged), in the namespace `t`, the last letter of a pod being its
//! node's number:
//!
//! | pod | what it is |
//! |---|---|
//! | `client` | what policies allow |
//! | `outsider` | what policies do not name |
//! | `web` | behind the Service `web`, which an HTTPRoute splits; the header `x-to` picks a node |
//! | `plain` | echo and bulk servers behind the Service `plain`, which nothing names |
//! | `guarded` | an HTTP server; an L7 policy lets `client` GET, and call the method `/shop.Checkout/Pay` |
//! | `closed` | an echo server; an L4 policy lets `client` in on TCP port 9000 |
//! | `reader` | a client of which an L7 policy lets out GETs to `web`, and nothing else |

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;

use crate::foreign::Rules;
use crate::lab::{Lab, Node, Pod, Shape};
use crate::manifests::{self, Manifests, Port, ServiceAddresses};
use crate::mesh::Mesh;
use crate::peer::client;
use crate::process::{Place, Running};
use crate::wait;

/// Bound of what a peer does.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The pods of one node.
#[derive(Clone, Debug)]
pub struct Pods {
    /// Their node.
    pub node: Node,
    /// What policies allow.
    pub client: Pod,
    /// What policies do not name.
    pub outsider: Pod,
    /// Behind the Service `web`.
    pub web: Pod,
    /// Behind the Service `plain`.
    pub plain: Pod,
    /// Has an L7 policy.
    pub guarded: Pod,
    /// Has an L4 policy.
    pub closed: Pod,
    /// Has an L7 policy for what it sends.
    pub reader: Pod,
}

/// The scene, with the daemons running.
#[derive(Debug)]
pub struct Scene {
    servers: Vec<Running>,
    /// The pods of `n1` and of `n2`.
    pub nodes: [Pods; 2],
    /// The service with a route, on port 80.
    pub web: ServiceAddresses,
    /// The service that nothing names, on TCP and UDP port 9000 and TCP port 9100.
    pub plain: ServiceAddresses,
    /// The service of the guarded pods, on port 80.
    pub guarded: ServiceAddresses,
    /// The daemons, and the lab.
    pub mesh: Mesh,
}

impl Scene {
    /// Makes the scene with no rules of others.
    pub fn new() -> anyhow::Result<Self> {
        Self::with(|_| Vec::new())
    }

    /// Makes the scene; `foreign` says which rules of others each node has, given the plain pods.
    pub fn with(foreign: impl Fn(&ForeignTargets) -> Vec<Rules>) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let nodes = [pods(&lab, "1", Shape::Routed)?, pods(&lab, "2", Shape::Bridged)?];
        let manifests = Manifests::new(&lab)?;
        let (web, plain, guarded) =
            (manifests::allocate(&lab), manifests::allocate(&lab), manifests::allocate(&lab));
        let [one, two] = &nodes;
        let http = [Port { name: "http", port: 80, target: 8080, protocol: "TCP" }];
        let ports = [Port::tcp("tcp-echo", 9000), Port::udp("udp-echo", 9000), Port::tcp("tcp-bulk", 9100)];
        manifests.write_service(web, "t", "web", &http, &[&one.web, &two.web])?;
        manifests.write_service(manifests::allocate(&lab), "t", "web-1", &http, &[&one.web])?;
        manifests.write_service(manifests::allocate(&lab), "t", "web-2", &http, &[&two.web])?;
        manifests.write_service(plain, "t", "plain", &ports, &[&one.plain, &two.plain])?;
        manifests.write_service(guarded, "t", "guarded", &http, &[&one.guarded, &two.guarded])?;
        manifests.write("route.yaml", ROUTE)?;
        manifests.write("policy.yaml", POLICY)?;
        let targets = ForeignTargets { web, plain, pods: [one.plain.clone(), two.plain.clone()] };
        for pods in &nodes {
            for rules in foreign(&targets) {
                rules.install(&pods.node)?;
            }
        }
        let mut servers = Vec::new();
        for (number, pods) in ["1", "2"].iter().zip(&nodes) {
            servers.extend(pods.serve(number)?);
        }
        let scene = Self { servers, web, plain, guarded, mesh: Mesh::start(lab, manifests)?, nodes };
        scene.wait_until_applied()?;
        Ok(scene)
    }

    /// How many server processes run.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Every client with the families to try: (client, whether IPv6).
    pub fn clients(&self) -> impl Iterator<Item = (&Pods, bool)> {
        self.nodes.iter().flat_map(|pods| [(pods, false), (pods, true)])
    }

    /// One request of the client at `place` to `url`, with more arguments.
    pub fn request(&self, place: &Place, url: &str, more: &[&str]) -> anyhow::Result<client::Summary> {
        ask(place, &[&["client", url, "--requests", "1", "--mode", "close"], more].concat())
    }

    /// Programs and maps are there before the first answer, routes at the same instant.
    fn wait_until_applied(&self) -> anyhow::Result<()> {
        for (pods, v6) in self.clients() {
            let url = url(self.web.ip(v6), 80);
            wait::eventually(Duration::from_secs(10), || {
                let summary = self.request(pods.client.place(), &url, &[])?;
                ensure!(summary.ok() == 1, "{url}: {:?} {:?}", summary.status, summary.failures);
                Ok(())
            })
            .with_context(|| format!("the scene is not up; node logs:\n{}", self.logs()))?;
        }
        Ok(())
    }

    /// What the nodes logged.
    pub fn logs(&self) -> String {
        self.mesh.nodes.iter().map(|node| format!("{}:\n{}\n", node.name(), node.log())).collect()
    }
}

/// What rules of others may be about.
#[derive(Debug)]
pub struct ForeignTargets {
    /// The service with a route.
    pub web: ServiceAddresses,
    /// The service that nothing names.
    pub plain: ServiceAddresses,
    /// The pods behind it.
    pub pods: [Pod; 2],
}

impl Pods {
    fn serve(&self, version: &str) -> anyhow::Result<Vec<Running>> {
        Ok(vec![
            self.web.serve(&["http", "--version", version])?,
            self.guarded.serve(&["http", "--version", version])?,
            self.plain.serve(&["echo", "--name", version])?,
            self.plain.serve(&["bulk-server"])?,
            self.closed.serve(&["echo", "--name", version])?,
        ])
    }
}

/// Runs a peer at `place` and reads its answer.
pub fn ask<T: DeserializeOwned>(place: &Place, arguments: &[&str]) -> anyhow::Result<T> {
    place.ask("peer", arguments, DEADLINE)
}

/// The address of `pod` in one family.
pub fn address(pod: &Pod, v6: bool) -> IpAddr {
    if v6 { pod.ip6().into() } else { pod.ip4().into() }
}

/// The URL of an address and a port.
pub fn url(ip: IpAddr, port: u16) -> String {
    format!("http://{}/", SocketAddr::new(ip, port))
}

fn pods(lab: &Lab, number: &str, shape: Shape) -> anyhow::Result<Pods> {
    let node = lab.add_node(&format!("n{number}"), shape)?;
    let pod = |app: &str| node.add_labelled_pod("t", &format!("{app}-{number}"), &[("app", app)]);
    Ok(Pods {
        client: pod("client")?,
        outsider: pod("outsider")?,
        web: pod("web")?,
        plain: pod("plain")?,
        guarded: pod("guarded")?,
        closed: pod("closed")?,
        reader: pod("reader")?,
        node: node.clone(),
    })
}

const ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: t}
spec:
  parentRefs:
  - {group: "", kind: Service, name: web, port: 80}
  rules:
  - matches: [{headers: [{name: x-to, value: "1"}]}]
    backendRefs: [{name: web-1, port: 80}]
  - matches: [{headers: [{name: x-to, value: "2"}]}]
    backendRefs: [{name: web-2, port: 80}]
  - backendRefs:
    - {name: web-1, port: 80, weight: 50}
    - {name: web-2, port: 80, weight: 50}
"#;

const POLICY: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: guarded, namespace: t}
spec:
  endpointSelector: {matchLabels: {app: guarded}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: GET, path: "/.*"}, {method: POST, path: "/shop\\.Checkout/Pay"}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: reader, namespace: t}
spec:
  endpointSelector: {matchLabels: {app: reader}}
  egress:
  - toEndpoints: [{matchLabels: {app: web}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: GET, path: "/.*"}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: closed, namespace: t}
spec:
  endpointSelector: {matchLabels: {app: closed}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "9000", protocol: TCP}]
"#;
