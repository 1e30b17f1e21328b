// SPDX-License-Identifier: Apache-2.0
//! One request on its way: what was decided about it, and what is still to be. Nothing here does I/O: who
//! moves the bytes asks for one step after the other.

use std::{rc::Rc, sync::Arc, time::Duration};

use weft_ebpf_common::reason::Reason;
use weft_http::head::{Head, Version};
use weft_ir::{AppProtocol, RouteRetry};

use crate::{
    request::{
        Connection, Destination, Plan, Planned,
        reply::{self, Refusal},
    },
    route::{
        rule::{Backend, Rule},
        slots::Slot,
    },
    state::{permit::Permit, upstream::Upstream},
    upstream::pool::PoolKey,
    worker::{
        account::{Account, Reports},
        heads::Heads,
        target::{Choice, Ends, Resolved},
    },
};

/// The pause before the first retry where the route does not say (25 ms, as Envoy).
const BACKOFF: Duration = Duration::from_millis(25);
/// The longest pause, in multiples of the first.
const BACKOFF_LIMIT: u32 = 10;

/// One request, from its head to the last byte of its response.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// As it came from the client.
    pub(crate) received: Box<Head>,
    /// As it goes to the endpoint, where filters change it.
    edited: Option<Box<Head>>,
    /// What is said about it in the end.
    pub(crate) account: Account,
    resolved: Rc<Resolved>,
    planned: Option<Planned>,
    /// Both ends allow it, for the endpoint of the current try.
    permit: Option<Permit>,
    current: Option<Try>,
    /// A connection that was closed while it was idle has cost another already, in this try.
    went_again: bool,
    http2: bool,
    /// Endpoints that were tried.
    tried: Vec<Slot>,
    attempts: u32,
}

/// An endpoint for which there is a permit.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    /// Where to.
    pub(crate) choice: Rc<Choice>,
    /// Which connections carry it.
    pub(crate) key: PoolKey,
}

impl Exchange {
    /// Begins with the head of a request that was read at `now`.
    pub(crate) fn new(connection: &Connection, received: Box<Head>, now: u64) -> Exchange {
        let resolved = connection.resolve();
        Exchange {
            account: Account::start(now),
            received,
            edited: None,
            resolved,
            planned: None,
            permit: None,
            current: None,
            went_again: false,
            http2: false,
            tried: Vec::new(),
            attempts: 0,
        }
    }

    /// Steps 1 to 5: what is to be done with the request. A redirect has its response in `answer`.
    pub(crate) fn plan(
        &mut self,
        connection: &Connection,
        answer: &mut Head,
        spare: &mut Heads,
    ) -> Result<Next, Refusal> {
        if connection.is_gateway() {
            connection.forwarded(&mut self.received)?;
        }
        match connection.plan(&self.resolved, &mut self.account, &self.received, answer)? {
            Plan::Answer => Ok(Next::Answer),
            Plan::Send(planned) => {
                self.http2 = speaks_http2(connection, &planned.destination, &self.received);
                self.planned = Some(planned);
                self.filter(spare)?;
                Ok(Next::Send)
            }
        }
    }

    /// Does the filters of rule and backend on a copy, so that egress is decided on the original.
    fn filter(&mut self, spare: &mut Heads) -> Result<(), Refusal> {
        let Some(planned) = &self.planned else { return Ok(()) };
        let (Some(rule), Some(backend)) = (planned.rule(), planned.backend()) else { return Ok(()) };
        if rule.request.is_empty() && backend.request.is_empty() && rule.rewrite.is_none() {
            return Ok(());
        }
        let mut edited = spare.lend();
        edited.clone_from(&self.received);
        let rewrite = rule.rewrite.as_ref();
        let done = rewrite
            .map_or(Ok(()), |rewrite| rewrite.apply(planned.prefix(), &mut edited))
            .and_then(|()| rule.request.apply_to_request(&mut edited))
            .and_then(|()| backend.request.apply_to_request(&mut edited));
        self.edited = Some(edited);
        done.map_err(|_invalid| Reason::InvalidBackend.into())
    }

