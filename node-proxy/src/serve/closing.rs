// SPDX-License-Identifier: Apache-2.0
//! How connections of clients are closed, so that what was written is read.

use std::io::Read;

use crate::{
    serve::{
        client::Wire,
        engine::{Due, Engine},
    },
    worker::limits::Limits,
};

impl Engine {
    /// Closes a connection on which nothing more is to happen.
    pub(super) fn close_if_done(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        let done = match &client.wire {
            Wire::Sniffing => self.draining && client.rest.is_empty(),
            Wire::H1(server) => client.user.is_none() && server.wants_close(),
            Wire::H2(connection) => connection.is_closed() || connection.is_drained(),
            Wire::Switched { .. } | Wire::Bytes => false,
        };
        if done {
            self.close_client(number);
        }
    }

    /// Closes a connection once everything is written.
    pub(super) fn close_client(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        client.closing = true;
        if client.output.is_empty() {
            self.linger(number);
        }
    }

    /// Sends the end of what was written, and lets the client read it before the connection is cut: bytes
    /// that it still sends would reset the connection, and with it what it has not read (RFC 9112, section
    /// 9.6).
    pub(super) fn linger(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        if client.ended || client.lingers {
            if client.ended {
                self.drop_client(number);
            }
            return;
        }
        client.lingers = true;
        if client.socket.shutdown(std::net::Shutdown::Write).is_err() {
            return self.drop_client(number);
        }
        client.timeout.until(self.now + Limits::LINGER, &mut self.wheel, Due::Client(number));
        self.read_away(number);
    }

    /// Reads what a client still sends on a connection that is closing.
    pub(super) fn read_away(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(number as usize) else { return };
        let mut sink = [0; 4096];
        for _ in 0..Limits::LINGER_READS {
            match client.socket.read(&mut sink) {
                Ok(0) => return self.drop_client(number),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return self.drop_client(number),
            }
        }
        self.drop_client(number);
    }
}
