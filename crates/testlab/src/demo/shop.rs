// SPDX-License-Identifier: Apache-2.0
//! The shop of `examples/canary` on two nodes of a lab.

use std::time::Duration;

use super::table::Table;
use crate::lab::{Lab, Pod, Shape};
use crate::manifests::{self, Manifests, Port, ServiceAddresses};
use crate::mesh::Mesh;
use crate::peer::client;
use crate::process::Running;

/// Bound of everything that a client does.
const DEADLINE: Duration = Duration::from_secs(30);

/// Pods, services and daemons of the demo. Servers end before the mesh does.
pub(super) struct Shop {
    pub(super) client: Pod,
    pub(super) other: Pod,
    pub(super) v2: Pod,
    pub(super) checkout: ServiceAddresses,
    pub(super) ledger: ServiceAddresses,
    pub(super) mesh: Mesh,
    _servers: Vec<Running>,
}

impl Shop {
    /// Makes the nodes and pods, starts the daemons and the servers.
    pub(super) fn open(table: &Table) -> anyhow::Result<Self> {
        table.progress("two nodes: node-a with routed pods, node-b with a bridge");
        let lab = Lab::new()?;
        let (a, b) = (lab.add_node("node-a", Shape::Routed)?, lab.add_node("node-b", Shape::Bridged)?);
        let client = a.add_pod("shop", "client")?;
        let other = a.add_pod("shop", "other")?;
        let v1 = a.add_labelled_pod("shop", "checkout-v1", &[("app", "checkout"), ("version", "v1")])?;
        let v2 = b.add_labelled_pod("shop", "checkout-v2", &[("app", "checkout"), ("version", "v2")])?;
        let ledger_pod = b.add_pod("shop", "ledger")?;
        let manifests = Manifests::new(&lab)?;
        let http = [Port { name: "http", port: 80, target: 8080, protocol: "TCP" }];
        let tcp = [Port::tcp("tcp", 5000)];
        let checkout = manifests::allocate(&lab);
        let ledger = manifests::allocate(&lab);
        manifests.write_service(checkout, "shop", "checkout", &http, &[&v1, &v2])?;
        manifests.write_service(manifests::allocate(&lab), "shop", "checkout-v1", &http, &[&v1])?;
        manifests.write_service(manifests::allocate(&lab), "shop", "checkout-v2", &http, &[&v2])?;
        manifests.write_service(ledger, "shop", "ledger", &tcp, &[&ledger_pod])?;
        for file in ["route.yaml", "policy.yaml", "gateway.yaml"] {
            manifests.copy(&manifests::example(file)?)?;
        }
        let servers = vec![
            v1.serve(&["http", "--version", "v1"])?,
            v2.serve(&["http", "--version", "v2"])?,
            ledger_pod.serve(&["echo", "--listen", "[::]:5000", "--name", "ledger"])?,
        ];
        table.progress("the controller, and weft-node on both nodes");
        let mesh = Mesh::start(lab, manifests)?;
        Ok(Self { client, other, v2, checkout, ledger, mesh, _servers: servers })
    }

    /// Sends requests from `pod` to the Service `checkout`, until all are answered.
    pub(super) fn requests(&self, pod: &Pod, arguments: &[&str]) -> anyhow::Result<client::Summary> {
        let url = self.url();
        let all: Vec<&str> = ["client", &url].iter().chain(arguments).copied().collect();
        pod.ask(&all, DEADLINE)
    }

    /// The URL of the Service `checkout`.
    pub(super) fn url(&self) -> String {
        format!("http://{}/pay", self.checkout.v4)
    }

    /// Prints what can be tried while everything runs.
    pub(super) fn print_commands(&self) -> anyhow::Result<()> {
        let program = |name: &str| crate::process::program(name).map(|path| path.display().to_string());
        let (weft, lab) = (program("weft")?, program("weft-lab")?);
        let client = self.client.netns().path();
        println!("\nTo try:");
        for node in &self.mesh.nodes {
            println!("  {weft} observe --server unix:{} -f    # {}", node.admin().display(), node.name());
        }
        println!("  nsenter --net={} {lab} pod client {} --requests 100", client.display(), self.url());
        println!("  nsenter --net={} curl -i -X POST {}", client.display(), self.url());
        println!("  $EDITOR {}", self.mesh.manifests.directory().join("route.yaml").display());
        println!("  curl --unix-socket {} http://weft/metrics", self.mesh.nodes[0].admin().display());
        Ok(())
    }
}
