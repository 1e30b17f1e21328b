// SPDX-License-Identifier: Apache-2.0
//! Connections from clients: reads them, hands on what they say, writes what they are told.

use std::io::Read;

use weft_ebpf_common::reason::Reason;
use weft_http::{
    error::{Error, Scope},
    h1::{self, Event, Length},
    h2::{self, ErrorCode, PREFACE, StreamId},
    head::{FieldName, Head, Scheme},
};

use crate::{
    serve::{
        client::Wire,
        engine::{Engine, READ_BYTES, REST_BYTES, Side},
    },
    worker::{account::Account, limits::Limits},
};

impl Engine {
    /// The kernel says that a client's socket is ready.
    pub(super) fn on_client(&mut self, number: u32, ready: Ready) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        client.readable |= ready.readable;
        client.finished |= ready.finished;
        if ready.gone {
            return self.client_gone(number, Reason::ClientReset);
        }
        if ready.writable {
            client.writable = true;
            if !client.output.is_empty() {
                self.touch_client(number);
            }
        }
        self.read_client(number);
    }

    /// Reads and handles what a client has sent, as far as it is wanted.
    pub(super) fn read_client(&mut self, number: u32) {
        let mut input = std::mem::take(&mut self.input);
        let more = self.read_client_once(number, &mut input);
        self.input = input;
        if more {
            self.again.push(Side::Client(number));
        }
    }

    /// One read; says whether another may give more.
    fn read_client_once(&mut self, number: u32, input: &mut [u8]) -> bool {
        let Some(client) = self.clients.get_mut(number as usize) else { return false };
        if client.closing {
            return false;
        }
        let held = client.rest.len();
        let mut len = held;
        let mut more = false;
        if client.wants_more() {
            let Some(room) = input.get_mut(held..held + READ_BYTES) else { return false };
            match client.socket.read(room) {
                Ok(0) => (client.readable, client.ended) = (false, true),
                Ok(count) => {
                    len += count;
                    // A socket that gave less than there was room for is empty, unless its end is to come.
                    more = count == READ_BYTES || client.finished;
                    client.readable = more;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => client.readable = false,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return true,
                Err(_) => {
                    self.client_gone(number, Reason::ClientReset);
                    return false;
                }
            }
        }
        if len == held && !client.ended && !client.stalled {
            return false;
        }
        let Some((kept, _)) = input.split_at_mut_checked(len) else { return false };
        kept[..held].copy_from_slice(&client.rest);
        let rest = std::mem::take(&mut client.rest);
        let stalled = std::mem::take(&mut client.stalled);
        self.buffers.take_back(rest);
        let used = self.handle_client(number, kept);
        self.keep_rest(number, &kept[used..]);
        // What came while it was stalled was not read, and the kernel tells of it once.
        more || stalled && self.clients.get(number as usize).is_some_and(|client| client.wants_more())
    }

    /// Keeps what was not used up for the next read.
    fn keep_rest(&mut self, number: u32, left: &[u8]) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        if !left.is_empty() {
            debug_assert!(left.len() <= REST_BYTES);
            client.rest = self.buffers.lend();
            client.rest.extend_from_slice(left);
            // A pipeline waits for the end of a response; HTTP/2 until what we answer is read. What is left of
            // a request that has not come to its end waits for more.
            client.stalled = match client.wire {
                Wire::H2(_) => client.is_behind(),
                Wire::H1(_) => client.user.is_some_and(|id| {
                    self.exchanges.get(id as usize).is_some_and(|running| running.content.is_complete())
                }),
                Wire::Sniffing | Wire::Switched { .. } | Wire::Bytes => false,
            };
        }
        if client.ended && !client.closing {
            self.client_ended(number);
        }
        self.wait_for_client(number);
    }

    /// Hands what was read to the protocol; yields how much of it was used up.
    fn handle_client(&mut self, number: u32, input: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(client) = self.clients.get_mut(number as usize) else { return at };
            if client.closing {
                // Nobody reads it.
                return input.len();
            }
            let result = match &mut client.wire {
                Wire::Sniffing => {
                    let out = client.output.buffer(&mut self.buffers);
                    match sniff(&input[at..], &self.worker.limits(), out) {
                        Some(wire) => client.wire = wire,
                        None => return at,
                    }
                    continue;
                }
                Wire::H1(server) => server.receive(&input[at..], &mut self.scratch),
                Wire::H2(connection) => {
                    let out = client.output.buffer(&mut self.buffers);
                    let received = connection.receive(&input[at..], &mut self.scratch, out);
                    at += received.consumed;
                    self.touch_client(number);
                    match received.event {
                        Some(event) => self.on_stream_event(number, event),
                        None => return at,
                    }
                    continue;
                }
                Wire::Switched { .. } => {
                    let user = client.user;
                    if let Some(id) = self.of_client(number, None, user).filter(|_| at < input.len()) {
                        self.content_of(number, id, &input[at..]);
                    }
                    return input.len();
                }
                Wire::Bytes => {
                    self.relay_from_client(number, &input[at..]);
                    return input.len();
                }
            };
            match result {
                Ok((used, Some(event))) => {
                    at += used;
                    self.on_request_event(number, event);
                }
                Ok((used, None)) => return at + used,
                Err(error) => {
                    self.client_broke(number, &error);
                    return input.len();
                }
            }
        }
    }

    /// What came on HTTP/1.1.
    fn on_request_event(&mut self, number: u32, event: Event<'_>) {
        let Some(client) = self.clients.get(number as usize) else { return };
        let Wire::H1(server) = &client.wire else { return };
        match (event, self.of_client(number, None, client.user)) {
            (Event::Head, _) => {
                let length = server.content_length();
                self.begin(number, None, length);
            }
            (Event::Data(data), Some(id)) => self.content_of(number, id, data),
            (Event::Trailers, Some(id)) => self.request_end(id, true),
            (Event::End, Some(id)) => self.request_end(id, false),
            // The response is finished already: the codec reads the rest away.
            (_, None) => {}
        }
    }

    /// Hands on content that is not a stream's, and reads no more of it while it is not taken.
    fn content_of(&mut self, number: u32, id: u32, data: &[u8]) {
        let taken = self.request_data(id, data);
        if let Some(client) = self.clients.get_mut(number as usize) {
            client.paused = !taken && client.user == Some(id);
        }
        self.wait_for_upload(id);
    }

    /// What came on HTTP/2.
    fn on_stream_event(&mut self, number: u32, event: h2::Event<'_>) {
        use h2::Event as Stream;
        match event {
            Stream::Head { stream, end, .. } => self.begin_on_stream(number, stream, end),
            Stream::Data { stream, token, content, end } => {
                let id = self.of_stream(number, stream, token);
                if id.is_none_or(|id| self.request_data(id, content)) {
                    self.release_to_client(number, stream, content.len());
                } else if let Some(running) = id.and_then(|id| self.exchanges.get_mut(id as usize)) {
                    running.owed.0 += content.len();
                }
                match self.of_stream(number, stream, token) {
                    Some(id) if end => self.request_end(id, false),
                    Some(id) => self.wait_for_upload(id),
                    None => {}
                }
            }
            Stream::Trailers { stream, token } => {
                if let Some(id) = self.of_stream(number, stream, token) {
                    self.request_end(id, true);
                }
            }
            Stream::Reset { stream, token, failure, .. } => {
                if let Some(id) = self.of_stream(number, stream, token) {
                    self.abandon(id, failure.error.reason);
                }
            }
            Stream::Window { stream, token } => {
                if let Some(id) = self.of_stream(number, stream, token) {
                    self.push_response(id);
                }
            }
            Stream::Rejected { stream, failure } => self.reject(number, stream, &failure.error),
            Stream::Closed { failure } => self.client_broke(number, &failure.error),
            // The client opens no further streams; it is never a server.
            Stream::GoAway { .. } | Stream::Interim { .. } => {}
        }
    }

    /// A request that breaks a rule of HTTP: it is answered where its stream is still there.
    pub(super) fn reject(&mut self, number: u32, stream: Option<StreamId>, error: &Error) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        let status = error.status.filter(|_| stream.is_some());
        if let (Some(status), Some(stream)) = (status, stream) {
            let mut head = Head::new();
            let sent = head.start_response(status).is_ok()
                && client.send_head(Some(stream), &head, Length::Bytes(0), &mut self.buffers).is_ok();
            client.reset(
                Some(stream),
                if sent { ErrorCode::NO_ERROR } else { ErrorCode::PROTOCOL_ERROR },
                &mut self.buffers,
            );
            self.touch_client(number);
        }
        self.report_refused(number, error, status.unwrap_or(0));
    }

    /// Tells a client that so much of what it sent was taken.
    pub(super) fn release_to_client(&mut self, number: u32, stream: StreamId, octets: usize) {
        if let Some(client) = self.clients.get_mut(number as usize)
            && let Wire::H2(connection) = &mut client.wire
        {
            connection.release(stream, octets, client.output.buffer(&mut self.buffers));
            self.touch_client(number);
        }
    }

    /// The client sends nothing more.
    fn client_ended(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        match &mut client.wire {
            Wire::Sniffing if client.rest.is_empty() => self.drop_client(number),
            Wire::Sniffing => self.client_broke(number, &CLOSED),
            Wire::H1(server) => match server.received_end() {
                Ok(()) => self.close_if_done(number),
                Err(error) => self.client_broke(number, &error),
            },
            Wire::H2(_) => self.client_gone(number, Reason::ClientReset),
            Wire::Switched { .. } => {
                let user = client.user;
                if let Some(id) = self.of_client(number, None, user) {
                    self.request_end(id, false);
                }
            }
            Wire::Bytes => self.client_half_closed(number),
        }
    }

    /// What the client sent cannot be read: it is told so, where it can be, and the connection ends.
    pub(super) fn client_broke(&mut self, number: u32, error: &Error) {
        let running = self.all_of_client(number);
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        client.user = None;
        // HTTP/2 has no answer for what is no request.
        let told = error.status.filter(|_| matches!(client.wire, Wire::H1(_))).unwrap_or(0);
        let out = client.output.buffer(&mut self.buffers);
        match &mut client.wire {
            Wire::H1(server) => server.refuse(error, out),
            Wire::H2(connection) => connection.close(ErrorCode::NO_ERROR, out),
            Wire::Sniffing | Wire::Switched { .. } | Wire::Bytes => {}
        }
        client.closing = true;
        self.touch_client(number);
        if running.is_empty() {
            self.report_refused(number, error, told);
        }
        running.into_iter().for_each(|exchange| self.abandon(exchange, error.reason));
    }

    /// Reports what was refused before it was a request.
    fn report_refused(&mut self, number: u32, error: &Error, status: u16) {
        let Some(client) = self.clients.get(number as usize) else { return };
        let (ends, resolved) = (client.connection.ends, client.connection.resolve());
        let mut account = Account::start(self.now);
        account.reason = Some(error.reason);
        account.report_refused(self.worker.reports(), &resolved, ends, status, self.now);
        tracing::debug!(client = %ends.client, destination = %ends.destination, %error, "request refused");
    }

    /// Nobody is left to be answered.
    pub(super) fn client_gone(&mut self, number: u32, reason: Reason) {
        let running = self.all_of_client(number);
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        match (&client.wire, client.user.take()) {
            (Wire::Bytes, Some(tunnel)) => self.end_tunnel(tunnel, None),
            _ => running.into_iter().for_each(|exchange| self.abandon(exchange, reason)),
        }
        self.drop_client(number);
    }

    /// Takes a client out of everything.
    pub(super) fn drop_client(&mut self, number: u32) {
        let Some(mut client) = self.clients.try_remove(number as usize) else { return };
        client.timeout.clear(&mut self.wheel);
        client.output.discard(&mut self.buffers);
        self.buffers.take_back(std::mem::take(&mut client.rest));
        // A socket that is closed leaves the set by itself; what it was registered for must not stay.
        drop(self.poll.registry().deregister(&mut client.socket));
        self.accepts_again |= self.clients.len() + 1 == self.worker.connections_limit();
    }

    /// Writes what a client is to be told, and goes on where that made room.
    pub(super) fn flush_client(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        client.is_dirty = false;
        if !client.writable {
            return;
        }
        match client.output.write(&mut client.socket, &mut self.buffers) {
            Ok((_, all)) => {
                client.writable = all;
                if all {
                    self.client_took_all(number);
                }
                self.wait_for_client(number);
            }
            Err(_) => self.client_gone(number, Reason::ClientReset),
        }
    }

    fn client_took_all(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        if client.closing {
            return if client.cut { self.drop_client(number) } else { self.linger(number) };
        }
        if std::mem::take(&mut client.holds) {
            match (&client.wire, client.user) {
                (Wire::Bytes, Some(tunnel)) => self.resume_tunnel_from_endpoint(tunnel),
                _ => self.all_of_client(number).into_iter().for_each(|id| self.resume_endpoint(id)),
            }
        }
        if let Some(client) = self.clients.get(number as usize)
            && let (Wire::Bytes, Some(tunnel)) = (&client.wire, client.user)
        {
            self.pass_ends(tunnel);
        }
        self.pass_end_to_client(number);
        self.go_on_with_streams(number);
        if self.clients.get(number as usize).is_some_and(|client| client.stalled && client.user.is_none()) {
            self.again.push(Side::Client(number));
        }
        self.close_if_done(number);
    }

    /// Content that waited for room in what is written can go on.
    fn go_on_with_streams(&mut self, number: u32) {
        let Some(client) = self.clients.get(number as usize) else { return };
        if let Wire::H2(connection) = &client.wire
            && connection.has_content_in_line()
        {
            self.handle_client(number, &[]);
        }
    }
}

