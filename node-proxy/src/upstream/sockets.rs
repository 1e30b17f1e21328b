// SPDX-License-Identifier: Apache-2.0
//! Socket options: the transparent sockets that take redirected connections, and those that connect
//! onward in a client's name. The only module of the proxy with unsafe code.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsRawFd,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that wait to be accepted on one socket; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Silence after which the kernel asks whether the peer still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time for which sent data may stay without an acknowledgement before the connection is given up
/// (TCP_USER_TIMEOUT, RFC 5482).
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Tries to find a port that is free in both families.
const PORT_TRIES: usize = 64;

/// The listening sockets of one worker to which the kernel programs hand redirected connections: one per
/// family, on the same free port of the loopback addresses; one only on a host without IPv6. The local
/// address of a connection is then its original destination.
///
/// Needs CAP_NET_ADMIN. No SO_REUSEPORT: `bpf_sk_assign` refuses such sockets before Linux 6.6.
pub(crate) fn transparent_listeners(mark: u32) -> io::Result<Vec<TcpListener>> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES {
        let ipv4 = transparent_listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), mark)?;
        let port = ipv4.local_addr()?.port();
        match transparent_listener(SocketAddr::from((Ipv6Addr::LOCALHOST, port)), mark) {
            Ok(ipv6) => return Ok(vec![ipv4, ipv6]),
            Err(error) if no_such_family(&error) => return Ok(vec![ipv4]),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Whether the error says that the host has no such address, or no such family at all.
pub(crate) fn no_such_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn transparent_listener(address: SocketAddr, mark: u32) -> io::Result<TcpListener> {
    let socket = stream_socket(address.is_ipv6())?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_transparent(&socket, address.is_ipv6())?;
    socket.set_mark(mark)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listening socket of a Gateway. Every worker has one of its own on the same address, and the kernel
/// spreads connections over them.
pub(crate) fn gateway_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = stream_socket(address.is_ipv6())?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket for a connection to an endpoint, not yet bound.
pub(crate) fn upstream_socket(ipv6: bool, mark: Option<u32>) -> io::Result<Socket> {
    let socket = stream_socket(ipv6)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    tune(&SockRef::from(&socket))?;
    Ok(socket)
}

/// Binds a socket to an address that is not this host's. Needs CAP_NET_ADMIN.
pub(crate) fn bind_transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    set_transparent(socket, address.is_ipv6())?;
    // The tuple is checked again by connect, so ports in use towards other peers may be shared.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Options of every connection: no delay of small writes, and a bound on how long a silent peer is
/// waited for.
pub(crate) fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

fn stream_socket(ipv6: bool) -> io::Result<Socket> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    Ok(socket)
}

fn set_transparent(socket: &Socket, ipv6: bool) -> io::Result<()> {
    let (level, name) = match ipv6 {
        true => (libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
        false => (libc::SOL_IP, libc::IP_TRANSPARENT),
    };
    let on: libc::c_int = 1;
    #[allow(unsafe_code, reason = "socket2 has no IPV6_TRANSPARENT")]
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the value is a live c_int whose
    // size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
