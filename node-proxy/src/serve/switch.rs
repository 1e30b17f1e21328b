// SPDX-License-Identifier: Apache-2.0
//! Requests that switch to a WebSocket, from either version of HTTP to either.
//!
//! To routes and policies it is a GET that offers to switch, in both versions: an extended CONNECT (RFC 8441) is
//! made one as it comes, and is written as one where an endpoint speaks HTTP/2. Once the endpoint has agreed, the
//! exchange goes on as two ways of bytes, each with an end of its own, for as long as it is permitted.

use std::net::Shutdown;

use weft_ebpf_common::reason::Reason;
use weft_http::{
    error::Error,
    h1::Length,
    h2::StreamId,
    head::{FieldName, Method, Value},
    websocket,
};

use crate::{
    request::reply::Refusal,
    serve::{
        client::Wire,
        downstream::said_length,
        engine::{Engine, Side},
        running::Switch,
    },
    upstream::connection::Wire as UpstreamWire,
};

const NO_TUNNEL: Error = Error::tunnel("only an extended connect to a websocket is relayed");

impl Engine {
    /// A request's head was read on a stream; `end`: nothing follows it.
    pub(super) fn begin_on_stream(&mut self, number: u32, stream: StreamId, end: bool) {
        let connects = self.scratch.method() == Method::Connect;
        if connects && !self.offer_of_connect() {
            return self.reject(number, Some(stream), &NO_TUNNEL);
        }
        // What follows a connect is no content of it.
        let length = if end || connects { Length::Bytes(0) } else { said_length(&self.scratch) };
        let id = self.begin(number, Some(stream), length);
        if let Some(id) = self.of_client(number, Some(stream), id).filter(|_| connects && end) {
            self.request_end(id, false);
        }
    }

    /// Makes an offer of the extended CONNECT in the scratch head; false for any other CONNECT.
    fn offer_of_connect(&mut self) -> bool {
        let key = websocket::key(self.worker.with_picker(|picker| picker.octets()));
        let key = Value::new(&key).expect("invariant: base64 is a value");
        matches!(websocket::connect_to_offer(&mut self.scratch, key), Ok(true))
    }

    /// Makes of an endpoint's answer to an offer, in the scratch head, what the client's version says instead;
    /// whether it agrees.
    pub(super) fn agrees(&mut self, id: u32) -> Result<bool, Refusal> {
        let Some(running) = self.exchanges.get(id as usize) else { return Ok(false) };
        if running.switch != Switch::Offered {
            return Ok(false);
        }
        let head = &mut *self.scratch;
        let success = head.status() / 100 == 2;
        let agrees = if running.onward.is_some() { success } else { head.status() == 101 };
        match (running.stream.is_some(), running.onward.is_some()) {
            // A page would be taken for a stream.
            (true, _) if !agrees && success => return Err(Reason::TunnelUnsupported.into()),
            _ if !agrees => return Ok(false),
            (false, false) => {}
            (true, true) => drop(head.remove(&FieldName::ContentLength.into())),
            (true, false) => {
                let key = running.exchange.sent().known(FieldName::SecWebsocketKey);
                let accept = key.and_then(websocket::accept);
                let proved = accept.is_some()
                    && head.known(FieldName::SecWebsocketAccept) == accept.as_ref().map(|accept| &accept[..]);
                if !proved || websocket::switch_to_accepted(head) != Ok(true) {
                    return Err(Reason::UpstreamProtocol.into());
                }
            }
            (false, true) => {
                let key = running.exchange.received.known(FieldName::SecWebsocketKey);
                let accept = key.and_then(websocket::accept).ok_or(Reason::BadRequest)?;
                let accept = Value::new(&accept).expect("invariant: base64 is a value");
                websocket::accepted_to_switch(head, accept).map_err(|_full| Reason::UpstreamProtocol)?;
            }
        }
        Ok(true)
    }

