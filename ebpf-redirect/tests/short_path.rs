// SPDX-License-Identifier: Apache-2.0
//! Established connections skip the node's stack, unless something of others would be passed by. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{
    net::{IpAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use weft_ebpf_redirect::{ShortPath, bpf::bare};
use weft_ir::{Peer, PolicyDirection, PolicyRule};

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, PATIENCE, Pod, Running, Shape, State, inside};

const PORT: u16 = 9000;
/// Long enough for a datagram that is not dropped, on a busy machine.
const SILENCE: Duration = Duration::from_millis(500);

/// A socket of a pod or of the machine beyond the uplink.
fn socket(namespace: &str, address: IpAddr, port: u16) -> UdpSocket {
    let socket = inside(namespace, move || UdpSocket::bind((address, port)).unwrap()).join().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Two sockets that have spoken to each other, each connected to the other.
fn talk(from: &UdpSocket, to: &UdpSocket) {
    from.connect(to.local_addr().unwrap()).unwrap();
    to.connect(from.local_addr().unwrap()).unwrap();
    exchange(from, to, 2);
}

fn exchange(one: &UdpSocket, other: &UdpSocket, times: usize) {
    let mut buffer = [0; 16];
    for _ in 0..times {
        one.send(b"there").unwrap();
        assert_eq!(other.recv(&mut buffer).unwrap(), 5);
        other.send(b"back").unwrap();
        assert_eq!(one.recv(&mut buffer).unwrap(), 4);
    }
}

/// How many packets the node's end of a pod's pair has sent to it: those that came by the stack.
fn by_the_stack(lab: &Lab, pod: &Pod) -> u64 {
    let output =
        Command::new("ip").args(["netns", "exec", &lab.node, "cat", "/proc/net/dev"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{}:", pod.device))).unwrap();
    line.split_whitespace().nth(10).unwrap().parse().unwrap()
}

const TIMES: usize = 50;

/// Whether the exchanges of two sockets go to both pods past the stack. Neighbours may ask in between.
fn is_short(lab: &Lab, pods: &[&Pod], (one, other): (&UdpSocket, &UdpSocket)) -> bool {
    let count = || pods.iter().map(|pod| by_the_stack(lab, pod)).sum::<u64>();
    let before = count();
    exchange(one, other, TIMES);
    let by_the_stack = count() - before;
    let all = (TIMES * pods.len()) as u64;
    assert!(by_the_stack < all / 4 || by_the_stack >= all, "{by_the_stack} of {all} went by the stack");
    by_the_stack < all / 4
}

fn pair(lab: &Lab, running: &Running, family: usize, port: u16) -> (UdpSocket, UdpSocket) {
    let of = |pod: &Pod| socket(&pod.namespace, pod.addresses[family], port);
    let (one, other) = (of(&lab.pods[0]), of(&lab.pods[1]));
    talk(&one, &other);
    // The daemon hears that a bridge has learned a port; this one is asked to look.
    running.refresh();
    (one, other)
}

fn deny_the_first() -> PolicyDirection {
    let peers = vec![Peer::Selector(lab::pod_selector(0))];
    let rule = PolicyRule { peers, ports: vec![], authenticate: false };
    PolicyDirection { default_deny: false, allow: vec![], deny: vec![rule] }
}

#[test]
#[ignore = "needs root"]
fn a_flow_on_the_short_path_obeys_a_tightened_policy_at_its_next_packet() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let lab = Lab::new(shape, 2);
        let mut state = State::new(&lab.pods);
        let running = Running::start(&lab, &state, Vec::new);
        for family in [0, 1] {
            state.policy("second", 1, PolicyDirection::default(), PolicyDirection::default());
            running.apply(&state);
            let (one, other) = pair(&lab, &running, family, PORT);
            let pods = [&lab.pods[0], &lab.pods[1]];
            assert!(is_short(&lab, &pods, (&one, &other)), "{shape:?} {family}");
            // A policy that changes nothing for them leaves them where they are.
            state.policy("second", 1, PolicyDirection::default(), deny_the_first());
            state.policy("second", 1, PolicyDirection::default(), PolicyDirection::default());
            running.apply(&state);
            assert!(is_short(&lab, &pods, (&one, &other)), "{shape:?} {family}");
            state.policy("second", 1, deny_the_first(), PolicyDirection::default());
            running.apply(&state);
            for (from, to) in [(&one, &other), (&other, &one)] {
                to.set_read_timeout(Some(SILENCE)).unwrap();
                from.send(b"late").unwrap();
                assert!(to.recv(&mut [0; 16]).is_err(), "{shape:?} {family}: a denied datagram arrived");
            }
            state.policy("second", 1, PolicyDirection::default(), PolicyDirection::default());
            running.apply(&state);
            [&one, &other].iter().for_each(|socket| socket.set_read_timeout(Some(PATIENCE)).unwrap());
            exchange(&one, &other, 2);
            assert!(is_short(&lab, &pods, (&one, &other)), "{shape:?} {family}: allowed again");
        }
        drop(running);
    }
}

#[test]
#[ignore = "needs root"]
fn what_comes_from_an_uplink_goes_to_its_pod_past_the_stack() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let lab = Lab::new(shape, 2);
        let state = State::new(&lab.pods);
        let running = Running::start(&lab, &state, Vec::new);
        for (family, remote) in ["172.30.9.2", "fd00:30::2"].into_iter().enumerate() {
            let one = socket(&lab.remote(), remote.parse().unwrap(), PORT);
            let other = socket(&lab.pods[1].namespace, lab.pods[1].addresses[family], PORT);
            talk(&one, &other);
            running.refresh();
            assert!(is_short(&lab, &[&lab.pods[1]], (&one, &other)), "{shape:?} {family}");
        }
        drop(running);
    }
}

