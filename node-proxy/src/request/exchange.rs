// SPDX-License-Identifier: Apache-2.0
//! Sends one request to an endpoint: pick, decide, filter, limit, send, try again.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use tokio::time;
use weft_codec::{
    body::Body,
    error::{Retry, UpstreamError},
    message::{RequestHead, Response, ResponseHead},
};
use weft_ebpf_common::reason::Reason;
use weft_ir::{AppProtocol, RouteRetry};

use crate::{
    request::{
        Connection, deadline,
        replay::Replayable,
        reply::{self, Refusal},
        upgrade::Upgraded,
    },
    route::{
        Matched,
        ratelimit::RateLimiter,
        rule::{Backend, Rule},
        slots::Slot,
    },
    state::{permit::Permit, upstream::Upstream},
    upstream::{
        balance::InFlight,
        clock,
        pool::{Pool, PoolKey, Pools},
    },
    worker::{
        access::Record,
        target::{Choice, Resolved},
    },
};

/// The pause before the first retry where the route does not say (25 ms, as Envoy).
const BACKOFF: Duration = Duration::from_millis(25);
/// The longest pause, in multiples of the first.
const BACKOFF_LIMIT: u32 = 10;

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination<'a> {
    /// To an endpoint of this upstream.
    Upstream(&'a Arc<Upstream>),
    /// To this address.
    Address(SocketAddr),
}

/// What was found out about a request before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending<'a> {
    /// Where it goes.
    pub(crate) destination: Destination<'a>,
    /// The rule that matched, and the position of its backend that was picked.
    pub(crate) matched: Option<(Matched<'a>, usize)>,
    /// Rate limits on the Service that was asked for.
    pub(crate) limits: &'a [Arc<RateLimiter>],
}

/// One request on its way to its endpoint.
struct Exchange<'a> {
    connection: &'a Connection,
    resolved: &'a Resolved,
    record: &'a mut Record,
    sending: Sending<'a>,
    rule: Option<&'a Rule>,
    backend: Option<&'a Backend>,
    /// As it came from the client.
    received: &'a RequestHead,
    /// As it goes to the endpoint, where filters change it.
    edited: Option<Box<RequestHead>>,
    /// When the route's timeout for the whole exchange ends.
    deadline: Option<Instant>,
    http2: bool,
    tried: Vec<Slot>,
    /// When the current try began, in nanoseconds since the start of the process.
    now: u64,
}

/// What one try led to.
struct Tried {
    result: Result<(ResponseHead, Body), UpstreamError>,
    /// When the route's timeout for one try ends.
    deadline: Option<Instant>,
}

/// Sends a request and yields the response, or why there is none.
pub(crate) fn exchange<'a>(
    connection: &'a Connection,
    resolved: &'a Resolved,
    record: &'a mut Record,
    sending: Sending<'a>,
    received: &'a RequestHead,
    body: Body,
) -> impl Future<Output = Result<Response, Refusal>> + 'a {
    let rule = sending.matched.as_ref().map(|(matched, _)| matched.rule.as_ref());
    let backend = sending.matched.as_ref().and_then(|(matched, index)| matched.rule.backends.get(*index));
    let timeout = rule.and_then(|rule| rule.timeouts.request);
    let exchange = Exchange {
        http2: speaks_http2(connection, sending.destination, received),
        now: record.started,
        connection,
        resolved,
        record,
        sending,
        rule,
        backend,
        received,
        edited: None,
        deadline: timeout.map(|timeout| Instant::now() + timeout),
        tried: Vec::new(),
    };
    exchange.run(body)
}

