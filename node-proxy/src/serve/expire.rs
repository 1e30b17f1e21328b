// SPDX-License-Identifier: Apache-2.0
//! Whose patience has ended, and what follows from it.

use weft_ebpf_common::reason::Reason;
use weft_http::{error::Error, h1::Retry};

use crate::{
    serve::{
        client::Wire,
        engine::{Due, Engine, Side},
        running::Switch,
    },
    upstream::connection::Phase,
};

const LATE: Error = Error::late("the request did not arrive within the time allowed");
const LATE_FIRST_BYTES: Error = Error::late("the first bytes did not arrive within the time allowed");

impl Engine {
    /// Handles every deadline that has passed.
    pub(super) fn expire(&mut self) {
        let mut passed = Vec::new();
        self.wheel.expire(self.now, &mut passed);
        for due in passed {
            match due {
                Due::Client(number) => self.guarded(Side::Client(number), |engine| engine.client_due(number)),
                Due::Upstream(number) => {
                    self.guarded(Side::Upstream(number), |engine| engine.upstream_due(number));
                }
                Due::Exchange(id) => self.for_exchange(id, |engine| engine.exchange_due(id, true)),
                Due::Try(id) => self.for_exchange(id, |engine| engine.exchange_due(id, false)),
                Due::Retry(id) => self.for_exchange(id, |engine| engine.retry_due(id)),
                Due::Stall(id) => self.for_exchange(id, |engine| engine.stall_due(id)),
                Due::Upload(id) => self.for_exchange(id, |engine| engine.upload_due(id)),
                Due::Tunnel(id) => self.tunnel_due(id),
                Due::Accept => self.accept_again(),
            }
        }
    }

    /// Handles an exchange; a panic ends its client's connection.
    fn for_exchange(&mut self, id: u32, handle: impl FnOnce(&mut Engine)) {
        if let Some(number) = self.exchanges.get(id as usize).map(|running| running.client) {
            self.guarded(Side::Client(number), handle);
        }
    }

    /// Sets until when a client is waited for, by what it is waited for.
    pub(super) fn wait_for_client(&mut self, number: u32) {
        let limits = self.worker.limits();
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        if client.closing && client.lingers {
            return;
        }
        let inside = client.is_inside_head();
        let patience = if !client.output.is_empty() {
            limits.write_timeout
        } else if inside {
            // From the first byte of the head, however the others come.
            if client.heading {
                return;
            }
            limits.head_timeout
        } else if client.is_idle() {
            limits.idle_timeout
        } else if client.wants_content() {
            limits.content_timeout
        } else {
            client.heading = false;
            return client.timeout.never();
        };
        client.heading = inside && client.output.is_empty();
        let at = self.now + patience.as_nanos() as u64;
        client.timeout.until(at, &mut self.wheel, Due::Client(number));
    }

    /// Sets until when an endpoint is waited for: while it says something, or does not read.
    pub(super) fn wait_for_upstream(&mut self, number: u32) {
        let limits = self.worker.limits();
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        if upstream.phase == Phase::Connecting || !upstream.is_used() {
            return;
        }
        let patience = if !upstream.output.is_empty() {
            limits.write_timeout
        } else if upstream.is_inside_content() && !upstream.paused {
            limits.content_timeout
        } else {
            return upstream.timeout.never();
        };
        let at = self.now + patience.as_nanos() as u64;
        upstream.timeout.until(at, &mut self.wheel, Due::Upstream(number));
    }

    /// Sets until when more of a request's content is waited for on a client's stream; on HTTP/1.1 it is the
    /// connection that is waited for. What the endpoint does not take yet is not the client's to answer for.
    pub(super) fn wait_for_upload(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        if !running.uploads() || !running.asking.is_empty() {
            return;
        }
        if running.owed.0 > 0 && running.switch != Switch::Done {
            return running.upload.never();
        }
        let limits = self.worker.limits();
        let patience = if running.converses { limits.relay_timeout } else { limits.content_timeout };
        running.upload.until(self.now + patience.as_nanos() as u64, &mut self.wheel, Due::Upload(id));
    }

