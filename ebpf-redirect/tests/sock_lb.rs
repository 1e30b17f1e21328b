// SPDX-License-Identifier: Apache-2.0
//! The hooks of sockets, with real sockets of processes in a cgroup of their own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{
    collections::BTreeSet,
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use weft_ebpf_common::Reason;
use weft_ebpf_redirect::{
    Datapath, KernelEventKind,
    probe::{Found, Report},
};
use weft_ir::Protocol;

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, PATIENCE, Running, Shape, State, inside, sh};

const TARGET: u16 = 8080;
const TCP_SERVICE: [&str; 2] = ["10.96.0.20", "fd00:96::20"];
const UDP_SERVICE: [&str; 2] = ["10.96.0.30", "fd00:96::30"];
const EMPTY_SERVICE: [&str; 2] = ["10.96.0.40", "fd00:96::40"];
const KEPT_SERVICE: [&str; 2] = ["10.96.0.50", "fd00:96::50"];
const OPERATION: &str = "WEFT_TEST_OPERATION";
/// This program becomes a process in the pod when it runs one of its tests, any, with [`OPERATION`] set.
const ANY_TEST: &str = "processes_outside_of_the_cgroup_are_left_alone";

fn parsed(addresses: [&str; 2]) -> [IpAddr; 2] {
    addresses.map(|address| address.parse().unwrap())
}

/// What a process in the pod does for the tests below.
fn client(operation: &str) {
    let (what, argument) = operation.split_once(' ').unwrap();
    let answer = match what {
        "tcp" => tcp(argument.parse().unwrap()),
        "mapped" => mapped(argument.parse().unwrap()),
        "udp" => udp(argument.parse().unwrap(), false),
        "source" => source(argument.parse().unwrap()),
        "connected-udp" => udp(argument.parse().unwrap(), true),
        "bind" => TcpListener::bind(argument.parse::<SocketAddr>().unwrap()).map(|_| "bound".into()),
        "binds" => binds(|at| TcpListener::bind(at).map(drop_later), argument.parse().unwrap()),
        "udp-binds" => binds(|at| UdpSocket::bind(at).map(drop_later), argument.parse().unwrap()),
        "mark" => Socket::new(Domain::IPV4, Type::STREAM, None)
            .and_then(|socket| socket.set_mark(argument.parse().unwrap()))
            .map(|()| "marked".into()),
        _ => unreachable!("{what}"),
    };
    println!("answer:{}", answer.unwrap_or_else(|error| error.kind().to_string()));
}

fn drop_later<T: 'static>(socket: T) -> Box<dyn std::any::Any> {
    Box::new(socket)
}

/// Binds a thousand times, all of them at once.
fn binds(
    bind: impl Fn(SocketAddr) -> std::io::Result<Box<dyn std::any::Any>>,
    at: SocketAddr,
) -> std::io::Result<String> {
    let bound = (0..1000).map(|_| bind(at)).collect::<std::io::Result<Vec<_>>>()?;
    Ok(format!("{} bound", bound.len()))
}

fn tcp(to: SocketAddr) -> std::io::Result<String> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    let peer = stream.peer_addr()?;
    Ok(format!("{peer} {}", std::io::read_to_string(stream)?))
}

/// An IPv6 socket that asks for an IPv4 address.
fn mapped(to: SocketAddr) -> std::io::Result<String> {
    let IpAddr::V4(address) = to.ip() else { unreachable!("IPv4") };
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.connect(&SocketAddr::new(address.to_ipv6_mapped().into(), to.port()).into())?;
    let stream = TcpStream::from(socket);
    let peer = stream.peer_addr()?;
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    Ok(format!("{peer} {}", std::io::read_to_string(stream)?))
}

/// Which address a socket would have that sends to another.
fn source(to: SocketAddr) -> std::io::Result<String> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip().to_string())
}

fn udp(to: SocketAddr, connected: bool) -> std::io::Result<String> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    if connected {
        socket.connect(to)?;
        socket.send(b"hello")?;
    } else {
        socket.send_to(b"hello", to)?;
    }
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer)?;
    Ok(format!("{from} {}", String::from_utf8_lossy(&buffer[..length])))
}

