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
mod deadline;
mod exchange;
mod replay;
pub(crate) mod reply;
pub(crate) mod tcp;
mod upgrade;

pub use connection::Connection;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, uri::Authority};
use weft_codec::{
    error::ProtocolError,
    handler::Handler,
    message::{Request, RequestHead, Response},
};
use weft_ebpf_common::reason::Reason;

use crate::{
    request::{
        exchange::{Destination, Sending, exchange},
        reply::Refusal,
    },
    route::{RouteTable, filter, rule::Rule},
    state::upstream::Upstream,
    upstream::{balance, clock},
    worker::{
        access::{ConnectionRecord, Record},
        target::{Ends, Resolved, Target},
    },
};

/// The longest name of DNS (RFC 1035, section 2.3.4); longer hosts match no hostname.
const MAX_HOST: usize = 255;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is to be done with a request.
enum Plan<'a> {
    /// Send it.
    Send(Sending<'a>),
    /// Answer it. On the heap, since it is rare and large.
    Answer(Box<Response>),
}

impl Handler for Connection {
    fn call(&self, request: Request) -> impl Future<Output = Response> {
        // An async function would keep its argument in its future beside what becomes of it.
        let Request { mut head, body } = request;
        let resolved = self.resolve();
        let mut record = Record::start(self.worker.reports(), self.ends, &resolved, &head);
        if self.is_gateway() {
            self.forwarded(&mut head);
        }
        async move {
            let answered = match self.plan(&resolved, &mut record, &head) {
                Ok(Plan::Send(sending)) => exchange(self, &resolved, &mut record, sending, &head, body).await,
                Ok(Plan::Answer(response)) => Ok(*response),
                Err(refusal) => Err(refusal),
            };
            let mut response = answered.unwrap_or_else(|refusal| {
                record.reason = Some(refusal.reason);
                refusal.response(reply::is_grpc(&head))
            });
            if record.answered == 0 {
                record.answered = clock::nanos();
            }
            record.status = response.head.status.as_u16();
            response.observer = Some(record);
            response
        }
    }

    fn on_protocol_error(&self, error: &ProtocolError) {
        let status = error.status.map_or(0, |status| status.as_u16());
        self.worker.metrics().request(status, 0, Some(error.reason));
        let mut record = ConnectionRecord::start(self.ends, &self.resolve());
        record.reason = Some(error.reason);
        record.report(self.worker.reports());
        let Ends { client, destination, .. } = self.ends;
        tracing::debug!(%client, %destination, %error, "request refused by the codec");
    }
}

impl Connection {
    /// Finds out what is to be done with a request, without waiting for anything.
    fn plan<'a>(
        &self,
        resolved: &'a Resolved,
        record: &mut Record,
        head: &RequestHead,
    ) -> Result<Plan<'a>, Refusal> {
        let mut host = [0; MAX_HOST];
        let host = lower_case_host(head.authority.as_ref(), &mut host);
        match &resolved.target {
            Target::Refused(reason) => Err(Refusal::from(*reason)),
            Target::Address(address) => {
                let destination = Destination::Address(*address);
                Ok(Plan::Send(Sending { destination, matched: None, limits: &[] }))
            }
            Target::Service(service) => match &service.routes {
                Some(routes) => self.by_routes(resolved, record, routes, host, head),
                None => {
                    let upstream = resolved.held.state().upstream(service.upstream);
                    let destination = to_upstream(record, upstream)?;
                    Ok(Plan::Send(Sending { destination, matched: None, limits: &service.limits }))
                }
            },
            Target::Listener(point) => {
                let routes = point.find(host).ok_or(Reason::NoRoute)?;
                self.by_routes(resolved, record, routes, host, head)
            }
        }
    }

    fn by_routes<'a>(
        &self,
        resolved: &'a Resolved,
        record: &mut Record,
        routes: &'a RouteTable,
        host: &[u8],
        head: &RequestHead,
    ) -> Result<Plan<'a>, Refusal> {
        let matched = routes.find(host, head).ok_or(Reason::NoRoute)?;
        let limits = resolved.limits();
        record.route = Some(Arc::clone(&matched.rule.label));
        if matched.rule.invalid {
            return Err(Reason::InvalidBackend.into());
        }
        if let Some(redirect) = &matched.rule.redirect {
            self.take_tokens(limits, Some(matched.rule), None)?;
            let port = self.ends.destination.port();
            let mut response =
                filter::redirect(redirect, matched.prefix, head, port).ok_or(Reason::InvalidBackend)?;
            matched.rule.response.apply(&mut response.head.headers);
            return Ok(Plan::Answer(Box::new(response)));
        }
        let index = self.pick_backend(matched.rule)?;
        let slot = matched.rule.backends.get(index).and_then(|backend| backend.upstream);
        let upstream = slot.and_then(|slot| resolved.held.state().upstream(slot));
        let destination = to_upstream(record, upstream)?;
        Ok(Plan::Send(Sending { destination, matched: Some((matched, index)), limits }))
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
    fn forwarded(&self, head: &mut RequestHead) {
        let client = self.client.get_or_init(|| {
            let text = bytes::Bytes::from(self.ends.client.ip().to_string());
            HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        });
        if head.headers.contains(&X_FORWARDED_FOR) {
            // As the last of a list (RFC 7239, section 5.2, has the same order).
            let mut all: Vec<&[u8]> = head.headers.get_all(&X_FORWARDED_FOR).collect();
            all.push(client.as_bytes());
            let all = HeaderValue::from_maybe_shared(bytes::Bytes::from(all.join(&b", "[..])));
            head.headers.set(&X_FORWARDED_FOR, all.as_ref().unwrap_or(client));
        } else {
            head.headers.append(&X_FORWARDED_FOR, client);
        }
        let https = head.scheme == http::uri::Scheme::HTTPS;
        let scheme = HeaderValue::from_static(if https { "https" } else { "http" });
        if head.headers.contains(&X_FORWARDED_PROTO) {
            head.headers.set(&X_FORWARDED_PROTO, &scheme);
        } else {
            head.headers.append(&X_FORWARDED_PROTO, &scheme);
        }
    }
}

fn to_upstream<'a>(
    record: &mut Record,
    upstream: Option<&'a Arc<Upstream>>,
) -> Result<Destination<'a>, Refusal> {
    let upstream = upstream.ok_or(Reason::InvalidBackend)?;
    record.upstream = Some(Arc::clone(&upstream.name));
    if upstream.endpoints.is_empty() {
        return Err(Reason::NoServiceBackend.into());
    }
    Ok(Destination::Upstream(upstream))
}

/// The host of an authority in lower case, without port; empty where it is missing or too long.
fn lower_case_host<'a>(authority: Option<&Authority>, buffer: &'a mut [u8; MAX_HOST]) -> &'a [u8] {
    let host = authority.map_or("", Authority::host).as_bytes();
    // A name may end with the dot of the root (RFC 1034, section 3.1).
    let host = host.strip_suffix(b".").unwrap_or(host);
    match buffer.get_mut(..host.len()) {
        Some(lower) => {
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            lower
        }
        None => &[],
    }
}