/// Index of a device of the node.
fn index(lab: &Lab, device: &str) -> u32 {
    let output =
        Command::new("ip").args(["-n", &lab.node, "-o", "link", "show", "dev", device]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(':').next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs root"]
fn what_others_have_at_a_pods_device_is_not_passed_by() {
    let lab = Lab::new(Shape::Routed, 2);
    let state = State::new(&lab.pods);
    let running = Running::start(&lab, &state, Vec::new);
    let pods = [&lab.pods[0], &lab.pods[1]];
    let device = index(&lab, &lab.pods[1].device);
    for (port, egress) in [(PORT, false), (PORT + 1, true)] {
        // A new connection each time: one that the stack has goes on there until it is decided again.
        let (one, other) = pair(&lab, &running, 0, port);
        assert!(is_short(&lab, &pods, (&one, &other)), "egress {egress}");
        let program = inside(&lab.node, move || bare::attach_idle(device, egress).unwrap()).join().unwrap();
        running.refresh();
        assert!(!is_short(&lab, &pods, (&one, &other)), "a program, egress {egress}");
        drop(program);
        running.refresh();
    }
    let (one, other) = pair(&lab, &running, 0, PORT + 2);
    assert!(is_short(&lab, &pods, (&one, &other)), "the programs are gone");
    let name = &lab.pods[1].device;
    lab.node_sh(&format!("tc qdisc add dev {name} root tbf rate 1gbit burst 1mb latency 50ms"));
    running.refresh();
    assert!(!is_short(&lab, &pods, (&one, &other)), "a queueing discipline");
    drop(running);
}

#[test]
#[ignore = "needs root"]
fn forwarding_rules_of_others_are_met_unless_the_operator_says_otherwise() {
    const RULES: [(&str, &str, bool); 8] = [
        ("nothing", "", true),
        ("rules about incoming packets", "chain c { type filter hook input priority 0; counter; };", true),
        (
            "kube-proxy",
            "chain KUBE-FORWARD { ct state new counter; }; \
             chain FORWARD { type filter hook forward priority 0; counter jump KUBE-FORWARD; };",
            true,
        ),
        (
            "what connection tracking calls invalid",
            "chain c { type filter hook forward priority 0; ct state invalid drop; };",
            false,
        ),
        ("a firewall", "chain c { type filter hook forward priority 0; counter; };", false),
        ("a raw table", "chain c { type filter hook prerouting priority raw; udp dport 1 drop; };", false),
        ("a policy", "chain c { type filter hook forward priority 0; policy drop; accept; };", false),
        (
            "a name of kube-proxy's",
            "chain KUBE-FORWARD { udp dport 1 drop; }; \
             chain FORWARD { type filter hook forward priority 0; jump KUBE-FORWARD; };",
            false,
        ),
    ];
    for (what, chains, short) in RULES {
        for (setting, expected) in [(ShortPath::Auto, short), (ShortPath::On, true), (ShortPath::Off, false)]
        {
            let mut lab = Lab::new(Shape::Routed, 2);
            lab.config.short_path = setting;
            if !chains.is_empty() {
                lab.node_sh(&format!("nft \"table inet others {{ {chains} }}\""));
            }
            let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
            let (one, other) = pair(&lab, &running, 0, PORT);
            let pods = [&lab.pods[0], &lab.pods[1]];
            assert_eq!(is_short(&lab, &pods, (&one, &other)), expected, "{what}, {setting:?}");
            drop(running);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn who_was_on_the_short_path_goes_on_when_it_is_switched_off() {
    let lab = Lab::new(Shape::Routed, 2);
    let state = State::new(&lab.pods);
    let running = Running::start(&lab, &state, Vec::new);
    let (one, other) = pair(&lab, &running, 1, PORT);
    let pods = [&lab.pods[0], &lab.pods[1]];
    assert!(is_short(&lab, &pods, (&one, &other)));
    running.leave();
    let mut lab = lab;
    lab.config.short_path = ShortPath::Off;
    let running = Running::start(&lab, &state, Vec::new);
    let pods = [&lab.pods[0], &lab.pods[1]];
    assert!(!is_short(&lab, &pods, (&one, &other)));
    drop(running);
}
