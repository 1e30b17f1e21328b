// SPDX-License-Identifier: Apache-2.0
//! Local token buckets: exact over all workers of the node, without a lock on the request path.
//!
//! A bucket is one atomic number, the theoretical arrival time of the generic cell rate algorithm
//! (ITU-T I.371): a request is in time when it is at most `burst` steps ahead of its step.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use weft_ir::RateLimit;

/// Client buckets of one limit; with more clients than this the idle ones are forgotten first, and
/// what still does not fit shares one bucket. 64 bytes of key and map, 128 bytes of bucket: 12 MiB.
const MAX_CLIENTS: usize = 65_536;

/// One token bucket, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Bucket {
    /// When the bucket is full again, in nanoseconds since the start of the process.
    full_at: AtomicU64,
}

/// What one bucket allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    /// Nanoseconds in which one token comes back; at least 1, so at most 10^9 requests per second.
    step: u64,
    /// Nanoseconds in which the whole bucket fills.
    depth: u64,
}

/// A rate limit, shared by all workers of the node.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    limit: RateLimit,
    rate: Rate,
    shared: Arc<Bucket>,
    clients: Mutex<HashMap<IpAddr, Arc<Bucket>>>,
}

/// The bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted {
    /// Until the next token.
    pub(crate) retry_after: Duration,
}

impl Bucket {
    fn new() -> Arc<Bucket> {
        Arc::new(Bucket { full_at: AtomicU64::new(0) })
    }

    fn take(&self, now: u64, rate: Rate) -> Result<(), Exhausted> {
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now).saturating_add(rate.step);
            let latest = now.saturating_add(rate.depth);
            if next > latest {
                return Err(Exhausted { retry_after: Duration::from_nanos(next - latest) });
            }
            match self.full_at.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(current) => full_at = current,
            }
        }
    }
}

impl RateLimiter {
    /// A limiter with a full bucket; of no requests at all, with a bucket that has no room for a token.
    pub(crate) fn new(limit: RateLimit) -> RateLimiter {
        let interval = u64::try_from(limit.interval.as_nanos()).unwrap_or(u64::MAX);
        let rate = match interval.checked_div(u64::from(limit.requests)) {
            Some(step) => {
                let step = step.max(1);
                Rate { step, depth: step.saturating_mul(u64::from(limit.burst.max(1))) }
            }
            None => Rate { step: interval.max(1), depth: 0 },
        };
        RateLimiter { limit, rate, shared: Bucket::new(), clients: Mutex::new(HashMap::new()) }
    }

    /// The resource that it was made from.
    pub(crate) fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// The bucket of a client. Takes a lock where every client has its own, so a connection asks once
    /// and keeps the answer.
    pub(crate) fn bucket(&self, client: IpAddr, now: u64) -> Arc<Bucket> {
        if !self.limit.per_client {
            return Arc::clone(&self.shared);
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = clients.get(&client) {
            return Arc::clone(bucket);
        }
        if clients.len() >= MAX_CLIENTS {
            // A full bucket that nobody holds is the same as a new one.
            clients.retain(|_, bucket| {
                Arc::strong_count(bucket) > 1 || bucket.full_at.load(Ordering::Relaxed) > now
            });
        }
        if clients.len() >= MAX_CLIENTS {
            return Arc::clone(&self.shared);
        }
        let bucket = Bucket::new();
        clients.insert(client, Arc::clone(&bucket));
        bucket
    }

    /// Takes one token; `now` is in nanoseconds since the start of the process.
    pub(crate) fn take(&self, bucket: &Bucket, now: u64) -> Result<(), Exhausted> {
        bucket.take(now, self.rate)
    }

    /// Takes one token from the bucket that all clients share.
    pub(crate) fn take_shared(&self, now: u64) -> Result<(), Exhausted> {
        self.shared.take(now, self.rate)
    }
}

#[cfg(test)]
mod tests {
    use weft_ir::{ObjectName, RateLimitTarget};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limiter(requests: u32, burst: u32, per_client: bool) -> RateLimiter {
        RateLimiter::new(RateLimit {
            name: ObjectName::new("shop", "limit"),
            target: RateLimitTarget::Service(ObjectName::new("shop", "web")),
            requests,
            interval: Duration::from_secs(1),
            burst,
            per_client,
        })
    }

    fn taken(limiter: &RateLimiter, now: u64, tries: u32) -> u32 {
        (0..tries).filter(|_| limiter.take_shared(now).is_ok()).count() as u32
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_its_rate() {
        let limiter = limiter(10, 5, false);
        let start = 100 * SECOND;
        assert_eq!(taken(&limiter, start, 100), 5);
        assert_eq!(taken(&limiter, start + SECOND / 10, 100), 1);
        assert_eq!(taken(&limiter, start + 60 * SECOND, 100), 5);
    }

    #[test]
    fn a_limit_of_no_requests_lets_none_through() {
        for (burst, per_client) in [(0, false), (1, false), (u32::MAX, true)] {
            let limiter = limiter(0, burst, per_client);
            let bucket = limiter.bucket(IpAddr::from([10, 0, 0, 1]), 0);
            for now in [0, SECOND, 1_000_000 * SECOND] {
                let error = limiter.take(&bucket, now).expect_err("no token is ever there");
                assert_eq!(error.retry_after, Duration::from_secs(1));
            }
        }
    }

    #[test]
    fn an_empty_bucket_says_when_the_next_token_comes() {
        let limiter = limiter(2, 1, false);
        assert!(limiter.take_shared(SECOND).is_ok());
        let error = limiter.take_shared(SECOND).expect_err("the bucket is empty");
        assert_eq!(error.retry_after, Duration::from_millis(500));
    }

    #[test]
    fn threads_together_get_exactly_the_burst() {
        let limiter = limiter(1, 1000, false);
        let total: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| taken(&limiter, SECOND, 1000))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread failed")).sum()
        });
        assert_eq!(total, 1000);
    }

    #[test]
    fn clients_do_not_share_a_bucket_when_asked() {
        let limiter = limiter(1, 1, true);
        for last in [1, 2] {
            let bucket = limiter.bucket(IpAddr::from([10, 0, 0, last]), SECOND);
            assert!(limiter.take(&bucket, SECOND).is_ok());
            assert!(limiter.take(&bucket, SECOND).is_err());
        }
    }

    #[test]
    fn the_number_of_client_buckets_is_bounded() {
        let limiter = limiter(1, 1, true);
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(number));
        for number in 0..MAX_CLIENTS as u32 {
            let bucket = limiter.bucket(address(number), SECOND);
            assert!(limiter.take(&bucket, SECOND).is_ok());
        }
        let overflow = limiter.bucket(address(u32::MAX), SECOND);
        assert!(Arc::ptr_eq(&overflow, &limiter.shared));
        // After a while the buckets are full again and make room.
        let fresh = limiter.bucket(address(u32::MAX), 10 * SECOND);
        assert!(!Arc::ptr_eq(&fresh, &limiter.shared));
    }
}
