// SPDX-License-Identifier: Apache-2.0
//! Frames that carry no message.

use super::{
    Connection, ErrorCode, Event, Fault, Frame, MAX_PAYLOAD, OUTPUT_FOR_CONTENT, Phase, StreamId, frame,
};
use crate::h2::{
    config::{Role, setting},
    error::{not_processed, reset_by_peer},
    frame::MAX_WINDOW,
    streams::Sending,
};

/// Settings in one frame that cost as much as a frame of their own.
const SETTINGS_PER_COST: u32 = 8;

impl Connection {
    pub(super) fn control(
        &mut self,
        number: u32,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        match frame {
            Frame::WindowUpdate { increment } if number == 0 => self.connection_window(increment)?,
            Frame::WindowUpdate { increment } => return self.stream_window(number, increment, out),
            Frame::Reset { code } => return self.reset_by_peer(number, code, out),
            Frame::Settings { ack: false, entries } => self.settings(entries, out)?,
            Frame::Settings { ack: true, .. } => self.settings_acknowledged()?,
            Frame::Ping { ack: false, payload } => {
                self.budget.control(1)?;
                frame::write_ping(true, payload, out);
            }
            Frame::Ping { ack: true, payload } => self.pong(payload, out)?,
            Frame::GoAway { last, code } => return self.go_away(last, code).map(Some),
            Frame::Priority | Frame::Unknown => self.budget.control(1)?,
            Frame::Headers { .. } | Frame::Continuation { .. } => {}
        }
        Ok(None)
    }

    fn connection_window(&mut self, increment: u32) -> Result<(), Fault> {
        self.budget.control(1)?;
        if increment == 0 {
            return Err(Fault::protocol("a window that grows by nothing"));
        }
        self.send_window = larger(self.send_window, increment)?;
        Ok(())
    }

    fn stream_window(
        &mut self,
        number: u32,
        increment: u32,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        self.budget.control(1)?;
        let Some(id) = self.streams.find(number) else {
            return if self.is_idle(number) {
                Err(Fault::protocol("a window for a stream that nobody opened"))
            } else {
                Ok(None)
            };
        };
        let Some(stream) = self.streams.get(id) else { return Ok(None) };
        let grown = match increment {
            0 => Err(Fault::protocol("a window that grows by nothing")),
            _ => larger(stream.send_window, increment),
        };
        match grown {
            Ok(window) => stream.send_window = window,
            Err(fault) => return self.fail_stream(id, fault, out),
        }
        self.window_opened(id);
        Ok(None)
    }

    /// A stream whose window has grown takes its place in the line if it waits for that.
    fn window_opened(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(id)
            && stream.waits_for_window
            && stream.send_window > 0
        {
            stream.waits_for_window = false;
            stream.in_line = true;
            self.line.push_back(id);
        }
    }

