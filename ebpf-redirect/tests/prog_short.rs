// SPDX-License-Identifier: Apache-2.0
//! Packets of established connections go straight to the pod that they are for, and nothing else does. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use weft_ebpf_common::{
    Reason, Verdict,
    connection::{CLOSING, ConnectionKey, ENDED, ESTABLISHED},
    layout::{EGRESS, INGRESS, METRIC_PASS, METRIC_SHORT, Workload, metric_index},
    verdict::{Level, TIER_NORMAL},
};
use weft_ebpf_redirect::bpf;

#[path = "support/bench.rs"]
mod bench;

use bench::*;

/// What `bpf_redirect_peer` answers: the packet goes elsewhere.
const AT_ONCE: i32 = 7;
const FIN: u8 = 1;
const RST: u8 = 4;
const BRIDGED: u32 = weft_ebpf_common::layout::WORKLOAD_BRIDGED;

/// Link-layer addresses of another machine, and of all.
const SOMEBODY: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ALL: [u8; 6] = [255; 6];

/// The frame with another receiver.
fn to(frame: &[u8], receiver: [u8; 6]) -> Vec<u8> {
    [&receiver, &frame[6..]].concat()
}

/// A pod of this node with both ends' policies, and another one, at devices of the short way.
fn neighbours(bench: &Bench, flags: u32) {
    bench.workload(flags);
    let own = bench.maps.workloads.lookup(&bench.address(POD)).unwrap().unwrap();
    let other = Workload { id: 10, identity: PEER_IDENTITY, policy: SET + 1, ..own };
    bench.maps.workloads.update(&bench.address(PEER), &other).unwrap();
    bench.maps.short_devices.update(&DEVICE, &1).unwrap();
}

/// Opens a connection from the pod to its neighbour, as far as both hooks see it.
fn establish(bench: &Bench) {
    for (from, to, ports, flags) in
        [(POD, PEER, PORTS, SYN), (PEER, POD, BACK, SYN | ACK), (POD, PEER, PORTS, ACK)]
    {
        let frame = bench.tcp(from, to, ports, flags);
        bench.passes("from_pod", &frame);
        bench.passes("to_pod", &frame);
    }
    let entry = bench.connection((POD, PEER), PORTS, TCP).unwrap();
    assert_eq!(entry.state, ESTABLISHED);
}

/// The verdict of a hook, and the packet behind it.
fn run(bench: &Bench, program: &str, frame: &[u8]) -> (i32, Vec<u8>) {
    let mut context = [0_u8; 192];
    context[40..44].copy_from_slice(&DEVICE.to_ne_bytes());
    bpf::test_run(bench.programs.fd(program).unwrap(), frame, &mut context).unwrap()
}

fn goes_at_once(bench: &Bench, program: &str, frame: &[u8]) -> Vec<u8> {
    let (verdict, out) = run(bench, program, frame);
    assert_eq!(verdict, AT_ONCE, "v6 {}", bench.v6);
    out
}

/// The packet with one hop less, as a router sends it on.
fn one_hop_less(bench: &Bench, frame: &[u8]) -> Vec<u8> {
    let mut routed = frame.to_vec();
    if bench.v6 {
        routed[21] -= 1;
        return routed;
    }
    routed[22] -= 1;
    let before = u32::from(u16::from_be_bytes([frame[24], frame[25]]));
    let sum = (before + 0x100 + ((before + 0x100) >> 16)) as u16;
    routed[24..26].copy_from_slice(&sum.to_be_bytes());
    routed
}

fn passed(bench: &Bench, direction: u8) -> u64 {
    let of = |outcome| {
        let values = bench.maps.metrics.lookup(&metric_index(0, outcome, direction)).unwrap().unwrap();
        values.iter().map(|value| value.packets).sum::<u64>()
    };
    of(METRIC_PASS) + of(METRIC_SHORT)
}

