// SPDX-License-Identifier: Apache-2.0
//! The admin endpoint: health, metrics, configuration, and what a daemon adds.
//!
//! It listens on a Unix socket that only the daemon's user may open, or on a TCP address that the operator
//! chose. It has no password, so the TCP address belongs on loopback.

mod address;
mod body;
mod serve;

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Method, StatusCode};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::readiness::{Condition, Readiness};

pub use address::{AdminAddress, AdminAddressError};
pub use serve::{AdminServeError, AdminServer};

/// A question to the admin endpoint.
#[derive(Clone, Debug)]
pub struct AdminRequest {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, without the question mark; empty without one.
    pub query: String,
}

/// The answer.
#[derive(Debug)]
pub struct AdminResponse {
    status: StatusCode,
    content_type: &'static str,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Full(Bytes),
    Stream(mpsc::Receiver<Bytes>),
}

impl AdminResponse {
    /// A text.
    pub fn text(status: StatusCode, text: impl Into<String>) -> AdminResponse {
        let content = Content::Full(Bytes::from(text.into()));
        AdminResponse { status, content_type: "text/plain; charset=utf-8", content }
    }

    /// A value as indented JSON; 500 if it cannot be said in JSON.
    pub fn json(value: &impl Serialize) -> AdminResponse {
        match serde_json::to_vec_pretty(value) {
            Ok(mut text) => {
                text.push(b'\n');
                let content = Content::Full(text.into());
                AdminResponse { status: StatusCode::OK, content_type: "application/json", content }
            }
            Err(error) => AdminResponse::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// Every metric of a registry as OpenMetrics text; for a daemon that must gather some of them first.
    pub fn metrics(registry: &Registry) -> AdminResponse {
        metrics_text(registry)
    }

    /// Pieces that are sent as they come, until the sender is dropped. The receiver is dropped when the
    /// client goes away.
    pub fn stream(content_type: &'static str, pieces: mpsc::Receiver<Bytes>) -> AdminResponse {
        AdminResponse { status: StatusCode::OK, content_type, content: Content::Stream(pieces) }
    }
}

type Answer = Pin<Box<dyn Future<Output = AdminResponse> + Send>>;
type Handler = Arc<dyn Fn(AdminRequest) -> Answer + Send + Sync>;

/// The paths of an admin endpoint and who answers them.
#[derive(Clone)]
pub struct AdminRoutes {
    handlers: BTreeMap<&'static str, Handler>,
}

impl std::fmt::Debug for AdminRoutes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.handlers.keys()).finish()
    }
}

impl AdminRoutes {
    /// `/healthz` (200 as long as the control thread turns), `/readyz` (200 or 503 and the conditions) and
    /// `/metrics` (OpenMetrics text).
    pub fn new(readiness: Readiness, metrics: Arc<Registry>) -> AdminRoutes {
        AdminRoutes { handlers: BTreeMap::new() }
            .get("/healthz", |_| async { AdminResponse::text(StatusCode::OK, "ok\n") })
            .get("/readyz", move |_| {
                let answer = readyz(&readiness);
                async move { answer }
            })
            .get("/metrics", move |_| {
                let answer = metrics_text(&metrics);
                async move { answer }
            })
    }

    /// Adds `/status`, which `weft status` reads: what the daemon says of itself, and its conditions.
    pub fn status(
        self,
        readiness: Readiness,
        status: impl Fn() -> Status + Send + Sync + 'static,
    ) -> AdminRoutes {
        self.value("/status", move || {
            let conditions = readiness.conditions();
            StatusAnswer { ready: conditions.iter().all(|c| c.ready), status: status(), conditions }
        })
    }

    /// Adds a path that is asked with GET. The last handler of a path counts.
    pub fn get<H, F>(mut self, path: &'static str, handler: H) -> AdminRoutes
    where
        H: Fn(AdminRequest) -> F + Send + Sync + 'static,
        F: Future<Output = AdminResponse> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        self.handlers.insert(path, handler);
        self
    }

    /// Adds a path that shows a value as JSON, asked for at each request.
    pub fn value<V: Serialize>(
        self,
        path: &'static str,
        value: impl Fn() -> V + Send + Sync + 'static,
    ) -> AdminRoutes {
        self.get(path, move |_| {
            let answer = AdminResponse::json(&value());
            async move { answer }
        })
    }

    async fn answer(&self, request: AdminRequest) -> AdminResponse {
        match self.handlers.get(request.path.as_str()) {
            Some(handler) if request.method == Method::GET => handler(request).await,
            Some(_) => AdminResponse::text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"),
            None => {
                let paths: Vec<&str> = self.handlers.keys().copied().collect();
                let text = format!("no such path; there are:\n{}\n", paths.join("\n"));
                AdminResponse::text(StatusCode::NOT_FOUND, text)
            }
        }
    }
}

fn readyz(readiness: &Readiness) -> AdminResponse {
    let conditions = readiness.conditions();
    let ready = conditions.iter().all(|condition| condition.ready);
    let mut answer = AdminResponse::json(&Ready { ready, conditions: &conditions });
    if !ready {
        answer.status = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}

/// What a daemon says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name: `weft-node` or `weft-controller`.
    pub daemon: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The node that it runs on, or the name of the replica.
    pub node: String,
    /// The state that it applies or publishes: epoch and revision.
    pub revision: String,
    /// Numbers that an operator looks at first, by name.
    pub counters: BTreeMap<String, u64>,
    /// What somebody should look at, one line each; at most [`MAX_ATTENTION`], worst first.
    pub attention: Vec<String>,
}

/// The most lines of [`Status::attention`]; whoever has more says so in the last one.
pub const MAX_ATTENTION: usize = 100;

#[derive(Serialize)]
struct StatusAnswer {
    #[serde(flatten)]
    status: Status,
    ready: bool,
    conditions: Vec<Condition>,
}

#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    conditions: &'a [Condition],
}

fn metrics_text(registry: &Registry) -> AdminResponse {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => AdminResponse {
            status: StatusCode::OK,
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            content: Content::Full(text.into()),
        },
        Err(error) => AdminResponse::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
