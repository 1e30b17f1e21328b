// SPDX-License-Identifier: Apache-2.0
//! Connections that are relayed as bytes: no route is attached and no policy asks for requests.

use std::rc::Rc;

use weft_ebpf_common::reason::Reason;
use weft_policy::capture::Reading;

use crate::{
    request::Connection,
    state::permit::{Denial, Permit},
    upstream::clock,
    worker::{
        account::Account,
        target::{Choice, Resolved, Target},
    },
};

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

/// Reports a connection that is not served.
pub(crate) fn refuse(
    connection: &Connection,
    resolved: &Resolved,
    reason: Reason,
    denied: Option<(Rc<Choice>, Denial)>,
    now: u64,
) {
    let mut account = Account::start(now);
    if let Some((choice, denial)) = denied {
        account.choice = Some(choice);
        account.denied(denial);
    }
    account.reason = Some(reason);
    account.report_connection(connection.worker.reports(), resolved, connection.ends, now);
}

#[cfg(test)]
mod tests;