const CLOSED: Error = Error {
    reason: Reason::ClientReset,
    status: None,
    scope: Scope::Connection,
    detail: "the client closed inside the first bytes",
};

/// What the kernel says of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer sends nothing after what is there.
    pub(super) finished: bool,
    /// The connection is no more.
    pub(super) gone: bool,
}

impl From<&mio::event::Event> for Ready {
    fn from(event: &mio::event::Event) -> Ready {
        Ready {
            readable: event.is_readable(),
            writable: event.is_writable(),
            finished: event.is_read_closed(),
            gone: event.is_error() || event.is_read_closed() && event.is_write_closed(),
        }
    }
}

/// The length of content that a head says.
pub(super) fn said_length(head: &Head) -> Length {
    let said = head.known(FieldName::ContentLength).and_then(|text| std::str::from_utf8(text).ok());
    said.and_then(|text| text.parse().ok()).map_or(Length::Unknown, Length::Bytes)
}

/// Tells HTTP/2 from HTTP/1.1 by the first bytes; nothing while they are the beginning of both.
fn sniff(input: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Option<Wire> {
    let seen = input.len().min(PREFACE.len());
    let begins = input[..seen] == PREFACE[..seen];
    // No request has this method (RFC 9113, section 11.6): what goes on in another way is a broken preface.
    if !begins && !input.starts_with(b"PRI ") {
        return Some(Wire::H1(h1::Server::new(limits.h1, Scheme::Http)));
    }
    let known = !begins || seen == PREFACE.len();
    known.then(|| Wire::H2(Box::new(h2::Connection::server(&limits.h2, out))))
}
