// SPDX-License-Identifier: Apache-2.0
//! What one worker does, turn by turn.
//!
//! A turn: wait until a socket is ready, a deadline passes or control says something; then read what is
//! there, handle it to its end as far as nobody has to be waited for, and write everything that came of
//! it, once for each connection. Nothing here waits for anything else, and there is no task and no future
//! for a connection or a request: each is a struct that is changed in place.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use weft_ebpf_common::reason::Reason;
use weft_http::{h1::Retry, head::Head};

use crate::{
    serve::{
        client::{Client, Wire},
        listening::Listening,
        running::Running,
        tunnel::Tunnel,
    },
    state::MeshState,
    upstream::{clock, connection::EndpointConnection, output::Buffers, pool::Pools, wheel::Wheel},
    worker::{Worker, heads::Heads},
};

/// Bytes that are read from a socket at once.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// The most that can be left of what was read: a head, which a codec bounds, or one read of a pipeline.
pub(super) const REST_BYTES: usize = 192 * 1024;
/// Sockets that one turn handles.
const EVENTS: usize = 256;

/// What a deadline is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    Client(u32),
    Upstream(u32),
    /// The route's timeout for the whole exchange.
    Exchange(u32),
    /// The route's timeout for the current try.
    Try(u32),
    /// The pause before the next try.
    Retry(u32),
    /// A client's stream takes nothing of its response.
    Stall(u32),
    /// A stream's request makes no step.
    Upload(u32),
    Tunnel(u32),
    /// Accepting goes on.
    Accept,
}

/// Everything that one worker has open.
pub(super) struct Engine {
    pub(super) worker: Rc<Worker>,
    pub(super) poll: Poll,
    pub(super) listeners: Slab<Listening>,
    pub(super) clients: Slab<Client>,
    pub(super) upstreams: Slab<EndpointConnection>,
    pub(super) exchanges: Slab<Running>,
    pub(super) tunnels: Slab<Tunnel>,
    pub(super) pools: Pools,
    pub(super) wheel: Wheel<Due>,
    pub(super) buffers: Buffers,
    /// Heads that nobody uses.
    pub(super) heads: Heads,
    /// The head that is being read.
    pub(super) scratch: Box<Head>,
    /// What is read lies here while it is handled.
    pub(super) input: Vec<u8>,
    /// Connections with something to write.
    pub(super) dirty: Vec<Side>,
    /// Connections that may have something to be read, besides those that the kernel names.
    pub(super) again: Vec<Side>,
    /// A list without connections, with the room that it once needed.
    spare: Vec<Side>,
    /// The time of this turn, in nanoseconds since the start of the process.
    pub(super) now: u64,
    /// By how many nanoseconds tests have put the clock forward.
    pub(super) ahead: u64,
    pub(super) draining: bool,
    owners: u32,
    /// A connection has ended, so that another finds room.
    pub(super) accepts_again: bool,
}

/// One connection of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client(u32),
    Upstream(u32),
}

/// Sockets are named by what they are, in the lowest two bits, their number in the next thirty, and above that
/// how often numbers were given: a turn may still name a socket that it has closed itself, whose number another
/// has by then.
const KINDS: usize = 4;
const NUMBERS: usize = 1 << 32;
const LISTENER: usize = 0;
const CLIENT: usize = 1;
const UPSTREAM: usize = 2;
const WAKER: Token = Token(3);

pub(super) fn listener_token(number: usize) -> Token {
    Token(number * KINDS + LISTENER)
}

pub(super) fn client_token(number: u32, owner: u32) -> Token {
    Token(owner as usize * NUMBERS + number as usize * KINDS + CLIENT)
}

pub(super) fn upstream_token(number: u32, owner: u32) -> Token {
    Token(owner as usize * NUMBERS + number as usize * KINDS + UPSTREAM)
}

pub(super) const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

impl Engine {
    /// An engine with nothing open, and what wakes it from another thread.
    pub(super) fn new(worker: Rc<Worker>) -> io::Result<(Engine, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let now = clock::nanos();
        let engine = Engine {
            worker,
            poll,
            listeners: Slab::new(),
            clients: Slab::new(),
            upstreams: Slab::new(),
            exchanges: Slab::new(),
            tunnels: Slab::new(),
            pools: Pools::default(),
            wheel: Wheel::new(now),
            buffers: Buffers::default(),
            heads: Heads::default(),
            scratch: Box::default(),
            input: vec![0; REST_BYTES + READ_BYTES],
            dirty: Vec::new(),
            again: Vec::new(),
            spare: Vec::new(),
            now,
            ahead: 0,
            draining: false,
            owners: 0,
            accepts_again: false,
        };
        Ok((engine, waker))
    }

    /// Sockets that one turn can name.
    pub(super) fn events() -> Events {
        Events::with_capacity(EVENTS)
    }

    /// One turn, of at most `longest`.
    pub(super) fn turn(&mut self, events: &mut Events, longest: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, self.patience(longest)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        self.now = clock::nanos() + self.ahead;
        for event in events.iter() {
            let token = event.token().0;
            let (number, kind) = (token % NUMBERS / KINDS, token % KINDS);
            match kind {
                LISTENER => self.accept(number),
                CLIENT | UPSTREAM if !self.is_of_owner(kind, number, token / NUMBERS) => {}
                CLIENT => self.guarded(Side::Client(number as u32), |engine| {
                    engine.on_client(number as u32, event.into());
                }),
                UPSTREAM => self.guarded(Side::Upstream(number as u32), |engine| {
                    engine.on_upstream(number as u32, event.into());
                }),
                // Control is heard after each turn.
                _ => {}
            }
        }
        self.expire();
        self.settle();
        if std::mem::take(&mut self.accepts_again) {
            self.accept_again();
            self.settle();
        }
        Ok(())
    }

