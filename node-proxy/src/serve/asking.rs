// SPDX-License-Identifier: Apache-2.0
//! The way of a request: to a connection to its endpoint, and over it as far as the endpoint takes it.

use weft_ebpf_common::reason::Reason;
use weft_http::{
    h1::{Length, Retry},
    head::{FieldName, Head},
};

use crate::{
    request::exchange::Try,
    serve::{
        client::Wire,
        engine::Engine,
        held::Held,
        owners::token,
        running::{HIGH_WATER, Running, Switch},
    },
    upstream::{
        connection::{EndpointConnection, Phase, Sent, Wire as UpstreamWire},
        pool::{H2_PER_POOL, PoolId},
    },
};

impl Engine {
    /// Sends on an open connection to the endpoint, or on a new one.
    pub(super) fn attach(&mut self, id: u32, attempt: &Try) {
        let known = attempt.choice.pool(attempt.key.http2);
        let pool = self.pools.find(attempt.key, known.get());
        known.set(Some(pool));
        if attempt.key.http2 {
            let open = self.pools.http2(pool);
            let free = |number: &&u32| {
                self.upstreams.get(**number as usize).is_some_and(|upstream| upstream.has_room())
            };
            match open.iter().find(free) {
                Some(upstream) => return self.send_on(id, *upstream),
                None if open.len() >= H2_PER_POOL => return self.wait_for_stream(id, pool),
                None => {}
            }
        } else {
            while let Some(upstream) = self.pools.take_idle(pool) {
                if self.upstreams.get(upstream as usize).is_some_and(EndpointConnection::is_reusable) {
                    return self.send_on(id, upstream);
                }
                self.drop_upstream(upstream);
            }
        }
        self.attach_new(id, attempt);
    }

    fn attach_new(&mut self, id: u32, attempt: &Try) {
        let Some(permit) = self.exchanges.get(id as usize).and_then(|running| running.exchange.permit())
        else {
            return self.refuse(id, Reason::Internal.into());
        };
        let permit = permit.clone();
        match self.dial(&permit, attempt.key) {
            Ok(upstream) => self.send_on(id, upstream),
            Err(error) => {
                tracing::debug!(%error, to = %attempt.key.to, "connecting to an endpoint failed");
                self.failed(id, Reason::UpstreamConnectFailed, true);
            }
        }
    }