#[test]
#[ignore = "needs root"]
fn a_packet_of_an_established_connection_goes_at_once_and_is_counted_as_on_the_long_way() {
    both(0, |bench| {
        neighbours(bench, 0);
        establish(bench);
        let before = (passed(bench, EGRESS), passed(bench, INGRESS));
        for (from, to, ports) in [(POD, PEER, PORTS), (PEER, POD, BACK)] {
            let mut frame = bench.tcp(from, to, ports, ACK);
            for checksum in [[0, 0], [0xfe, 0xff], [0xff, 0xff], [0x12, 0x34]] {
                if !bench.v6 {
                    frame[24..26].copy_from_slice(&checksum);
                }
                assert_eq!(goes_at_once(bench, "from_pod", &frame), one_hop_less(bench, &frame));
            }
        }
        let entry = bench.connection((POD, PEER), PORTS, TCP).unwrap();
        assert_eq!(entry.ends.iter().map(|end| end.packets).sum::<u64>(), 3 + 8);
        assert_eq!((passed(bench, EGRESS), passed(bench, INGRESS)), (before.0 + 8, before.1 + 8));
    });
}

#[test]
#[ignore = "needs root"]
fn from_port_to_port_of_a_bridge_no_hop_is_taken() {
    both(0, |bench| {
        neighbours(bench, BRIDGED);
        establish(bench);
        let frame = bench.tcp(POD, PEER, PORTS, ACK);
        assert_eq!(goes_at_once(bench, "from_pod", &frame), frame);
    });
}

#[test]
#[ignore = "needs root"]
fn frames_that_the_node_would_not_forward_are_left_to_it() {
    for flags in [0, BRIDGED] {
        both(0, |bench| {
            neighbours(bench, flags);
            establish(bench);
            let frame = bench.tcp(POD, PEER, PORTS, ACK);
            // Decided a moment ago, and under a new epoch.
            for epochs in [0, 1] {
                let again = || bench.configure(|config| config.epoch += epochs);
                again();
                bench.passes("from_pod", &to(&frame, ALL));
                again();
                if flags == BRIDGED {
                    goes_at_once(bench, "from_pod", &to(&frame, SOMEBODY));
                } else {
                    bench.passes("from_pod", &to(&frame, SOMEBODY));
                }
                again();
                goes_at_once(bench, "from_pod", &frame);
            }
        });
    }
}

#[test]
#[ignore = "needs root"]
fn datagrams_and_echoes_go_at_once_when_both_ends_have_let_the_first_in() {
    both(0, |bench| {
        neighbours(bench, 0);
        for frame in [bench.udp(POD, PEER, PORTS), bench.echo(POD, PEER, true)] {
            bench.passes("from_pod", &frame);
            bench.passes("from_pod", &frame);
            bench.passes("to_pod", &frame);
            goes_at_once(bench, "from_pod", &frame);
        }
        goes_at_once(bench, "from_pod", &bench.echo(PEER, POD, false));
    });
}

#[test]
#[ignore = "needs root"]
fn what_the_stack_or_the_proxy_has_to_see_goes_the_long_way() {
    both(0, |bench| {
        neighbours(bench, 0);
        establish(bench);
        let data = bench.tcp(POD, PEER, PORTS, ACK);
        let mut last_hop = data.clone();
        last_hop[if bench.v6 { 21 } else { 22 }] = 1;
        bench.passes("from_pod", &last_hop);
        let part = bench.part(POD, PEER, TCP, &data[if bench.v6 { 54 } else { 34 }..], (0, true, 9));
        bench.passes("from_pod", &part);
        goes_at_once(bench, "from_pod", &data);
        bench.maps.short_devices.remove(&DEVICE).unwrap();
        bench.configure(|config| config.epoch += 1);
        bench.passes("from_pod", &data);
        bench.maps.short_devices.update(&DEVICE, &1).unwrap();
        bench.configure(|config| config.epoch += 1);
        goes_at_once(bench, "from_pod", &data);
        // The whole end goes where the rest went; what begins anew does not.
        for (from, to, ports) in [(PEER, POD, BACK), (POD, PEER, PORTS)] {
            let mut end = bench.tcp(from, to, ports, FIN | ACK);
            // Behind the SYN, or it would not be believed.
            end[if bench.v6 { 61 } else { 41 }] = 1;
            goes_at_once(bench, "from_pod", &end);
        }
        assert_eq!(bench.connection((POD, PEER), PORTS, TCP).unwrap().state, CLOSING);
        goes_at_once(bench, "from_pod", &bench.tcp(PEER, POD, BACK, ACK));
        goes_at_once(bench, "from_pod", &bench.tcp(PEER, POD, BACK, RST));
        bench.passes("from_pod", &bench.tcp(POD, PEER, PORTS, SYN));
    });
}

