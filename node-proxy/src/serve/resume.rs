// SPDX-License-Identifier: Apache-2.0
//! Who was held up, because the other end did not take what it sent, goes on.

use crate::{
    serve::engine::{Engine, Side},
    upstream::connection::Wire,
};

impl Engine {
    /// An endpoint took what was there for it: its clients are read again.
    pub(super) fn resume_clients_of(&mut self, number: u32) {
        let Some(upstream) = self.upstreams.get(number as usize) else { return };
        match (&upstream.wire, upstream.user) {
            (Wire::Bytes, Some(tunnel)) => self.resume_tunnel_from_client(tunnel),
            _ => self.all_of_upstream(number).into_iter().for_each(|id| self.resume_client(id)),
        }
    }

    /// What the client of an exchange sent was taken: more is read of it.
    pub(super) fn resume_client(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        if !running.asking.is_empty() {
            return;
        }
        let (number, owed) = (running.client, std::mem::take(&mut running.owed.0));
        match running.stream {
            Some(stream) => {
                if owed > 0 {
                    self.release_to_client(number, stream, owed);
                }
                self.wait_for_upload(id);
            }
            None => {
                if let Some(client) = self.clients.get_mut(number as usize)
                    && std::mem::take(&mut client.paused)
                {
                    self.again.push(Side::Client(number));
                }
            }
        }
    }

    /// What the endpoint of an exchange sent was taken: more is read of it.
    pub(super) fn resume_endpoint(&mut self, id: u32) {
        let Some(running) = self.exchanges.get_mut(id as usize) else { return };
        if !running.answering.is_empty() {
            return;
        }
        let owed = std::mem::take(&mut running.owed.1);
        let Some(number) = running.upstream else { return };
        match running.onward {
            Some(stream) if owed > 0 => self.release_to_endpoint(number, stream, owed),
            Some(_) => {}
            None => self.resume_reading(number),
        }
    }

    /// Reads a connection to an endpoint again.
    pub(super) fn resume_reading(&mut self, number: u32) {
        if let Some(upstream) = self.upstreams.get_mut(number as usize)
            && std::mem::take(&mut upstream.paused)
        {
            self.again.push(Side::Upstream(number));
        }
    }
}
