// SPDX-License-Identifier: Apache-2.0
//! What pods say on their link, and devices of which it is not known whose they are. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use weft_ebpf_common::{
    Reason,
    layout::{WORKLOAD_BRIDGED, Workload},
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

/// The pod is behind a port of a bridge that is not known, or behind another device than that of the test.
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
fn a_device_without_an_owner_passes_nothing_in_anybodys_name() {
    both(0, |bench| {
        let cut = |frame: Vec<u8>| frame[..if bench.v6 { 58 } else { 38 }].to_vec();
        for ifindex in [0, DEVICE] {
            place(bench, ifindex);
            for frame in [
                bench.tcp(POD, PEER, PORTS, SYN),
                bench.tcp(PEER, NODE, PORTS, ACK),
                bench.udp(PEER, NODE, PORTS),
                bench.echo(NODE, PEER, true),
                bench.fragment(PEER, NODE),
                bench.packet(PEER, NODE, 47, &[0; 8]),
            ] {
                bench.drops_for("from_unowned", &frame, Reason::UnknownOwner);
            }
            for frame in [bench.tcp(PEER, POD, PORTS, SYN), bench.udp(NODE, PEER, PORTS)] {
                bench.drops_for("to_unowned", &frame, Reason::UnknownOwner);
            }
            bench.drops_for("from_unowned", &cut(bench.tcp(POD, PEER, PORTS, SYN)), Reason::InvalidPacket);
            bench.drops_for("from_unowned", &arp([10, 244, 9, 1]), Reason::InvalidSourceIp);
            bench.drops_for("from_unowned", &frame([0x81, 0], &[]), Reason::UnsupportedL3);
            if bench.v6 {
                let claim = advertisement(bench, "fd00:9::2");
                bench.drops_for("from_unowned", &claim, Reason::UnknownOwner);
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_device_without_an_owner_cannot_have_the_address_of_a_pod_that_is_elsewhere() {
    both(CLOSED, |bench| {
        place(bench, 77);
        bench.drops_for("from_unowned", &bench.tcp(POD, PEER, PORTS, SYN), Reason::InvalidSourceIp);
        // The bridge sends it to every port: it is no loss.
        let run = bench.run("to_unowned", &bench.tcp(PEER, POD, PORTS, SYN), 0);
        assert_eq!((run.verdict, run.reason), (DROP, None));
    });
}

/// A datagram between addresses that are not of the bench.
fn datagram(from: &str, to: &str, ports: (u16, u16)) -> Vec<u8> {
    let (from, to): (std::net::IpAddr, std::net::IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let bench_frame = |frame: &mut Vec<u8>| {
        frame.extend(ports.0.to_be_bytes());
        frame.extend(ports.1.to_be_bytes());
        frame.extend([0, 8, 0, 0]);
    };
    let mut packet = match (from, to) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            let header = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0];
            [header.as_slice(), &from.octets(), &to.octets()].concat()
        }
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            let header = [0x60, 0, 0, 0, 0, 8, UDP, 64];
            [header.as_slice(), &from.octets(), &to.octets()].concat()
        }
        _ => unreachable!("both are of one family"),
    };
    bench_frame(&mut packet);
    frame(if from.is_ipv4() { [8, 0] } else { [0x86, 0xdd] }, &packet)
}

#[test]
#[ignore = "needs root"]
fn a_device_without_an_owner_can_find_its_link_and_get_an_address() {
    let bench = Bench::new(false, 0);
    bench.passes("from_unowned", &arp([0; 4]));
    bench.passes("to_unowned", &arp([10, 244, 9, 1]));
    bench.passes("from_unowned", &datagram("0.0.0.0", "255.255.255.255", (68, 67)));
    bench.passes("to_unowned", &datagram("10.244.9.1", "10.244.9.2", (67, 68)));
    for other in [
        datagram("10.244.9.2", "255.255.255.255", (68, 67)),
        datagram("0.0.0.0", "10.244.9.1", (68, 53)),
        datagram("fe80::2", "ff02::1:2", (546, 53)),
        datagram("fd00:9::2", "ff02::1:2", (546, 547)),
    ] {
        bench.drops_for("from_unowned", &other, Reason::UnknownOwner);
    }
    let bench = Bench::new(true, 0);
    bench.passes("from_unowned", &datagram("fe80::2", "ff02::1:2", (546, 547)));
    bench.passes("to_unowned", &datagram("fe80::1", "fe80::2", (547, 546)));
    let mut probe = bench.icmp(POD, PEER, (0, 135), 0, &[0; 20]);
    bench.passes("to_unowned", &probe);
    // Duplicate address detection: from nobody to all (RFC 4862 section 5.4.2).
    probe[22..38].fill(0);
    probe[38..54].copy_from_slice(&"ff02::1:ff00:2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    bench.passes("from_unowned", &probe);
}