#[test]
#[ignore = "needs root"]
fn a_tightened_policy_of_either_end_holds_for_the_next_packet() {
    let denied = |from: u32| Verdict::deny(Level::new(TIER_NORMAL, 0), from, Reason::DeniedByRule as u16);
    both(GUARDED, |bench| {
        neighbours(bench, GUARDED);
        establish(bench);
        let (there, back) = (bench.tcp(POD, PEER, PORTS, ACK), bench.tcp(PEER, POD, BACK, ACK));
        // What still holds goes on at once.
        bench.configure(|config| config.epoch += 1);
        goes_at_once(bench, "from_pod", &there);
        goes_at_once(bench, "from_pod", &back);
        // The neighbour does not let the pod in any more: its own hook drops and tells it.
        let other = bench.maps.workloads.lookup(&bench.address(PEER)).unwrap().unwrap();
        let closed = Workload { ingress: denied(3), ..other };
        bench.maps.workloads.update(&bench.address(PEER), &closed).unwrap();
        bench.configure(|config| config.epoch += 1);
        bench.passes("from_pod", &there);
        bench.drops_for("to_pod", &there, Reason::DeniedByRule);
        bench.drops_for("from_pod", &back, Reason::DeniedByRule);
        assert_eq!(bench.connection((POD, PEER), PORTS, TCP).unwrap().state, ENDED);
        // And again.
        bench.maps.workloads.update(&bench.address(PEER), &other).unwrap();
        bench.configure(|config| config.epoch += 1);
        goes_at_once(bench, "from_pod", &there);
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, DENY);
        bench.configure(|config| config.epoch += 1);
        bench.drops_for("from_pod", &there, Reason::DeniedByRule);
        bench.passes("from_pod", &back);
        bench.drops_for("to_pod", &back, Reason::DeniedByRule);
    });
}

#[test]
#[ignore = "needs root"]
fn what_comes_from_elsewhere_goes_at_once_by_the_device_by_which_it_came_before() {
    both(CLOSED, |bench| {
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 9090, 16, ALLOW);
        bench.maps.short_devices.update(&DEVICE, &1).unwrap();
        let ports = (40_001, 9090);
        let data = bench.tcp(PEER, POD, ports, ACK);
        bench.passes("to_pod", &bench.tcp(PEER, POD, ports, SYN));
        bench.passes("from_pod", &bench.tcp(POD, PEER, (ports.1, ports.0), SYN | ACK));
        bench.passes("to_pod", &data);
        let ends = ((bench.address(PEER), ports.0.to_be()), (bench.address(POD), ports.1.to_be()));
        let (key, from_high) = ConnectionKey::of(ends.0, ends.1, TCP);
        // A test run has no device by which the packet has come.
        let came_by = |device: u32| {
            let mut entry = bench.maps.connections.lookup(&key).unwrap().unwrap();
            let end = &mut entry.ends[usize::from(from_high)];
            (end.device, end.short) = (device, 1);
            bench.maps.connections.update(&key, &entry).unwrap();
        };
        bench.passes("from_uplink", &data);
        came_by(DEVICE + 1);
        bench.passes("from_uplink", &data);
        came_by(DEVICE);
        bench.passes("from_uplink", &to(&data, SOMEBODY));
        assert_eq!(goes_at_once(bench, "from_uplink", &data), one_hop_less(bench, &data));
        // What the pod sends there goes by the stack, which knows the way.
        bench.passes("from_pod", &bench.tcp(POD, PEER, (ports.1, ports.0), ACK));
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 9090, 16, DENY);
        bench.configure(|config| config.epoch += 1);
        bench.passes("from_uplink", &data);
        bench.drops_for("to_pod", &data, Reason::DeniedByRule);
    });
}
