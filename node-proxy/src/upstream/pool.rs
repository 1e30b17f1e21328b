// SPDX-License-Identifier: Apache-2.0
//! Open connections to endpoints, per worker.
//!
//! A connection in a pod's name is never used for another client: pools are keyed by the address from
//! which the connection was made. What is idle is bounded per pool and per worker, and closed in time.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    time::Duration,
};

use tokio::sync::Notify;
use weft_codec::{
    body::Body,
    config::{H1Config, H2Config},
    error::{Retry, UpstreamError},
    h1::{H1Upstream, Recycle},
    h2::H2Upstream,
    message::{RequestHead, ResponseHead},
};
use weft_runtime::supervise::PeerTasks;

use crate::{
    state::permit::Permit,
    upstream::{clock, dial::Dialer},
};

const DRIVER: PeerTasks = PeerTasks::new("connection to an endpoint");

/// Idle HTTP/1.1 connections kept for one client and endpoint.
const IDLE_PER_POOL: usize = 64;
/// Idle HTTP/1.1 connections kept by one worker; a descriptor and about 1 KiB each.
const IDLE_PER_WORKER: usize = 2048;
/// HTTP/2 connections to one endpoint for one client, opened when the others have no stream left.
const H2_PER_POOL: usize = 8;
/// How long an idle connection is kept: less than the 60 s and more after which common servers close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Where a connection comes from, where it goes, and what is spoken on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// The address that the endpoint sees; nothing for the node's own choice.
    pub(crate) from: Option<IpAddr>,
    /// The endpoint.
    pub(crate) to: SocketAddr,
    /// HTTP/2 with prior knowledge, else HTTP/1.1.
    pub(crate) http2: bool,
}

/// All pools of one worker.
pub struct Pools {
    pools: RefCell<HashMap<PoolKey, Rc<Pool>>>,
    shared: Rc<Shared>,
}

struct Shared {
    dialer: Dialer,
    h1: Rc<H1Config>,
    h2: Rc<H2Config>,
    idle: Cell<usize>,
}

/// The connections of one client to one endpoint.
pub(crate) struct Pool {
    key: PoolKey,
    shared: Rc<Shared>,
    returns: Rc<Returns>,
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<H2Upstream>>,
    dialing: Cell<bool>,
    dialed: Notify,
    used: Cell<u64>,
}

struct Idle {
    upstream: H1Upstream,
    since: u64,
}

impl Pools {
    /// No pools yet.
    pub fn new(dialer: Dialer, h1: H1Config, h2: H2Config) -> Pools {
        let shared = Shared { dialer, h1: Rc::new(h1), h2: Rc::new(h2), idle: Cell::new(0) };
        Pools { pools: RefCell::default(), shared: Rc::new(shared) }
    }

    /// The dialer behind the pools.
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.shared.dialer
    }

    /// The pool for a client and an endpoint.
    pub(crate) fn pool(&self, key: PoolKey) -> Rc<Pool> {
        if let Some(pool) = self.pools.borrow().get(&key) {
            return Rc::clone(pool);
        }
        let pool = Rc::new_cyclic(|own| Pool {
            key,
            shared: Rc::clone(&self.shared),
            returns: Rc::new(Returns(own.clone())),
            idle: RefCell::default(),
            http2: RefCell::default(),
            dialing: Cell::new(false),
            dialed: Notify::new(),
            used: Cell::new(clock::nanos()),
        });
        self.pools.borrow_mut().insert(key, Rc::clone(&pool));
        pool
    }

    /// Closes what was idle too long, and forgets pools without connections. To be called now and then.
    pub(crate) fn sweep(&self) {
        let oldest = clock::nanos().saturating_sub(IDLE_TIMEOUT.as_nanos() as u64);
        self.pools.borrow_mut().retain(|_, pool| {
            pool.sweep(oldest);
            Rc::strong_count(pool) > 1 || !pool.is_empty()
        });
    }
}

impl Pool {
    /// Sends a request for which there is a permit, over an open connection or a new one, and waits for
    /// the head of the response. A connection that the endpoint closed while it was idle costs one more
    /// try, if the request can be sent again. `now` is in nanoseconds since the start of the process.
    pub(crate) async fn send(
        &self,
        permit: &Permit,
        head: &RequestHead,
        body: Body,
        now: u64,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        self.used.set(now);
        if self.key.http2 {
            return self.send_http2(permit, head, body).await;
        }
        // What is rare is on the heap: it would make every request's future as large as itself.
        let Some(upstream) = self.take_idle() else {
            return Box::pin(self.send_fresh(permit, head, body)).await;
        };
        match upstream.send(head, body).await {
            Err(UpstreamError { retry, unsent_body: Some(body), .. }) if may_resend(retry, head) => {
                Box::pin(self.send_fresh(permit, head, body)).await
            }
            result => result,
        }
    }

