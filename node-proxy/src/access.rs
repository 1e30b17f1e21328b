// SPDX-License-Identifier: Apache-2.0
//! The record of one request, made when it arrives and reported when it ends, however it ends.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use http::{
    Method, Version,
    uri::{Authority, PathAndQuery},
};
use weft_codec::message::{Delivery, Observer, RequestHead};
use weft_ebpf_common::reason::Reason;
use weft_policy::Direction;

use crate::{
    balance::InFlight,
    clock, metrics,
    permit::{Denial, Permit},
    target::{Choice, Ends, Resolved},
    worker::Worker,
};

/// Takes finished records. Called on the worker: must not wait.
pub trait RecordSink {
    /// A request has ended.
    fn request(&self, record: &Record);
    /// A connection that was relayed as bytes, or refused, has ended.
    fn connection(&self, record: &ConnectionRecord);
}

/// Everything that is said about one request.
pub struct Record {
    worker: Rc<Worker>,
    /// When its head was complete, in nanoseconds since the start of the process.
    pub started: u64,
    /// When the head of the response was there; 0 before.
    pub answered: u64,
    /// The ends of the client's connection.
    pub ends: Ends,
    /// Who the client is, at which state.
    pub resolved: Rc<Resolved>,
    /// The method.
    pub method: Method,
    /// Path and query, as received.
    pub target: PathAndQuery,
    /// Host and port, as received.
    pub authority: Option<Authority>,
    /// The version that the client spoke.
    pub version: Version,
    /// `namespace/name/index` of the route rule.
    pub route: Option<Arc<str>>,
    /// `namespace/name` of the Service that took it.
    pub cluster: Option<Arc<str>>,
    /// The endpoint that was chosen last.
    pub choice: Option<Rc<Choice>>,
    /// The policy that allowed or denied it.
    pub policy: Option<Arc<str>>,
    /// Which end's policy denied it.
    pub denied: Option<Direction>,
    /// Counts the request at its endpoint until the response was delivered.
    pub in_flight: Option<InFlight>,
    /// Tries after the first.
    pub retries: u32,
    /// The status that the client got; 0 for none.
    pub status: u16,
    /// Why it failed or was refused.
    pub reason: Option<Reason>,
    /// How the response was delivered; nothing when the client was gone before.
    pub delivery: Option<Delivery>,
}

/// Everything that is said about a connection that was not parsed.
#[derive(Debug)]
pub struct ConnectionRecord {
    /// When it was accepted, in nanoseconds since the start of the process.
    pub started: u64,
    /// Its ends.
    pub ends: Ends,
    /// Who the client is, at which state.
    pub resolved: Rc<Resolved>,
    /// The endpoint, where one was chosen.
    pub choice: Option<Rc<Choice>>,
    /// The policy that allowed or denied it.
    pub policy: Option<Arc<str>>,
    /// Which end's policy denied it.
    pub denied: Option<Direction>,
    /// Why it failed or was refused.
    pub reason: Option<Reason>,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
}

impl Record {
    /// Begins the record of a request.
    pub fn start(
        worker: &Rc<Worker>,
        ends: Ends,
        resolved: &Rc<Resolved>,
        head: &RequestHead,
    ) -> Box<Record> {
        Box::new(Record {
            worker: Rc::clone(worker),
            started: clock::nanos(),
            answered: 0,
            ends,
            resolved: Rc::clone(resolved),
            method: head.method.clone(),
            target: head.target.clone(),
            authority: head.authority.clone(),
            version: head.version,
            route: None,
            cluster: None,
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
    pub fn permitted(&mut self, permit: &Permit) {
        self.policy = permit.policy().cloned();
    }

    /// Notes a denial; yields its reason.
    pub fn denied(&mut self, denial: Denial) -> Reason {
        self.policy = denial.policy;
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
        let counters = self.worker.metrics();
        let elapsed = clock::nanos().saturating_sub(self.started);
        counters.request(self.status, elapsed, self.reason);
        if self.retries > 0 {
            metrics::add(&counters.retries, u64::from(self.retries));
        }
        if let Some(delivery) = &self.delivery {
            metrics::add(&counters.received, delivery.received_bytes);
            metrics::add(&counters.sent, delivery.sent_bytes);
        }
        self.worker.sink().request(self);
    }
}

impl ConnectionRecord {
    /// The record of a connection that has just been accepted.
    pub fn start(ends: Ends, resolved: &Rc<Resolved>) -> ConnectionRecord {
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

    /// The address of the endpoint, or the one that the client asked for.
    pub fn destination(&self) -> SocketAddr {
        self.choice.as_ref().map_or(self.ends.destination, |choice| choice.address)
    }
}
