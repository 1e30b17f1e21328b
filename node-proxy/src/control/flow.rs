// SPDX-License-Identifier: Apache-2.0
//! Makes flows of finished records.

use std::{cell::RefCell, net::SocketAddr, sync::Arc, time::SystemTime};

use http::{Method, Version, uri::Authority};
use weft_ebpf_common::reason::Reason;
use weft_flow_export::{
    Event, Flow, FlowEndpoint, FlowProducer, Http, L4, Protocol, TcpFlags, Timestamp, Verdict, enrich,
    flow::{MAX_NAME_BYTES, MAX_PATH_BYTES, bounded},
};
use weft_ir::Direction;
use weft_policy::{Party, Place};

use crate::{
    upstream::clock,
    worker::{
        access::{ConnectionRecord, Record, RecordSink},
        target::{Choice, Ends, Resolved, Target},
    },
};

/// Leaves flows in the queue of its worker; what does not fit is counted as lost.
#[derive(Debug)]
pub(crate) struct FlowSink {
    producer: FlowProducer,
    texts: RefCell<Texts>,
}

/// Texts that repeat from flow to flow, so that most flows share them instead of copying them.
#[derive(Debug)]
struct Texts {
    methods: Vec<(Method, Arc<str>)>,
    authority: Arc<str>,
    http2: Arc<str>,
    http11: Arc<str>,
    http10: Arc<str>,
    none: Arc<str>,
}

/// Methods that are remembered; a client that invents more gets copies.
const MAX_METHODS: usize = 16;

impl FlowSink {
    /// A sink that fills this queue.
    pub(crate) fn new(producer: FlowProducer) -> FlowSink {
        let texts = Texts {
            methods: Vec::new(),
            authority: Arc::default(),
            http2: "HTTP/2".into(),
            http11: "HTTP/1.1".into(),
            http10: "HTTP/1.0".into(),
            none: Arc::default(),
        };
        FlowSink { producer, texts: RefCell::new(texts) }
    }
}

impl RecordSink for FlowSink {
    fn request(&self, record: &Record) {
        let answered = is_answered(record.reason);
        let (client, mut server) = both(&record.resolved, record.ends, record.choice.as_deref());
        if let Some(service) = &record.cluster {
            server.service = Arc::clone(service);
        }
        let (source, destination) = if answered { (server, client) } else { (client, server) };
        self.producer.send(Flow {
            time: Timestamp::from(SystemTime::now()),
            node: Arc::clone(record.resolved.held.state().directory().node()),
            revision: record.resolved.held.state().position,
            source,
            destination,
            direction: direction(&record.resolved, record.denied),
            verdict: verdict(record.reason),
            reason: record.reason,
            policies: record.policy.iter().cloned().collect(),
            l4: L4 { protocol: Protocol::TCP, flags: TcpFlags::default() },
            http: Some(self.texts.borrow_mut().http(record)),
            is_reply: Some(answered),
            event: if answered { Event::HttpResponse } else { Event::HttpRequest },
        });
    }

    fn connection(&self, record: &ConnectionRecord) {
        let (source, destination) = both(&record.resolved, record.ends, record.choice.as_deref());
        let event = match verdict(record.reason) {
            Verdict::Dropped if record.received == 0 && record.sent == 0 => Event::Drop,
            _ => Event::Close {
                bytes_sent: record.received,
                bytes_received: record.sent,
                packets: 0,
                duration_ns: clock::nanos().saturating_sub(record.started),
                retransmits: 0,
            },
        };
        self.producer.send(Flow {
            time: Timestamp::from(SystemTime::now()),
            node: Arc::clone(record.resolved.held.state().directory().node()),
            revision: record.resolved.held.state().position,
            source,
            destination,
            direction: direction(&record.resolved, record.denied),
            verdict: verdict(record.reason),
            reason: record.reason,
            policies: record.policy.iter().cloned().collect(),
            l4: L4 { protocol: Protocol::TCP, flags: TcpFlags::default() },
            http: None,
            is_reply: Some(false),
            event,
        });
    }
}

/// Client and server as flows name them.
fn both(resolved: &Resolved, ends: Ends, choice: Option<&Choice>) -> (FlowEndpoint, FlowEndpoint) {
    let state = resolved.held.state();
    let end = |address: SocketAddr, party: &Party| {
        enrich::endpoint(state.directory(), address.ip(), address.port(), party.identity.0)
    };
    let client = resolved.flow_client.get_or_init(|| end(ends.client, &resolved.client));
    let server = match choice {
        Some(choice) => choice
            .flow
            .get_or_init(|| {
                let mut server = end(choice.address, &choice.peer);
                if let Some(service) = asked(resolved, ends) {
                    server.service = service;
                }
                server
            })
            .clone(),
        None => {
            let mut server = end(ends.destination, state.peer(ends.destination.ip()));
            server.service = asked(resolved, ends).unwrap_or_default();
            server
        }
    };
    (client.clone(), server)
}

/// The Service that the client asked for.
fn asked(resolved: &Resolved, ends: Ends) -> Option<Arc<str>> {
    let directory = resolved.held.state().directory();
    directory.service(ends.destination.ip(), ends.destination.port(), Protocol::TCP.0).cloned()
}

impl Texts {
    fn http(&mut self, record: &Record) -> Http {
        let protocol = match record.version {
            Version::HTTP_2 => &self.http2,
            Version::HTTP_10 => &self.http10,
            _ => &self.http11,
        };
        Http {
            protocol: Arc::clone(protocol),
            method: self.method(&record.method),
            path: bounded(record.target.as_str(), MAX_PATH_BYTES),
            authority: self.authority(record.authority.as_ref()),
            status: record.status,
            latency_ns: record.answered.saturating_sub(record.started),
            route: Arc::clone(record.route.as_ref().unwrap_or(&self.none)),
        }
    }

    fn method(&mut self, method: &Method) -> Arc<str> {
        if let Some((_, text)) = self.methods.iter().find(|(known, _)| known == method) {
            return Arc::clone(text);
        }
        let text = bounded(method.as_str(), MAX_NAME_BYTES);
        if self.methods.len() < MAX_METHODS {
            self.methods.push((method.clone(), Arc::clone(&text)));
        }
        text
    }

    /// The last authority is remembered: most of a worker's traffic is for few.
    fn authority(&mut self, authority: Option<&Authority>) -> Arc<str> {
        let text = authority.map_or("", Authority::as_str);
        if *self.authority != *text {
            self.authority = bounded(text, MAX_NAME_BYTES);
        }
        Arc::clone(&self.authority)
    }
}

/// Whether the response is the endpoint's, at least its head.
fn is_answered(reason: Option<Reason>) -> bool {
    reason.is_none()
}

fn verdict(reason: Option<Reason>) -> Verdict {
    match reason {
        None => Verdict::Forwarded,
        Some(
            Reason::PolicyDenied
            | Reason::DeniedByRule
            | Reason::AuthenticationRequired
            | Reason::HttpPolicyDenied
            | Reason::NoPolicyConfig
            | Reason::PolicyTightened
            | Reason::RateLimited
            | Reason::UnknownSource
            | Reason::UnknownDestination
            | Reason::NoState,
        ) => Verdict::Dropped,
        Some(_) => Verdict::Error,
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