    async fn send_fresh(
        &self,
        permit: &Permit,
        head: &RequestHead,
        body: Body,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        let stream = match self.shared.dialer.connect(permit, self.key.from, self.key.to).await {
            Ok(stream) => stream,
            Err(error) => return Err(UpstreamError { unsent_body: Some(body), ..error }),
        };
        let recycle: Rc<dyn Recycle> = Rc::<Returns>::clone(&self.returns);
        H1Upstream::new(stream, Rc::clone(&self.shared.h1), Some(recycle)).send(head, body).await
    }

    async fn send_http2(
        &self,
        permit: &Permit,
        head: &RequestHead,
        body: Body,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        let Some(upstream) = self.usable_http2() else {
            return Box::pin(self.send_http2_fresh(permit, head, body)).await;
        };
        match upstream.send(head, body).await {
            Err(UpstreamError { retry, unsent_body: Some(body), .. }) if may_resend(retry, head) => {
                Box::pin(self.send_http2_fresh(permit, head, body)).await
            }
            result => result,
        }
    }

    async fn send_http2_fresh(
        &self,
        permit: &Permit,
        head: &RequestHead,
        body: Body,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        match self.http2(permit).await {
            Ok(upstream) => upstream.send(head, body).await,
            Err(error) => Err(UpstreamError { unsent_body: Some(body), ..error }),
        }
    }

    /// A connection with a free stream. One task dials at a time, the others wait for it.
    async fn http2(&self, permit: &Permit) -> Result<H2Upstream, UpstreamError> {
        loop {
            if let Some(upstream) = self.usable_http2() {
                return Ok(upstream);
            }
            if !self.dialing.get() {
                let _dialing = Dialing::new(self);
                return self.dial_http2(permit).await;
            }
            self.dialed.notified().await;
        }
    }

    fn usable_http2(&self) -> Option<H2Upstream> {
        let mut open = self.http2.borrow_mut();
        if let Some(free) = open.iter().find(|upstream| upstream.is_usable()) {
            return Some(free.clone());
        }
        open.retain(H2Upstream::is_open);
        // With all streams taken and no more connections allowed the request waits for a stream.
        open.first().filter(|_| open.len() >= H2_PER_POOL).cloned()
    }

    async fn dial_http2(&self, permit: &Permit) -> Result<H2Upstream, UpstreamError> {
        let stream = self.shared.dialer.connect(permit, self.key.from, self.key.to).await?;
        let (upstream, driver) = H2Upstream::handshake(stream, Rc::clone(&self.shared.h2)).await?;
        DRIVER.start_local(driver);
        self.http2.borrow_mut().push(upstream.clone());
        Ok(upstream)
    }

    fn take_idle(&self) -> Option<H1Upstream> {
        loop {
            // The youngest first: the others may then grow old enough to be closed.
            let Idle { mut upstream, .. } = self.idle.borrow_mut().pop()?;
            self.shared.idle.set(self.shared.idle.get() - 1);
            if upstream.is_usable() {
                return Some(upstream);
            }
        }
    }

    fn sweep(&self, oldest: u64) {
        let closed: Vec<Idle> = {
            let mut idle = self.idle.borrow_mut();
            let old = idle.partition_point(|idle| idle.since < oldest);
            idle.drain(..old).collect()
        };
        self.shared.idle.set(self.shared.idle.get() - closed.len());
        let mut open = self.http2.borrow_mut();
        let unused = self.used.get() < oldest;
        open.retain(|upstream| upstream.is_open() && !(unused && upstream.active_streams() == 0));
    }

    fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty() && self.http2.borrow().is_empty()
    }
}

/// Takes connections back into their pool, if that is still there.
struct Returns(Weak<Pool>);

impl Recycle for Returns {
    fn recycle(&self, upstream: H1Upstream) {
        let Some(pool) = self.0.upgrade() else { return };
        let mut idle = pool.idle.borrow_mut();
        if idle.len() < IDLE_PER_POOL && pool.shared.idle.get() < IDLE_PER_WORKER {
            pool.shared.idle.set(pool.shared.idle.get() + 1);
            // Idle since its last request began, at the latest: near enough, and known without a clock.
            idle.push(Idle { upstream, since: pool.used.get() });
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.idle.set(self.shared.idle.get().saturating_sub(self.idle.get_mut().len()));
    }
}

/// Marks the pool as dialing, and wakes who waits when that ends, however it ends.
struct Dialing<'a>(&'a Pool);

impl<'a> Dialing<'a> {
    fn new(pool: &'a Pool) -> Dialing<'a> {
        pool.dialing.set(true);
        Dialing(pool)
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.dialing.set(false);
        self.0.dialed.notify_waiters();
    }
}

fn may_resend(retry: Retry, head: &RequestHead) -> bool {
    match retry {
        Retry::Safe => true,
        Retry::IfIdempotent => head.method.is_idempotent(),
        Retry::No => false,
    }
}
