// SPDX-License-Identifier: Apache-2.0
//! What an operator may ask the controller: is it ready, and how far are the nodes.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use weft_runtime::{
    admin::{AdminAddress, AdminRoutes, AdminServeError, AdminServer, Status},
    drain::DrainWatch,
    readiness::{Readiness, ReadinessHandle},
};

use crate::serve_ir::{IrHandle, IrReport};

/// Serves the endpoint where one is wanted, until the drain begins. The condition that is returned holds
/// once the first state was published.
///
/// # Errors
/// When the address cannot be served.
pub async fn start(
    address: Option<&AdminAddress>,
    nodes: &IrHandle,
    drain: DrainWatch,
) -> Result<ReadinessHandle, AdminServeError> {
    let readiness = Readiness::new();
    let published = readiness.add("state", "nothing is published yet");
    let Some(address) = address else { return Ok(published) };
    let server = AdminServer::bind(address).await?;
    let reports = nodes.watch_acks();
    let routes = AdminRoutes::new(readiness.clone(), Arc::new(Registry::default()))
        .status(readiness, move || status(&reports.borrow()));
    tokio::spawn(async move {
        let Ok(()) = server.serve(routes, drain).await;
    });
    Ok(published)
}

fn status(report: &IrReport) -> Status {
    let connected = report.nodes.values().filter(|node| node.connected).count();
    let rejecting = report.nodes.values().filter(|node| !node.rejected.is_empty()).count();
    let counters = [
        ("nodes connected", connected),
        ("nodes behind", report.behind(report.revision).count()),
        ("nodes that reject a resource", rejecting),
    ];
    Status {
        daemon: "weft-controller",
        version: env!("CARGO_PKG_VERSION"),
        node: String::new(),
        revision: report.revision,
        counters: counters.map(|(name, count)| (name.to_owned(), count as u64)).into(),
        attention: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_counts_the_nodes_that_are_behind() {
        let mut report = IrReport { revision: 7, ..IrReport::default() };
        for (name, connected, applied) in [("a", true, Some(7)), ("b", true, Some(6)), ("c", false, None)] {
            let node = weft_ir::publish::NodeReport { connected, applied, ..Default::default() };
            report.nodes.insert(name.into(), node);
        }
        let status = status(&report);
        assert_eq!((status.revision, status.counters["nodes connected"]), (7, 2));
        assert_eq!(status.counters["nodes behind"], 1);
    }
}
