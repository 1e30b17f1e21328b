// SPDX-License-Identifier: Apache-2.0
//! Makes flows of what the workers recorded, when somebody looks at them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;
use weft_ebpf_common::reason::Reason;
use weft_flow_export::{
    Event, Flow, FlowBatch, FlowEndpoint, FlowSource, Http, IpProtocol, L4, Taken, TcpFlags, Verdict, enrich,
    flow::{MAX_NAME_BYTES, MAX_PATH_BYTES, bounded},
};
use weft_ir::IdentityNumber;
use weft_policy::Directory;
use weft_time::Timestamp;

use crate::{
    state::MeshState,
    upstream::clock,
    worker::records::{Named, Pile, Records, RequestLine, Spoken},
};

/// The records of one worker as flows.
#[derive(Debug)]
pub(crate) struct WorkerFlows {
    records: Records,
    naming: watch::Receiver<Arc<MeshState>>,
}

/// Records that were taken together.
#[derive(Debug)]
struct Batch {
    /// Before somebody looks at one.
    pile: Mutex<Option<Pile>>,
    /// After.
    records: OnceLock<Vec<Recorded>>,
    /// The state in which their addresses have names.
    state: Arc<MeshState>,
    /// When the process started, by the clock of its records.
    started: SystemTime,
}

/// A record, and its flow once somebody wanted it.
#[derive(Debug)]
struct Recorded {
    record: Named,
    flow: OnceLock<Arc<Flow>>,
}

impl WorkerFlows {
    /// Flows of these records, with the names that the state has when they are taken.
    pub(crate) fn new(records: Records, naming: watch::Receiver<Arc<MeshState>>) -> WorkerFlows {
        WorkerFlows { records, naming }
    }
}

impl FlowSource for WorkerFlows {
    fn take(&mut self) -> Option<Taken> {
        let lost = self.records.lost();
        let (ended, pile) = self.records.take_all();
        if ended.is_empty() && lost == 0 {
            return None;
        }
        let started = SystemTime::now() - Duration::from_nanos(clock::nanos());
        let state = Arc::clone(&self.naming.borrow());
        let batch = Batch { pile: Mutex::new(Some(pile)), records: OnceLock::new(), state, started };
        Some(Taken { ended, batch: Arc::new(batch), lost })
    }
}

impl Batch {
    fn records(&self) -> &[Recorded] {
        self.records.get_or_init(|| {
            let pile = self.pile.lock().unwrap_or_else(PoisonError::into_inner).take();
            let named = pile.map(|pile| pile.named()).unwrap_or_default();
            named.into_iter().map(|record| Recorded { record, flow: OnceLock::new() }).collect()
        })
    }
}

impl FlowBatch for Batch {
    fn flow(&self, at: usize) -> Arc<Flow> {
        let Recorded { record, flow } = &self.records()[at];
        Arc::clone(flow.get_or_init(|| {
            let time = self.started + Duration::from_nanos(record.ended.ended);
            Arc::new(named(self.state.directory(), Timestamp::from(time), record))
        }))
    }
}

/// The flow of a record.
fn named(directory: &Directory, time: Timestamp, record: &Named) -> Flow {
    let ended = &record.ended;
    let (client, server) = both(directory, record);
    let answered = record.request.is_some() && is_answered(ended.reason);
    let (source, destination) = if answered { (server, client) } else { (client, server) };
    Flow {
        time,
        node: Arc::clone(directory.node()),
        revision: ended.position,
        source,
        destination,
        direction: ended.direction,
        verdict: verdict(ended.reason),
        reason: ended.reason,
        policies: record.policy.iter().cloned().collect(),
        l4: L4 { protocol: IpProtocol::TCP, flags: TcpFlags::default() },
        http: record.request.as_ref().map(|line| http(record, line)),
        is_reply: Some(answered),
        event: event(record, answered),
    }
}

fn event(record: &Named, answered: bool) -> Event {
    let ended = &record.ended;
    match (&record.request, verdict(ended.reason)) {
        (Some(_), _) if answered => Event::HttpResponse,
        (Some(_), _) => Event::HttpRequest,
        (None, Verdict::Dropped) if ended.received == 0 && ended.sent == 0 => Event::Drop,
        (None, _) => Event::Close {
            bytes_sent: ended.received,
            bytes_received: ended.sent,
            packets: 0,
            duration_ns: ended.ended.saturating_sub(ended.began),
            retransmits: 0,
        },
    }
}

fn http(record: &Named, line: &RequestLine) -> Http {
    let protocol = match line.version {
        Spoken::Http2 => "HTTP/2",
        Spoken::Http11 => "HTTP/1.1",
        Spoken::Http10 => "HTTP/1.0",
    };
    Http {
        protocol: protocol.into(),
        method: bounded(record.method(), MAX_NAME_BYTES),
        path: bounded(record.target(), MAX_PATH_BYTES),
        authority: bounded(record.authority(), MAX_NAME_BYTES),
        status: line.status,
        latency_ns: line.latency,
        route: record.route.clone().unwrap_or_default(),
    }
}

/// Client and server as flows name them.
fn both(directory: &Directory, record: &Named) -> (FlowEndpoint, FlowEndpoint) {
    let end = |address: SocketAddr, identity: IdentityNumber| {
        enrich::endpoint(directory, address.ip(), address.port(), identity.0)
    };
    let ended = &record.ended;
    let mut server = end(ended.endpoint.unwrap_or(ended.destination), ended.endpoint_identity);
    let asked = |ip: IpAddr, port| directory.service(ip, port, IpProtocol::TCP.0).cloned();
    let service = record.upstream.clone().or_else(|| asked(ended.destination.ip(), ended.destination.port()));
    if let Some(service) = service {
        server.service = service;
    }
    (end(ended.client, ended.client_identity), server)
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
