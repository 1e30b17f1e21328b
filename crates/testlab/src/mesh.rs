// SPDX-License-Identifier: Apache-2.0
//! A lab with Weft in it: the controller, and weft-node on every node.

use anyhow::{Context, ensure};
use weft_flow_export::Flow;

use crate::daemon::{Controller, WeftNode};
use crate::lab::Lab;
use crate::manifests::Manifests;

/// A lab with the daemons running. They end before the lab goes.
#[derive(Debug)]
pub struct Mesh {
    /// weft-node on each node, in the order of the nodes.
    pub nodes: Vec<WeftNode>,
    /// The controller.
    pub controller: Controller,
    /// What it reads.
    pub manifests: Manifests,
    /// Where they run.
    pub lab: Lab,
}

impl Mesh {
    /// Writes what the lab has into `manifests` and starts the daemons; returns once all are ready.
    pub fn start(lab: Lab, manifests: Manifests) -> anyhow::Result<Self> {
        Self::start_with(lab, manifests, &[])
    }

    /// The same with more arguments for every weft-node.
    pub fn start_with(lab: Lab, manifests: Manifests, more: &[&str]) -> anyhow::Result<Self> {
        manifests.write_cluster(&lab)?;
        let controller = Controller::start(&lab, manifests.directory())?;
        let spawned: anyhow::Result<Vec<WeftNode>> =
            lab.nodes().iter().map(|node| WeftNode::spawn(node, &controller, more)).collect();
        let nodes: anyhow::Result<Vec<WeftNode>> = spawned?.into_iter().map(WeftNode::wait_ready).collect();
        Ok(Self { nodes: nodes?, controller, manifests, lab })
    }

    /// weft-node of the node `name`.
    pub fn node(&self, name: &str) -> anyhow::Result<&WeftNode> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }

    /// The sum of a metric over all nodes. Labels that have no sample count as 0; a node without any
    /// sample of that name is an error, since nothing would be proved by it.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for node in &self.nodes {
            let metrics = node.metrics()?;
            ensure!(metrics.has(name), "{} has no metric {name}, but {:?}", node.name(), metrics.names());
            sum += metrics.sum(name, labels).unwrap_or(0.0);
        }
        Ok(sum)
    }

    /// The flows of all nodes that match `query`, oldest first.
    pub fn flows(&self, query: &str) -> anyhow::Result<Vec<Flow>> {
        let mut flows = Vec::new();
        for node in &self.nodes {
            flows.extend(node.flows(query)?);
        }
        flows.sort_by_key(|flow| flow.time);
        Ok(flows)
    }
}
