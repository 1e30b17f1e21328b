// SPDX-License-Identifier: Apache-2.0
//! One request through the proxy, as plain code in one written order:
//!
//! 1. normalise: the host in lower case, without its port;
//! 2. match the route;
//! 3. pick backend and endpoint ([`crate::exchange`]);
//! 4. decide the client's egress, on the request as received, for that endpoint;
//! 5. filters;
//! 6. decide the ingress of a local endpoint, on the request as it will be sent;
//! 7. rate limits, so that only what is allowed counts;
//! 8. send, with timeouts and retries; each try picks and decides again;
//! 9. respond.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc};

use http::{HeaderName, HeaderValue, uri::Authority};
use weft_codec::{
    body::Body,
    error::ProtocolError,
    message::{Request, RequestHead, Response},
    serve::Handler,
};
use weft_ebpf_common::reason::Reason;

use crate::{
    access::Record,
    balance, clock,
    cluster::Cluster,
    exchange::{self, Destination},
    filter,
    ratelimit::{Bucket, RateLimiter},
    reply::{self, Refusal},
    route::{Matched, RouteTable},
    rule::Rule,
    target::{Ends, Entrance, Resolved, Target},
    worker::Worker,
};

/// Buckets that one connection keeps, so that it asks for each only once.
const KEPT_BUCKETS: usize = 16;
/// The longest name of DNS (RFC 1035, section 2.3.4); longer hosts match no hostname.
const MAX_HOST: usize = 255;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// One client connection: answers its requests.
pub struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) ends: Ends,
    resolved: RefCell<Option<Rc<Resolved>>>,
    buckets: RefCell<Vec<(Arc<RateLimiter>, Arc<Bucket>)>>,
}

/// A request on its way.
pub(crate) struct Step<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) resolved: &'a Rc<Resolved>,
    pub(crate) record: &'a mut Record,
}

impl Connection {
    /// A connection with these ends.
    pub fn new(worker: Rc<Worker>, ends: Ends) -> Connection {
        Connection { worker, ends, resolved: RefCell::default(), buckets: RefCell::default() }
    }

    /// What the connection is for, at the worker's current state.
    pub fn resolve(&self) -> Rc<Resolved> {
        let held = self.worker.held();
        let mut last = self.resolved.borrow_mut();
        match &*last {
            Some(resolved) if Rc::ptr_eq(&resolved.held, &held) => Rc::clone(resolved),
            _ => Rc::clone(last.insert(Rc::new(Resolved::new(held, self.ends)))),
        }
    }

    /// Takes a token of each limit; stops at the first that is empty.
    fn take(&self, limits: &[Arc<RateLimiter>]) -> Result<(), Refusal> {
        limits.iter().try_for_each(|limiter| {
            let now = clock::nanos();
            let taken = match limiter.limit().per_client {
                false => limiter.take_shared(now),
                true => limiter.take(&self.bucket(limiter, now), now),
            };
            taken.map_err(|exhausted| Refusal {
                reason: Reason::RateLimited,
                retry_after: Some(exhausted.retry_after),
            })
        })
    }

    fn bucket(&self, limiter: &Arc<RateLimiter>, now: u64) -> Arc<Bucket> {
        let mut buckets = self.buckets.borrow_mut();
        if let Some((_, bucket)) = buckets.iter().find(|(known, _)| Arc::ptr_eq(known, limiter)) {
            return Arc::clone(bucket);
        }
        let bucket = limiter.bucket(self.ends.client.ip(), now);
        if buckets.len() == KEPT_BUCKETS {
            buckets.remove(0);
        }
        buckets.push((Arc::clone(limiter), Arc::clone(&bucket)));
        bucket
    }
}

impl Handler for Connection {
    async fn call(&self, request: Request) -> Response {
        let resolved = self.resolve();
        let Request { head, body } = request;
        let mut record = Record::start(&self.worker, self.ends, &resolved, &head);
        let grpc = reply::is_grpc(&head);
        let step = Step { connection: self, resolved: &resolved, record: &mut record };
        let mut response = match Box::pin(step.serve(head, body)).await {
            Ok(response) => response,
            Err(refusal) => {
                record.reason = Some(refusal.reason);
                refusal.response(grpc)
            }
        };
        record.answered = clock::nanos();
        record.status = response.head.status.as_u16();
        response.observer = Some(record);
        response
    }

    fn on_protocol_error(&self, error: &ProtocolError) {
        self.worker.metrics().request(
            error.status.map_or(0, |status| status.as_u16()),
            0,
            Some(error.reason),
        );
        tracing::debug!(client = %self.ends.client, destination = %self.ends.destination, %error, "request refused by the codec");
    }
}

