// SPDX-License-Identifier: Apache-2.0
//! One rule of a route, compiled: what is done with a request that matched it.

use std::sync::Arc;

use weft_ir::{BackendService, Redirect, Route, RouteBackend, RouteFilter, RouteRetry, RouteTimeouts};

use crate::route::{
    filter::{HeaderEdits, Rewrite},
    ratelimit::RateLimiter,
    slots::Slot,
};

/// One rule of a route.
#[derive(Debug)]
pub(crate) struct Rule {
    /// `namespace/name/index`, for flows and logs.
    pub(crate) label: Arc<str>,
    /// Answer with a redirect instead of asking a backend.
    pub(crate) redirect: Option<Redirect>,
    /// Change host or path on the way.
    pub(crate) rewrite: Option<Rewrite>,
    /// Changes of the request's headers.
    pub(crate) request: HeaderEdits,
    /// Changes of the response's headers.
    pub(crate) response: HeaderEdits,
    /// A filter that is not understood: 500.
    pub(crate) invalid: bool,
    /// Where requests go.
    pub(crate) backends: Vec<Backend>,
    /// For each backend the sum of the weights up to and including it.
    pub(crate) cumulative: Vec<u64>,
    /// Timeouts; zero was made none.
    pub(crate) timeouts: RouteTimeouts,
    /// Retries.
    pub(crate) retry: Option<RouteRetry>,
    /// Rate limits on the route.
    pub(crate) limits: Vec<Arc<RateLimiter>>,
}

/// A backend of a rule.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The upstream; nothing means that the reference is not valid, or a filter is not understood: 500.
    pub(crate) upstream: Option<Slot>,
    /// Changes of the request's headers, after those of the rule.
    pub(crate) request: HeaderEdits,
    /// Changes of the response's headers, before those of the rule.
    pub(crate) response: HeaderEdits,
}

impl Rule {
    /// Compiles a rule; `slot` names the upstream of a backend, whether it exists or not.
    pub(crate) fn compile(
        route: &Route,
        limits: Vec<Arc<RateLimiter>>,
        mut slot: impl FnMut(&BackendService) -> Slot,
    ) -> Rule {
        let action = &route.action;
        let label = format!("{}/{}", route.origin, route.rule);
        let mut total = 0_u64;
        let mut rule = Rule {
            label: label.into(),
            redirect: None,
            rewrite: None,
            request: HeaderEdits::default(),
            response: HeaderEdits::default(),
            invalid: false,
            backends: action.backends.iter().map(|backend| Backend::compile(backend, &mut slot)).collect(),
            cumulative: Vec::with_capacity(action.backends.len()),
            timeouts: RouteTimeouts {
                request: action.timeouts.request.filter(|timeout| !timeout.is_zero()),
                backend_request: action.timeouts.backend_request.filter(|timeout| !timeout.is_zero()),
            },
            retry: action.retry.clone(),
            limits,
        };
        for backend in &action.backends {
            total = total.saturating_add(u64::from(backend.weight));
            rule.cumulative.push(total);
        }
        for filter in &action.filters {
            rule.add(filter);
        }
        rule
    }

    /// The sum of the weights of all backends.
    pub(crate) fn total_weight(&self) -> u64 {
        self.cumulative.last().copied().unwrap_or(0)
    }

    fn add(&mut self, filter: &RouteFilter) {
        match filter {
            RouteFilter::RequestHeaders(changes) => self.invalid |= !self.request.extend(changes),
            RouteFilter::ResponseHeaders(changes) => self.invalid |= !self.response.extend(changes),
            RouteFilter::Redirect(redirect) => self.redirect = Some(redirect.clone()),
            RouteFilter::Rewrite(rewrite) => {
                self.rewrite = Rewrite::compile(rewrite);
                self.invalid |= self.rewrite.is_none();
            }
            RouteFilter::Invalid => self.invalid = true,
        }
    }
}

impl Backend {
    fn compile(backend: &RouteBackend, slot: &mut impl FnMut(&BackendService) -> Slot) -> Backend {
        let mut compiled = Backend {
            upstream: backend.service.as_ref().map(slot),
            request: HeaderEdits::default(),
            response: HeaderEdits::default(),
        };
        for filter in &backend.filters {
            let understood = match filter {
                RouteFilter::RequestHeaders(changes) => compiled.request.extend(changes),
                RouteFilter::ResponseHeaders(changes) => compiled.response.extend(changes),
                // A rewrite or a redirect of one backend is no part of what the IR promises.
                RouteFilter::Redirect(_) | RouteFilter::Rewrite(_) | RouteFilter::Invalid => false,
            };
            if !understood {
                compiled.upstream = None;
            }
        }
        compiled
    }
}
