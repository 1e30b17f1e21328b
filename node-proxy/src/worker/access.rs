// SPDX-License-Identifier: Apache-2.0
//! The record of one request, made when it arrives and reported when it ends, however it ends.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use http::{
    Method, Version,
    uri::{Authority, PathAndQuery},
};
use weft_codec::message::{Delivery, Observer, RequestHead};
use weft_ebpf_common::reason::Reason;
use weft_ir::Direction;
use weft_policy::Place;

use crate::{
    state::permit::{Denial, Permit},
    upstream::{balance::InFlight, clock},
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

/// Everything that is said about one request.
pub(crate) struct Record {
    reports: Rc<Reports>,
    /// When its head was complete, in nanoseconds since the start of the process.
    pub(crate) started: u64,
    /// When the head of the response was there; 0 before.
    pub(crate) answered: u64,
    /// The ends of the client's connection.
    pub(crate) ends: Ends,
    /// Who the client is, at which state.
    pub(crate) resolved: Rc<Resolved>,
    /// The method.
    pub(crate) method: Method,
    /// Path and query, as received.
    pub(crate) target: PathAndQuery,
    /// Host and port, as received.
    pub(crate) authority: Option<Authority>,
    /// The version that the client spoke.
    pub(crate) version: Version,
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
    /// How the response was delivered; nothing when the client was gone before.
    pub(crate) delivery: Option<Delivery>,
}

/// Everything that is said about a connection that was not parsed.
#[derive(Debug)]
pub(crate) struct ConnectionRecord {
    /// When it was accepted, in nanoseconds since the start of the process.
    pub(crate) started: u64,
    /// Its ends.
    pub(crate) ends: Ends,
    /// Who the client is, at which state.
    pub(crate) resolved: Rc<Resolved>,
    /// The endpoint, where one was chosen.
    pub(crate) choice: Option<Rc<Choice>>,
    /// The policy that allowed or denied it.
    pub(crate) policy: Option<Arc<str>>,
    /// Which end's policy denied it.
    pub(crate) denied: Option<Direction>,
    /// Why it failed or was refused.
    pub(crate) reason: Option<Reason>,
    /// Bytes from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
}

impl Record {
    /// Begins the record of a request.
    pub(crate) fn start(
        reports: &Rc<Reports>,
        ends: Ends,
        resolved: &Rc<Resolved>,
        head: &RequestHead,
    ) -> Box<Record> {
        Box::new(Record {
            reports: Rc::clone(reports),
            started: clock::nanos(),
            answered: 0,
            ends,
            resolved: Rc::clone(resolved),
            method: head.method.clone(),
            target: head.target.clone(),
            authority: head.authority.clone(),
            version: head.version,
            route: None,
            upstream: None,
            choice: None,
            policy: None,
            denied: None,
            in_flight: None,
            retries: 0,
            status: 0,
            reason: None,
            delivery: None,
        })
    }

    /// Notes a permit.
    pub(crate) fn permitted(&mut self, permit: &Permit) {
        self.policy = permit.policy().cloned();
    }

    /// Notes a denial; yields its reason.
    pub(crate) fn denied(&mut self, denial: Denial) -> Reason {
        self.policy = denial.decided.policy;
        self.denied = Some(denial.direction);
        denial.reason
    }
}

impl Observer for Record {
    fn delivered(mut self: Box<Self>, delivery: Delivery) {
        self.reason = self.reason.or(delivery.failure);
        self.delivery = Some(delivery);
    }
}

/// The one place from which requests are reported.
impl Drop for Record {
    fn drop(&mut self) {
        if self.delivery.is_none() && self.reason.is_none() {
            self.reason = Some(Reason::ClientReset);
        }
        let now = clock::nanos();
        let counters = &self.reports.metrics;
        counters.request(self.status, now.saturating_sub(self.started), self.reason);
        if self.retries > 0 {
            metrics::add(&counters.retries, u64::from(self.retries));
        }
        if let Some(delivery) = &self.delivery {
            metrics::add(&counters.received, delivery.received_bytes);
            metrics::add(&counters.sent, delivery.sent_bytes);
        }
        self.report(now);
    }
}

impl Record {
    fn report(&self, now: u64) {
        let mut ended = ended(&self.resolved, self.ends, self.choice.as_deref(), self.denied);
        (ended.began, ended.ended, ended.reason) = (self.started, now, self.reason);
        if let Some(delivery) = &self.delivery {
            (ended.received, ended.sent) = (delivery.received_bytes, delivery.sent_bytes);
        }
        let shared = Shared {
            policy: self.policy.as_ref(),
            route: self.route.as_ref(),
            upstream: self.upstream.as_ref(),
        };
        let asked = Asked {
            latency: self.answered.saturating_sub(self.started),
            status: self.status,
            version: match self.version {
                Version::HTTP_2 => Spoken::Http2,
                Version::HTTP_10 => Spoken::Http10,
                _ => Spoken::Http11,
            },
            method: self.method.as_str().as_bytes(),
            authority: self.authority.as_ref().map_or(b"", |authority| authority.as_str().as_bytes()),
            target: self.target.as_str().as_bytes(),
        };
        self.reports.recorder.borrow_mut().request(ended, shared, asked);
    }
}

impl ConnectionRecord {
    /// The record of a connection that has just been accepted.
    pub(crate) fn start(ends: Ends, resolved: &Rc<Resolved>) -> ConnectionRecord {
        ConnectionRecord {
            started: clock::nanos(),
            ends,
            resolved: Rc::clone(resolved),
            choice: None,
            policy: None,
            denied: None,
            reason: None,
            received: 0,
            sent: 0,
        }
    }

    /// Leaves the record.
    pub(crate) fn report(&self, reports: &Reports) {
        let mut ended = ended(&self.resolved, self.ends, self.choice.as_deref(), self.denied);
        (ended.began, ended.ended, ended.reason) = (self.started, clock::nanos(), self.reason);
        (ended.received, ended.sent) = (self.received, self.sent);
        reports.recorder.borrow_mut().connection(ended, self.policy.as_ref());
    }
}

/// What is said about both ends, before times, bytes and the reason.
fn ended(resolved: &Resolved, ends: Ends, choice: Option<&Choice>, denied: Option<Direction>) -> Ended {
    let state = resolved.held.state();
    let endpoint_identity = match choice {
        Some(choice) => choice.peer.identity,
        None => state.peer(ends.destination.ip()).identity,
    };
    Ended {
        began: 0,
        ended: 0,
        received: 0,
        sent: 0,
        position: state.position,
        client: ends.client,
        destination: ends.destination,
        endpoint: choice.map(|choice| choice.address),
        client_identity: resolved.client.identity,
        endpoint_identity,
        direction: direction(resolved, denied),
        reason: None,
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
