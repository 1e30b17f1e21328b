// SPDX-License-Identifier: Apache-2.0
//! Connections that pods open are handed to a transparent proxy, with the true addresses on both sides.
//! Needs root.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use weft_ebpf_redirect::{DEFAULT_MARK, DEFAULT_PORTS};
use weft_ir::{HttpRule, Peer, PolicyDirection, PolicyPort, PolicyRule, PortRule, Protocol};

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, PATIENCE, Running, Shape, State, VIP, inside, only, sh};

const TARGET: u16 = 8080;

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

/// A proxy that connects onward to `backend` (or, without one, to the original destination) from the
/// client's own address, and puts its own view of the addresses before the answer.
fn proxy(backend: [Option<SocketAddr>; 2]) -> u16 {
    let v4 = transparent("127.0.0.1:0".parse().unwrap());
    v4.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    v4.listen(64).unwrap();
    let port = v4.local_addr().unwrap().as_socket().unwrap().port();
    let at: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    let v6 = transparent(at);
    v6.bind(&at.into()).unwrap();
    v6.listen(64).unwrap();
    for (listener, backend) in [v4, v6].into_iter().zip(backend) {
        let listener: TcpListener = listener.into();
        // A thread inherits the network namespace of the one that starts it.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                std::thread::spawn(move || relay(client, backend));
            }
        });
    }
    port
}

fn relay(mut client: TcpStream, backend: Option<SocketAddr>) {
    let (from, to) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    let backend = backend.unwrap_or(to);
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
fn server(namespace: &str) {
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
fn ask(namespace: &str, to: SocketAddr, length: usize) -> Result<String, std::io::Error> {
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

fn both(port: u16, of: impl Fn(usize) -> IpAddr) -> [SocketAddr; 2] {
    [SocketAddr::new(of(0), port), SocketAddr::new(of(1), port)]
}

fn vips() -> [IpAddr; 2] {
    VIP.map(|address| address.parse().unwrap())
}

fn egress(shape: Shape) {
    let lab = Lab::new(shape, 2);
    let mut state = State::new(&lab.pods);
    state.service("server", Protocol::Tcp, &vips(), &lab.pods[1].addresses, TARGET);
    state.route("server");
    server(&lab.pods[1].namespace);
    let backends = both(TARGET, |family| lab.pods[1].addresses[family]);
    let _running = Running::start(&lab, &state, move || vec![proxy(backends.map(Some))]);
    for (family, vip) in both(80, |family| vips()[family]).into_iter().enumerate() {
        let client = lab.pods[0].addresses[family];
        for length in [10, 3_000_000] {
            let answer = ask(&lab.pods[0].namespace, vip, length).unwrap();
            assert_eq!(answer, format!("proxy {client} {vip};server {client} {length}"));
        }
        // What no route names stays in the kernel.
        let answer = ask(&lab.pods[0].namespace, backends[family], 10).unwrap();
        assert_eq!(answer, format!("server {client} 10"));
        // A process of the node is redirected too.
        let answer = ask(&lab.node, vip, 10).unwrap();
        assert!(answer.starts_with("proxy ") && answer.contains(&format!(" {vip};server ")), "{answer}");
    }
}

#[test]
#[ignore = "needs root"]
fn routed_pods_reach_a_kept_address_through_the_proxy() {
    egress(Shape::Routed);
}

#[test]
#[ignore = "needs root"]
fn bridged_pods_reach_a_kept_address_through_the_proxy() {
    egress(Shape::Bridged);
}

fn http_rule() -> PolicyDirection {
    only(vec![PolicyRule {
        peers: vec![Peer::Any],
        ports: vec![PortRule {
            port: PolicyPort::Range(TARGET, TARGET),
            protocol: Some(Protocol::Tcp),
            http: Some(vec![HttpRule::default()]),
        }],
    }])
}

fn ingress(shape: Shape) {
    let lab = Lab::new(shape, 2);
    let mut state = State::new(&lab.pods);
    state.policy("http", 1, http_rule(), PolicyDirection::default());
    server(&lab.pods[1].namespace);
    let _running = Running::start(&lab, &state, || vec![proxy([None, None])]);
    for (family, to) in both(TARGET, |family| lab.pods[1].addresses[family]).into_iter().enumerate() {
        let client = lab.pods[0].addresses[family];
        let answer = ask(&lab.pods[0].namespace, to, 3_000_000).unwrap();
        assert_eq!(answer, format!("proxy {client} {to};server {client} 3000000"));
        let remote: IpAddr = ["172.30.9.2", "fd00:30::2"][family].parse().unwrap();
        let answer = ask(&lab.remote(), to, 3_000_000).unwrap();
        assert_eq!(answer, format!("proxy {remote} {to};server {remote} 3000000"));
        // Another port is not allowed at all.
        let other = SocketAddr::new(to.ip(), 9999);
        assert!(ask(&lab.pods[0].namespace, other, 1).is_err());
    }
}

#[test]
#[ignore = "needs root"]
fn what_is_sent_to_a_routed_pod_with_an_http_rule_passes_the_proxy() {
    ingress(Shape::Routed);
}

#[test]
#[ignore = "needs root"]
fn what_is_sent_to_a_bridged_pod_with_an_http_rule_passes_the_proxy() {
    ingress(Shape::Bridged);
}

#[test]
#[ignore = "needs root"]
fn cleanup_leaves_nothing_behind() {
    let lab = Lab::new(Shape::Routed, 1);
    let state = State::new(&lab.pods);
    drop(Running::start(&lab, &state, || vec![proxy([None, None])]));
    assert!(!lab.config.bpffs.exists());
    let node = &lab.node;
    sh(&format!("! ip -n {node} link show weft0 2>/dev/null"));
    sh(&format!("! ip -n {node} rule | grep -q 3077; ! ip -n {node} -6 rule | grep -q 3077"));
    sh(&format!("! ip netns exec {node} nft list table inet weft 2>/dev/null"));
    sh(&format!("test $(ip netns exec {node} sysctl -n net.ipv4.ip_early_demux) = 1"));
}
