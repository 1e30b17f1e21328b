// SPDX-License-Identifier: Apache-2.0
//! The way of a response: to the client, as far as it takes it; and the answers that the proxy gives itself.

use weft_http::{h1::Length, h2::ErrorCode, head::Method};

use crate::{
    request::{exchange::Outcome, reply::Refusal},
    serve::{
        engine::{Due, Engine},
        running::{HIGH_WATER, Switch},
    },
};

impl Engine {
    /// The head of a response is in the scratch head.
    pub(super) fn respond(&mut self, id: u32, length: Length) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let number = running.client;
        let status = self.scratch.status();
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        if self.scratch.is_interim() && status != 101 {
            // One that only asks for the content was given already.
            let sent = status != 100
                && client.send_head(running.stream, &self.scratch, length, &mut self.buffers).is_ok();
            if sent {
                self.touch_client(number);
            }
            return;
        }
        running.exchange.answered(Some(status), self.now);
        if running.content.is_kept()
            && running.exchange.wants_retry(&client.connection, Outcome::Status(status), self.now)
        {
            self.leave_upstream(id);
            return self.pause(id);
        }
        let agrees = self.agrees(id).and_then(|agrees| match agrees {
            true => self.may_switch(id).map(|()| true),
            false => Ok(false),
        });
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        let filtered = agrees.and_then(|agrees| running.exchange.respond(&mut self.scratch).map(|()| agrees));
        let agrees = match filtered {
            Ok(agrees) => agrees,
            Err(refusal) => {
                self.leave_upstream(id);
                return self.refuse(id, refusal);
            }
        };
        running.exchange.account.status = self.scratch.status();
        running.content.give_up(&mut self.buffers);
        let length = if agrees { Length::Unknown } else { length };
        match client.send_head(running.stream, &self.scratch, length, &mut self.buffers) {
            Ok(all) => {
                running.responding = true;
                running.converses = true;
                running.answered = all;
                self.touch_client(number);
                self.wait_for_upload(id);
                if agrees {
                    self.switch(id);
                }
            }
            Err(reason) => {
                self.leave_upstream(id);
                self.refuse(id, reason.into());
            }
        }
    }

    /// A piece of a response's content was read, the last where it ends; says whether it was taken.
    pub(super) fn response_data(&mut self, id: u32, data: &[u8], end: bool) -> bool {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return true };
        let number = running.client;
        let Some(client) = self.clients.get_mut(number as usize) else { return true };
        running.exchange.account.sent += data.len() as u64;
        let sent = match running.answering.is_empty() {
            true => client.send_data(running.stream, data, end, &mut self.buffers),
            false => Ok(0),
        };
        match sent {
            Ok(taken) => {
                if running.answering.is_empty() && taken < data.len() {
                    let at = self.now + self.worker.limits().write_timeout.as_nanos() as u64;
                    running.stall.until(at, &mut self.wheel, Due::Stall(id));
                }
                running.answering.add(&data[taken..]);
                running.answered |= end && running.stream.is_some() && running.answering.is_empty();
                let room = running.answering.is_empty() && client.output.len() <= HIGH_WATER;
                client.holds |= !room;
                let uploads = running.uploads();
                self.touch_client(number);
                if uploads {
                    self.wait_for_upload(id);
                }
                room
            }
            Err(reason) => {
                self.cut(id, reason);
                true
            }
        }
    }

    /// Hands the client what it takes of the response's content.
    pub(super) fn push_response(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let number = running.client;
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        let held = &mut running.answering;
        let end = held.ended && held.trailers.is_none();
        match client.send_data(running.stream, held.bytes(), end, &mut self.buffers) {
            Ok(taken) => {
                held.taken(taken);
                if held.is_empty() {
                    running.stall.never();
                } else if taken > 0 {
                    let at = self.now + self.worker.limits().write_timeout.as_nanos() as u64;
                    running.stall.until(at, &mut self.wheel, Due::Stall(id));
                }
            }
            Err(reason) => return self.cut(id, reason),
        }
        let (waits, ended) = (!held.is_empty(), held.ended);
        let trailers = if waits { None } else { held.trailers.take() };
        running.answered |= end && !waits;
        let switched = running.switch == Switch::Done;
        self.touch_client(number);
        match (waits, ended) {
            (true, _) => {}
            (false, true) if switched => self.endpoint_ended(id),
            (false, false) => self.resume_endpoint(id),
            (false, true) => {
                let has_trailers = trailers.is_some();
                if let Some(trailers) = trailers {
                    self.scratch = trailers;
                }
                self.finish_response(id, has_trailers);
            }
        }
    }

    /// A response was read to its end; its trailers are in the scratch head.
    pub(super) fn response_end(&mut self, id: u32, trailers: bool) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        if running.switch == Switch::Done {
            return self.endpoint_ended(id);
        }
        if !running.answering.is_empty() {
            running.answering.ended = true;
            running.answering.trailers = trailers.then(|| Box::new((*self.scratch).clone()));
            return self.leave_upstream(id);
        }
        self.finish_response(id, trailers);
    }

    /// All content was taken; trailers are in the scratch head.
    fn finish_response(&mut self, id: u32, trailers: bool) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let number = running.client;
        let done = match self.clients.get_mut(number as usize) {
            Some(client) if !running.answered => {
                let trailers = trailers.then_some(&*self.scratch);
                client.finish(running.stream, trailers, &mut self.buffers)
            }
            _ => Ok(()),
        };
        self.touch_client(number);
        match done {
            Ok(()) => {
                self.leave_upstream(id);
                self.stop_reading_request(id);
                self.end(id);
            }
            Err(reason) => self.cut(id, reason),
        }
    }

    /// The response is complete before its request: on HTTP/2 the client is told that the rest is not wanted
    /// (RFC 9113, section 8.1); on HTTP/1.1 the codec reads it away or ends the connection.
    fn stop_reading_request(&mut self, id: u32) {
        let Some(running) = self.exchanges.get(id as usize) else { return };
        let unfinished = match running.relays_request() {
            true => !running.asking.ended && !running.asked,
            false => !running.content.is_complete(),
        };
        if unfinished && let Some(client) = self.clients.get_mut(running.client as usize) {
            client.reset(running.stream, ErrorCode::NO_ERROR, &mut self.buffers);
        }
    }

    /// Answers a request that is not sent, or got no response.
    pub(super) fn refuse(&mut self, id: u32, refusal: Refusal) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        running.exchange.account.reason = Some(refusal.reason);
        let body = refusal.answer(running.exchange.is_grpc(), &mut self.scratch);
        self.answer(id, body);
    }

    /// Answers with the head that is in the scratch head.
    pub(super) fn answer(&mut self, id: u32, body: &[u8]) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        let (number, stream) = (running.client, running.stream);
        running.exchange.account.status = self.scratch.status();
        if running.exchange.account.answered == 0 {
            running.exchange.account.answered = self.now;
        }
        // What answers HEAD has no content, and HTTP/1.1 says what it would be (RFC 9110, section 9.3.2).
        let said = Length::Bytes(body.len() as u64);
        let body = if running.exchange.received.method() == Method::Head { &[] } else { body };
        let length = if stream.is_some() { Length::Bytes(body.len() as u64) } else { said };
        running.exchange.account.sent += body.len() as u64;
        running.responding = true;
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        match client.send_head(stream, &self.scratch, length, &mut self.buffers) {
            Ok(all) => running.answered = all,
            Err(reason) => return self.cut(id, reason),
        }
        if self.response_data(id, body, true) || body.is_empty() {
            self.response_end(id, false);
        } else if let Some(running) = self.exchanges.get_mut(id as usize) {
            running.answering.ended = true;
        }
    }
}