/// Runs an operation in a process of the node's cgroup and of a network namespace.
fn run(lab: &Lab, namespace: &str, operation: &str) -> String {
    let procs = lab.config.cgroup.join("cgroup.procs");
    let line = format!(
        "echo $$ > {}; exec nsenter --net=/run/netns/{namespace} {} --exact {ANY_TEST} --ignored --nocapture",
        procs.display(),
        std::env::current_exe().unwrap().display()
    );
    let output = Command::new("sh")
        .args(["-ec", &line])
        .env(OPERATION, operation)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = text.split("answer:").nth(1).unwrap_or_else(|| panic!("no answer in {text}"));
    answer.lines().next().unwrap().to_owned()
}

/// Answers connections and datagrams with the pod's name.
fn server(namespace: &str, name: &'static str) {
    let (ready, wait) = mpsc::channel();
    let again = ready.clone();
    inside(namespace, move || {
        let listener = TcpListener::bind(("::", TARGET)).unwrap();
        ready.send(()).unwrap();
        for mut client in listener.incoming().flatten() {
            client.write_all(name.as_bytes()).unwrap();
        }
    });
    inside(namespace, move || {
        let socket = UdpSocket::bind(("::", TARGET)).unwrap();
        again.send(()).unwrap();
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(name.as_bytes(), from).unwrap();
        }
    });
    for _ in 0..2 {
        wait.recv_timeout(PATIENCE).unwrap();
    }
}

/// The scene of every test; in a process that [`run`] started this is where it does its work, and ends.
fn scene() -> (Lab, Running) {
    if let Ok(operation) = std::env::var(OPERATION) {
        client(&operation);
        std::process::exit(0);
    }
    let lab = Lab::new(Shape::Routed, 3);
    let mut state = State::new(&lab.pods);
    let backends = [1, 2].map(|pod: usize| lab.pods[pod].addresses).concat();
    state.service("tcp", Protocol::Tcp, &parsed(TCP_SERVICE), &backends, TARGET);
    state.service("udp", Protocol::Udp, &parsed(UDP_SERVICE), &backends, TARGET);
    state.service("empty", Protocol::Tcp, &parsed(EMPTY_SERVICE), &[], TARGET);
    server(&lab.pods[1].namespace, "one");
    server(&lab.pods[2].namespace, "two");
    let running = Running::start(&lab, &state, Vec::new);
    (lab, running)
}

#[test]
#[ignore = "needs root"]
fn connections_and_datagrams_are_spread_over_the_backends_and_see_the_service() {
    let (lab, running) = scene();
    let pod = &lab.pods[0].namespace;
    for family in 0..2 {
        for (operation, addresses) in [
            ("tcp", TCP_SERVICE),
            ("udp", UDP_SERVICE),
            ("connected-udp", UDP_SERVICE),
            ("mapped", TCP_SERVICE),
        ] {
            if operation == "mapped" && family == 1 {
                continue;
            }
            let service = SocketAddr::new(parsed(addresses)[family], 80);
            let mut seen = BTreeSet::new();
            // The chance to miss one of two backends in 20 tries is one in half a million.
            for _ in 0..20 {
                seen.insert(run(&lab, pod, &format!("{operation} {service}")));
                if seen.len() == 2 {
                    break;
                }
            }
            let wanted = ["one", "two"].map(|name| format!("{service} {name}"));
            assert_eq!(seen, BTreeSet::from(wanted), "{operation}");
        }
    }
    let counters = running.counters();
    let services = counters.services.iter().filter(|(name, _)| &*name.service.name != "empty");
    for (name, counters) in services {
        assert!(counters.translated >= 4 && counters.redirected == 0, "{name:?} {counters:?}");
    }
    let services: Vec<_> = running
        .events()
        .into_iter()
        .filter_map(|event| match event.kind {
            KernelEventKind::Translate { service, process } if process != 0 => {
                Some((service, event.destination))
            }
            _ => None,
        })
        .collect();
    let wanted = SocketAddr::new(parsed(TCP_SERVICE)[1], 80);
    let backend = SocketAddr::new(lab.pods[1].addresses[1], TARGET);
    assert!(services.contains(&(wanted, backend)), "{services:?}");
}

