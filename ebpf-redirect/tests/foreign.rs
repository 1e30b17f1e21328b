// SPDX-License-Identifier: Apache-2.0
//! Connections that kube-proxy has translated go on when Weft starts, or hears of their service, and are held to the
//! policy of where they lead. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    time::Duration,
};

use weft_ir::{Peer, PolicyDirection, PolicyPort, PolicyRule, PortRule, Protocol};

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, PATIENCE, Running, Shape, State, VIP, inside, only, pod_selector};

const TARGET: u16 = 8080;
/// How long something may take that is not to come.
const SILENCE: Duration = Duration::from_millis(700);

/// The rules of kube-proxy: those of its nftables mode, or those of its iptables mode.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Nftables,
    Iptables,
}

fn translate(lab: &Lab, mode: Mode, vip: &str, backend: IpAddr) {
    let (family, iptables, to) = match backend {
        IpAddr::V4(_) => ("ip", "iptables-nft", format!("{backend}:{TARGET}")),
        IpAddr::V6(_) => ("ip6", "ip6tables-nft", format!("[{backend}]:{TARGET}")),
    };
    let lines = match mode {
        Mode::Nftables => format!(
            "nft add table {family} kube-proxy
             nft \"add chain {family} kube-proxy pre {{ type nat hook prerouting priority dstnat; }}\"
             nft \"add map {family} kube-proxy service-ips {{ type ipv{}_addr . inet_proto . inet_service : verdict; }}\"
             nft add chain {family} kube-proxy endpoint
             nft add rule {family} kube-proxy endpoint meta l4proto \"{{ tcp, udp }}\" dnat to {to}
             nft add element {family} kube-proxy service-ips \"{{ {vip} . tcp . 80 : goto endpoint, {vip} . udp . 80 : goto endpoint }}\"
             nft add rule {family} kube-proxy pre {family} daddr . meta l4proto . th dport vmap @service-ips",
            if family == "ip" { 4 } else { 6 }
        ),
        Mode::Iptables => format!(
            "{iptables} -t nat -N KUBE-SERVICES; {iptables} -t nat -A PREROUTING -j KUBE-SERVICES
             for kind in tcp udp; do
               {iptables} -t nat -N KUBE-SVC-$kind; {iptables} -t nat -N KUBE-SEP-$kind
               {iptables} -t nat -A KUBE-SERVICES -d {vip} -p $kind --dport 80 -j KUBE-SVC-$kind
               {iptables} -t nat -A KUBE-SVC-$kind -j KUBE-SEP-$kind
               {iptables} -t nat -A KUBE-SEP-$kind -p $kind -j DNAT --to-destination {to}
             done
             {iptables} -N KUBE-FORWARD; {iptables} -A FORWARD -j KUBE-FORWARD
             {iptables} -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
        ),
    };
    lab.node_sh(&lines);
}

/// Sends back what it gets, over TCP and UDP.
fn echo(namespace: &str) {
    let (ready, wait) = mpsc::channel();
    let again = ready.clone();
    inside(namespace, move || {
        let listener = TcpListener::bind(("::", TARGET)).unwrap();
        ready.send(()).unwrap();
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut copy = client.try_clone().unwrap();
                let _ended = std::io::copy(&mut client, &mut copy);
            });
        }
    });
    inside(namespace, move || {
        let socket = UdpSocket::bind(("::", TARGET)).unwrap();
        again.send(()).unwrap();
        let mut buffer = [0; 100];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _gone = socket.send_to(&buffer[..length], from);
        }
    });
    for _ in 0..2 {
        wait.recv_timeout(PATIENCE).unwrap();
    }
}

/// A socket of each protocol that was connected to the service before.
struct Before {
    tcp: TcpStream,
    udp: UdpSocket,
}

