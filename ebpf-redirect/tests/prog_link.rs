// SPDX-License-Identifier: Apache-2.0
//! What pods say on their link, and the ports of bridges of which it is not known whose they are. Needs
//! root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use weft_ebpf_common::{
    Reason,
    layout::{EGRESS, WORKLOAD_BRIDGED, Workload},
};

#[path = "support/bench.rs"]
mod bench;

use bench::*;

/// A frame whose source and destination do not matter.
fn frame(ether_type: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ether_type);
    frame.extend(payload);
    frame.resize(60, 0);
    frame
}

/// An ARP request or answer whose sender says that it has an IPv4 address (RFC 826).
fn arp(sender: [u8; 4]) -> Vec<u8> {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2];
    payload.extend(sender);
    frame([8, 6], &payload)
}

/// A neighbour advertisement (RFC 4861 section 4.4) from the pod's own address about an address.
fn advertisement(bench: &Bench, about: &str) -> Vec<u8> {
    let target: std::net::Ipv6Addr = about.parse().unwrap();
    bench.icmp(POD, PEER, (0, 136), 0, &[&[0; 4], target.octets().as_slice()].concat())
}

/// The pod is behind some port of a bridge, or behind another device than that of the test.
fn place(bench: &Bench, ifindex: u32) {
    let address = bench.address(POD);
    let workload = bench.maps.workloads.lookup(&address).unwrap().unwrap();
    let flags = workload.flags | WORKLOAD_BRIDGED;
    bench.maps.workloads.update(&address, &Workload { ifindex, flags, ..workload }).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_pod_says_on_its_link_only_what_is_true() {
    let bench = Bench::new(false, CLOSED);
    bench.passes("from_pod", &arp([10, 244, 9, 2]));
    // It asks whether an address is free (RFC 5227).
    bench.passes("from_pod", &arp([0; 4]));
    bench.drops_for("from_pod", &arp([10, 244, 7, 7]), Reason::InvalidSourceIp);
    bench.drops_for("from_pod", &arp([10, 244, 9, 1]), Reason::InvalidSourceIp);
    let bench = Bench::new(true, CLOSED);
    for kind in [133, 135] {
        bench.passes("from_pod", &bench.icmp(POD, PEER, (0, kind), 0, &[0; 20]));
    }
    bench.passes("from_pod", &advertisement(&bench, "fd00:9::2"));
    bench.passes("from_pod", &advertisement(&bench, "fe80::2"));
    bench.drops_for("from_pod", &advertisement(&bench, "fd00:7::7"), Reason::InvalidSourceIp);
    for kind in [134, 137] {
        let frame = bench.icmp(POD, PEER, (0, kind), 0, &[0; 40]);
        bench.drops_for("from_pod", &frame, Reason::UnsupportedL3);
    }
}

#[test]
#[ignore = "needs root"]
fn frames_that_no_policy_could_decide_about_leave_no_pod() {
    both(CLOSED, |bench| {
        for ether_type in [[0x81, 0], [0x88, 0xa8], [0x88, 0xcc]] {
            bench.drops_for("from_pod", &frame(ether_type, &[]), Reason::UnsupportedL3);
            // Nor ARP for something else than IPv4 over Ethernet.
            bench.drops_for("from_pod", &frame([8, 6], &[0xff; 28]), Reason::UnsupportedL3);
        }
        for ether_type in [[8, 6], [0x88, 0xcc]] {
            bench.passes("to_pod", &frame(ether_type, &[]));
        }
    });
    let bench = Bench::new(true, CLOSED);
    for kind in [133, 135, 136] {
        bench.passes("to_pod", &bench.icmp(PEER, POD, (0, kind), 0, &[0; 20]));
    }
}

#[test]
#[ignore = "needs root"]
fn a_port_without_an_owner_decides_for_the_pod_that_may_be_behind_it() {
    both(CLOSED, |bench| {
        place(bench, 0);
        bench.drops_for("from_port", &bench.tcp(POD, PEER, PORTS, SYN), Reason::PolicyDenied);
        bench.drops_for("to_port", &bench.tcp(PEER, POD, PORTS, SYN), Reason::PolicyDenied);
        let cut = bench.tcp(POD, PEER, PORTS, SYN)[..if bench.v6 { 58 } else { 38 }].to_vec();
        bench.drops_for("from_port", &cut, Reason::InvalidPacket);
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
        bench.passes("from_port", &bench.tcp(POD, PEER, PORTS, SYN));
        bench.passes("to_port", &bench.tcp(PEER, POD, BACK, SYN | ACK));
        // It cannot be a port that is known to be somebody else's.
        bench.drops_for("from_pod", &bench.tcp(POD, PEER, PORTS, SYN), Reason::InvalidSourceIp);
    });
}

#[test]
#[ignore = "needs root"]
fn a_port_without_an_owner_cannot_have_the_address_of_a_pod_that_is_elsewhere() {
    both(CLOSED, |bench| {
        place(bench, 77);
        bench.drops_for("from_port", &bench.tcp(POD, PEER, PORTS, SYN), Reason::InvalidSourceIp);
        let run = bench.run("to_port", &bench.tcp(PEER, POD, PORTS, SYN), 0);
        assert_eq!((run.verdict, run.reason), (DROP, None));
        if bench.v6 {
            let claim = advertisement(bench, "fd00:9::2");
            bench.drops_for("from_port", &claim, Reason::InvalidSourceIp);
        } else {
            bench.drops_for("from_port", &arp([10, 244, 9, 2]), Reason::InvalidSourceIp);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_port_without_an_owner_leaves_what_is_no_pods_alone() {
    both(CLOSED, |bench| {
        let frames = [
            bench.tcp(PEER, NODE, PORTS, SYN),
            bench.udp(PEER, NODE, PORTS),
            bench.fragment(PEER, NODE),
            bench.tcp(PEER, NODE, PORTS, SYN)[..if bench.v6 { 58 } else { 38 }].to_vec(),
            arp([10, 244, 7, 7]),
            frame([0x81, 0], &[]),
        ];
        for frame in frames {
            bench.passes("from_port", &frame);
            bench.passes("to_port", &frame);
        }
    });
}