    /// Whether a socket is still the one that was named.
    fn is_of_owner(&self, kind: usize, number: usize, owner: usize) -> bool {
        let now = match kind {
            CLIENT => self.clients.get(number).map(|client| client.owner),
            _ => self.upstreams.get(number).map(|upstream| upstream.owner),
        };
        now.is_some_and(|now| now as usize == owner)
    }

    /// What a socket is told from those by that had its number before.
    pub(super) fn next_owner(&mut self) -> u32 {
        self.owners = self.owners.wrapping_add(1);
        self.owners
    }

    fn patience(&self, longest: Option<Duration>) -> Option<Duration> {
        if !self.again.is_empty() || !self.dirty.is_empty() {
            return Some(Duration::ZERO);
        }
        let wait = self.wheel.wait(self.now).map(Duration::from_nanos);
        match (wait, longest) {
            (Some(wait), Some(longest)) => Some(wait.min(longest)),
            (wait, longest) => wait.or(longest),
        }
    }

    /// Handles one connection; a panic ends that connection and nothing else.
    pub(super) fn guarded(&mut self, side: Side, handle: impl FnOnce(&mut Engine)) {
        if catch_unwind(AssertUnwindSafe(|| handle(self))).is_ok() {
            return;
        }
        weft_runtime::supervise::count_panic();
        tracing::error!(?side, "a panic ended a connection");
        // What it left half changed is not looked at again.
        let ended = catch_unwind(AssertUnwindSafe(|| match side {
            Side::Client(number) => self.client_gone(number, Reason::Internal),
            Side::Upstream(number) => self.upstream_failed(number, Reason::Internal, Retry::No),
        }));
        if ended.is_err() {
            tracing::error!(?side, "a connection could not be ended after a panic");
        }
        self.input.resize(REST_BYTES + READ_BYTES, 0);
    }

    /// Writes what the turn made, and reads on where more is there or room was made, until nothing is left that
    /// can be done now. What a connection has to say when the turn ends waits for its socket. What was read is
    /// written before more is read, so that it need not be kept.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            self.in_turn(
                |engine| &mut engine.dirty,
                |engine, side| match side {
                    Side::Client(number) => engine.flush_client(number),
                    Side::Upstream(number) => engine.flush_upstream(number),
                },
            );
            if self.again.is_empty() && self.dirty.is_empty() {
                break;
            }
            self.in_turn(
                |engine| &mut engine.again,
                |engine, side| match side {
                    Side::Client(number) => engine.read_client(number),
                    Side::Upstream(number) => engine.read_upstream(number),
                },
            );
        }
    }

    /// Handles the connections of a list; those that come onto it meanwhile are for the next time.
    fn in_turn(&mut self, list: fn(&mut Engine) -> &mut Vec<Side>, handle: fn(&mut Engine, Side)) {
        let spare = std::mem::take(&mut self.spare);
        let mut sides = std::mem::replace(list(self), spare);
        for side in sides.drain(..) {
            self.guarded(side, |engine| handle(engine, side));
        }
        self.spare = sides;
    }

    /// Serves a new state from the next request on.
    pub(super) fn publish(&mut self, state: Arc<MeshState>) {
        self.worker.publish(state);
        self.decide_tunnels_again();
        self.decide_switched_again();
    }

    /// Takes nothing more: connections end when their requests are done.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.keep_listeners(|_| false);
        let numbers: Vec<u32> = self.clients.iter().map(|(number, _)| number as u32).collect();
        for number in numbers {
            if let Some(client) = self.clients.get_mut(number as usize) {
                match &mut client.wire {
                    Wire::H1(server) => server.leave(),
                    Wire::H2(connection) => {
                        connection.shutdown(client.output.buffer(&mut self.buffers));
                        self.touch_client(number);
                    }
                    Wire::Sniffing | Wire::Switched { .. } | Wire::Bytes => {}
                }
            }
            self.close_if_done(number);
        }
        self.settle();
    }

    /// Whether no client is connected.
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Ends what did not end in time.
    pub(super) fn cut_what_is_left(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        tracing::warn!(connections = self.clients.len(), "connections were cut at the end of the drain");
        let numbers: Vec<u32> = self.clients.iter().map(|(number, _)| number as u32).collect();
        numbers.into_iter().for_each(|number| self.client_gone(number, Reason::ClientReset));
    }

    /// Has a client's connection written at the end of the turn.
    pub(super) fn touch_client(&mut self, number: u32) {
        if let Some(client) = self.clients.get_mut(number as usize)
            && !client.is_dirty
        {
            client.is_dirty = true;
            self.dirty.push(Side::Client(number));
        }
    }

    /// Has a connection to an endpoint written at the end of the turn.
    pub(super) fn touch_upstream(&mut self, number: u32) {
        if let Some(upstream) = self.upstreams.get_mut(number as usize)
            && !upstream.is_dirty
        {
            upstream.is_dirty = true;
            self.dirty.push(Side::Upstream(number));
        }
    }
}

/// How often one turn goes on with a connection; the rest is for the next turn, so that one that always has more
/// holds up no other.
const ROUNDS: usize = 4;
