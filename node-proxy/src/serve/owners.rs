// SPDX-License-Identifier: Apache-2.0
//! Whose exchange it is. Numbers of exchanges are used again: a connection that remembers one may be the last
//! to know that its exchange has ended and that another has the number. So an exchange is given nothing, and
//! nothing is done to it, in the name of a connection that it does not name itself.

use weft_http::h2::StreamId;

use crate::{
    serve::{client::Wire, engine::Engine},
    upstream::{connection::Wire as UpstreamWire, pool::PoolId},
};

/// Exchanges are known to streams by their number and one; 0 is nobody's.
pub(super) fn token(id: u32) -> u32 {
    id + 1
}

impl Engine {
    /// The exchange of a client's stream, or of its HTTP/1.1 connection.
    pub(super) fn of_client(&self, number: u32, stream: Option<StreamId>, id: Option<u32>) -> Option<u32> {
        let owned = |id: &u32| {
            let running = self.exchanges.get(*id as usize);
            running.is_some_and(|running| running.client == number && running.stream == stream)
        };
        id.filter(owned)
    }

    /// The exchange of a stream to an endpoint, or of an HTTP/1.1 connection to it.
    pub(super) fn of_upstream(&self, number: u32, stream: Option<StreamId>, id: Option<u32>) -> Option<u32> {
        let owned = |id: &u32| {
            let running = self.exchanges.get(*id as usize);
            running.is_some_and(|running| running.upstream == Some(number) && running.onward == stream)
        };
        id.filter(owned)
    }

    /// The exchange of a client's stream, by what the stream was told.
    pub(super) fn of_stream(&self, number: u32, stream: StreamId, token: u32) -> Option<u32> {
        self.of_client(number, Some(stream), token.checked_sub(1))
    }

    /// The exchange of a stream to an endpoint, by what the stream was told.
    pub(super) fn of_onward(&self, number: u32, stream: StreamId, token: u32) -> Option<u32> {
        self.of_upstream(number, Some(stream), token.checked_sub(1))
    }

    /// Every exchange of a client.
    pub(super) fn all_of_client(&self, number: u32) -> Vec<u32> {
        let Some(client) = self.clients.get(number as usize) else { return Vec::new() };
        match &client.wire {
            Wire::H2(connection) => {
                let own = |(stream, token)| self.of_stream(number, stream, token);
                connection.streams().filter_map(own).collect()
            }
            Wire::H1(_) | Wire::Switched { .. } => {
                self.of_client(number, None, client.user).into_iter().collect()
            }
            Wire::Sniffing | Wire::Bytes => Vec::new(),
        }
    }

    /// Every exchange that a connection to an endpoint carries.
    pub(super) fn all_of_upstream(&self, number: u32) -> Vec<u32> {
        let Some(upstream) = self.upstreams.get(number as usize) else { return Vec::new() };
        match &upstream.wire {
            UpstreamWire::H2(connection) => {
                let own = |(stream, token)| self.of_onward(number, stream, token);
                let waiting = |id: &u32| self.of_upstream(number, None, Some(*id));
                let waiting = upstream.waiting.iter().filter_map(waiting);
                connection.streams().filter_map(own).chain(waiting).collect()
            }
            UpstreamWire::H1(_) | UpstreamWire::Switched { .. } => {
                self.of_upstream(number, None, upstream.user).into_iter().collect()
            }
            UpstreamWire::Bytes => Vec::new(),
        }
    }

    /// The next exchange that waits for a stream of these connections.
    pub(super) fn next_waiting(&mut self, pool: PoolId) -> Option<u32> {
        while let Some(id) = self.pools.next_waiting(pool) {
            if let Some(running) = self.exchanges.get_mut(id as usize)
                && running.waits_on == Some(pool)
            {
                running.waits_on = None;
                return Some(id);
            }
        }
        None
    }
}
