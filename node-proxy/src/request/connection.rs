// SPDX-License-Identifier: Apache-2.0
//! One client connection: what it is for, and what it keeps from one request to the next.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
};

use weft_ebpf_common::reason::Reason;

use crate::{
    request::{forwarded::ClientText, reply::Refusal},
    route::{
        ratelimit::{Bucket, RateLimiter},
        rule::Rule,
    },
    state::upstream::Upstream,
    upstream::clock,
    worker::{
        Worker,
        target::{Ends, Entrance, Resolved},
    },
};

/// Buckets that one connection keeps, so that it asks for each only once.
const KEPT_BUCKETS: usize = 16;

/// One client connection: answers its requests.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) ends: Ends,
    /// The client's address as a header says it, once it was needed.
    pub(super) client: OnceCell<ClientText>,
    resolved: RefCell<Option<Rc<Resolved>>>,
    buckets: RefCell<Vec<(Arc<RateLimiter>, Arc<Bucket>)>>,
}

impl Connection {
    /// A connection with these ends.
    pub(crate) fn new(worker: Rc<Worker>, ends: Ends) -> Connection {
        Connection {
            worker,
            ends,
            client: OnceCell::new(),
            resolved: RefCell::default(),
            buckets: RefCell::default(),
        }
    }

    /// What the connection is for, at the worker's current state.
    pub(crate) fn resolve(&self) -> Rc<Resolved> {
        let held = self.worker.held();
        let mut last = self.resolved.borrow_mut();
        match &*last {
            Some(resolved) if Rc::ptr_eq(&resolved.held, &held) => Rc::clone(resolved),
            _ => Rc::clone(last.insert(Rc::new(Resolved::new(held, self.ends)))),
        }
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

    /// Takes a token of every limit that stands for a request: of the Service that was asked for, of the
    /// rule, and of the Service that takes it where that is another.
    pub(crate) fn take_tokens(
        &self,
        asked: &[Arc<RateLimiter>],
        rule: Option<&Rule>,
        upstream: Option<&Upstream>,
    ) -> Result<(), Refusal> {
        let of_rule = rule.map(|rule| rule.limits.as_slice()).unwrap_or_default();
        let of_upstream = upstream.map(|upstream| upstream.limits.as_slice()).unwrap_or_default();
        let counted = |limiter: &&Arc<RateLimiter>| !asked.iter().any(|known| Arc::ptr_eq(known, limiter));
        let all = asked.iter().chain(of_rule).chain(of_upstream.iter().filter(counted));
        all.into_iter().try_for_each(|limiter| self.take(limiter))
    }

    fn take(&self, limiter: &Arc<RateLimiter>) -> Result<(), Refusal> {
        let now = clock::nanos();
        let taken = match limiter.limit().per_client {
            false => limiter.take_shared(now),
            true => limiter.take(&self.bucket(limiter, now), now),
        };
        let refused = |wait| Refusal { reason: Reason::RateLimited, retry_after: Some(wait) };
        taken.map_err(|exhausted| refused(exhausted.retry_after))
    }

    /// Whether the client came through a Gateway.
    pub(crate) fn is_gateway(&self) -> bool {
        matches!(self.ends.entrance, Entrance::Gateway(_))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("ends", &self.ends).finish_non_exhaustive()
    }
}
