// SPDX-License-Identifier: Apache-2.0
//! Exchanges: from the head of a request to the last byte of the response, or to whatever ended it before.

use weft_ebpf_common::reason::Reason;
use weft_http::{
    h1::Length,
    h2::{ErrorCode, StreamId},
};

use crate::{
    request::exchange::{Exchange, Next, Outcome},
    serve::{
        client::Wire,
        content::Content,
        engine::{Due, Engine, Side},
        held::Held,
        owners::token,
        running::{Running, Switch},
    },
    upstream::{
        connection::{Phase, Wire as UpstreamWire},
        timeout::Timeout,
    },
};

impl Engine {
    /// A request's head was read; yields the number of its exchange. `length` is that of its content.
    pub(super) fn begin(&mut self, number: u32, stream: Option<StreamId>, length: Length) -> Option<u32> {
        let client = self.clients.get_mut(number as usize)?;
        let spare = self.heads.lend();
        let head = std::mem::replace(&mut self.scratch, spare);
        client.timeout.never();
        let exchange = Exchange::new(&client.connection, head, self.now);
        let converses = exchange.is_grpc();
        let switch = if exchange.received.upgrade().is_some() { Switch::Offered } else { Switch::No };
        let running = Running {
            exchange,
            client: number,
            stream,
            upstream: None,
            waits: false,
            waits_on: None,
            onward: None,
            content: Content::new(length),
            asking: Held::default(),
            answering: Held::default(),
            owed: (0, 0),
            converses,
            switch,
            asked: false,
            responding: false,
            answered: false,
            whole: Timeout::default(),
            this_try: Timeout::default(),
            pause: Timeout::default(),
            stall: Timeout::default(),
            upload: Timeout::default(),
        };
        let id = self.exchanges.insert(running) as u32;
        match (&mut client.wire, stream) {
            (Wire::H2(connection), Some(stream)) => connection.set_token(stream, token(id)),
            _ => client.user = Some(id),
        }
        self.wait_for_upload(id);
        self.plan(id);
        Some(id)
    }

