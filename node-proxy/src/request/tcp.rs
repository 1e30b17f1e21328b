// SPDX-License-Identifier: Apache-2.0
//! Connections that are relayed as bytes: no route is attached and no policy asks for requests.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::net::TcpStream;
use weft_codec::io::{RawStream, RelayBytes, relay};
use weft_ebpf_common::reason::Reason;
use weft_policy::capture::Reading;

use crate::{
    request::Connection,
    state::permit::{Denial, Permit, Verdicts},
    upstream::clock,
    worker::{
        Worker,
        access::ConnectionRecord,
        metrics,
        target::{Choice, Resolved, Target},
    },
};

/// Silence after which a relay ends: two hours, as the kernel's own default for established flows
/// without keep-alive (tcp_keepalive_time).
const IDLE: Duration = Duration::from_secs(7200);

/// How an accepted connection is served.
pub(crate) enum Plan {
    /// Request by request.
    Http,
    /// As bytes, to this endpoint.
    Bytes(Rc<Choice>, Permit),
    /// Not at all.
    Refused(Reason, Option<(Rc<Choice>, Denial)>),
}

/// Decides how a connection is served. Requests are looked at only where a route or a policy asks for
/// it: everything else needs no parser, and so breaks no protocol.
pub(crate) fn plan(connection: &Connection, resolved: &Resolved) -> Plan {
    let worker = &connection.worker;
    let address = match &resolved.target {
        Target::Listener(_) => return Plan::Http,
        Target::Refused(reason) => return Plan::Refused(*reason, None),
        Target::Address(address) => *address,
        Target::Service(service) if service.capture.reading != Reading::Bytes => return Plan::Http,
        Target::Service(service) => {
            let Some(upstream) = resolved.held.state().upstream(service.upstream) else {
                return Plan::Refused(Reason::InvalidBackend, None);
            };
            let endpoints = upstream.endpoints_for(connection.ends.destination.is_ipv6());
            let picked = worker
                .with_picker(|picker| worker.loads().pick(endpoints, &[], picker, clock::nanos()).copied());
            match picked {
                Some(picked) => picked.address,
                None => return Plan::Refused(Reason::NoServiceBackend, None),
            }
        }
    };
    let choice = resolved.choice(address, connection.ends, worker.is_transparent());
    if choice.verdicts.capture().reading != Reading::Bytes {
        return Plan::Http;
    }
    match choice.verdicts.permit_bytes() {
        Ok(permit) => Plan::Bytes(choice, permit),
        Err(denial) => Plan::Refused(denial.reason, Some((choice, denial))),
    }
}

/// Relays a connection until it ends, or until a new state does not permit it any more.
pub(crate) async fn serve(
    connection: &Connection,
    resolved: &Rc<Resolved>,
    stream: TcpStream,
    choice: Rc<Choice>,
    permit: Permit,
) {
    let worker = &connection.worker;
    let mut record = ConnectionRecord::start(connection.ends, resolved);
    record.policy = permit.policy().cloned();
    record.choice = Some(Rc::clone(&choice));
    match worker.pools().dialer().connect(&permit, choice.from, choice.address).await {
        Err(error) => record.reason = Some(error.reason),
        Ok(upstream) => {
            let client = RawStream::new(Box::new(stream), Bytes::new());
            let endpoint = RawStream::new(Box::new(upstream), Bytes::new());
            relay_while_permitted(connection, client, endpoint, Verdicts::permit_bytes, &mut record).await;
        }
    }
    report(worker, record);
}

/// Relays two streams until one ends, or until `decide` denies them at a new state. The record has the
/// endpoint.
pub(crate) async fn relay_while_permitted(
    connection: &Connection,
    client: RawStream,
    endpoint: RawStream,
    decide: impl Fn(&Verdicts) -> Result<Permit, Denial>,
    record: &mut ConnectionRecord,
) {
    let choice = record.choice.clone();
    tokio::select! {
        biased;
        denial = no_longer_permitted(connection, choice.as_deref(), decide) => {
            record.policy = denial.decided.policy;
            record.denied = Some(denial.direction);
            record.reason = Some(Reason::PolicyTightened);
        }
        (bytes, result) = relay(client, endpoint, IDLE) => {
            count(record, bytes);
            if let Err(error) = result {
                tracing::debug!(%error, "a relayed connection was cut");
            }
        }
    }
}

/// Reports a connection that is not served.
pub(crate) fn refuse(
    connection: &Connection,
    resolved: &Rc<Resolved>,
    reason: Reason,
    denied: Option<(Rc<Choice>, Denial)>,
) {
    let mut record = ConnectionRecord::start(connection.ends, resolved);
    record.reason = Some(reason);
    if let Some((choice, denial)) = denied {
        record.choice = Some(choice);
        record.policy = denial.decided.policy;
        record.denied = Some(denial.direction);
    }
    report(&connection.worker, record);
}

/// Ready when a new state denies the connection, or asks for its requests, which it is too late for.
async fn no_longer_permitted(
    connection: &Connection,
    choice: Option<&Choice>,
    decide: impl Fn(&Verdicts) -> Result<Permit, Denial>,
) -> Denial {
    let Some(choice) = choice else { return std::future::pending().await };
    let mut positions = connection.worker.positions();
    loop {
        if positions.changed().await.is_err() {
            // The worker ends: so does the relay, by its own future being dropped.
            std::future::pending::<()>().await;
        }
        let resolved = connection.resolve();
        let now = resolved.choice(choice.address, connection.ends, connection.worker.is_transparent());
        if let Err(denial) = decide(&now.verdicts) {
            return denial;
        }
    }
}

fn count(record: &mut ConnectionRecord, bytes: RelayBytes) {
    record.received = bytes.a_to_b;
    record.sent = bytes.b_to_a;
}

pub(crate) fn report(worker: &Worker, record: ConnectionRecord) {
    let counters = worker.metrics();
    counters.decision(record.reason);
    metrics::add(&counters.received, record.received);
    metrics::add(&counters.sent, record.sent);
    record.report(worker.reports());
}

#[cfg(test)]
mod tests;
