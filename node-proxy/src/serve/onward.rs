// SPDX-License-Identifier: Apache-2.0
//! Connections to endpoints: makes them, reads them, hands on what they say, writes what they are told.

use std::io::{self, Read};

use mio::net::TcpStream;
use weft_ebpf_common::reason::Reason;
use weft_http::{
    h1::{self, Event, Length, Retry},
    h2,
};

use crate::{
    serve::{
        downstream::{Ready, said_length},
        engine::{BOTH, Due, Engine, READ_BYTES, REST_BYTES, Side, upstream_token},
        running::HIGH_WATER,
    },
    state::permit::Permit,
    upstream::{
        connection::{EndpointConnection, Phase, Wire},
        pool::PoolKey,
    },
};

impl Engine {
    /// Begins a connection for HTTP.
    pub(super) fn dial(&mut self, permit: &Permit, key: PoolKey) -> io::Result<u32> {
        let limits = self.worker.limits();
        if !key.http2 {
            return self.connect(permit, key, Wire::H1(h1::Client::new(limits.h1)));
        }
        let mut greeting = self.buffers.lend();
        let wire = Wire::H2(Box::new(h2::Connection::client(&limits.h2, &mut greeting)));
        let number = self.connect(permit, key, wire)?;
        let pool = self.pools.find(key, None);
        self.pools.add_http2(pool, number);
        if let Some(upstream) = self.upstreams.get_mut(number as usize) {
            upstream.pool = Some(pool);
            upstream.output.buffer(&mut self.buffers).extend_from_slice(&greeting);
        }
        self.buffers.take_back(greeting);
        Ok(number)
    }

    /// Begins a connection.
    pub(super) fn connect(&mut self, permit: &Permit, key: PoolKey, wire: Wire) -> io::Result<u32> {
        let socket = self.worker.dialer().begin(permit, key.from, key.to)?;
        let owner = self.next_owner();
        let entry = self.upstreams.vacant_entry();
        let number = entry.key() as u32;
        let mut upstream = EndpointConnection::new(TcpStream::from_std(socket), owner, wire, key);
        self.poll.registry().register(&mut upstream.socket, upstream_token(number, owner), BOTH)?;
        let patience = self.worker.dialer().timeout().as_nanos() as u64;
        upstream.timeout.until(self.now + patience, &mut self.wheel, Due::Upstream(number));
        entry.insert(upstream);
        Ok(number)
    }

    /// The kernel says that the socket of a connection to an endpoint is ready.
    pub(super) fn on_upstream(&mut self, number: u32, ready: Ready) {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        if upstream.phase == Phase::Connecting && !self.connected(number, ready) {
            return;
        }
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        upstream.readable |= ready.readable;
        upstream.finished |= ready.finished;
        if ready.writable {
            upstream.writable = true;
            if !upstream.output.is_empty() {
                self.touch_upstream(number);
            }
        }
        self.read_upstream(number);
    }

