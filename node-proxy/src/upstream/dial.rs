// SPDX-License-Identifier: Apache-2.0
//! Connections to endpoints, from the address that the endpoint is to see.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use weft_codec::error::{Retry, UpstreamError};
use weft_ebpf_common::reason::Reason;

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

    /// Connects to an endpoint for which there is a permit, in the name of `from` where one is given.
    pub(crate) async fn connect(
        &self,
        _permit: &Permit,
        from: Option<IpAddr>,
        to: SocketAddr,
    ) -> Result<TcpStream, UpstreamError> {
        let connecting = async {
            match from {
                Some(from) => self.connect_as(from, to).await,
                None => self.socket(to)?.connect(to).await,
            }
        };
        match timeout(self.config.connect_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, %to, ?from, "connecting to an endpoint failed");
                Err(failed("the backend refused the connection or cannot be reached"))
            }
            Err(_elapsed) => Err(failed("the backend did not accept the connection in time")),
        }
    }

    /// Binds each try to the next port of the block: the kernel picks from the pod's own range
    /// otherwise, and so into the connections that the pod opens itself.
    async fn connect_as(&self, from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for _ in 0..PORT_TRIES {
            let socket = sockets::upstream_socket(to.is_ipv6(), self.config.mark)?;
            match sockets::bind_transparent(&socket, SocketAddr::new(from, self.next_port())) {
                Ok(()) => {}
                Err(error) if is_taken(&error) => {
                    last = error;
                    continue;
                }
                Err(error) => return Err(error),
            }
            match TcpSocket::from_std_stream(socket.into()).connect(to).await {
                Err(error) if is_taken(&error) => last = error,
                result => return result,
            }
        }
        Err(last)
    }

    fn socket(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let socket = sockets::upstream_socket(to.is_ipv6(), self.config.mark)?;
        Ok(TcpSocket::from_std_stream(socket.into()))
    }

    fn next_port(&self) -> u16 {
        let (first, last) = (u32::from(*self.config.ports.start()), u32::from(*self.config.ports.end()));
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        // The sum is at most `last`, which is a port.
        (first + number % (last - first + 1)) as u16
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

fn failed(detail: &'static str) -> UpstreamError {
    UpstreamError { reason: Reason::UpstreamConnectFailed, detail, retry: Retry::Safe, unsent_body: None }
}