    /// All streams are taken and no more connections are allowed: the request waits for a stream.
    fn wait_for_stream(&mut self, id: u32, pool: PoolId) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        running.waits_on = Some(pool);
        self.pools.wait(pool, id);
    }

    /// Streams of a connection have ended: requests that waited for one are sent.
    pub(super) fn serve_waiting(&mut self, number: u32) {
        while let Some(upstream) = self.upstreams.get(number as usize)
            && upstream.has_room()
            && let Some(pool) = upstream.pool
            && let Some(id) = self.next_waiting(pool)
        {
            if self.is_still_permitted(id) {
                self.send_on(id, number);
            }
        }
    }

    /// Whether the policies of now allow what has waited; otherwise it is refused.
    fn is_still_permitted(&mut self, id: u32) -> bool {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return false };
        let Some(client) = self.clients.get(running.client as usize) else { return false };
        match running.exchange.permit_again(&client.connection) {
            Ok(()) => true,
            Err(refusal) => {
                self.refuse(id, refusal);
                false
            }
        }
    }

    /// A connection is gone: requests that waited for it and others may have a new one.
    pub(super) fn replace_for_waiting(&mut self, pool: PoolId) {
        while self.pools.http2(pool).len() < H2_PER_POOL
            && let Some(id) = self.next_waiting(pool)
        {
            if !self.is_still_permitted(id) {
                continue;
            }
            match self.exchanges.get(id as usize).and_then(|running| running.exchange.current()) {
                Some(attempt) => self.attach(id, &attempt),
                None => self.failed(id, Reason::Internal, true),
            }
        }
    }

    /// Gives a request to a connection, which takes it once it stands.
    fn send_on(&mut self, id: u32, number: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        running.upstream = Some(number);
        if !matches!(upstream.wire, UpstreamWire::H2(_)) {
            upstream.user = Some(id);
        }
        let takes = match running.switch {
            Switch::Offered if upstream.key.http2 && running.content.length != Length::Bytes(0) => {
                Some(false)
            }
            Switch::Offered => upstream.takes_websocket(),
            Switch::No | Switch::Done => Some(true),
        };
        match takes {
            Some(false) => self.refuse(id, Reason::TunnelUnsupported.into()),
            Some(true) if upstream.phase == Phase::Open => self.write_request(id, number),
            // What is written cannot be taken back, and policies may be others by the time that it stands.
            _ => {
                running.waits = true;
                upstream.waiting.push(id);
            }
        }
    }

    /// The endpoint is there, or has said what it takes: what has waited for that is sent, as far as it is still
    /// allowed.
    pub(super) fn send_waiting(&mut self, number: u32) {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        for id in std::mem::take(&mut upstream.waiting) {
            let waits = |running: &Running| running.waits && running.upstream == Some(number);
            if self.exchanges.get(id as usize).is_some_and(waits) && self.is_still_permitted(id) {
                self.send_on(id, number);
            }
        }
    }

    /// Writes the head of a request, and what is there of its content.
    fn write_request(&mut self, id: u32, number: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        // A permit is for one endpoint: what has none for this one is refused, never sent.
        let Some(permit) = running.exchange.permit().filter(|_| running.exchange.is_for(upstream.key)) else {
            return self.refuse(id, Reason::Internal.into());
        };
        running.waits = false;
        let content = &mut running.content;
        let (length, end) = (content.length, content.is_empty());
        let request = Sent { head: running.exchange.sent(), length, end, number: token(id) };
        match upstream.send_head(permit, request, &mut self.buffers) {
            Ok(onward) => running.onward = onward,
            Err(reason) => return self.unsendable(id, number, reason),
        }
        upstream.timeout.never();
        if running.switch == Switch::Offered && length == Length::Bytes(0) {
            // Whatever follows is for when the endpoint has agreed.
            return self.touch_upstream(number);
        }
        running.asking = Held::default();
        running.asking.add(content.kept());
        running.asking.ended = content.is_complete();
        running.asking.trailers = content.trailers().map(|trailers| Box::new(trailers.clone()));
        content.handed_on();
        self.touch_upstream(number);
        match end && self.exchanges.get(id as usize).is_some_and(|running| running.onward.is_some()) {
            true => self.noted_end(id),
            false => {
                self.wait_for_endpoint(id);
                self.push_request(id);
            }
        }
        self.ask_for_content(id);
    }

    fn noted_end(&mut self, id: u32) {
        if let Some(running) = self.exchanges.get_mut(id as usize) {
            running.asking = Held::default();
        }
    }

    /// The request cannot be written to the connection.
    fn unsendable(&mut self, id: u32, number: u32, reason: Reason) {
        if self.upstreams.get(number as usize).is_some_and(|it| matches!(it.wire, UpstreamWire::H2(_))) {
            self.leave_upstream(id);
        } else {
            self.drop_upstream(number);
        }
        self.failed(id, reason, false);
    }

    /// Hands the endpoint what it takes of the request's content.
    pub(super) fn push_request(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let Some(number) = running.carrier() else { return };
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        let (held, stream) = (&mut running.asking, running.onward);
        let last = held.ended && held.trailers.is_none();
        let ends_with_data = last && stream.is_some() && !held.is_empty();
        let mut sent = match held.is_empty() {
            true => Ok(0),
            false => upstream.send_data(stream, held.bytes(), last, &mut self.buffers),
        };
        if let Ok(taken) = sent {
            held.taken(taken);
            if held.is_empty() && std::mem::take(&mut held.ended) {
                let trailers = held.trailers.take();
                running.asked = true;
                if !ends_with_data {
                    sent = upstream.finish(stream, trailers.as_deref(), &mut self.buffers).map(|()| 0);
                }
            }
        }
        let waits = !held.is_empty();
        self.touch_upstream(number);
        match sent {
            Err(reason) => self.unsendable(id, number, reason),
            Ok(taken) if waits && taken > 0 => self.wait_for_endpoint(id),
            Ok(_) if waits => {}
            Ok(_) => {
                self.resume_client(id);
                self.end_if_both_ended(id);
            }
        }
    }

    /// The request will be read: a client that waits for that is told so.
    fn ask_for_content(&mut self, id: u32) {
        let Some(running) = self.exchanges.get(id as usize) else { return };
        let number = running.client;
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        match (&mut client.wire, running.stream) {
            (Wire::H1(server), _) if server.expects_continue() => {
                server.send_continue(client.output.buffer(&mut self.buffers));
            }
            (Wire::H2(_), Some(stream)) if running.exchange.received.has(FieldName::Expect) => {
                let mut head = Head::new();
                if head.start_response(100).is_ok() {
                    // A client that is gone shows that itself.
                    client.send_head(Some(stream), &head, Length::Unknown, &mut self.buffers).ok();
                }
            }
            _ => return,
        }
        self.touch_client(number);
    }

    /// A piece of the request's content was read; says whether it was taken on the way to the endpoint.
    pub(super) fn request_data(&mut self, id: u32, data: &[u8]) -> bool {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return true };
        running.exchange.account.received += data.len() as u64;
        match running.switch {
            Switch::Offered if running.stream.is_some() => {
                running.asking.add(data);
                return false;
            }
            Switch::Done => {}
            Switch::No | Switch::Offered => running.content.add(data, running.carrier().is_none()),
        }
        let Some(number) = running.carrier() else {
            return !running.content.is_full();
        };
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return true };
        let sent = match running.asking.is_empty() {
            true => upstream.send_data(running.onward, data, false, &mut self.buffers),
            false => Ok(0),
        };
        match sent {
            Ok(taken) => {
                let stops = running.asking.is_empty() && taken < data.len();
                running.asking.add(&data[taken..]);
                let room = running.asking.is_empty() && upstream.output.len() <= HIGH_WATER;
                upstream.holds |= !room;
                self.touch_upstream(number);
                if stops {
                    self.wait_for_endpoint(id);
                }
                room
            }
            Err(reason) => {
                self.unsendable(id, number, reason);
                true
            }
        }
    }

    /// The request was read to its end; its trailers are in the scratch head.
    pub(super) fn request_end(&mut self, id: u32, trailers: bool) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        if running.relays_request() {
            running.asking.ended = !running.asked;
            if running.switch == Switch::Done && !running.asked {
                self.push_request(id);
            }
            return;
        }
        if running.content.is_complete() {
            return;
        }
        if running.asking.is_empty() {
            running.upload.never();
        }
        running.content.end(trailers.then(|| {
            let spare = self.heads.lend();
            std::mem::replace(&mut self.scratch, spare)
        }));
        if running.carrier().is_some() {
            running.asking.ended = true;
            running.asking.trailers = running.content.trailers().map(|trailers| Box::new(trailers.clone()));
            self.push_request(id);
        }
    }

    /// The connection ended before the response began. One that the endpoint closed while it was idle costs
    /// another, not the request, if that may be sent again.
    pub(super) fn lost(&mut self, id: u32, reason: Reason, retry: Retry) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        running.detach();
        let again = match retry {
            Retry::Safe => true,
            Retry::IfIdempotent => running.exchange.received.method().is_idempotent(),
            Retry::No => false,
        };
        if again
            && !running.responding
            && running.content.is_kept()
            && let Some(attempt) = running.exchange.again()
        {
            return self.attach(id, &attempt);
        }
        self.failed(id, reason, retry == Retry::Safe);
    }
}