    /// Steps 6 to 9: an endpoint that both ends' policies allow, within the limits. Each try asks again; only
    /// the first takes tokens.
    pub(crate) fn next_try(&mut self, connection: &Connection, now: u64) -> Result<Try, Refusal> {
        // Policy is that of now, also for a try that comes later.
        self.resolved = connection.resolve();
        let (choice, slot) = self.pick(connection, now);
        self.permit = None;
        let permit = self.authorise(&choice)?;
        if self.attempts == 0 {
            let (rule, upstream) = (self.rule(), self.upstream());
            connection.take_tokens(self.resolved.limits(), rule.map(Arc::as_ref), upstream)?;
            if self.retry().is_some()
                && let Some(upstream) = upstream
            {
                connection.worker.deposit(upstream.slot);
            }
        }
        self.permit = Some(permit);
        self.attempts += 1;
        self.account.retries = self.attempts - 1;
        if self.retry().is_some() {
            self.tried.extend(slot);
        }
        self.account.in_flight = slot.map(|slot| connection.worker.loads().start(slot));
        self.account.tried = now;
        let key = PoolKey { from: choice.from, to: choice.address, http2: self.http2 };
        let attempt = Try { choice, key };
        self.current = Some(attempt.clone());
        self.went_again = false;
        Ok(attempt)
    }

    fn pick(&mut self, connection: &Connection, now: u64) -> (Rc<Choice>, Option<Slot>) {
        let (worker, ends) = (&connection.worker, connection.ends);
        let (address, slot) = match self.planned.as_ref().map(|planned| &planned.destination) {
            Some(Destination::Upstream(upstream)) => {
                let endpoints = upstream.endpoints_for(ends.client.is_ipv6());
                let picked = worker
                    .with_picker(|picker| worker.loads().pick(endpoints, &self.tried, picker, now).copied());
                picked.map_or((ends.destination, None), |picked| (picked.address, Some(picked.slot)))
            }
            Some(Destination::Address(address)) => (*address, None),
            None => (ends.destination, None),
        };
        let choice = self.resolved.choice(address, ends, worker.is_transparent());
        self.account.choice = Some(Rc::clone(&choice));
        (choice, slot)
    }

    /// Decides both ends for the chosen endpoint.
    fn authorise(&mut self, choice: &Choice) -> Result<Permit, Refusal> {
        let permit = choice
            .verdicts
            .permit_egress(&self.received)
            .and_then(|egress| choice.verdicts.permit_ingress(egress, self.sent()));
        match permit {
            Ok(permit) => {
                self.account.policy = permit.policy().cloned();
                Ok(permit)
            }
            Err(denial) => Err(self.account.denied(denial).into()),
        }
    }

    /// Whether its current try goes to that endpoint.
    pub(crate) fn is_for(&self, key: PoolKey) -> bool {
        self.permit.is_some() && self.current.as_ref().is_some_and(|attempt| attempt.key == key)
    }

    /// The endpoint of the current try.
    pub(crate) fn current(&self) -> Option<Try> {
        self.current.clone()
    }

    /// Decides again for the endpoint of the current try, which had to wait, where the state is another now.
    pub(crate) fn permit_again(&mut self, connection: &Connection) -> Result<(), Refusal> {
        let resolved = connection.resolve();
        if Rc::ptr_eq(&resolved.held, &self.resolved.held) {
            return Ok(());
        }
        self.resolved = resolved;
        let Some(attempt) = self.current.clone() else { return Err(Reason::Internal.into()) };
        let (worker, ends) = (&connection.worker, connection.ends);
        let choice = self.resolved.choice(attempt.choice.address, ends, worker.is_transparent());
        self.permit = None;
        self.permit = Some(self.authorise(&choice)?);
        Ok(())
    }

    /// The current try is over, and with it what permitted it.
    pub(crate) fn between_tries(&mut self) {
        (self.permit, self.current) = (None, None);
    }

    /// The head as it goes to the endpoint.
    pub(crate) fn sent(&self) -> &Head {
        self.edited.as_deref().unwrap_or(&self.received)
    }

    /// The permit of the current try.
    pub(crate) fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// Whether the client expects an answer in gRPC's form.
    pub(crate) fn is_grpc(&self) -> bool {
        reply::is_grpc(&self.received)
    }

    /// The route's timeouts: for the whole, and for one try.
    pub(crate) fn timeouts(&self) -> (Option<Duration>, Option<Duration>) {
        let timeouts = self.rule().map(|rule| &rule.timeouts);
        (timeouts.and_then(|all| all.request), timeouts.and_then(|all| all.backend_request))
    }

    /// Notes the head of the endpoint's response, or its absence.
    pub(crate) fn answered(&mut self, status: Option<u16>, now: u64) {
        self.account.answered = now;
        if let Some(in_flight) = &self.account.in_flight {
            let failed = status.is_none_or(|status| matches!(status, 502..=504));
            in_flight.answered(now.saturating_sub(self.account.tried), failed, now);
        }
    }