    /// Whether the connection stands now.
    fn connected(&mut self, number: u32, ready: Ready) -> bool {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return false };
        if !ready.writable && !ready.gone {
            return false;
        }
        match upstream.socket.take_error() {
            Ok(None) if !ready.gone => {
                upstream.phase = Phase::Open;
                upstream.timeout.never();
                match (&upstream.wire, upstream.user) {
                    (Wire::Bytes, Some(tunnel)) => self.pass_ends(tunnel),
                    _ => self.send_waiting(number),
                }
                self.keep_unused(number);
                true
            }
            Ok(error) => self.not_connected(number, error),
            Err(error) => self.not_connected(number, Some(error)),
        }
    }

    fn not_connected(&mut self, number: u32, error: Option<io::Error>) -> bool {
        if let Some(upstream) = self.upstreams.get(number as usize) {
            tracing::debug!(?error, to = %upstream.key.to, "connecting to an endpoint failed");
        }
        self.upstream_failed(number, Reason::UpstreamConnectFailed, Retry::Safe);
        false
    }

    /// Reads and handles what an endpoint has sent, as far as it is wanted.
    pub(super) fn read_upstream(&mut self, number: u32) {
        let mut input = std::mem::take(&mut self.input);
        let more = self.read_upstream_once(number, &mut input);
        self.input = input;
        if more {
            self.again.push(Side::Upstream(number));
        }
    }

    /// One read; says whether another may give more.
    fn read_upstream_once(&mut self, number: u32, input: &mut [u8]) -> bool {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return false };
        if upstream.paused || upstream.phase == Phase::Connecting {
            return false;
        }
        let held = upstream.rest.len();
        let Some(room) = input.get_mut(held..held + READ_BYTES) else { return false };
        let reading = match upstream.readable && !upstream.stalled {
            true => upstream.socket.read(room),
            false if upstream.stalled => Ok(0),
            false => return false,
        };
        let (count, more) = match reading {
            Ok(0) if std::mem::take(&mut upstream.stalled) => (0, upstream.readable),
            Ok(0) => {
                (upstream.readable, upstream.ended) = (false, true);
                (0, false)
            }
            Ok(count) => {
                // A socket that gave less than there was room for is empty, unless its end is to come.
                upstream.readable = count == READ_BYTES || upstream.finished;
                (count, upstream.readable)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                upstream.readable = false;
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => {
                self.upstream_broke(number);
                return false;
            }
        };
        input[..held].copy_from_slice(&upstream.rest);
        let rest = std::mem::take(&mut upstream.rest);
        self.buffers.take_back(rest);
        let kept = &input[..held + count];
        let used = self.handle_upstream(number, kept);
        self.keep_rest_of_upstream(number, &kept[used.min(kept.len())..]);
        more
    }

    fn keep_rest_of_upstream(&mut self, number: u32, left: &[u8]) {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        if !left.is_empty() {
            debug_assert!(left.len() <= REST_BYTES);
            upstream.rest = self.buffers.lend();
            upstream.rest.extend_from_slice(left);
            upstream.stalled = matches!(upstream.wire, Wire::H2(_)) && upstream.is_behind();
        }
        if upstream.ended {
            return self.upstream_ended(number);
        }
        self.wait_for_upstream(number);
    }

    /// Hands what was read to the protocol; yields how much of it was used up.
    fn handle_upstream(&mut self, number: u32, input: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(upstream) = self.upstreams.get_mut(number as usize) else { return input.len() };
            let user = upstream.user;
            let client = match &mut upstream.wire {
                Wire::H1(client) => client,
                Wire::H2(connection) => {
                    let out = upstream.output.buffer(&mut self.buffers);
                    let received = connection.receive(&input[at..], &mut self.scratch, out);
                    at += received.consumed;
                    self.touch_upstream(number);
                    match received.event {
                        Some(event) => self.on_onward_event(number, event),
                        None => {
                            self.greeted(number);
                            return at;
                        }
                    }
                    continue;
                }
                Wire::Switched { .. } => {
                    if let Some(id) = self.of_upstream(number, None, user).filter(|_| at < input.len()) {
                        self.on_response_event(number, id, Event::Data(&input[at..]), Length::Unknown);
                    }
                    return input.len();
                }
                Wire::Bytes => {
                    self.relay_from_endpoint(number, &input[at..]);
                    return input.len();
                }
            };
            match client.receive(&input[at..], &mut self.scratch) {
                Ok((used, Some(event))) => {
                    at += used;
                    let length = client.content_length();
                    if let Some(id) = self.of_upstream(number, None, user) {
                        self.on_response_event(number, id, event, length);
                    }
                }
                Ok((used, None)) => return at + used,
                Err(error) => {
                    let retry = client.retry(upstream.sent);
                    tracing::debug!(to = %upstream.key.to, %error, "an endpoint broke the protocol");
                    self.upstream_failed(number, error.reason, retry);
                    return input.len();
                }
            }
        }
    }

    /// What waits to know what an endpoint takes is sent once that has said it.
    fn greeted(&mut self, number: u32) {
        if let Some(upstream) = self.upstreams.get(number as usize)
            && !upstream.waiting.is_empty()
            && upstream.takes_websocket().is_some()
        {
            self.send_waiting(number);
        }
    }

    fn on_response_event(&mut self, number: u32, id: u32, event: Event<'_>, length: Length) {
        match event {
            Event::Head => self.respond(id, length),
            Event::Data(data) => {
                let end = length == Length::Bytes(0);
                if !self.response_data(id, data, end)
                    && let Some(upstream) = self.upstreams.get_mut(number as usize)
                {
                    upstream.paused = true;
                }
            }
            Event::Trailers => self.response_end(id, true),
            Event::End => self.response_end(id, false),
        }
    }

    /// What came on HTTP/2.
    fn on_onward_event(&mut self, number: u32, event: h2::Event<'_>) {
        use h2::Event as Stream;
        match event {
            Stream::Interim { stream, token } => {
                if let Some(id) = self.of_onward(number, stream, token) {
                    self.respond(id, Length::Unknown);
                }
            }
            Stream::Head { stream, token, end } => {
                let length = if end { Length::Bytes(0) } else { said_length(&self.scratch) };
                if let Some(id) = self.of_onward(number, stream, token) {
                    self.respond(id, length);
                }
                if let Some(id) = self.of_onward(number, stream, token).filter(|_| end) {
                    self.response_end(id, false);
                }
            }
            Stream::Data { stream, token, content, end } => {
                let id = self.of_onward(number, stream, token);
                if id.is_none_or(|id| self.response_data(id, content, end)) {
                    self.release_to_endpoint(number, stream, content.len());
                } else if let Some(running) = id.and_then(|id| self.exchanges.get_mut(id as usize)) {
                    running.owed.1 += content.len();
                }
                if let Some(id) = self.of_onward(number, stream, token).filter(|_| end) {
                    self.response_end(id, false);
                }
            }
            Stream::Trailers { stream, token } => {
                if let Some(id) = self.of_onward(number, stream, token) {
                    self.response_end(id, true);
                }
            }
            Stream::Reset { stream, token, failure, unprocessed } => {
                if let Some(id) = self.of_onward(number, stream, token) {
                    let retry = if unprocessed { Retry::Safe } else { Retry::No };
                    self.lost(id, failure.error.reason, retry);
                }
            }
            Stream::Window { stream, token } => {
                if let Some(id) = self.of_onward(number, stream, token) {
                    self.push_request(id);
                }
            }
            Stream::GoAway { .. } => self.leave_pool(number),
            Stream::Closed { failure } => {
                tracing::debug!(error = %failure, "an endpoint broke the protocol");
                self.upstream_failed(number, failure.error.reason, Retry::No);
            }
            // An endpoint sends no requests.
            Stream::Rejected { .. } => {}
        }
        self.serve_waiting(number);
    }

    /// Tells an endpoint that so much of what it sent was taken.
    pub(super) fn release_to_endpoint(&mut self, number: u32, stream: h2::StreamId, octets: usize) {
        if let Some(upstream) = self.upstreams.get_mut(number as usize)
            && let Wire::H2(connection) = &mut upstream.wire
        {
            connection.release(stream, octets, upstream.output.buffer(&mut self.buffers));
            self.touch_upstream(number);
        }
    }

    /// The endpoint takes no further requests on this connection; those under way go on.
    fn leave_pool(&mut self, number: u32) {
        if let Some(upstream) = self.upstreams.get_mut(number as usize)
            && let Some(pool) = upstream.pool.take()
        {
            self.pools.remove(pool, number);
            self.replace_for_waiting(pool);
        }
    }

    /// The endpoint sends nothing more.
    fn upstream_ended(&mut self, number: u32) {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        let client = match &mut upstream.wire {
            Wire::H1(client) => client,
            Wire::H2(_) => return self.upstream_failed(number, Reason::UpstreamReset, Retry::No),
            Wire::Switched { .. } => {
                let user = upstream.user;
                return self
                    .of_upstream(number, None, user)
                    .into_iter()
                    .for_each(|id| self.endpoint_ended(id));
            }
            Wire::Bytes => return self.endpoint_half_closed(number),
        };
        let retry = client.retry(upstream.sent);
        match client.received_end() {
            Ok(Some(_end)) => {
                let user = upstream.user;
                if let Some(id) = self.of_upstream(number, None, user) {
                    self.response_end(id, false);
                }
                self.drop_upstream(number);
            }
            Ok(None) => self.upstream_failed(number, Reason::UpstreamReset, retry),
            Err(error) => self.upstream_failed(number, error.reason, retry),
        }
    }

    /// The connection was reset.
    fn upstream_broke(&mut self, number: u32) {
        let Some(upstream) = self.upstreams.get(number as usize) else { return };
        let retry = match &upstream.wire {
            Wire::H1(client) => client.retry(upstream.sent),
            Wire::H2(_) | Wire::Switched { .. } | Wire::Bytes => Retry::No,
        };
        self.upstream_failed(number, Reason::UpstreamReset, retry);
    }

    /// A connection to an endpoint is of no more use; whoever has it gets no more of it.
    pub(super) fn upstream_failed(&mut self, number: u32, reason: Reason, retry: Retry) {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        let connecting = upstream.phase == Phase::Connecting;
        let tunnel = upstream.user.filter(|_| matches!(upstream.wire, Wire::Bytes));
        let carried = self.all_of_upstream(number);
        let pool = self.upstreams.get(number as usize).and_then(|upstream| upstream.pool);
        self.drop_upstream(number);
        for id in carried {
            match connecting {
                true => self.failed(id, reason, true),
                false => self.lost(id, reason, retry),
            }
        }
        if let Some(pool) = pool {
            self.replace_for_waiting(pool);
        }
        if let Some(tunnel) = tunnel {
            self.end_tunnel(tunnel, connecting.then_some(reason));
        }
    }

    /// Takes a connection to an endpoint out of everything.
    pub(super) fn drop_upstream(&mut self, number: u32) {
        let Some(mut upstream) = self.upstreams.try_remove(number as usize) else { return };
        upstream.timeout.clear(&mut self.wheel);
        upstream.output.discard(&mut self.buffers);
        self.buffers.take_back(std::mem::take(&mut upstream.rest));
        if let Some(pool) = upstream.pool {
            self.pools.remove(pool, number);
        }
        drop(self.poll.registry().deregister(&mut upstream.socket));
    }

    /// Writes what an endpoint is to be told, and goes on where that made room.
    pub(super) fn flush_upstream(&mut self, number: u32) {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        upstream.is_dirty = false;
        if !upstream.writable || upstream.phase == Phase::Connecting {
            return;
        }
        match upstream.output.write(&mut upstream.socket, &mut self.buffers) {
            Ok((count, all)) => {
                upstream.writable = all;
                upstream.sent |= count > 0;
                if upstream.output.len() <= HIGH_WATER && std::mem::take(&mut upstream.holds) {
                    self.resume_clients_of(number);
                }
                self.go_on_with_requests(number);
                self.wait_for_upstream(number);
            }
            // What the endpoint said before it closed may still be read, and says more.
            Err(_) if upstream.readable || upstream.finished => {
                upstream.output.discard(&mut self.buffers);
                self.again.push(Side::Upstream(number));
            }
            Err(_) => self.upstream_broke(number),
        }
    }

    /// Content that waited for room in what is written can go on; an end that waited is passed on.
    fn go_on_with_requests(&mut self, number: u32) {
        let Some(upstream) = self.upstreams.get(number as usize) else { return };
        if upstream.stalled {
            self.again.push(Side::Upstream(number));
        }
        match (&upstream.wire, upstream.user) {
            (Wire::H2(connection), _) if connection.has_content_in_line() => {
                self.handle_upstream(number, &[]);
            }
            (Wire::Bytes, Some(tunnel)) => self.pass_ends(tunnel),
            (Wire::Switched { .. }, _) if upstream.output.is_empty() => self.pass_end_to_endpoint(number),
            _ => {}
        }
    }
}
