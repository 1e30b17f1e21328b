// SPDX-License-Identifier: Apache-2.0
//! Accepts connections of one worker.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
};

use mio::{Interest, net::TcpStream};
use socket2::SockRef;

use crate::{
    request::Connection,
    serve::{
        client::Client,
        engine::{BOTH, Due, Engine, client_token, listener_token},
        listening::{Accepting, Listening},
    },
    upstream::sockets,
    worker::target::{Ends, Entrance},
};

/// The pause after an accept that failed for want of descriptors or memory, in nanoseconds.
const STARVED: u64 = 50_000_000;
/// Connections that are accepted in one turn, so that those that are open go on.
const AT_ONCE: usize = 64;

impl Engine {
    /// Accepts on a socket from now on.
    pub(super) fn listen(&mut self, socket: TcpListener, accepting: Accepting) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let mut socket = mio::net::TcpListener::from_std(socket);
        let entry = self.listeners.vacant_entry();
        self.poll.registry().register(&mut socket, listener_token(entry.key()), Interest::READABLE)?;
        entry.insert(Listening { socket, accepting, ready: false });
        Ok(())
    }

    /// Whether it accepts connections to a Gateway on this address.
    pub(super) fn listens_on(&self, address: SocketAddr) -> bool {
        self.listeners.iter().any(|(_, listening)| listening.accepting == Accepting::Gateway(address))
    }

    /// Closes the listeners that are not wanted.
    pub(super) fn keep_listeners(&mut self, wanted: impl Fn(Accepting) -> bool) {
        let registry = self.poll.registry();
        self.listeners.retain(|_, listening| {
            let keep = wanted(listening.accepting);
            if !keep {
                drop(registry.deregister(&mut listening.socket));
            }
            keep
        });
    }

    /// Accepts what waits, up to the limit of the worker; more waits in the backlog.
    pub(super) fn accept(&mut self, number: usize) {
        for _ in 0..AT_ONCE {
            if self.clients.len() >= self.worker.connections_limit() {
                break;
            }
            let Some(listening) = self.listeners.get_mut(number) else { return };
            match listening.socket.accept() {
                Ok((socket, client)) => {
                    let accepting = listening.accepting;
                    // One that is gone already, or for which there is no room, is nobody's.
                    let admitted = ends(&socket, client, accepting).and_then(|ends| self.admit(socket, ends));
                    match admitted {
                        Ok(number) => self.serve_client(number),
                        Err(error) => tracing::debug!(%error, %client, "a connection cannot be served"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listening.ready = false;
                    return;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting connections failed");
                    break;
                }
            }
        }
        // The kernel does not say again that these wait.
        if let Some(listening) = self.listeners.get_mut(number) {
            listening.ready = true;
            self.wheel.set(self.now + STARVED, Due::Accept);
        }
    }

    /// Accepts where it was left off.
    pub(super) fn accept_again(&mut self) {
        let waiting: Vec<usize> = self
            .listeners
            .iter()
            .filter(|(_, listening)| listening.ready)
            .map(|(number, _)| number)
            .collect();
        waiting.into_iter().for_each(|number| self.accept(number));
    }

    /// Takes a connection; yields its number.
    pub(super) fn admit(&mut self, mut socket: TcpStream, ends: Ends) -> io::Result<u32> {
        let owner = self.next_owner();
        let entry = self.clients.vacant_entry();
        let number = entry.key() as u32;
        self.poll.registry().register(&mut socket, client_token(number, owner), BOTH)?;
        let connection = Connection::new(Rc::clone(&self.worker), ends);
        let open = self.worker.open();
        entry.insert(Client::new(socket, owner, connection, open));
        Ok(number)
    }
}

fn ends(stream: &TcpStream, client: SocketAddr, accepting: Accepting) -> io::Result<Ends> {
    sockets::tune(&SockRef::from(stream))?;
    let entrance = match accepting {
        Accepting::Redirected => Entrance::Redirected,
        Accepting::Gateway(point) => Entrance::Gateway(point),
    };
    Ok(Ends { client, destination: stream.local_addr()?, entrance })
}

/// Errors of accept that say something about the connection that would have been, not about the socket
/// (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
