// SPDX-License-Identifier: Apache-2.0
//! A socket on which connections are accepted.

use std::net::SocketAddr;

/// What is accepted on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepting {
    /// Connections that the kernel redirected; their local address is the original destination.
    Redirected,
    /// Connections to a Gateway's listener bound to this address.
    Gateway(SocketAddr),
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) socket: mio::net::TcpListener,
    pub(super) accepting: Accepting,
    /// There may be connections that were not accepted yet.
    pub(super) ready: bool,
}