impl Exchange<'_> {
    async fn run(mut self, body: Body) -> Result<Response, Refusal> {
        self.filter()?;
        let (choice, slot) = self.pick();
        let permit = self.authorise(&choice)?;
        self.connection.take_tokens(self.sending.limits, self.rule, self.upstream())?;
        let retry = self.rule.and_then(|rule| rule.retry.as_ref()).filter(|retry| retry.attempts > 0);
        let tried = match retry {
            None => self.try_once(&choice, slot, &permit, body).await,
            Some(retry) => Box::pin(self.try_several(retry, choice, slot, permit, body)).await?,
        };
        self.respond(tried)
    }

    async fn try_several(
        &mut self,
        retry: &RouteRetry,
        choice: Rc<Choice>,
        slot: Option<Slot>,
        permit: Permit,
        body: Body,
    ) -> Result<Tried, Refusal> {
        if let Some(upstream) = self.upstream() {
            self.connection.worker.deposit(upstream.slot);
        }
        let bodies = Replayable::new(body);
        let first = bodies.body().ok_or(Reason::Internal)?;
        let mut tried = self.try_once(&choice, slot, &permit, first).await;
        self.tried.extend(slot);
        for attempt in 0..retry.attempts {
            let Some(body) = self.next_body(retry, &tried, &bodies) else { break };
            if !self.pause(retry, attempt).await {
                return Err(Reason::UpstreamTimeout.into());
            }
            self.record.retries += 1;
            self.now = clock::nanos();
            let (choice, slot) = self.pick();
            let permit = self.authorise(&choice)?;
            tried = self.try_once(&choice, slot, &permit, body).await;
            self.tried.extend(slot);
        }
        Ok(tried)
    }

    /// Does the filters of rule and backend on a copy, so that egress is decided on the original.
    fn filter(&mut self) -> Result<(), Refusal> {
        let (Some((matched, _)), Some(backend)) = (self.sending.matched, self.backend) else { return Ok(()) };
        let rule = matched.rule;
        if rule.request.is_empty() && backend.request.is_empty() && rule.rewrite.is_none() {
            return Ok(());
        }
        let mut head = Box::new(self.received.clone());
        rule.request.apply_to_request(&mut head);
        if let Some(rewrite) = &rule.rewrite
            && !rewrite.apply(matched.prefix, &mut head)
        {
            return Err(Reason::InvalidBackend.into());
        }
        backend.request.apply_to_request(&mut head);
        self.edited = Some(head);
        Ok(())
    }

    fn pick(&mut self) -> (Rc<Choice>, Option<Slot>) {
        let worker = &self.connection.worker;
        let (address, slot) = match self.sending.destination {
            Destination::Address(address) => (address, None),
            Destination::Upstream(upstream) => {
                let now = self.now;
                let endpoints = upstream.endpoints_for(self.connection.ends.destination.is_ipv6());
                let picked = worker
                    .with_picker(|picker| worker.loads().pick(endpoints, &self.tried, picker, now).copied());
                // An upstream without endpoints was refused before.
                picked.map_or((self.connection.ends.destination, None), |picked| {
                    (picked.address, Some(picked.slot))
                })
            }
        };
        let choice = self.resolved.choice(address, self.connection.ends, worker.is_transparent());
        self.record.choice = Some(Rc::clone(&choice));
        (choice, slot)
    }

    /// Decides both ends for the chosen endpoint.
    fn authorise(&mut self, choice: &Choice) -> Result<Permit, Refusal> {
        let sent = self.edited.as_deref().unwrap_or(self.received);
        let permit = choice
            .verdicts
            .permit_egress(self.received)
            .and_then(|egress| choice.verdicts.permit_ingress(egress, sent));
        match permit {
            Ok(permit) => {
                self.record.permitted(&permit);
                Ok(permit)
            }
            Err(denial) => Err(self.record.denied(denial).into()),
        }
    }

    async fn try_once(&mut self, choice: &Choice, slot: Option<Slot>, permit: &Permit, body: Body) -> Tried {
        let worker = &self.connection.worker;
        let pool = choice.pool(worker.pools(), self.http2);
        let in_flight = slot.map(|slot| worker.loads().start(slot));
        let started = self.now;
        let per_try = self.rule.and_then(|rule| rule.timeouts.backend_request);
        let deadline = earlier(self.deadline, per_try.map(|timeout| Instant::now() + timeout));
        let head = self.edited.as_deref().unwrap_or(self.received);
        let result = send(&pool, permit, head, body, deadline, started).await;
        self.record.answered = clock::nanos();
        measure(in_flight.as_ref(), started, self.record.answered, &result);
        // Counts as in flight until the response was delivered.
        self.record.in_flight = in_flight;
        Tried { result, deadline }
    }

    /// The body for another try, if there is to be one.
    fn next_body(&self, retry: &RouteRetry, tried: &Tried, bodies: &Replayable) -> Option<Body> {
        let wanted = match &tried.result {
            Ok((head, _)) => retry.codes.contains(&head.status.as_u16()),
            Err(error) => {
                let upstream = matches!(
                    error.reason,
                    Reason::UpstreamConnectFailed | Reason::UpstreamReset | Reason::UpstreamTimeout
                );
                upstream || error.retry == Retry::Safe
            }
        };
        if !wanted || self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        let body = bodies.body()?;
        let within = match self.upstream() {
            Some(upstream) => self.connection.worker.withdraw(upstream.slot, clock::nanos()),
            None => false,
        };
        within.then_some(body)
    }

    /// Waits before a retry: exponential, with jitter over the whole span. False when the route's
    /// timeout ends before.
    async fn pause(&self, retry: &RouteRetry, attempt: u32) -> bool {
        let base = retry.backoff.unwrap_or(BACKOFF);
        let factor = 1_u32.checked_shl(attempt).unwrap_or(u32::MAX).min(BACKOFF_LIMIT);
        let longest = base.saturating_mul(factor);
        let micros = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
        let drawn = self.connection.worker.with_picker(|picker| picker.below(micros));
        let until = Instant::now() + Duration::from_micros(u64::from(drawn));
        match self.deadline {
            Some(deadline) if until >= deadline => {
                time::sleep_until(deadline.into()).await;
                false
            }
            _ => {
                time::sleep_until(until.into()).await;
                true
            }
        }
    }

    fn respond(self, tried: Tried) -> Result<Response, Refusal> {
        let (mut head, body) = match tried.result {
            Ok(parts) => parts,
            Err(error) => {
                tracing::debug!(%error, route = self.record.route.as_deref(), "no response from the endpoint");
                return Err(error.reason.into());
            }
        };
        if let Some(backend) = self.backend {
            backend.response.apply(&mut head.headers);
        }
        if let Some(rule) = self.rule {
            rule.response.apply(&mut head.headers);
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(self.switched(head, body));
        }
        let body = match tried.deadline {
            Some(deadline) if !body.is_end() => deadline::body_until(body, deadline),
            _ => body,
        };
        Ok(Response::new(head, body))
    }

    fn switched(self, head: ResponseHead, body: Body) -> Response {
        let (endpoint, choice) = match (body.into_upgraded(), self.record.choice.clone()) {
            (Ok(endpoint), Some(choice)) => (endpoint, choice),
            // A switch without a stream is refused by the codec.
            (Ok(_), None) => return Response::new(head, Body::empty()),
            (Err(body), _) => return Response::new(head, body),
        };
        let upgraded = Upgraded {
            connection: Connection::new(Rc::clone(&self.connection.worker), self.connection.ends),
            choice,
            received: self.received.clone(),
            sent: self.edited,
        };
        let mut response = Response::new(head, Body::empty());
        response.on_upgrade = Some(upgraded.into_hook(endpoint));
        response
    }

    fn upstream(&self) -> Option<&Upstream> {
        match self.sending.destination {
            Destination::Upstream(upstream) => Some(upstream),
            Destination::Address(_) => None,
        }
    }
}

