// SPDX-License-Identifier: Apache-2.0
//! A transparent proxy, servers behind it and clients in front, for the tests that look at what reaches whom.
#![allow(dead_code, reason = "each test uses a part")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use weft_ebpf_redirect::{DEFAULT_MARK, DEFAULT_PORTS};

use super::lab::{PATIENCE, VIP, inside};

/// The port of every server.
pub(crate) const TARGET: u16 = 8080;

fn transparent(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    if address.is_ipv4() {
        socket.set_ip_transparent_v4(true).unwrap();
    } else {
        transparent_v6(&socket);
    }
    socket.set_mark(DEFAULT_MARK.from_proxy).unwrap();
    socket
}

#[allow(unsafe_code, reason = "socket2 has no IPV6_TRANSPARENT")]
fn transparent_v6(socket: &Socket) {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: the option is an int that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IPV6,
            libc::IPV6_TRANSPARENT,
            (&raw const on).cast(),
            4,
        )
    };
    assert_eq!(done, 0);
}

/// A proxy that connects onward to `backend` (or, without one or for another service, to the original destination) from the
/// client's own address, and puts its own view of the addresses before the answer.
pub(crate) fn proxy(backend: [Option<SocketAddr>; 2]) -> u16 {
    let v4 = listener("127.0.0.1:0".parse().unwrap());
    let port = v4.local_addr().unwrap().port();
    let v6 = listener(format!("[::1]:{port}").parse().unwrap());
    for (listener, backend) in [v4, v6].into_iter().zip(backend) {
        serve(listener, backend);
    }
    port
}

/// A [`proxy`] of a node that has IPv4 only.
pub(crate) fn proxy_v4(backend: SocketAddr) -> u16 {
    let listener = listener("127.0.0.1:0".parse().unwrap());
    let port = listener.local_addr().unwrap().port();
    serve(listener, Some(backend));
    port
}

fn listener(at: SocketAddr) -> TcpListener {
    let socket = transparent(at);
    socket.bind(&at.into()).unwrap();
    socket.listen(64).unwrap();
    socket.into()
}

/// On a thread of its own, which inherits the network namespace of the one that starts it.
fn serve(listener: TcpListener, backend: Option<SocketAddr>) {
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || relay(client, backend));
        }
    });
}

fn relay(mut client: TcpStream, backend: Option<SocketAddr>) {
    let (from, to) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    let backend = backend.filter(|_| vips().contains(&to.ip())).unwrap_or(to);
    let server = (DEFAULT_PORTS.0..DEFAULT_PORTS.1)
        .find_map(|port| {
            let server = transparent(backend);
            server.set_reuse_address(true).unwrap();
            server.bind(&SocketAddr::new(from.ip(), port).into()).ok()?;
            server.connect_timeout(&backend.into(), PATIENCE).ok().map(|()| server)
        })
        .expect("a connection to the backend");
    let mut server: TcpStream = server.into();
    client.write_all(format!("proxy {} {to};", from.ip()).as_bytes()).unwrap();
    let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _bytes = std::io::copy(&mut up, &mut down);
        let _closed = down.shutdown(std::net::Shutdown::Write);
    });
    let _bytes = std::io::copy(&mut server, &mut client);
}

/// A server that answers with the address that it saw and the number of bytes that it got.
pub(crate) fn server(namespace: &str) {
    let (ready, wait) = mpsc::channel();
    inside(namespace, move || {
        let listener = TcpListener::bind(("::", TARGET)).unwrap();
        ready.send(()).unwrap();
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let from = client.peer_addr().unwrap().ip().to_canonical();
                let mut bytes = Vec::new();
                client.read_to_end(&mut bytes).unwrap();
                let _gone = client.write_all(format!("server {from} {}", bytes.len()).as_bytes());
            });
        }
    });
    wait.recv_timeout(PATIENCE).unwrap();
}

/// Sends `length` bytes to an address from a namespace: the answer, or why there is none.
pub(crate) fn ask(namespace: &str, to: SocketAddr, length: usize) -> Result<String, std::io::Error> {
    inside(namespace, move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(1500))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&vec![7; length])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .join()
    .unwrap()
}

/// An address of each family with a port.
pub(crate) fn both(port: u16, of: impl Fn(usize) -> IpAddr) -> [SocketAddr; 2] {
    [SocketAddr::new(of(0), port), SocketAddr::new(of(1), port)]
}

/// The addresses of the service with a route.
pub(crate) fn vips() -> [IpAddr; 2] {
    VIP.map(|address| address.parse().unwrap())
}
