// SPDX-License-Identifier: Apache-2.0
//! The account of one request or connection: what is said about it when it has ended, however it did.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use weft_ebpf_common::reason::Reason;
use weft_http::head::{Head, Version};
use weft_ir::Direction;
use weft_policy::Place;

use crate::{
    state::permit::Denial,
    upstream::balance::InFlight,
    worker::{
        metrics::{self, WorkerMetrics},
        records::{Asked, Ended, Recorder, Shared, Spoken},
        target::{Choice, Ends, Resolved, Target},
    },
};

/// Where what one worker has to say goes.
#[derive(Debug)]
pub(crate) struct Reports {
    /// The worker's counters.
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// Takes records of what has ended.
    pub(crate) recorder: RefCell<Recorder>,
}

/// What is known so far. Whoever begins one has to report it.
#[derive(Debug)]
pub(crate) struct Account {
    /// When it began, in nanoseconds since the start of the process.
    pub(crate) started: u64,
    /// When the current try began.
    pub(crate) tried: u64,
    /// When the head of the response was there; 0 before.
    pub(crate) answered: u64,
    /// Bytes of content from the client.
    pub(crate) received: u64,
    /// Bytes of content to the client.
    pub(crate) sent: u64,
    /// `namespace/name/index` of the route rule.
    pub(crate) route: Option<Arc<str>>,
    /// `namespace/name` of the Service that took it.
    pub(crate) upstream: Option<Arc<str>>,
    /// The endpoint that was chosen last.
    pub(crate) choice: Option<Rc<Choice>>,
    /// The policy that allowed or denied it.
    pub(crate) policy: Option<Arc<str>>,
    /// Which end's policy denied it.
    pub(crate) denied: Option<Direction>,
    /// Counts the request at its endpoint until the response was delivered.
    pub(crate) in_flight: Option<InFlight>,
    /// Tries after the first.
    pub(crate) retries: u32,
    /// The status that the client got; 0 for none.
    pub(crate) status: u16,
    /// Why it failed or was refused.
    pub(crate) reason: Option<Reason>,
}

impl Account {
    /// Begins at `now`.
    pub(crate) fn start(now: u64) -> Account {
        Account {
            started: now,
            tried: now,
            answered: 0,
            received: 0,
            sent: 0,
            route: None,
            upstream: None,
            choice: None,
            policy: None,
            denied: None,
            in_flight: None,
            retries: 0,
            status: 0,
            reason: None,
        }
    }

    /// Notes a denial; yields its reason.
    pub(crate) fn denied(&mut self, denial: Denial) -> Reason {
        self.policy = denial.decided.policy;
        self.denied = Some(denial.direction);
        denial.reason
    }

    /// The one place from which requests are reported.
    pub(crate) fn report_request(
        &self,
        reports: &Reports,
        resolved: &Resolved,
        ends: Ends,
        head: &Head,
        now: u64,
    ) {
        let counters = &reports.metrics;
        counters.request(self.status, now.saturating_sub(self.started), self.reason);
        if self.retries > 0 {
            metrics::add(&counters.retries, u64::from(self.retries));
        }
        self.count_bytes(counters);
        let shared = Shared {
            policy: self.policy.as_ref(),
            route: self.route.as_ref(),
            upstream: self.upstream.as_ref(),
        };
        let asked = Asked {
            latency: self.answered.saturating_sub(self.started),
            status: self.status,
            version: match head.version() {
                Version::Http2 => Spoken::Http2,
                Version::Http10 => Spoken::Http10,
                Version::Http11 => Spoken::Http11,
            },
            method: head.method_text(),
            authority: head.received_authority().unwrap_or_default(),
            target: head.received_target(),
        };
        reports.recorder.borrow_mut().request(self.ended(resolved, ends, now), shared, asked);
    }

    /// The one place from which connections that were relayed as bytes, or refused, are reported.
    pub(crate) fn report_connection(&self, reports: &Reports, resolved: &Resolved, ends: Ends, now: u64) {
        reports.metrics.decision(self.reason);
        self.count_bytes(&reports.metrics);
        self.record_connection(reports, resolved, ends, now);
    }

    /// The one place from which is reported what was refused before it was a request; `status` is what the
    /// client was told, 0 for nothing.
    pub(crate) fn report_refused(
        &self,
        reports: &Reports,
        resolved: &Resolved,
        ends: Ends,
        status: u16,
        now: u64,
    ) {
        reports.metrics.request(status, 0, self.reason);
        self.record_connection(reports, resolved, ends, now);
    }

    fn record_connection(&self, reports: &Reports, resolved: &Resolved, ends: Ends, now: u64) {
        let ended = self.ended(resolved, ends, now);
        reports.recorder.borrow_mut().connection(ended, self.policy.as_ref());
    }

    fn count_bytes(&self, counters: &WorkerMetrics) {
        metrics::add(&counters.received, self.received);
        metrics::add(&counters.sent, self.sent);
    }

    fn ended(&self, resolved: &Resolved, ends: Ends, now: u64) -> Ended {
        let state = resolved.held.state();
        let endpoint_identity = match &self.choice {
            Some(choice) => choice.peer.identity,
            None => state.peer(ends.destination.ip()).identity,
        };
        Ended {
            began: self.started,
            ended: now,
            received: self.received,
            sent: self.sent,
            position: state.position,
            client: ends.client,
            destination: ends.destination,
            endpoint: self.choice.as_ref().map(|choice| choice.address),
            client_identity: resolved.client.identity,
            endpoint_identity,
            direction: direction(resolved, self.denied),
            reason: self.reason,
        }
    }
}

/// The direction of the denial, else that of the end which is on this node, the client's first.
fn direction(resolved: &Resolved, denied: Option<Direction>) -> Direction {
    match denied {
        Some(direction) => direction,
        None if matches!(resolved.target, Target::Listener(_)) => Direction::Ingress,
        None if matches!(resolved.client.place, Place::LocalPod | Place::Host) => Direction::Egress,
        None => Direction::Ingress,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        state::{Held, MeshState},
        worker::{records::ring, target::Entrance},
    };

    #[test]
    fn what_is_refused_before_it_is_a_request_counts_once() {
        let (recorder, mut records) = ring(4, Arc::default());
        let metrics = Arc::new(WorkerMetrics::default());
        let reports = Reports { metrics: Arc::clone(&metrics), recorder: RefCell::new(recorder) };
        let held = Rc::new(Held::new(Arc::new(MeshState::empty("node-a")), tokio::sync::mpsc::channel(1).0));
        let (client, destination) = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 80).into());
        let ends = Ends { client, destination, entrance: Entrance::Redirected };
        let mut account = Account::start(1);
        account.reason = Some(Reason::BadRequest);
        account.report_refused(&reports, &Resolved::new(held, ends), ends, 400, 2);
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sum = |counters: &[AtomicU64]| counters.iter().map(value).sum::<u64>();
        assert_eq!((sum(&metrics.requests), value(&metrics.requests[4])), (1, 1));
        assert_eq!((sum(&metrics.refused), value(&metrics.allowed)), (1, 0));
        assert_eq!(records.by_ref().count(), 1);
    }
}
