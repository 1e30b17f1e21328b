// SPDX-License-Identifier: Apache-2.0
//! One request through the proxy, as plain code in one written order:
//!
//! 1. say to the endpoint who the client of a Gateway is;
//! 2. normalise: the host in lower case, without its port;
//! 3. match the route; a redirect takes tokens of the limits and answers here;
//! 4. pick the backend, by weight;
//! 5. filters, on a copy;
//! 6. pick an endpoint of the backend ([`exchange`]);
//! 7. decide the client's egress, for that endpoint, on the request as received;
//! 8. decide the ingress of a local endpoint, on the request as it will be sent;
//! 9. rate limits, so that only what is allowed counts;
//! 10. send, with timeouts and retries; each try picks an endpoint and decides again;
//! 11. respond, with the filters of backend and rule.
//!
//! A test holds the steps to this order: what fails at several is refused by the first.

mod connection;
pub(crate) mod exchange;
mod forwarded;
pub(crate) mod reply;
pub(crate) mod tcp;

pub(crate) use connection::Connection;

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use weft_ebpf_common::reason::Reason;
use weft_http::head::Head;

use crate::{
    request::{forwarded::ClientText, reply::Refusal},
    route::{
        filter,
        rule::{Backend, Rule},
    },
    state::upstream::Upstream,
    upstream::balance,
    worker::{
        account::Account,
        target::{Resolved, Served, Target},
    },
};

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Send it.
    Send(Planned),
    /// Answer it with the head that was written, and nothing else.
    Answer,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// To an endpoint of this upstream.
    Upstream(Arc<Upstream>),
    /// To this address.
    Address(SocketAddr),
}

/// What was found out about a request before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// Where it goes.
    pub(crate) destination: Destination,
    /// The rule that matched, and the position of its backend that was picked.
    matched: Option<(Rc<Served>, usize)>,
}

impl Planned {
    fn unmatched(destination: Destination) -> Planned {
        Planned { destination, matched: None }
    }

    /// The rule that matched.
    pub(crate) fn rule(&self) -> Option<&Arc<Rule>> {
        self.matched.as_ref().map(|(served, _)| &served.rule)
    }

    /// The backend that was picked.
    pub(crate) fn backend(&self) -> Option<&Backend> {
        let (served, backend) = self.matched.as_ref()?;
        served.rule.backends.get(*backend)
    }

    /// How much of the path the prefix of the match covered.
    pub(crate) fn prefix(&self) -> Option<usize> {
        self.matched.as_ref().and_then(|(served, _)| served.prefix)
    }
}

impl Connection {
    /// Finds out what is to be done with a request, without waiting for anything. An answer is written to
    /// `answer`.
    fn plan(
        &self,
        resolved: &Resolved,
        account: &mut Account,
        head: &Head,
        answer: &mut Head,
    ) -> Result<Plan, Refusal> {
        match &resolved.target {
            Target::Refused(reason) => Err(Refusal::from(*reason)),
            Target::Address(address) => Ok(Plan::Send(Planned::unmatched(Destination::Address(*address)))),
            Target::Service(service) if service.routes.is_none() => {
                let upstream = resolved.held.state().upstream(service.upstream);
                Ok(Plan::Send(Planned::unmatched(to_upstream(account, upstream)?)))
            }
            Target::Service(_) | Target::Listener(_) => self.by_routes(resolved, account, head, answer),
        }
    }

    fn by_routes(
        &self,
        resolved: &Resolved,
        account: &mut Account,
        head: &Head,
        answer: &mut Head,
    ) -> Result<Plan, Refusal> {
        let served = resolved.route(head).ok_or(Reason::NoRoute)?;
        let (rule, limits) = (&served.rule, resolved.limits());
        account.route = Some(Arc::clone(&rule.label));
        if rule.invalid {
            return Err(Reason::InvalidBackend.into());
        }
        if let Some(redirect) = &rule.redirect {
            self.take_tokens(limits, Some(rule), None)?;
            let port = self.ends.destination.port();
            filter::redirect(redirect, served.prefix, head, port, answer).ok_or(Reason::InvalidBackend)?;
            rule.response.apply(answer)?;
            return Ok(Plan::Answer);
        }
        let backend = self.pick_backend(rule)?;
        let slot = rule.backends.get(backend).and_then(|backend| backend.upstream);
        let upstream = slot.and_then(|slot| resolved.held.state().upstream(slot));
        let destination = to_upstream(account, upstream)?;
        Ok(Plan::Send(Planned { destination, matched: Some((served, backend)) }))
    }

    /// The backend that takes the request, by weight.
    fn pick_backend(&self, rule: &Rule) -> Result<usize, Refusal> {
        if rule.backends.is_empty() {
            return Err(Reason::InvalidBackend.into());
        }
        let total = rule.total_weight();
        if total == 0 {
            return Err(Reason::NoWeight.into());
        }
        let position = match rule.backends.len() {
            1 => 0,
            _ => self.worker.with_picker(|picker| picker.position(total)),
        };
        balance::weighted(&rule.cumulative, position).ok_or_else(|| Reason::InvalidBackend.into())
    }

    /// Says to the backend who the client of a Gateway is.
    fn forwarded(&self, head: &mut Head) -> Result<(), Refusal> {
        let client = self.client.get_or_init(|| ClientText::new(self.ends.client.ip()));
        Ok(forwarded::forwarded(client, head)?)
    }
}

fn to_upstream(account: &mut Account, upstream: Option<&Arc<Upstream>>) -> Result<Destination, Refusal> {
    let upstream = upstream.ok_or(Reason::InvalidBackend)?;
    account.upstream = Some(Arc::clone(&upstream.name));
    if upstream.endpoints.is_empty() {
        return Err(Reason::NoServiceBackend.into());
    }
    Ok(Destination::Upstream(Arc::clone(upstream)))
}
