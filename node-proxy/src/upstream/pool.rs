// SPDX-License-Identifier: Apache-2.0
//! Which open connections to endpoints can take a request, per worker.
//!
//! A connection in a pod's name is never used for another client: pools are keyed by the address from
//! which the connection was made. What is idle is bounded per pool and per worker, and closed in time.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

use slab::Slab;

/// Idle HTTP/1.1 connections kept for one client and endpoint.
const IDLE_PER_POOL: usize = 64;
/// Idle HTTP/1.1 connections kept by one worker; a descriptor and about 1 KiB each.
const IDLE_PER_WORKER: usize = 2048;
/// HTTP/2 connections to one endpoint for one client, opened when the others have no stream left.
pub(crate) const H2_PER_POOL: usize = 8;

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

/// Names a pool, so that it need not be looked up by its key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolId {
    index: u32,
    generation: u32,
}

/// All pools of one worker. Connections are known by numbers, which their owner gives.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    by_key: HashMap<PoolKey, PoolId>,
    pools: Slab<Pool>,
    generation: u32,
    idle: usize,
}

/// The connections of one client to one endpoint.
#[derive(Debug)]
struct Pool {
    key: PoolKey,
    generation: u32,
    idle: Vec<u32>,
    http2: Vec<u32>,
    /// Exchanges that wait for a stream of any of its connections.
    waiting: VecDeque<u32>,
}

impl Pools {
    /// The pool of a key; a known name of it is looked at first.
    pub(crate) fn find(&mut self, key: PoolKey, known: Option<PoolId>) -> PoolId {
        if let Some(id) = known.filter(|id| self.pool(*id).is_some_and(|pool| pool.key == key)) {
            return id;
        }
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let (idle, http2, waiting) = (Vec::new(), Vec::new(), VecDeque::new());
        let index = self.pools.insert(Pool { key, generation, idle, http2, waiting }) as u32;
        let id = PoolId { index, generation };
        self.by_key.insert(key, id);
        id
    }

    /// Takes an idle connection: the youngest, so that the others may grow old enough to be closed.
    pub(crate) fn take_idle(&mut self, id: PoolId) -> Option<u32> {
        let connection = self.pool(id)?.idle.pop()?;
        self.idle -= 1;
        Some(connection)
    }

    /// Keeps a connection for the next request; false where it is to be closed instead.
    #[must_use]
    pub(crate) fn keep_idle(&mut self, id: PoolId, connection: u32) -> bool {
        let room = self.idle < IDLE_PER_WORKER;
        let Some(pool) = self.pool(id).filter(|pool| room && pool.idle.len() < IDLE_PER_POOL) else {
            return false;
        };
        pool.idle.push(connection);
        self.idle += 1;
        true
    }

    /// The HTTP/2 connections, those that are still being made included.
    pub(crate) fn http2(&self, id: PoolId) -> &[u32] {
        self.pools
            .get(id.index as usize)
            .filter(|pool| pool.generation == id.generation)
            .map_or(&[], |pool| pool.http2.as_slice())
    }

    /// Adds an HTTP/2 connection.
    pub(crate) fn add_http2(&mut self, id: PoolId, connection: u32) {
        if let Some(pool) = self.pool(id) {
            pool.http2.push(connection);
        }
    }

    /// Has an exchange wait for a stream.
    pub(crate) fn wait(&mut self, id: PoolId, exchange: u32) {
        if let Some(pool) = self.pool(id) {
            pool.waiting.push_back(exchange);
        }
    }

    /// Takes the exchange that has waited longest for a stream.
    pub(crate) fn next_waiting(&mut self, id: PoolId) -> Option<u32> {
        self.pool(id)?.waiting.pop_front()
    }

    /// Forgets a connection, and the pool with its last one.
    pub(crate) fn remove(&mut self, id: PoolId, connection: u32) {
        let Some(pool) = self.pool(id) else { return };
        let before = pool.idle.len();
        pool.idle.retain(|known| *known != connection);
        pool.http2.retain(|known| *known != connection);
        let (gone, key) = (before - pool.idle.len(), pool.key);
        let empty = pool.idle.is_empty() && pool.http2.is_empty() && pool.waiting.is_empty();
        self.idle -= gone;
        if empty {
            self.pools.remove(id.index as usize);
            self.by_key.remove(&key);
        }
    }

    fn pool(&mut self, id: PoolId) -> Option<&mut Pool> {
        self.pools.get_mut(id.index as usize).filter(|pool| pool.generation == id.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> PoolKey {
        PoolKey { from: None, to: ([10, 0, 0, 1], port).into(), http2: false }
    }

    #[test]
    fn the_youngest_is_taken_first_and_a_name_of_a_forgotten_pool_finds_a_new_one() {
        let mut pools = Pools::default();
        let id = pools.find(key(1), None);
        assert!(pools.keep_idle(id, 7) && pools.keep_idle(id, 8));
        assert_eq!(pools.find(key(1), Some(id)), id);
        assert_eq!(pools.take_idle(id), Some(8));
        pools.remove(id, 7);
        assert_eq!(pools.take_idle(id), None);
        let other = pools.find(key(2), Some(id));
        assert_ne!(other, id);
        assert_eq!(pools.take_idle(id), None, "the old name is nobody's");
    }

    #[test]
    fn what_is_idle_is_bounded() {
        let mut pools = Pools::default();
        let id = pools.find(key(1), None);
        let kept = (0..100).filter(|number| pools.keep_idle(id, *number)).count();
        assert_eq!(kept, IDLE_PER_POOL);
        let all = (0..1000_u16).flat_map(|port| (0..10).map(move |number| (port + 2, number)));
        let more = all
            .filter(|(port, number)| {
                let id = pools.find(key(*port), None);
                pools.keep_idle(id, *number)
            })
            .count();
        assert_eq!(kept + more, IDLE_PER_WORKER);
    }
}