    fn plan(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let Some(client) = self.clients.get(running.client as usize) else { return };
        let connection = &client.connection;
        match running.exchange.plan(connection, &mut self.scratch, &mut self.heads) {
            Ok(Next::Send) => {
                if let (Some(timeout), _) = running.exchange.timeouts() {
                    let at = self.now + timeout.as_nanos() as u64;
                    running.whole.until(at, &mut self.wheel, Due::Exchange(id));
                }
                self.try_once(id);
            }
            Ok(Next::Answer) => self.answer(id, b""),
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    /// Picks an endpoint, asks both ends' policies, and sends.
    pub(super) fn try_once(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let Some(client) = self.clients.get(running.client as usize) else { return };
        let attempt = match running.exchange.next_try(&client.connection, self.now) {
            Ok(attempt) => attempt,
            Err(refusal) => return self.refuse(id, refusal),
        };
        running.content.keep = running.exchange.may_retry();
        if let (_, Some(timeout)) = running.exchange.timeouts() {
            let at = self.now + timeout.as_nanos() as u64;
            running.this_try.until(at, &mut self.wheel, Due::Try(id));
        }
        self.attach(id, &attempt);
    }

    /// There is no response to come from this try.
    pub(super) fn failed(&mut self, id: u32, reason: Reason, safe: bool) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        running.detach();
        if running.responding {
            return self.cut(id, reason);
        }
        running.exchange.answered(None, self.now);
        let Some(client) = self.clients.get(running.client as usize) else { return };
        let outcome = Outcome::Failed { reason, safe };
        if running.content.is_kept() && running.exchange.wants_retry(&client.connection, outcome, self.now) {
            return self.pause(id);
        }
        self.refuse(id, reason.into());
    }

    /// Waits before the next try.
    pub(super) fn pause(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        running.exchange.between_tries();
        let Some(client) = self.clients.get(running.client as usize) else { return };
        running.this_try.clear(&mut self.wheel);
        let pause = running.exchange.pause(&client.connection).as_nanos() as u64;
        running.pause.until(self.now + pause, &mut self.wheel, Due::Retry(id));
    }

    /// The response cannot be completed: the client sees that by the end of its stream or connection.
    pub(super) fn cut(&mut self, id: u32, reason: Reason) {
        if let Some(running) = self.exchanges.get_mut(id as usize) {
            running.exchange.account.reason.get_or_insert(reason);
        }
        self.cut_off(id);
    }

    /// The same, for no reason that is anybody's fault.
    pub(super) fn cut_off(&mut self, id: u32) {
        let Some(running) = self.exchanges.get(id as usize) else { return };
        let (number, stream) = (running.client, running.stream);
        // What was relayed ends as by a reset of TCP (RFC 8441, section 5).
        let code = match running.switch {
            Switch::Done => ErrorCode::CANCEL,
            Switch::No | Switch::Offered => ErrorCode::INTERNAL_ERROR,
        };
        self.leave_upstream(id);
        self.end(id);
        if let Some(client) = self.clients.get_mut(number as usize)
            && !client.reset(stream, code, &mut self.buffers)
        {
            client.closing = true;
            client.cut = true;
        }
        self.touch_client(number);
    }

    /// The client is not there for the response any more.
    pub(super) fn abandon(&mut self, id: u32, reason: Reason) {
        if let Some(running) = self.exchanges.get_mut(id as usize)
            // Who was told that nothing follows may go.
            && !(running.switch == Switch::Done && running.answered)
        {
            running.exchange.account.reason.get_or_insert(reason);
        }
        self.leave_upstream(id);
        self.end(id);
    }

    /// Lets go of the connection to the endpoint: kept where it can carry another request, closed otherwise.
    pub(super) fn leave_upstream(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let (Some(number), onward) = (running.upstream.take(), running.onward.take()) else { return };
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        if std::mem::take(&mut running.waits) {
            upstream.waiting.retain(|waiting| *waiting != id);
        }
        if let UpstreamWire::H2(connection) = &mut upstream.wire {
            if let Some(stream) = onward {
                let out = upstream.output.buffer(&mut self.buffers);
                connection.release(stream, std::mem::take(&mut running.owed.1), out);
                // One that has ended already is not found any more.
                connection.reset(stream, ErrorCode::CANCEL, out);
            }
            self.keep_unused(number);
            self.touch_upstream(number);
            return self.serve_waiting(number);
        }
        upstream.user = None;
        upstream.paused = false;
        if !upstream.is_reusable() || !upstream.output.is_empty() {
            return self.drop_upstream(number);
        }
        let pool = self.pools.find(upstream.key, upstream.pool);
        upstream.pool = Some(pool);
        self.keep_unused(number);
        if !self.pools.keep_idle(pool, number) {
            self.drop_upstream(number);
        }
    }

    /// Keeps a connection that nobody uses, for a while. One that is still being made has until then.
    pub(super) fn keep_unused(&mut self, number: u32) {
        if let Some(upstream) = self.upstreams.get_mut(number as usize)
            && !upstream.is_used()
            && upstream.phase == Phase::Open
        {
            let patience = self.worker.limits().keep_timeout.as_nanos() as u64;
            upstream.timeout.until(self.now + patience, &mut self.wheel, Due::Upstream(number));
        }
    }

    /// The end of an exchange, however it came: the one place from which it is reported.
    pub(super) fn end(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        running.clear_timeouts(&mut self.wheel);
        let (number, stream, owed) = (running.client, running.stream, std::mem::take(&mut running.owed.0));
        if let Some(stream) = stream.filter(|_| owed > 0) {
            self.release_to_client(number, stream, owed);
        }
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        if let Some(client) = self.clients.get_mut(number as usize) {
            let ends = client.connection.ends;
            match running.switch {
                Switch::Done => running.exchange.report_relay(self.worker.reports(), ends, self.now),
                Switch::No | Switch::Offered => {
                    running.exchange.report(self.worker.reports(), ends, self.now);
                }
            }
            if client.user == Some(id) {
                client.user = None;
            }
            if stream.is_none() {
                client.paused = false;
                // The next request of a pipeline was left, or more was there than was wanted.
                if client.readable || client.ended || !client.rest.is_empty() {
                    self.again.push(Side::Client(number));
                }
            }
        }
        running.content.give_up(&mut self.buffers);
        // Large as it is, it is moved only here.
        if let Some(running) = self.exchanges.try_remove(id as usize) {
            running.exchange.recycle(&mut self.heads);
        }
    }
}