impl Choice {
    /// The connections of this client to this endpoint.
    fn pool(&self, pools: &Pools, http2: bool) -> Rc<Pool> {
        let kept = if http2 { &self.http2 } else { &self.http1 };
        Rc::clone(kept.get_or_init(|| pools.pool(PoolKey { from: self.from, to: self.address, http2 })))
    }
}

/// Sends on a connection of the pool, within the route's timeouts.
async fn send(
    pool: &Pool,
    permit: &Permit,
    head: &RequestHead,
    body: Body,
    deadline: Option<Instant>,
    now: u64,
) -> Result<(ResponseHead, Body), UpstreamError> {
    let sending = pool.send(permit, head, body, now);
    match deadline {
        None => sending.await,
        Some(deadline) => match time::timeout_at(deadline.into(), sending).await {
            Ok(result) => result,
            Err(_elapsed) => Err(UpstreamError {
                reason: Reason::UpstreamTimeout,
                detail: "the backend did not answer within the route's timeout",
                retry: Retry::No,
                unsent_body: None,
            }),
        },
    }
}

fn measure(
    in_flight: Option<&InFlight>,
    started: u64,
    now: u64,
    result: &Result<(ResponseHead, Body), UpstreamError>,
) {
    let Some(in_flight) = in_flight else { return };
    let failed = match result {
        Ok((head, _)) => matches!(head.status.as_u16(), 502..=504),
        Err(_) => true,
    };
    in_flight.answered(now.saturating_sub(started), failed, now);
}

/// HTTP/2 where the Service says so, and for gRPC, which needs it. Otherwise a redirected client is kept
/// at what it chose to speak, since without Weft it would speak it to the endpoint; the clients of a
/// Gateway have chosen it for the Gateway only, so endpoints get HTTP/1.1.
fn speaks_http2(connection: &Connection, destination: Destination<'_>, head: &RequestHead) -> bool {
    let declared = match destination {
        Destination::Upstream(upstream) => upstream.protocol == AppProtocol::Http2,
        Destination::Address(_) => false,
    };
    let chosen = head.version == http::Version::HTTP_2 && (!connection.is_gateway() || reply::is_grpc(head));
    declared || chosen
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