    /// The next stream of the line that may send, if the connection may.
    pub(super) fn serve_line(&mut self, out: &[u8]) -> Option<Event<'static>> {
        while self.send_window > 0 && out.len() < OUTPUT_FOR_CONTENT {
            let id = self.line.pop_front()?;
            let Some(stream) = self.streams.get(id).filter(|stream| stream.in_line) else { continue };
            stream.in_line = false;
            if stream.send_window > 0 {
                return Some(Event::Window { stream: id, token: stream.token });
            }
            stream.waits_for_window = true;
        }
        None
    }

    fn reset_by_peer(
        &mut self,
        number: u32,
        code: ErrorCode,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'static>>, Fault> {
        let known = self.streams.find(number);
        if known.is_none() && self.is_idle(number) {
            return Err(Fault::protocol("a reset of a stream that nobody opened"));
        }
        let stream = known.and_then(|id| Some((id, self.streams.get(id)?)));
        let Some((id, stream)) = stream.filter(|(_, stream)| !stream.lingers) else {
            self.budget.control(1)?;
            return Ok(None);
        };
        let token = stream.token;
        // Once the response has begun, somebody has served it, and it is as good as another request.
        if self.role == Role::Server && stream.sending == Sending::Head {
            self.budget.reset()?;
        } else {
            self.budget.control(1)?;
        }
        self.forget(id, false, out);
        let unprocessed = self.role == Role::Client && code == ErrorCode::REFUSED_STREAM;
        let failure = reset_by_peer(code, self.role);
        Ok(Some(Event::Reset { stream: id, token, failure, unprocessed }))
    }

    fn settings(&mut self, entries: &[[u8; 6]], out: &mut Vec<u8>) -> Result<(), Fault> {
        self.budget.control(1 + entries.len() as u32 / SETTINGS_PER_COST)?;
        let mut window = None;
        for [n1, n0, v3, v2, v1, v0] in entries {
            let value = u32::from_be_bytes([*v3, *v2, *v1, *v0]);
            match u16::from_be_bytes([*n1, *n0]) {
                setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                    return Err(Fault::flow("the initial window is too large"));
                }
                setting::INITIAL_WINDOW_SIZE => window = Some(value as i32),
                name => self.setting(name, value)?,
            }
        }
        if let Some(window) = window {
            self.resize_windows(window)?;
        }
        frame::write_settings_ack(out);
        self.phase = Phase::Open;
        Ok(())
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Fault> {
        match name {
            setting::HEADER_TABLE_SIZE => self.encoder.set_limit(value as usize),
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
            setting::MAX_HEADER_LIST_SIZE => self.peer.max_header_list = value as usize,
            setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                return Err(Fault::protocol("a value of enable_push that nobody may send"));
            }
            setting::MAX_FRAME_SIZE if !(MAX_PAYLOAD..1 << 24).contains(&(value as usize)) => {
                return Err(Fault::protocol("a largest frame that is none"));
            }
            setting::ENABLE_CONNECT_PROTOCOL if value > 1 || (value == 0 && self.peer.extended_connect) => {
                return Err(Fault::protocol("extended connect is no longer allowed"));
            }
            setting::ENABLE_CONNECT_PROTOCOL => self.peer.extended_connect = value == 1,
            _ => {}
        }
        Ok(())
    }

    /// Every stream's window changes by as much as the initial one (RFC 9113, section 6.9.2).
    fn resize_windows(&mut self, window: i32) -> Result<(), Fault> {
        let old = std::mem::replace(&mut self.peer.initial_window, window);
        let change = i64::from(window) - i64::from(old);
        for (id, stream) in self.streams.iter_mut() {
            let grown = i64::from(stream.send_window) + change;
            stream.send_window =
                i32::try_from(grown).map_err(|_error| Fault::flow("a window grows above its limit"))?;
            if stream.waits_for_window && stream.send_window > 0 {
                stream.waits_for_window = false;
                stream.in_line = true;
                self.line.push_back(id);
            }
        }
        Ok(())
    }

    fn settings_acknowledged(&mut self) -> Result<(), Fault> {
        match self.settings_sent {
            0 => self.budget.control(1),
            _ => {
                self.settings_sent -= 1;
                self.decoder.set_limit(self.config.header_table as usize);
                Ok(())
            }
        }
    }

    fn go_away(&mut self, last: u32, code: ErrorCode) -> Result<Event<'static>, Fault> {
        self.budget.control(1)?;
        let last = self.closing.peer_last.map_or(last, |before| before.min(last));
        self.closing.peer_last = Some(last);
        self.closing.report = self.role == Role::Client;
        Ok(Event::GoAway { code })
    }

    /// The next of the streams that the server never looked at.
    pub(super) fn report_unprocessed(&mut self, out: &mut Vec<u8>) -> Option<Event<'static>> {
        let last = self.closing.peer_last.unwrap_or(MAX_WINDOW);
        let behind = self.streams.iter().find(|(id, stream)| id.number > last && !stream.lingers);
        let Some((id, token)) = behind.map(|(id, stream)| (id, stream.token)) else {
            self.closing.report = false;
            return None;
        };
        self.forget(id, false, out);
        let failure = not_processed(ErrorCode::REFUSED_STREAM);
        Some(Event::Reset { stream: id, token, failure, unprocessed: true })
    }
}

fn larger(window: i32, increment: u32) -> Result<i32, Fault> {
    i32::try_from(i64::from(window) + i64::from(increment))
        .map_err(|_error| Fault::flow("a window grows above its limit"))
}