#[test]
#[ignore = "needs root"]
fn a_service_without_backends_refuses_at_once_and_says_why() {
    let (lab, running) = scene();
    for address in parsed(EMPTY_SERVICE) {
        let service = SocketAddr::new(address, 80);
        let answer = run(&lab, &lab.pods[0].namespace, &format!("tcp {service}"));
        assert_eq!(answer, refused());
        let told = running.events().into_iter().any(|event| {
            event.destination == service
                && event.kind == KernelEventKind::Drop { reason: Reason::NoServiceBackend, suppressed: 0 }
        });
        assert!(told, "no event for {service}");
    }
    let counters = running.counters();
    let refused = counters.services.values().map(|counters| counters.refused).sum::<u64>();
    assert_eq!(refused, 2);
}

/// What the check says of a feature. One check for all tests: two at once of one process have the same pins.
fn found(feature: &str) -> Found {
    static REPORT: OnceLock<Report> = OnceLock::new();
    let report = REPORT.get_or_init(Datapath::check);
    report.features.iter().find(|found| found.name == feature).unwrap().found
}

/// What a socket says whose service nobody serves.
fn refused() -> String {
    // Before 6.1 the hooks cannot choose the error, and the check says so.
    let kind = match found("refusal at connect") {
        Found::Yes => std::io::ErrorKind::ConnectionRefused,
        _ => std::io::ErrorKind::PermissionDenied,
    };
    kind.to_string()
}

#[test]
#[ignore = "needs root"]
fn a_port_that_a_service_does_not_have_refuses_at_once() {
    let (lab, running) = scene();
    for namespace in [&lab.pods[0].namespace, &lab.node] {
        for (family, service) in parsed(TCP_SERVICE).into_iter().enumerate() {
            let to = SocketAddr::new(service, 81);
            let operations = ["tcp", "udp", "connected-udp", "mapped"];
            for operation in operations.iter().take(4 - family) {
                assert_eq!(run(&lab, namespace, &format!("{operation} {to}")), refused(), "{operation} {to}");
            }
            let told = running.events().into_iter().any(|event| {
                event.destination == to
                    && event.kind
                        == KernelEventKind::Drop { reason: Reason::UnknownServicePort, suppressed: 0 }
            });
            assert!(told, "no event for {to}");
            // A resolver that asks which source address it would have is told, or a list would change its order.
            for port in [0, 9, 80, 65_535] {
                let to = SocketAddr::new(service, port);
                let source = run(&lab, namespace, &format!("source {to}"));
                assert_eq!(
                    source.parse::<IpAddr>().map(|source| source.is_ipv4()),
                    Ok(family == 0),
                    "{source}"
                );
            }
        }
    }
}

/// Past the hooks of sockets, as a virtual machine in a pod sends: the packets are answered.
fn packets_are_refused(shape: Shape) {
    let lab = Lab::new(shape, 2);
    let mut state = State::new(&lab.pods);
    state.service("tcp", Protocol::Tcp, &parsed(TCP_SERVICE), &lab.pods[1].addresses, TARGET);
    state.service("empty", Protocol::Tcp, &parsed(EMPTY_SERVICE), &[], TARGET);
    state.service("kept", Protocol::Tcp, &parsed(KEPT_SERVICE), &lab.pods[1].addresses, TARGET);
    state.route("kept");
    let _running = Running::start(&lab, &state, Vec::new);
    let asked = |namespace: &str, addresses: [&str; 2], port: u16| {
        for service in parsed(addresses) {
            let to = SocketAddr::new(service, port);
            let answers = inside(namespace, move || [tcp(to), udp(to, true)]).join().unwrap();
            for answer in answers {
                let kind = answer.map_err(|error| error.kind());
                assert_eq!(kind, Err(std::io::ErrorKind::ConnectionRefused), "{namespace} {to}");
            }
        }
    };
    asked(&lab.pods[0].namespace, TCP_SERVICE, 81);
    asked(&lab.pods[0].namespace, EMPTY_SERVICE, 81);
    asked(&lab.pods[0].namespace, KEPT_SERVICE, 81);
    asked(&lab.node, KEPT_SERVICE, 81);
    for service in parsed(EMPTY_SERVICE) {
        let to = SocketAddr::new(service, 80);
        let answer = inside(&lab.pods[0].namespace, move || tcp(to)).join().unwrap();
        assert_eq!(answer.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionRefused));
    }
}

#[test]
#[ignore = "needs root"]
fn packets_to_what_no_service_has_are_refused_at_once_routed() {
    packets_are_refused(Shape::Routed);
}