impl Before {
    fn open(namespace: &str, service: SocketAddr) -> Before {
        let opened = inside(namespace, move || {
            let any: IpAddr = if service.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
            let udp = UdpSocket::bind((any, 0)).unwrap();
            udp.connect(service).unwrap();
            Before { tcp: TcpStream::connect_timeout(&service, PATIENCE).unwrap(), udp }
        });
        let mut opened = opened.join().unwrap();
        assert_eq!(opened.goes_on(PATIENCE), [true, true], "before the start");
        opened
    }

    /// Whether each is answered.
    fn goes_on(&mut self, patience: Duration) -> [bool; 2] {
        self.tcp.set_read_timeout(Some(patience)).unwrap();
        self.udp.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 5];
        let tcp = self.tcp.write_all(b"hello").and_then(|()| self.tcp.read_exact(&mut buffer)).is_ok();
        let udp = self.udp.send(b"hello").and_then(|_| self.udp.recv(&mut buffer)).is_ok();
        [tcp, udp]
    }
}

/// Lets the client open connections to this pod's port only.
fn to_pod(index: u32) -> PolicyDirection {
    let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| PortRule {
        port: PolicyPort::Range(TARGET, TARGET),
        protocol: Some(protocol),
        l7: None,
    });
    only(vec![PolicyRule {
        peers: vec![Peer::Selector(pod_selector(index))],
        ports: ports.into(),
        authenticate: false,
    }])
}

fn goes_on_and_is_held_to_the_policy(shape: Shape, mode: Mode) {
    let lab = Lab::new(shape, 3);
    echo(&lab.pods[1].namespace);
    for (vip, backend) in VIP.into_iter().zip(lab.pods[1].addresses) {
        translate(&lab, mode, vip, backend);
    }
    let client = &lab.pods[0].namespace;
    let open = |vip: &str| Before::open(client, SocketAddr::new(vip.parse().unwrap(), 80));
    let mut first = VIP.map(open);
    // Weft starts, and does not know the service yet: another connection comes by kube-proxy.
    let mut state = State::new(&lab.pods);
    let running = Running::start(&lab, &state, Vec::new);
    let mut second = VIP.map(open);
    let vips = VIP.map(|vip| vip.parse().unwrap());
    for protocol in ["tcp", "udp"] {
        let of = if protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp };
        state.service(protocol, of, &vips, &lab.pods[1].addresses, TARGET);
    }
    let mut go_on = |wanted: [bool; 2], patience, when: &str| {
        for (name, before) in [("first", &mut first), ("second", &mut second)] {
            for (vip, before) in VIP.iter().zip(before) {
                assert_eq!(before.goes_on(patience), wanted, "{shape:?} {mode:?} {when}: {name} to {vip}");
            }
        }
    };
    running.apply(&state);
    go_on([true, true], PATIENCE, "the service is known");
    state.policy("egress", 0, PolicyDirection::default(), to_pod(1));
    running.apply(&state);
    go_on([true, true], PATIENCE, "the policy allows the backend");
    // Another process, whose memory is empty, reads what there is.
    running.leave();
    let running = Running::start(&lab, &state, Vec::new);
    go_on([true, true], PATIENCE, "after a restart");
    state.policy("egress", 0, PolicyDirection::default(), to_pod(2));
    running.apply(&state);
    go_on([false, false], SILENCE, "the policy allows another pod");
}

#[test]
#[ignore = "needs root"]
fn what_kube_proxy_translated_goes_on_routed_nftables() {
    goes_on_and_is_held_to_the_policy(Shape::Routed, Mode::Nftables);
}

#[test]
#[ignore = "needs root"]
fn what_kube_proxy_translated_goes_on_routed_iptables() {
    goes_on_and_is_held_to_the_policy(Shape::Routed, Mode::Iptables);
}

#[test]
#[ignore = "needs root"]
fn what_kube_proxy_translated_goes_on_bridged_nftables() {
    goes_on_and_is_held_to_the_policy(Shape::Bridged, Mode::Nftables);
}

#[test]
#[ignore = "needs root"]
fn what_kube_proxy_translated_goes_on_bridged_iptables() {
    goes_on_and_is_held_to_the_policy(Shape::Bridged, Mode::Iptables);
}
