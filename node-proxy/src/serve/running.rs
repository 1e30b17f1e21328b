// SPDX-License-Identifier: Apache-2.0
//! An exchange with its bytes.

use weft_http::h2::StreamId;

use crate::{
    request::exchange::Exchange,
    serve::{content::Content, held::Held},
    upstream::{pool::PoolId, timeout::Timeout, wheel::Wheel},
};

/// Bytes that wait for a client or an endpoint before its other end is not read any more.
pub(super) const HIGH_WATER: usize = 128 * 1024;

/// How far an exchange is on its way to a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// Nobody offers to switch.
    No,
    /// The client does.
    Offered,
    /// The endpoint has agreed: bytes go both ways.
    Done,
}

/// An exchange, and who carries it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) exchange: Exchange,
    pub(super) client: u32,
    /// Its stream on the client's connection, where that speaks HTTP/2.
    pub(super) stream: Option<StreamId>,
    /// The connection to the endpoint.
    pub(super) upstream: Option<u32>,
    /// That is not ready for it yet.
    pub(super) waits: bool,
    /// The connections of which none has a stream for it yet.
    pub(super) waits_on: Option<PoolId>,
    /// Its stream on that, where it speaks HTTP/2.
    pub(super) onward: Option<StreamId>,
    /// The content of the request that is kept, or waits for a connection.
    pub(super) content: Content,
    /// The content of the request that the endpoint does not take yet.
    pub(super) asking: Held,
    /// The content of the response that the client does not take yet.
    pub(super) answering: Held,
    /// Bytes of the request, and of the response, that their sender was not told to be taken.
    pub(super) owed: (usize, usize),
    /// Either end may speak at any time, and be silent for long: a gRPC call, or a response has begun.
    pub(super) converses: bool,
    /// Whether it is to become a WebSocket, or is one.
    pub(super) switch: Switch,
    /// All of the request was handed on, or of what a client has sent since it switched.
    pub(super) asked: bool,
    /// The head of the response was written.
    pub(super) responding: bool,
    /// All of the response was written.
    pub(super) answered: bool,
    /// The route's timeout for the whole exchange.
    pub(super) whole: Timeout,
    /// The route's timeout for the current try.
    pub(super) this_try: Timeout,
    /// The pause before the next try.
    pub(super) pause: Timeout,
    /// Until when the client's stream has to take something of what waits for it.
    pub(super) stall: Timeout,
    /// Until when more of the request has to come, or to be taken, on HTTP/2.
    pub(super) upload: Timeout,
}

impl Running {
    /// Nobody waits for it any more.
    pub(super) fn clear_timeouts<K: Copy>(&mut self, wheel: &mut Wheel<K>) {
        for timeout in
            [&mut self.whole, &mut self.this_try, &mut self.pause, &mut self.stall, &mut self.upload]
        {
            timeout.clear(wheel);
        }
    }

    /// The connection to the endpoint, once the request is on it.
    pub(super) fn carrier(&self) -> Option<u32> {
        self.upstream.filter(|_| !self.waits)
    }

    /// Whether what its client sends is not content of its request but what follows a switch.
    pub(super) fn relays_request(&self) -> bool {
        self.switch == Switch::Done || self.switch == Switch::Offered && self.stream.is_some()
    }

    /// Whether more may come of its client for which nobody else waits.
    pub(super) fn uploads(&self) -> bool {
        self.switch == Switch::Done || self.stream.is_some() && !self.content.is_complete()
    }

    /// It has no connection, and stands in no line for one.
    pub(super) fn detach(&mut self) {
        (self.upstream, self.waits, self.onward, self.waits_on) = (None, false, None, None);
    }
}