#[test]
#[ignore = "needs root"]
fn packets_to_what_no_service_has_are_refused_at_once_bridged() {
    packets_are_refused(Shape::Bridged);
}

#[test]
#[ignore = "needs root"]
fn others_cannot_take_the_proxys_mark() {
    let (lab, _running) = scene();
    let pod = &lab.pods[0].namespace;
    let refused = std::io::ErrorKind::PermissionDenied.to_string();
    // Before 6.1 the kernel cannot guard the mark, and the check says so.
    let mark = if found("guard of the mark") == Found::Yes { &*refused } else { "marked" };
    for (operation, answer) in
        [("mark 32", mark), ("mark 64", mark), ("mark 4096", "marked"), ("mark 0", "marked")]
    {
        assert_eq!(run(&lab, pod, operation), answer, "{operation}");
    }
}

#[test]
#[ignore = "needs root"]
fn the_proxys_block_of_ports_is_in_nobodys_way() {
    let (lab, _running) = scene();
    let pod = &lab.pods[0];
    // All of a pod's ports are in the block.
    sh(&format!("ip netns exec {} sysctl -qw net.ipv4.ip_local_port_range=\"61000 65535\"", pod.namespace));
    for family in 0..2 {
        let any = ["0.0.0.0", "[::]"][family];
        let loopback = ["127.0.0.1", "[::1]"][family];
        for operation in ["binds", "udp-binds"] {
            for address in [any, loopback] {
                let answer = run(&lab, &pod.namespace, &format!("{operation} {address}:0"));
                assert_eq!(answer, "1000 bound", "{operation} {address}");
            }
        }
        let bound = run(&lab, &pod.namespace, &format!("bind {any}:61000"));
        assert_eq!(bound, "bound");
        let backend = SocketAddr::new(lab.pods[1].addresses[family], TARGET);
        assert_eq!(run(&lab, &pod.namespace, &format!("tcp {backend}")), format!("{backend} one"));
    }
}

/// A process whose namespace gives it another number than the kernel has for it.
#[test]
#[ignore = "needs root"]
fn a_process_with_numbers_of_its_own_may_set_its_mark() {
    if let (Ok(cgroup), Ok(bpffs)) = (std::env::var("WEFT_TEST_CGROUP"), std::env::var("WEFT_TEST_BPFFS")) {
        return set_mark_with_numbers_of_its_own(cgroup, bpffs);
    }
    let lab = Lab::new(Shape::Routed, 0);
    let procs = lab.config.cgroup.join("cgroup.procs");
    let line = format!(
        "echo $$ > {}; exec nsenter --net=/run/netns/{} unshare --pid --fork --mount-proc {} --exact \
         a_process_with_numbers_of_its_own_may_set_its_mark --ignored --nocapture",
        procs.display(),
        lab.node,
        std::env::current_exe().unwrap().display()
    );
    let output = Command::new("sh")
        .args(["-ec", &line])
        .env("WEFT_TEST_CGROUP", &lab.config.cgroup)
        .env("WEFT_TEST_BPFFS", &lab.config.bpffs)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("@marked"), "{text} {}", String::from_utf8_lossy(&output.stderr));
}

/// What [`a_process_with_numbers_of_its_own_may_set_its_mark`] does in such a namespace.
fn set_mark_with_numbers_of_its_own(cgroup: String, bpffs: String) {
    assert!(std::process::id() < 100, "a namespace that has just begun");
    let state = tempfile::tempdir().unwrap();
    let config =
        weft_ebpf_redirect::DatapathConfig::new("one", cgroup.into(), bpffs.into(), state.path().to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let attached = runtime.block_on(Datapath::attach(config.clone())).unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_mark(weft_ebpf_redirect::DEFAULT_MARK.from_proxy).unwrap();
    println!("@marked");
    drop(attached);
    runtime.block_on(Datapath::cleanup(&config)).unwrap();
}

#[test]
#[ignore = "needs root"]
fn processes_outside_of_the_cgroup_are_left_alone() {
    let (lab, _running) = scene();
    let service = SocketAddr::new(parsed(TCP_SERVICE)[0], 80);
    // Not translated, so dropped at the pod's device.
    let connected = inside(&lab.pods[0].namespace, move || {
        TcpStream::connect_timeout(&service, Duration::from_millis(300))
    });
    assert!(connected.join().unwrap().is_err());
}
