// SPDX-License-Identifier: Apache-2.0
//! Connections that are relayed as bytes: no route is attached and no policy asks for requests. A tunnel lives as
//! long as it is permitted.

use std::{net::Shutdown, rc::Rc};

use weft_ebpf_common::reason::Reason;

use crate::{
    request::tcp,
    serve::{
        client::Wire as ClientWire,
        engine::{Due, Engine, Side},
        running::HIGH_WATER,
        tunnel::Tunnel,
    },
    state::permit::Permit,
    upstream::{
        connection::{Phase, Wire},
        pool::PoolKey,
        timeout::Timeout,
    },
    worker::{account::Account, target::Choice},
};

impl Engine {
    /// Relays a client's connection to an endpoint for which there is a permit.
    pub(super) fn open_tunnel(&mut self, number: u32, choice: &Rc<Choice>, permit: &Permit) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        client.wire = ClientWire::Bytes;
        client.timeout.never();
        let mut account = Account::start(self.now);
        account.policy = permit.policy().cloned();
        account.choice = Some(Rc::clone(choice));
        let tunnel = Tunnel {
            client: number,
            upstream: None,
            resolved: client.connection.resolve(),
            account,
            timeout: Timeout::default(),
            client_ended: false,
            endpoint_ended: false,
        };
        let id = self.tunnels.insert(tunnel) as u32;
        client.user = Some(id);
        let key = PoolKey { from: choice.from, to: choice.address, http2: false };
        match self.connect(permit, key, Wire::Bytes) {
            Ok(upstream) => self.join(id, upstream),
            Err(error) => {
                tracing::debug!(%error, to = %choice.address, "connecting to an endpoint failed");
                self.end_tunnel(id, Some(Reason::UpstreamConnectFailed));
            }
        }
    }

    fn join(&mut self, id: u32, number: u32) {
        if let Some(upstream) = self.upstreams.get_mut(number as usize) {
            upstream.user = Some(id);
        }
        if let Some(tunnel) = self.tunnels.get_mut(id as usize) {
            tunnel.upstream = Some(number);
        }
        self.moved(id);
    }

    /// Something went through: silence begins anew.
    fn moved(&mut self, id: u32) {
        let patience = self.worker.limits().relay_timeout.as_nanos() as u64;
        if let Some(tunnel) = self.tunnels.get_mut(id as usize) {
            tunnel.timeout.until(self.now + patience, &mut self.wheel, Due::Tunnel(id));
        }
    }

    pub(super) fn relay_from_client(&mut self, number: u32, data: &[u8]) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        let Some(id) = client.user else { return };
        let Some(tunnel) = self.tunnels.get_mut(id as usize) else { return };
        let Some(upstream) = tunnel.upstream else { return };
        let Some(connection) = self.upstreams.get_mut(upstream as usize) else { return };
        tunnel.account.received += data.len() as u64;
        connection.pass(data, &mut self.buffers);
        client.paused = connection.output.len() > HIGH_WATER;
        connection.holds |= client.paused;
        self.touch_upstream(upstream);
        self.moved(id);
    }

    pub(super) fn relay_from_endpoint(&mut self, number: u32, data: &[u8]) {
        let Some(upstream) = self.upstreams.get_mut(number as usize) else { return };
        let Some(id) = upstream.user else { return };
        let Some(tunnel) = self.tunnels.get_mut(id as usize) else { return };
        let Some(client) = self.clients.get_mut(tunnel.client as usize) else { return };
        tunnel.account.sent += data.len() as u64;
        client.pass(data, &mut self.buffers);
        upstream.paused = client.output.len() > HIGH_WATER;
        client.holds |= upstream.paused;
        let number = tunnel.client;
        self.touch_client(number);
        self.moved(id);
    }

    /// The endpoint took what was there for it.
    pub(super) fn resume_tunnel_from_client(&mut self, id: u32) {
        let Some(number) = self.tunnels.get(id as usize).map(|tunnel| tunnel.client) else { return };
        if let Some(client) = self.clients.get_mut(number as usize)
            && std::mem::take(&mut client.paused)
        {
            self.again.push(Side::Client(number));
        }
    }

    /// The client took what was there for it.
    pub(super) fn resume_tunnel_from_endpoint(&mut self, id: u32) {
        if let Some(number) = self.tunnels.get(id as usize).and_then(|tunnel| tunnel.upstream) {
            self.resume_reading(number);
        }
    }

    /// The client sent its end, which goes to the endpoint behind what is still to be written.
    pub(super) fn client_half_closed(&mut self, number: u32) {
        let Some(id) = self.clients.get(number as usize).and_then(|client| client.user) else { return };
        let Some(tunnel) = self.tunnels.get_mut(id as usize) else { return };
        tunnel.client_ended = true;
        self.pass_ends(id);
    }

    pub(super) fn endpoint_half_closed(&mut self, number: u32) {
        let Some(id) = self.upstreams.get(number as usize).and_then(|upstream| upstream.user) else { return };
        let Some(tunnel) = self.tunnels.get_mut(id as usize) else { return };
        tunnel.endpoint_ended = true;
        self.pass_ends(id);
    }

    /// Passes on an end once everything before it was written; the tunnel ends with the second.
    pub(super) fn pass_ends(&mut self, id: u32) {
        let Some(tunnel) = self.tunnels.get(id as usize) else { return };
        let (Some(client), Some(upstream)) = (
            self.clients.get(tunnel.client as usize),
            tunnel.upstream.and_then(|number| self.upstreams.get(number as usize)),
        ) else {
            return;
        };
        let to_endpoint = tunnel.client_ended && upstream.phase == Phase::Open && upstream.output.is_empty();
        let to_client = tunnel.endpoint_ended && client.output.is_empty();
        // A peer that is gone already shows that itself.
        if to_endpoint {
            drop(upstream.socket.shutdown(Shutdown::Write));
        }
        if to_client {
            drop(client.socket.shutdown(Shutdown::Write));
        }
        if to_endpoint && to_client {
            self.end_tunnel(id, None);
        }
    }

    /// Ends tunnels that the new state does not permit any more.
    pub(super) fn decide_tunnels_again(&mut self) {
        let numbers: Vec<u32> = self.tunnels.iter().map(|(number, _)| number as u32).collect();
        for id in numbers {
            let Some(tunnel) = self.tunnels.get_mut(id as usize) else { continue };
            let Some(client) = self.clients.get(tunnel.client as usize) else { continue };
            let Some(choice) = tunnel.account.choice.clone() else { continue };
            let resolved = client.connection.resolve();
            let transparent = self.worker.is_transparent();
            let now = resolved.choice(choice.address, client.connection.ends, transparent);
            if let Err(denial) = now.verdicts.permit_bytes() {
                tunnel.account.denied(denial);
                self.end_tunnel(id, Some(Reason::PolicyTightened));
            }
        }
    }

    /// The end of a tunnel, however it came.
    pub(super) fn end_tunnel(&mut self, id: u32, reason: Option<Reason>) {
        let Some(mut tunnel) = self.tunnels.try_remove(id as usize) else { return };
        tunnel.timeout.clear(&mut self.wheel);
        tunnel.account.reason = tunnel.account.reason.or(reason);
        if let Some(client) = self.clients.get(tunnel.client as usize) {
            let ends = client.connection.ends;
            tunnel.account.report_connection(self.worker.reports(), &tunnel.resolved, ends, self.now);
        }
        if let Some(upstream) = tunnel.upstream {
            self.drop_upstream(upstream);
        }
        self.drop_client(tunnel.client);
    }

    /// Serves a new connection as its target and the policies ask for.
    pub(super) fn serve_client(&mut self, number: u32) {
        let Some(client) = self.clients.get(number as usize) else { return };
        let resolved = client.connection.resolve();
        match tcp::plan(&client.connection, &resolved) {
            tcp::Plan::Http => {
                self.wait_for_client(number);
                self.read_client(number);
            }
            tcp::Plan::Bytes(choice, permit) => self.open_tunnel(number, &choice, &permit),
            tcp::Plan::Refused(reason, denied) => {
                tcp::refuse(&client.connection, &resolved, reason, denied, self.now);
                self.drop_client(number);
            }
        }
    }
}
