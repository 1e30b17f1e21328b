// SPDX-License-Identifier: Apache-2.0
//! What the admin endpoint of `weft-node` answers: status, metrics, settings and flows.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use http::StatusCode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use weft_flow_export::{FlowQuery, FlowRing, serve as serve_flows};
use weft_policy::Guess;
use weft_runtime::{
    admin::{AdminRequest, AdminResponse, AdminRoutes, Status},
    readiness::Readiness,
    supervise::{self, PeerTasks},
};

use crate::{
    control::{
        config::Config,
        export::{KernelMetrics, ProxyMetrics},
        kernel::KernelCounters,
        link::{LinkMetrics, attention},
        networks::{self, NetworkMetrics},
        owners::{OwnerMetrics, Unowned},
        plane::Plane,
    },
    ir_client::LinkStatus,
    worker::metrics::WorkerMetrics,
};

const ANSWER: PeerTasks = PeerTasks::new("answer with flows");

/// What control knows and the admin endpoint shows.
pub(crate) struct Watched {
    /// The stream to the controller.
    pub(crate) link: watch::Receiver<LinkStatus>,
    /// Pods whose network nobody named.
    pub(crate) guess: watch::Receiver<Option<Guess>>,
    /// Devices and pods that do not belong to each other; nothing where nothing is redirected.
    pub(crate) unowned: Option<watch::Receiver<Unowned>>,
}

impl Watched {
    /// What somebody should look into.
    fn attention(&self) -> Vec<String> {
        let mut lines = attention(&self.link.borrow(), SystemTime::now());
        lines.extend(self.guess.borrow().as_ref().map(networks::describe));
        lines.extend(self.unowned.iter().flat_map(|unowned| unowned.borrow().describe()));
        lines
    }
}

/// What the admin endpoint answers.
pub(crate) fn routes(
    config: &Config,
    readiness: &Readiness,
    plane: &Plane,
    ring: &FlowRing,
    counters: KernelCounters,
    watched: Watched,
) -> AdminRoutes {
    let mut registry = Registry::default();
    supervise::register(&mut registry);
    registry.register_collector(Box::new(LinkMetrics(watched.link.clone())));
    registry.register_collector(Box::new(NetworkMetrics(watched.guess.clone())));
    registry.register_collector(Box::new(ProxyMetrics::new(plane.metrics().to_vec(), ring.clone())));
    let kernel = config.kernel.is_some();
    if kernel {
        registry.register_collector(Box::new(KernelMetrics::new(counters.clone())));
    }
    if let Some(unowned) = &watched.unowned {
        registry.register_collector(Box::new(OwnerMetrics(unowned.clone())));
    }
    let registry = Arc::new(registry);
    let (config, ring) = (config.clone(), ring.clone());
    let (name, workers, seen) = (Arc::clone(&config.node), plane.metrics().to_vec(), ring.clone());
    AdminRoutes::new(readiness.clone(), Arc::clone(&registry))
        .status(readiness.clone(), move || status(&name, &workers, &seen, &watched))
        .get("/metrics", move |_| {
            let (registry, counters) = (Arc::clone(&registry), counters.clone());
            async move {
                if kernel {
                    counters.refresh().await;
                }
                AdminResponse::metrics(&registry)
            }
        })
        .value("/config", move || config.clone())
        .get("/flows", move |request| {
            let answer = flows(&ring, &request);
            async move { answer }
        })
}

/// What `weft status` shows of this node. The revision is the one that every worker serves.
fn status(node: &str, workers: &[Arc<WorkerMetrics>], ring: &FlowRing, watched: &Watched) -> Status {
    let sum = |of: fn(&WorkerMetrics) -> u64| workers.iter().map(|worker| of(worker)).sum::<u64>();
    let counters = [
        ("connections open", sum(|worker| worker.open.load(Ordering::Relaxed))),
        ("connections opened", sum(|worker| worker.opened.load(Ordering::Relaxed))),
        ("requests", sum(|worker| worker.requests.iter().map(|class| class.load(Ordering::Relaxed)).sum())),
        ("flows seen", ring.seen()),
        ("flows lost", ring.lost()),
    ];
    Status {
        daemon: "weft-node",
        version: env!("CARGO_PKG_VERSION"),
        node: node.to_owned(),
        revision: workers.iter().map(|worker| worker.position()).min().unwrap_or_default().to_string(),
        counters: counters.map(|(name, value)| (name.to_owned(), value)).into(),
        attention: watched.attention(),
    }
}

fn flows(ring: &FlowRing, request: &AdminRequest) -> AdminResponse {
    match FlowQuery::parse(&request.query) {
        Ok(query) => {
            let (pieces, making) = serve_flows::serve(ring, query);
            // Ends when the client goes away, since that drops the receiver.
            ANSWER.start(making);
            AdminResponse::stream("application/x-ndjson", pieces)
        }
        Err(error) => AdminResponse::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}