impl Step<'_> {
    async fn serve(self, head: RequestHead, body: Body) -> Result<Response, Refusal> {
        let mut host = [0; MAX_HOST];
        let host = lower_case_host(head.authority.as_ref(), &mut host);
        let resolved = Rc::clone(self.resolved);
        match &resolved.target {
            Target::Refused(reason) => Err(Refusal::from(*reason)),
            Target::Address(address) => self.send_to_address(*address, head, body).await,
            Target::Service(service) => match &service.routes {
                Some(routes) => self.by_routes(routes, host, &service.limits, head, body).await,
                None => {
                    let cluster = resolved.held.state().cluster(service.cluster);
                    let cluster = cluster.ok_or(Reason::InvalidBackend)?;
                    self.send_to_cluster(cluster, None, &service.limits, head, body).await
                }
            },
            Target::Listener(point) => {
                let virtual_host = point.find(host).ok_or(Reason::NoRoute)?;
                let head = self.forwarded(head);
                self.by_routes(&virtual_host.routes, host, &[], head, body).await
            }
        }
    }

    async fn by_routes(
        self,
        routes: &RouteTable,
        host: &[u8],
        limits: &[Arc<RateLimiter>],
        head: RequestHead,
        body: Body,
    ) -> Result<Response, Refusal> {
        let matched = routes.find(host, &head).ok_or(Reason::NoRoute)?;
        self.record.route = Some(Arc::clone(&matched.rule.label));
        if matched.rule.invalid {
            return Err(Reason::InvalidBackend.into());
        }
        if let Some(redirect) = &matched.rule.redirect {
            self.connection.take(limits)?;
            self.connection.take(&matched.rule.limits)?;
            let port = self.connection.ends.destination.port();
            let mut response =
                filter::redirect(redirect, matched.prefix, &head, port).ok_or(Reason::InvalidBackend)?;
            matched.rule.response.apply(&mut response.head.headers);
            return Ok(response);
        }
        let backend = self.pick_backend(matched.rule)?;
        let resolved = Rc::clone(self.resolved);
        let slot = matched.rule.backends.get(backend).and_then(|backend| backend.cluster);
        let cluster = slot.and_then(|slot| resolved.held.state().cluster(slot));
        let cluster = cluster.ok_or(Reason::InvalidBackend)?;
        self.send_to_cluster(cluster, Some((matched, backend)), limits, head, body).await
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
            _ => self.connection.worker.with_picker(|picker| picker.position(total)),
        };
        balance::weighted(&rule.cumulative, position).ok_or_else(|| Reason::InvalidBackend.into())
    }

    async fn send_to_cluster(
        self,
        cluster: &Arc<Cluster>,
        matched: Option<(Matched<'_>, usize)>,
        limits: &[Arc<RateLimiter>],
        head: RequestHead,
        body: Body,
    ) -> Result<Response, Refusal> {
        self.record.cluster = Some(Arc::clone(&cluster.name));
        if cluster.endpoints.is_empty() {
            return Err(Reason::NoServiceBackend.into());
        }
        exchange::exchange(self, Destination::Cluster(cluster), matched, limits, head, body).await
    }

    async fn send_to_address(
        self,
        address: SocketAddr,
        head: RequestHead,
        body: Body,
    ) -> Result<Response, Refusal> {
        exchange::exchange(self, Destination::Address(address), None, &[], head, body).await
    }

    /// Says to the backend who the client of a Gateway is.
    fn forwarded(&self, mut head: RequestHead) -> RequestHead {
        let client = self.connection.ends.client.ip().to_string();
        let all = match head.headers.get(&X_FORWARDED_FOR) {
            Some(_) => {
                let mut all = head.headers.get_all(&X_FORWARDED_FOR).collect::<Vec<_>>().join(&b", "[..]);
                all.extend_from_slice(b", ");
                all.extend_from_slice(client.as_bytes());
                all
            }
            None => client.into_bytes(),
        };
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(all)) {
            head.headers.set(&X_FORWARDED_FOR, &value);
        }
        let scheme = if head.scheme == http::uri::Scheme::HTTPS { "https" } else { "http" };
        head.headers.set(&X_FORWARDED_PROTO, &HeaderValue::from_static(scheme));
        head
    }

    /// Takes a token of every limit that stands for this request: of the Service that was asked for, of
    /// the rule, and of the Service that takes it where that is another.
    pub(crate) fn take_tokens(
        &self,
        asked: &[Arc<RateLimiter>],
        rule: Option<&Rule>,
        cluster: Option<&Cluster>,
    ) -> Result<(), Refusal> {
        self.connection.take(asked)?;
        if let Some(rule) = rule {
            self.connection.take(&rule.limits)?;
        }
        match cluster {
            Some(cluster) if !cluster.limits.is_empty() => {
                let same = |a: &Arc<RateLimiter>| asked.iter().any(|b| Arc::ptr_eq(a, b));
                let others: Vec<_> = cluster.limits.iter().filter(|limit| !same(limit)).cloned().collect();
                self.connection.take(&others)
            }
            _ => Ok(()),
        }
    }

    /// Whether the client came through a Gateway.
    pub(crate) fn is_gateway(&self) -> bool {
        matches!(self.connection.ends.entrance, Entrance::Gateway(_))
    }
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