    /// Whether the route wants another try after this status, or after no response for this reason. `safe`:
    /// the endpoint never saw the request.
    pub(crate) fn wants_retry(&self, connection: &Connection, outcome: Outcome, now: u64) -> bool {
        let Some(retry) = self.retry() else { return false };
        let wanted = match outcome {
            Outcome::Status(status) => retry.codes.contains(&status),
            Outcome::Failed { reason, safe } => {
                let upstream = matches!(
                    reason,
                    Reason::UpstreamConnectFailed | Reason::UpstreamReset | Reason::UpstreamTimeout
                );
                upstream || safe
            }
        };
        wanted
            && self.attempts <= retry.attempts
            && self.upstream().is_some_and(|upstream| connection.worker.withdraw(upstream.slot, now))
    }

    /// How long to wait before the next try: exponential, with jitter over the whole span.
    pub(crate) fn pause(&self, connection: &Connection) -> Duration {
        let base = self.retry().and_then(|retry| retry.backoff).unwrap_or(BACKOFF);
        let factor =
            1_u32.checked_shl(self.attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(BACKOFF_LIMIT);
        let micros = u32::try_from(base.saturating_mul(factor).as_micros()).unwrap_or(u32::MAX);
        let drawn = connection.worker.with_picker(|picker| picker.below(micros));
        Duration::from_micros(u64::from(drawn))
    }

    /// Does the filters of backend and rule on the head of the response.
    pub(crate) fn respond(&self, head: &mut Head) -> Result<(), Refusal> {
        if let Some(backend) = self.backend() {
            backend.response.apply(head)?;
        }
        if let Some(rule) = self.rule() {
            rule.response.apply(head)?;
        }
        Ok(())
    }

    /// Reports it.
    pub(crate) fn report(&self, reports: &Reports, ends: Ends, now: u64) {
        self.account.report_request(reports, &self.resolved, ends, &self.received, now);
    }

    /// The request is done, and what it led to is relayed: that is an account of its own.
    pub(crate) fn begin_relay(&mut self, now: u64) {
        let choice = self.account.choice.clone();
        self.account = Account { choice, ..Account::start(now) };
    }

    /// Reports what was relayed.
    pub(crate) fn report_relay(&self, reports: &Reports, ends: Ends, now: u64) {
        self.account.report_connection(reports, &self.resolved, ends, now);
    }

    /// The endpoint of the current try, once more: its connection was closed before it saw the request.
    pub(crate) fn again(&mut self) -> Option<Try> {
        self.current.clone().filter(|_| !std::mem::replace(&mut self.went_again, true))
    }

    /// Gives back the buffers.
    pub(crate) fn recycle(self, spare: &mut Heads) {
        spare.take_back(self.received);
        if let Some(edited) = self.edited {
            spare.take_back(edited);
        }
    }

    fn retry(&self) -> Option<&RouteRetry> {
        self.rule().and_then(|rule| rule.retry.as_ref()).filter(|retry| retry.attempts > 0)
    }

    /// Whether another try may follow the current one, so that the content has to be kept.
    pub(crate) fn may_retry(&self) -> bool {
        self.retry().is_some_and(|retry| self.attempts <= retry.attempts)
    }

    fn rule(&self) -> Option<&Arc<Rule>> {
        self.planned.as_ref().and_then(Planned::rule)
    }

    fn backend(&self) -> Option<&Backend> {
        self.planned.as_ref().and_then(Planned::backend)
    }

    fn upstream(&self) -> Option<&Upstream> {
        match &self.planned.as_ref()?.destination {
            Destination::Upstream(upstream) => Some(upstream),
            Destination::Address(_) => None,
        }
    }
}

/// What is to be done next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// Send it.
    Send,
    /// Answer it with the head that was written, and nothing else.
    Answer,
}

/// What a try led to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// A response with this status.
    Status(u16),
    /// No response.
    Failed {
        /// Why.
        reason: Reason,
        /// The endpoint never saw the request.
        safe: bool,
    },
}

/// HTTP/2 where the Service says so, and for gRPC, which needs it. Otherwise a redirected client is kept
/// at what it chose to speak, since without Weft it would speak it to the endpoint; the clients of a
/// Gateway have chosen it for the Gateway only, so endpoints get HTTP/1.1.
fn speaks_http2(connection: &Connection, destination: &Destination, head: &Head) -> bool {
    let declared = match destination {
        Destination::Upstream(upstream) => upstream.protocol == AppProtocol::Http2,
        Destination::Address(_) => false,
    };
    let chosen = head.version() == Version::Http2 && (!connection.is_gateway() || reply::is_grpc(head));
    declared || chosen
}