    /// Sets until when the endpoint has to take something of what waits for its stream; on HTTP/1.1 it is its
    /// connection that has to.
    pub(super) fn wait_for_endpoint(&mut self, id: u32) {
        if let Some(running) = self.exchanges.get_mut(id as usize)
            && !running.asking.is_empty()
            && running.onward.is_some()
        {
            let at = self.now + self.worker.limits().write_timeout.as_nanos() as u64;
            running.upload.until(at, &mut self.wheel, Due::Upload(id));
        }
    }

    fn client_due(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        if !client.timeout.passed(self.now, &mut self.wheel, Due::Client(number)) {
            return;
        }
        client.heading = false;
        if client.closing || client.is_idle() {
            return self.drop_client(number);
        }
        if !client.output.is_empty() {
            return self.client_gone(number, Reason::ClientReset);
        }
        match client.wire {
            Wire::Sniffing => self.client_broke(number, &Error { status: None, ..LATE_FIRST_BYTES }),
            Wire::H1(_) | Wire::H2(_) => self.client_broke(number, &LATE),
            Wire::Switched { .. } | Wire::Bytes => {}
        }
    }

    fn upstream_due(&mut self, number: u32) {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        if !upstream.timeout.passed(self.now, &mut self.wheel, Due::Upstream(number)) {
            return;
        }
        match (upstream.phase, upstream.user) {
            (_, None) if !upstream.is_used() => {
                let pool = upstream.pool;
                self.drop_upstream(number);
                if let Some(pool) = pool {
                    self.replace_for_waiting(pool);
                }
            }
            (Phase::Connecting, _) => {
                self.upstream_failed(number, Reason::UpstreamConnectFailed, Retry::Safe);
            }
            (Phase::Open, _) => self.upstream_failed(number, Reason::UpstreamTimeout, Retry::No),
        }
    }

    /// A timeout of the route has passed: for the whole exchange, or for the current try.
    fn exchange_due(&mut self, id: u32, whole: bool) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let passed = match whole {
            true => running.whole.passed(self.now, &mut self.wheel, Due::Exchange(id)),
            false => running.this_try.passed(self.now, &mut self.wheel, Due::Try(id)),
        };
        if !passed {
            return;
        }
        if running.responding {
            return self.cut(id, Reason::UpstreamTimeout);
        }
        self.leave_upstream(id);
        match whole {
            true => self.refuse(id, Reason::UpstreamTimeout.into()),
            false => self.failed(id, Reason::UpstreamTimeout, false),
        }
    }

    /// A stream took nothing of its response for too long.
    fn stall_due(&mut self, id: u32) {
        if let Some(running) = self.exchanges.get_mut(id as usize)
            && running.stall.passed(self.now, &mut self.wheel, Due::Stall(id))
        {
            self.cut(id, Reason::ClientReset);
        }
    }

    /// A stream's request makes no step: its endpoint takes nothing, or its client sends nothing.
    fn upload_due(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        if !running.upload.passed(self.now, &mut self.wheel, Due::Upload(id)) {
            return;
        }
        let reason = match running.asking.is_empty() {
            true => Reason::RequestTimeout,
            false => Reason::UpstreamTimeout,
        };
        if running.switch == Switch::Done && running.asking.is_empty() {
            return self.cut_off(id);
        }
        match running.responding {
            true => self.cut(id, reason),
            false => {
                self.leave_upstream(id);
                self.refuse(id, reason.into());
            }
        }
    }

    fn retry_due(&mut self, id: u32) {
        if let Some(running) = self.exchanges.get_mut(id as usize)
            && running.pause.passed(self.now, &mut self.wheel, Due::Retry(id))
        {
            self.try_once(id);
        }
    }

    fn tunnel_due(&mut self, id: u32) {
        let Some(tunnel) = self.tunnels.get_mut(id as usize) else { return };
        if tunnel.timeout.passed(self.now, &mut self.wheel, Due::Tunnel(id)) {
            self.end_tunnel(id, None);
        }
    }
}