    /// Whether an exchange may switch that will outlive its request: the policy may be another since that was sent.
    pub(super) fn may_switch(&mut self, id: u32) -> Result<(), Refusal> {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return Ok(()) };
        let Some(client) = self.clients.get(running.client as usize) else { return Ok(()) };
        running.exchange.permit_again(&client.connection)
    }

    /// The client was told that its request has switched: it is reported, and bytes go both ways.
    pub(super) fn switch(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let Some(client) = self.clients.get_mut(running.client as usize) else { return };
        running.exchange.report(self.worker.reports(), client.connection.ends, self.now);
        running.exchange.begin_relay(self.now);
        running.switch = Switch::Done;
        running.whole.clear(&mut self.wheel);
        running.this_try.clear(&mut self.wheel);
        if running.stream.is_none() {
            client.wire = Wire::Switched { ended: false };
            self.again.push(Side::Client(running.client));
        }
        if running.onward.is_none()
            && let Some(upstream) =
                running.upstream.and_then(|number| self.upstreams.get_mut(number as usize))
        {
            upstream.wire = UpstreamWire::Switched { ended: false };
        }
        self.wait_for_upload(id);
        // What a client has sent before it was answered.
        self.push_request(id);
    }

    /// The endpoint sends nothing more; what it has sent may still wait for the client.
    pub(super) fn endpoint_ended(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        running.answering.ended = true;
        if !running.answering.is_empty() {
            return;
        }
        let number = running.client;
        if !std::mem::replace(&mut running.answered, true)
            && let Some(client) = self.clients.get_mut(number as usize)
            && let Err(reason) = client.finish(running.stream, None, &mut self.buffers)
        {
            return self.cut(id, reason);
        }
        self.touch_client(number);
        self.end_if_both_ended(id);
    }

    /// Passes on the end of a connection's bytes, which were written.
    pub(super) fn pass_end_to_client(&mut self, number: u32) {
        if let Some(client) = self.clients.get(number as usize)
            && let (Wire::Switched { ended: true }, Some(id)) = (&client.wire, client.user)
        {
            // A peer that is gone already shows that itself.
            drop(client.socket.shutdown(Shutdown::Write));
            self.end_if_both_ended(id);
        }
    }

    /// The same for an endpoint.
    pub(super) fn pass_end_to_endpoint(&mut self, number: u32) {
        if let Some(upstream) = self.upstreams.get(number as usize)
            && let (UpstreamWire::Switched { ended: true }, Some(id)) = (&upstream.wire, upstream.user)
        {
            drop(upstream.socket.shutdown(Shutdown::Write));
            self.end_if_both_ended(id);
        }
    }

    /// Ends an exchange that has switched, once either side has sent its end and was told of the other's.
    pub(super) fn end_if_both_ended(&mut self, id: u32) {
        let Some(running) = self.exchanges.get(id as usize) else { return };
        if running.switch != Switch::Done || !running.asked || !running.answered {
            return;
        }
        let number = running.client;
        let client = self.clients.get(number as usize).filter(|client| client.is_tunnel());
        let upstream = running.upstream.and_then(|number| self.upstreams.get(number as usize));
        let upstream = upstream.filter(|upstream| matches!(upstream.wire, UpstreamWire::Switched { .. }));
        if client.is_some_and(|client| !client.output.is_empty())
            || upstream.is_some_and(|upstream| !upstream.output.is_empty())
        {
            return;
        }
        let closes = client.is_some();
        self.leave_upstream(id);
        self.end(id);
        if closes {
            self.close_client(number);
        }
    }

    /// Ends what has switched and is not permitted any more.
    pub(super) fn decide_switched_again(&mut self) {
        let switched = self.exchanges.iter().filter(|(_, running)| running.switch == Switch::Done);
        let numbers: Vec<u32> = switched.map(|(number, _)| number as u32).collect();
        for id in numbers {
            let Some(running) = self.exchanges.get_mut(id as usize) else { continue };
            let Some(client) = self.clients.get(running.client as usize) else { continue };
            if running.exchange.permit_again(&client.connection).is_err() {
                self.cut(id, Reason::PolicyTightened);
            }
        }
    }
}
