// SPDX-License-Identifier: Apache-2.0
//! Connections to endpoints, from the address that the endpoint is to see.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    ops::RangeInclusive,
    time::Duration,
};

use socket2::Socket;
use weft_ebpf_redirect::PodConnections;

use crate::{state::permit::Permit, upstream::sockets};

/// Ports tried for one connection before the block counts as used up towards that endpoint.
const PORT_TRIES: u32 = 64;

/// How connections to endpoints are made.
#[derive(Clone, Debug)]
pub struct DialConfig {
    /// The mark of the proxy's own packets; nothing where no kernel program redirects.
    pub mark: Option<u32>,
    /// Ports that belong to the proxy in every pod's name.
    pub ports: RangeInclusive<u16>,
    /// What pods have open themselves; nothing where no kernel program redirects.
    pub taken: Option<PodConnections>,
    /// Longest time for a connection to be established.
    pub connect_timeout: Duration,
}

/// Makes the connections of one worker.
#[derive(Debug)]
pub struct Dialer {
    config: DialConfig,
    next: Cell<u32>,
}

impl Dialer {
    /// A dialer that starts at a point of the port block which differs between workers.
    pub fn new(config: DialConfig, seed: u32) -> Dialer {
        Dialer { config, next: Cell::new(seed.wrapping_mul(0x9E37_79B9)) }
    }

    /// Longest time for a connection to be established.
    pub(crate) fn timeout(&self) -> Duration {
        self.config.connect_timeout
    }

    /// Begins to connect to an endpoint for which there is a permit, in the name of `from` where one is
    /// given. The socket is writable once the connection stands or has failed.
    pub(crate) fn begin(
        &self,
        _permit: &Permit,
        from: Option<IpAddr>,
        to: SocketAddr,
    ) -> io::Result<TcpStream> {
        let socket = match from {
            Some(from) => self.begin_as(from, to)?,
            None => {
                let socket = sockets::upstream_socket(to.is_ipv6(), self.config.mark)?;
                connect(&socket, to)?;
                socket
            }
        };
        Ok(socket.into())
    }

    /// Binds each try to the next port of the block: the kernel picks from the pod's own range
    /// otherwise, and so into the connections that the pod opens itself.
    fn begin_as(&self, from: IpAddr, to: SocketAddr) -> io::Result<Socket> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for _ in 0..PORT_TRIES {
            let from = SocketAddr::new(from, self.next_port());
            // A pod whose own range reaches into the block may have the same connection, in its own namespace.
            if self.config.taken.as_ref().is_some_and(|taken| taken.has(from, to)) {
                continue;
            }
            let socket = sockets::upstream_socket(to.is_ipv6(), self.config.mark)?;
            let bound = sockets::bind_transparent(&socket, from);
            match bound.and_then(|()| connect(&socket, to)) {
                Ok(()) => return Ok(socket),
                Err(error) if is_taken(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn next_port(&self) -> u16 {
        let (first, last) = (u32::from(*self.config.ports.start()), u32::from(*self.config.ports.end()));
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        // The sum is at most `last`, which is a port.
        (first + number % (last - first + 1)) as u16
    }
}

/// The socket does not block: that the answer is still to come is no error (connect(2)).
fn connect(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        result => result,
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}
