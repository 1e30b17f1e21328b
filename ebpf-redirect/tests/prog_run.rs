// SPDX-License-Identifier: Apache-2.0
//! Each hook of devices, run on single packets: packet in, verdict, mark and map state out. Every case
//! for IPv4 and IPv6. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use weft_ebpf_common::{
    Reason, Verdict,
    connection::{ENDED, ESTABLISHED},
    layout::{ANY_IDENTITY, EGRESS, INGRESS, SERVICE_KEPT, WORKLOAD_BRIDGED, Workload},
    verdict::{Level, TIER_ADMIN, TIER_BASELINE, TIER_NORMAL},
};
use weft_ebpf_redirect::{DEFAULT_MARK, desired::address_prefix};

#[path = "support/bench.rs"]
mod bench;

use bench::*;

#[test]
#[ignore = "needs root"]
fn an_open_pod_may_send_and_receive_everything() {
    both(0, |bench| {
        for frame in [
            bench.tcp(POD, PEER, PORTS, SYN),
            bench.udp(POD, PEER, (5000, 53)),
            bench.echo(POD, PEER, true),
            bench.fragment(POD, PEER),
            bench.packet(POD, PEER, 47, &[0; 8]),
        ] {
            bench.passes("from_pod", &frame);
        }
        for frame in [
            bench.tcp(PEER, POD, PORTS, SYN),
            bench.udp(PEER, POD, (5000, 53)),
            bench.echo(PEER, POD, true),
            bench.fragment(PEER, POD),
            bench.packet(PEER, POD, 47, &[0; 8]),
        ] {
            bench.passes("to_pod", &frame);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn what_no_entry_names_is_dropped_where_policy_is_enforced() {
    both(CLOSED, |bench| {
        let tcp = bench.tcp(POD, PEER, PORTS, SYN);
        bench.drops_for("from_pod", &tcp, Reason::PolicyDenied);
        bench.drops_for("to_pod", &bench.tcp(PEER, POD, PORTS, SYN), Reason::PolicyDenied);
        bench.drops_for("from_pod", &bench.udp(POD, PEER, PORTS), Reason::PolicyDenied);
        bench.drops_for("to_pod", &bench.udp(PEER, POD, PORTS), Reason::PolicyDenied);
        bench.drops_for("from_pod", &bench.echo(POD, PEER, true), Reason::PolicyDenied);
        bench.drops_for("from_pod", &bench.packet(POD, PEER, 47, &[0; 8]), Reason::UnknownL4);
        bench.drops_for("from_pod", &bench.fragment(POD, PEER), Reason::PolicyDenied);
        bench.drops_for("to_pod", &bench.fragment(PEER, POD), Reason::PolicyDenied);
    });
}

#[test]
#[ignore = "needs root"]
fn a_pod_without_a_known_policy_is_closed_and_says_so() {
    both(UNKNOWN, |bench| {
        bench.drops_for("from_pod", &bench.tcp(POD, PEER, PORTS, SYN), Reason::NoPolicyConfig);
        bench.drops_for("to_pod", &bench.tcp(PEER, POD, PORTS, SYN), Reason::NoPolicyConfig);
    });
}

#[test]
#[ignore = "needs root"]
fn a_pod_cannot_use_the_address_of_another() {
    both(0, |bench| {
        bench.drops_for("from_pod", &bench.tcp(PEER, POD, PORTS, SYN), Reason::InvalidSourceIp);
        bench.drops_for("from_pod", &bench.echo(NODE, PEER, true), Reason::InvalidSourceIp);
        // Nor its own address from another device.
        let elsewhere = Workload { ifindex: 77, ..Workload::default() };
        bench.maps.workloads.update(&bench.address(POD), &elsewhere).unwrap();
        bench.drops_for("from_pod", &bench.tcp(POD, PEER, PORTS, SYN), Reason::InvalidSourceIp);
    });
}

#[test]
#[ignore = "needs root"]
fn replies_need_no_rule_but_a_new_connection_of_the_same_addresses_does() {
    both(CLOSED, |bench| {
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
        bench.drops_for("to_pod", &bench.tcp(PEER, POD, BACK, SYN | ACK), Reason::UnknownConnection);
        bench.passes("from_pod", &bench.tcp(POD, PEER, PORTS, SYN));
        bench.passes("to_pod", &bench.tcp(PEER, POD, BACK, SYN | ACK));
        bench.passes("from_pod", &bench.tcp(POD, PEER, PORTS, ACK));
        bench.drops_for("to_pod", &bench.tcp(PEER, POD, BACK, SYN), Reason::PolicyDenied);
        let connection = bench.connection((POD, PEER), PORTS, TCP).unwrap();
        let pod = usize::from(connection.opener);
        let [opener, other] = [connection.ends[pod], connection.ends[1 - pod]];
        assert_eq!((opener.packets, other.packets, connection.state), (2, 1, ESTABLISHED));
        assert_eq!((opener.identity, opener.workload), (POD_IDENTITY, 9));
        assert_eq!((other.identity, other.workload), (PEER_IDENTITY, 0));
    });
}

#[test]
#[ignore = "needs root"]
fn datagrams_and_echoes_are_answered_without_a_rule() {
    both(CLOSED, |bench| {
        bench.rule(EGRESS, PEER_IDENTITY, 0, 0, 0, ALLOW);
        bench.drops_for("to_pod", &bench.udp(PEER, POD, BACK), Reason::PolicyDenied);
        bench.passes("from_pod", &bench.udp(POD, PEER, PORTS));
        bench.passes("to_pod", &bench.udp(PEER, POD, BACK));
        bench.drops_for("to_pod", &bench.echo(PEER, POD, false), Reason::UnknownConnection);
        bench.passes("from_pod", &bench.echo(POD, PEER, true));
        bench.passes("to_pod", &bench.echo(PEER, POD, false));
    });
}

#[test]
#[ignore = "needs root"]
fn deny_wins_over_allow_and_allow_over_redirect() {
    both(CLOSED, |bench| {
        let frame = bench.tcp(PEER, POD, PORTS, SYN);
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, REDIRECT);
        bench.drops_for("to_pod", &frame, Reason::ProxyUnavailable);
        bench.rule(INGRESS, ANY_IDENTITY, TCP, 0, 0, ALLOW);
        bench.passes("to_pod", &frame);
        bench.rule(INGRESS, ANY_IDENTITY, 0, 0, 0, DENY);
        bench.configure(|config| config.epoch += 1);
        bench.drops_for("to_pod", &frame, Reason::DeniedByRule);
    });
}

#[test]
#[ignore = "needs root"]
fn the_tier_decides_before_what_is_done_and_the_priority_before_that() {
    both(CLOSED, |bench| {
        let frame = |port| bench.tcp(PEER, POD, (port, 8080), SYN);
        let allow = |tier, priority| Verdict::allow(Level::new(tier, priority), 21);
        let deny = |tier, priority| Verdict::deny(Level::new(tier, priority), 22, 181);
        bench.rule(INGRESS, ANY_IDENTITY, 0, 0, 0, allow(TIER_BASELINE, 0));
        bench.drops_for("to_pod", &frame(1), Reason::PolicyDenied);
        bench.rule(INGRESS, ANY_IDENTITY, TCP, 8080, 16, allow(TIER_NORMAL, 0));
        bench.passes("to_pod", &frame(2));
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, deny(TIER_ADMIN, 5));
        bench.drops_for("to_pod", &frame(3), Reason::DeniedByRule);
        bench.rule(INGRESS, PEER_IDENTITY, 0, 0, 0, allow(TIER_ADMIN, 4));
        bench.passes("to_pod", &frame(4));
    });
}

#[test]
#[ignore = "needs root"]
fn a_peer_that_has_to_prove_who_it_is_never_just_passes() {
    both(CLOSED, |bench| {
        let ask = Verdict::authenticated(Level::new(TIER_NORMAL, 0), 23);
        bench.rule(EGRESS, ANY_IDENTITY, 0, 0, 0, ALLOW);
        bench.rule(EGRESS, PEER_IDENTITY, 0, 0, 0, ask);
        bench.drops_for("from_pod", &bench.tcp(POD, PEER, PORTS, SYN), Reason::ProxyUnavailable);
        bench.drops_for("from_pod", &bench.udp(POD, PEER, PORTS), Reason::RedirectUnsupported);
        bench.drops_for("from_pod", &bench.packet(POD, PEER, 47, &[0; 8]), Reason::RedirectUnsupported);
    });
}

#[test]
#[ignore = "needs root"]
fn a_flow_knows_the_rule_that_lets_it_pass() {
    both(CLOSED, |bench| {
        let verdicts = || {
            let entries = bench.maps.connections.entries().unwrap().into_iter();
            entries.flat_map(|(_, entry)| entry.ends).filter(|end| end.workload != 0).map(|end| end.verdict)
        };
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
        bench.passes("to_pod", &bench.tcp(PEER, POD, PORTS, SYN));
        assert_eq!(verdicts().collect::<Vec<_>>(), [ALLOW]);
        let other = Verdict { rule: 99, ..ALLOW };
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, other);
        bench.configure(|config| config.epoch += 1);
        bench.passes("to_pod", &bench.tcp(PEER, POD, PORTS, ACK));
        assert_eq!(verdicts().collect::<Vec<_>>(), [other], "decided again");
    });
}

/// The parts of a datagram between POD and PEER.
fn parts(bench: &Bench, from: usize, to: usize, ports: (u16, u16), id: u8) -> [Vec<u8>; 2] {
    let datagram = bench.udp(from, to, ports)[if bench.v6 { 54 } else { 34 }..].to_vec();
    [bench.part(from, to, UDP, &datagram, (0, true, id)), bench.part(from, to, UDP, &[7; 16], (1, false, id))]
}

#[test]
#[ignore = "needs root"]
fn fragments_are_decided_like_the_datagram_that_they_are_part_of() {
    let ways = [("from_pod", POD, PEER, EGRESS), ("to_pod", PEER, POD, INGRESS)];
    both(CLOSED, |bench| {
        for (hook, from, to, direction) in ways {
            bench.rule(direction, PEER_IDENTITY, UDP, 53, 16, ALLOW);
            let [first, later] = parts(bench, from, to, (5000, 53), 7);
            bench.drops_for(hook, &later, Reason::FragmentUnsupported);
            bench.passes(hook, &first);
            bench.passes(hook, &later);
            // Of another datagram, and of one to another port.
            bench.drops_for(hook, &parts(bench, from, to, (5000, 53), 8)[1], Reason::FragmentUnsupported);
            let [first, later] = parts(bench, from, to, (5000, 54), 9);
            bench.drops_for(hook, &first, Reason::PolicyDenied);
            bench.drops_for(hook, &later, Reason::PolicyDenied);
        }
    });
    // Where only a rule denies.
    both(GUARDED, |bench| {
        for (hook, from, to, direction) in ways {
            bench.rule(direction, PEER_IDENTITY, UDP, 53, 16, DENY);
            for part in parts(bench, from, to, (5000, 53), 7) {
                bench.drops_for(hook, &part, Reason::DeniedByRule);
            }
            for part in parts(bench, from, to, (5000, 54), 8) {
                bench.passes(hook, &part);
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn fragments_of_echoes_and_replies_pass_with_their_first() {
    both(CLOSED, |bench| {
        bench.rule(EGRESS, PEER_IDENTITY, 0, 0, 0, ALLOW);
        let start = if bench.v6 { 54 } else { 34 };
        let protocol = if bench.v6 { 58 } else { 1 };
        for (hook, from, to, request) in [("from_pod", POD, PEER, true), ("to_pod", PEER, POD, false)] {
            let echo = bench.echo(from, to, request)[start..].to_vec();
            bench.passes(hook, &bench.part(from, to, protocol, &echo, (0, true, 3)));
            bench.passes(hook, &bench.part(from, to, protocol, &[1; 24], (1, true, 3)));
            bench.passes(hook, &bench.part(from, to, protocol, &[1; 9], (4, false, 3)));
        }
    });
}

#[test]
#[ignore = "needs root"]
fn no_fragment_goes_to_the_proxy() {
    both(0, |bench| {
        bench.configure(|config| config.listeners = 1);
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, REDIRECT);
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, REDIRECT);
        let syn = |from, to| bench.tcp(from, to, PORTS, SYN)[if bench.v6 { 54 } else { 34 }..].to_vec();
        for (hook, from, to) in [("from_pod", POD, PEER), ("to_pod", PEER, POD)] {
            let first = bench.part(from, to, TCP, &syn(from, to), (0, true, 5));
            bench.drops_for(hook, &first, Reason::FragmentUnsupported);
        }
        let first = bench.part(NODE, POD, TCP, &syn(NODE, POD), (0, true, 5));
        bench.drops_for("bounced", &first, Reason::FragmentUnsupported);
    });
}

#[test]
#[ignore = "needs root"]
fn an_ipv6_packet_with_a_mapped_ipv4_address_is_invalid() {
    let bench = Bench::new(true, 0);
    let mapped: [u8; 16] = "::ffff:10.244.9.2".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let with = |frame: Vec<u8>, at: usize| [&frame[..at], &mapped, &frame[at + 16..]].concat();
    let v4 = Bench::new(false, 0).address(POD);
    let known = bench.maps.workloads.lookup(&bench.address(POD)).unwrap().unwrap();
    bench.maps.workloads.update(&v4, &known).unwrap();
    for frame in [bench.tcp(POD, PEER, PORTS, SYN), bench.udp(POD, PEER, PORTS), bench.echo(POD, PEER, true)]
    {
        for (at, hooks) in [(22, ["from_pod", "from_unowned"]), (38, ["from_pod", "to_pod"])] {
            for hook in hooks {
                bench.drops_for(hook, &with(frame.clone(), at), Reason::InvalidPacket);
            }
        }
        assert_eq!(bench.run("bounced", &with(frame.clone(), 38), 0).verdict, DROP);
    }
    // Inside of an error, and as what somebody says to have.
    let inner = with(bench.tcp(PEER, POD, BACK, SYN), 38);
    let error = bench.icmp(POD, PEER, (3, 1), 1, &[&[0; 4], &inner[14..]].concat());
    bench.drops_for("from_pod", &error, Reason::InvalidPacket);
}

#[test]
#[ignore = "needs root"]
fn a_port_prefix_matches_its_ports_and_no_others() {
    both(CLOSED, |bench| {
        // 8080/13 is 8080 to 8087.
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 13, ALLOW);
        for (port, passes) in [(8079, false), (8080, true), (8087, true), (8088, false)] {
            let frame = bench.tcp(PEER, POD, (40_000, port), SYN);
            let verdict = bench.run("to_pod", &frame, 0).verdict;
            assert_eq!(verdict == PASS, passes, "port {port}");
        }
        bench.drops_for("to_pod", &bench.udp(PEER, POD, PORTS), Reason::PolicyDenied);
    });
}

#[test]
#[ignore = "needs root"]
fn an_unknown_peer_matches_rules_for_anybody_only() {
    both(CLOSED, |bench| {
        bench.maps.identities.remove(&address_prefix(bench.ip(PEER).into())).unwrap();
        let frame = bench.tcp(PEER, POD, PORTS, SYN);
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
        bench.rule(INGRESS, 2, TCP, 8080, 16, ALLOW);
        bench.drops_for("to_pod", &frame, Reason::PolicyDenied);
        bench.rule(INGRESS, ANY_IDENTITY, TCP, 8080, 16, ALLOW);
        bench.passes("to_pod", &frame);
    });
}

#[test]
#[ignore = "needs root"]
fn the_node_reaches_its_pods_unless_a_rule_denies_it() {
    both(CLOSED, |bench| {
        bench.rule(INGRESS, 1, 0, 0, 0, ALLOW);
        bench.passes("to_pod", &bench.tcp(NODE, POD, PORTS, SYN));
        bench.passes("to_pod", &bench.echo(NODE, POD, true));
        bench.rule(INGRESS, 1, 0, 0, 0, DENY);
        bench.drops_for("to_pod", &bench.tcp(NODE, POD, (40_001, 8080), SYN), Reason::DeniedByRule);
    });
}

#[test]
#[ignore = "needs root"]
fn a_redirect_without_a_proxy_is_a_drop() {
    both(0, |bench| {
        bench.service(80, TCP, SERVICE_KEPT);
        let kept = bench.tcp(POD, VIP, (40_000, 80), SYN);
        bench.drops_for("from_pod", &kept, Reason::ProxyUnavailable);
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, REDIRECT);
        bench.drops_for("from_pod", &bench.tcp(POD, PEER, PORTS, SYN), Reason::ProxyUnavailable);
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, REDIRECT);
        bench.drops_for("to_pod", &bench.tcp(PEER, POD, PORTS, SYN), Reason::ProxyUnavailable);
        // A listener that is said to be there, but is not.
        bench.configure(|config| config.listeners = 1);
        bench.maps.listeners.update(&0, &1).unwrap();
        bench.drops_for("from_pod", &kept, Reason::ProxyUnavailable);
        bench.drops_for("bounced", &kept, Reason::ProxyUnavailable);
    });
}

#[test]
#[ignore = "needs root"]
fn only_tcp_can_be_redirected() {
    both(0, |bench| {
        bench.configure(|config| config.listeners = 1);
        bench.rule(EGRESS, ANY_IDENTITY, 0, 0, 0, REDIRECT);
        bench.rule(INGRESS, ANY_IDENTITY, 0, 0, 0, REDIRECT);
        bench.drops_for("from_pod", &bench.udp(POD, PEER, PORTS), Reason::RedirectUnsupported);
        bench.drops_for("to_pod", &bench.udp(PEER, POD, PORTS), Reason::RedirectUnsupported);
        bench.drops_for("from_pod", &bench.echo(POD, PEER, true), Reason::RedirectUnsupported);
    });
}

#[test]
#[ignore = "needs root"]
fn what_goes_to_the_proxy_at_egress_or_from_a_bridge_goes_around() {
    both(WORKLOAD_BRIDGED, |bench| {
        bench.configure(|config| config.listeners = 1);
        bench.service(80, TCP, SERVICE_KEPT);
        let around = Run { verdict: BOUNCE, mark: DEFAULT_MARK.to_proxy, reason: None };
        assert_eq!(bench.run("from_pod", &bench.tcp(POD, VIP, (40_000, 80), SYN), 0), around);
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, REDIRECT);
        assert_eq!(bench.run("to_pod", &bench.tcp(PEER, POD, PORTS, SYN), 0), around);
    });
}

#[test]
#[ignore = "needs root"]
fn a_service_address_that_was_not_translated_goes_nowhere() {
    both(0, |bench| {
        bench.service(80, UDP, 0);
        bench.drops_for("from_pod", &bench.udp(POD, VIP, (5000, 80)), Reason::ServiceNotTranslated);
        bench.service(80, TCP, 0);
        bench.drops_for("from_pod", &bench.tcp(POD, VIP, (5000, 80), SYN), Reason::ServiceNotTranslated);
        bench.drops_for("from_pod", &bench.echo(POD, VIP, true), Reason::ServiceNotTranslated);
        bench.drops_for("from_pod", &bench.packet(POD, VIP, 47, &[0; 8]), Reason::ServiceNotTranslated);
        bench.drops_for("from_pod", &bench.fragment(POD, VIP), Reason::UnknownServicePort);
        bench.drops_for("bounced", &bench.tcp(NODE, VIP, (5000, 80), SYN), Reason::ServiceNotTranslated);
        bench.drops_for("bounced", &bench.udp(NODE, VIP, (5000, 80)), Reason::ServiceNotTranslated);
    });
}

/// The sum of the internet (RFC 1071), which is 0xffff over what has a right checksum.
fn internet_sum(bytes: &[&[u8]]) -> u32 {
    let all = bytes.concat();
    let mut sum = all.chunks(2).fold(0_u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// Checks link, IP header and checksums of what answers a packet from `from` to the service: protocol and what
/// it carries.
fn read_answer(bench: &Bench, from: usize, asked: &[u8], answer: &[u8]) -> (u8, Vec<u8>) {
    assert_eq!((&answer[..6], &answer[6..12], &answer[12..14]), (&asked[6..12], &asked[..6], &asked[12..14]));
    let (ip, carried) = answer[14..].split_at(if bench.v6 { 40 } else { 20 });
    let addresses = if bench.v6 { &ip[8..40] } else { &ip[12..20] };
    let wanted = bench.header(VIP, from, 0, 0);
    assert_eq!(addresses, if bench.v6 { &wanted[8..40] } else { &wanted[12..20] });
    let (protocol, length) = match bench.v6 {
        true => (ip[6], u16::from_be_bytes([ip[4], ip[5]]).into()),
        false => (ip[9], usize::from(u16::from_be_bytes([ip[2], ip[3]])) - 20),
    };
    assert_eq!(length, carried.len());
    assert!(bench.v6 || internet_sum(&[ip]) == 0xffff, "the header's checksum of {answer:x?}");
    let pseudo = [&[0, protocol], &(carried.len() as u16).to_be_bytes()[..]].concat();
    let sum =
        if protocol == 1 { internet_sum(&[carried]) } else { internet_sum(&[addresses, &pseudo, carried]) };
    assert_eq!(sum, 0xffff, "the checksum of {answer:x?}");
    (protocol, carried.to_vec())
}

#[test]
#[ignore = "needs root"]
fn who_asks_for_what_no_service_has_is_refused_at_once() {
    both(0, |bench| {
        // No such port, and a port that nobody serves.
        for (port, backends, reason) in
            [(81, 1, Reason::UnknownServicePort), (80, 0, Reason::NoServiceBackend)]
        {
            bench.service_with(80, TCP, 0, backends);
            bench.service_with(80, UDP, 0, backends);
            for (program, from, verdict) in [("from_pod", POD, BOUNCE), ("bounced", NODE, 0)] {
                let mut syn = bench.tcp(from, VIP, (5000, port), SYN);
                let sequence = if bench.v6 { 58 } else { 38 };
                syn[sequence..sequence + 4].copy_from_slice(&0xffff_ffff_u32.to_be_bytes());
                // Data with the SYN (RFC 7413) is acknowledged too.
                syn.extend([7; 90]);
                let total = (syn.len() - if bench.v6 { 54 } else { 14 }) as u16;
                let at = if bench.v6 { 18 } else { 16 };
                syn[at..at + 2].copy_from_slice(&total.to_be_bytes());
                let (found, counted, answer) = bench.answer(program, &syn);
                assert_eq!((found, counted), (verdict, Some(reason)), "{program} {port}");
                let (protocol, segment) = read_answer(bench, from, &syn, &answer);
                assert_eq!(
                    (protocol, &segment[..4]),
                    (TCP, &[0, port as u8, 5000_u16.to_be_bytes()[0], 136][..])
                );
                assert_eq!((&segment[4..12], segment[13]), (&[0, 0, 0, 0, 0, 0, 0, 90][..], 4 | ACK));

                let datagram = bench.udp(from, VIP, (5000, port));
                let (found, counted, answer) = bench.answer(program, &datagram);
                assert_eq!((found, counted), (verdict, Some(reason)), "{program} {port}");
                let (protocol, message) = read_answer(bench, from, &datagram, &answer);
                let kind: [u8; 3] = if bench.v6 { [58, 1, 4] } else { [1, 3, 3] };
                assert_eq!([protocol, message[0], message[1]], kind);
                assert_eq!(message[8..], datagram[14..], "it names the datagram");
            }
            // What is from the middle of something asks for nothing.
            bench.drops_for("from_pod", &bench.tcp(POD, VIP, (5000, port), ACK), reason);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn truncated_packets_are_dropped() {
    both(0, |bench| {
        let whole = bench.tcp(POD, PEER, PORTS, SYN);
        let start = if bench.v6 { 54 } else { 34 };
        // The kernel itself refuses to run on less than an IP header.
        for length in [start, start + 3, start + 19] {
            bench.drops_for("from_pod", &whole[..length], Reason::InvalidPacket);
            bench.drops_for("to_pod", &whole[..length], Reason::InvalidPacket);
        }
        let error = bench.icmp(POD, PEER, (3, 1), 1, &[0; 8]);
        bench.drops_for("from_pod", &error, Reason::InvalidPacket);
        assert_eq!(bench.run("bounced", &whole[..start + 3], 0).verdict, DROP);
    });
    let bench = Bench::new(false, 0);
    let mut wrong_version = bench.tcp(POD, PEER, PORTS, SYN);
    wrong_version[14] = 0x75;
    bench.drops_for("from_pod", &wrong_version, Reason::InvalidPacket);
    let mut short_header = bench.tcp(POD, PEER, PORTS, SYN);
    short_header[14] = 0x44;
    bench.drops_for("from_pod", &short_header, Reason::InvalidPacket);
}

#[test]
#[ignore = "needs root"]
fn extension_headers_do_not_hide_the_ports() {
    let bench = Bench::new(true, CLOSED);
    bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
    let segment = bench.tcp(POD, PEER, PORTS, SYN)[54..].to_vec();
    let options = [&[TCP, 0, 1, 4, 0, 0, 0, 0], &segment[..]].concat();
    bench.passes("from_pod", &bench.packet(POD, PEER, 60, &options));
    // An endless chain is no packet.
    let chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(10);
    bench.drops_for("from_pod", &bench.packet(POD, PEER, 60, &chain), Reason::InvalidPacket);
    // A fragment header on a whole datagram (RFC 6946) is nothing special.
    let atomic = [&[TCP, 0, 0, 0, 0, 0, 0, 7], &segment[..]].concat();
    bench.passes("from_pod", &bench.packet(POD, PEER, 44, &atomic));
}

/// An ICMP error from one end to the other about a packet: unreachable or too big.
fn error_about(bench: &Bench, from: usize, to: usize, about: &[u8], too_big: bool) -> Vec<u8> {
    let (kind, code) = match too_big {
        true => ((3, 2), if bench.v6 { 0 } else { 4 }),
        false => ((3, 1), 1),
    };
    bench.icmp(from, to, kind, code, &[&[0; 4], &about[14..]].concat())
}

#[test]
#[ignore = "needs root"]
fn icmp_errors_reach_a_pod_for_its_connections_and_from_who_may_know() {
    both(CLOSED, |bench| {
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
        let sent = bench.tcp(POD, PEER, PORTS, SYN);
        let other = bench.tcp(POD, PEER, (40_001, 8080), SYN);
        let gre = bench.packet(POD, PEER, 47, &[0; 8]);
        for too_big in [false, true] {
            let error = |from, about| error_about(bench, from, POD, about, too_big);
            bench.forget();
            bench.drops_for("to_pod", &error(PEER, &sent), Reason::UnrelatedError);
            bench.passes("from_pod", &sent);
            bench.passes("to_pod", &error(PEER, &sent));
            // A router on the way; not another pod, nor an address of a pod that nobody has.
            bench.passes("to_pod", &error(NODE, &sent));
            for identity in [1002, 0] {
                bench.maps.identities.update(&address_prefix(bench.ip(VIP).into()), &identity).unwrap();
                bench.drops_for("to_pod", &error(VIP, &sent), Reason::UnrelatedError);
            }
            bench.maps.identities.update(&address_prefix(bench.ip(VIP).into()), &2).unwrap();
            bench.passes("to_pod", &error(VIP, &sent));
            // Of another connection, of one of somebody else, and of what is not followed.
            bench.drops_for("to_pod", &error(PEER, &other), Reason::UnrelatedError);
            let of_another = bench.tcp(NODE, PEER, PORTS, SYN);
            bench.drops_for("to_pod", &error(PEER, &of_another), Reason::UnrelatedError);
            bench.drops_for("to_pod", &error(PEER, &gre), Reason::UnknownL4);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_rule_that_allows_everything_lets_no_unrelated_error_in() {
    both(CLOSED, |bench| {
        bench.rule(INGRESS, ANY_IDENTITY, 0, 0, 0, ALLOW);
        bench.rule(EGRESS, ANY_IDENTITY, 0, 0, 0, ALLOW);
        let sent = bench.udp(POD, PEER, PORTS);
        bench.drops_for("to_pod", &error_about(bench, PEER, POD, &sent, true), Reason::UnrelatedError);
        let gre = bench.packet(POD, PEER, 47, &[0; 8]);
        bench.passes("to_pod", &error_about(bench, PEER, POD, &gre, true));
        // And a pod tells only of what it was sent.
        let received = bench.udp(PEER, POD, PORTS);
        bench.drops_for("from_pod", &error_about(bench, POD, PEER, &received, false), Reason::UnrelatedError);
        bench.passes("to_pod", &received);
        bench.passes("from_pod", &error_about(bench, POD, PEER, &received, false));
        let elsewhere = bench.udp(PEER, NODE, PORTS);
        bench.drops_for(
            "from_pod",
            &error_about(bench, POD, PEER, &elsewhere, false),
            Reason::UnrelatedError,
        );
        bench.drops_for("from_pod", &error_about(bench, POD, NODE, &received, false), Reason::UnrelatedError);
    });
}

#[test]
#[ignore = "needs root"]
fn a_rule_that_wants_the_proxy_ends_the_connections_it_names() {
    both(CLOSED, |bench| {
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
        bench.passes("from_pod", &bench.tcp(POD, PEER, PORTS, SYN));
        bench.passes("from_pod", &bench.tcp(POD, PEER, PORTS, ACK));
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, REDIRECT);
        bench.passes("from_pod", &bench.tcp(POD, PEER, PORTS, ACK));
        bench.configure(|config| config.epoch += 1);
        bench.drops_for("from_pod", &bench.tcp(POD, PEER, PORTS, ACK), Reason::PolicyTightened);
        bench.drops_for("to_pod", &bench.tcp(PEER, POD, BACK, ACK), Reason::PolicyTightened);
        assert_eq!(bench.connection((POD, PEER), PORTS, TCP).unwrap().state, ENDED);
    });
}

#[test]
#[ignore = "needs root"]
fn a_change_that_still_allows_keeps_connections() {
    both(CLOSED, |bench| {
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
        bench.passes("to_pod", &bench.tcp(PEER, POD, PORTS, SYN));
        bench.configure(|config| config.epoch += 1);
        bench.passes("to_pod", &bench.tcp(PEER, POD, PORTS, ACK));
        bench.passes("from_pod", &bench.tcp(POD, PEER, BACK, ACK));
        bench.maps.policy.keys().unwrap().iter().for_each(|key| bench.maps.policy.remove(key).unwrap());
        bench.configure(|config| config.epoch += 1);
        bench.drops_for("from_pod", &bench.tcp(POD, PEER, BACK, ACK), Reason::PolicyDenied);
    });
}

#[test]
#[ignore = "needs root"]
fn a_mark_that_a_pod_sets_is_forgotten() {
    both(0, |bench| {
        let frame = bench.tcp(POD, PEER, PORTS, SYN);
        let run = bench.run("from_pod", &frame, 0x4000 | DEFAULT_MARK.from_proxy);
        assert_eq!(run, Run { verdict: PASS, mark: 0x4000, reason: None });
    });
}

#[test]
#[ignore = "needs root"]
fn a_mark_without_a_socket_of_the_proxy_opens_nothing() {
    both(CLOSED, |bench| {
        let frame = bench.tcp(PEER, POD, PORTS, SYN);
        let run = bench.run("to_pod", &frame, DEFAULT_MARK.from_proxy);
        assert_eq!((run.verdict, run.reason), (DROP, Some(Reason::PolicyDenied)));
        let run = bench.run("bounced", &bench.tcp(NODE, PEER, PORTS, SYN), DEFAULT_MARK.from_proxy);
        assert_eq!((run.verdict, run.reason), (DROP, Some(Reason::ServiceNotTranslated)));
    });
}

#[test]
#[ignore = "needs root"]
fn a_flooded_frame_is_decided_at_the_right_port_only() {
    both(0, |bench| {
        let elsewhere = Workload { ifindex: 77, ..Workload::default() };
        bench.maps.workloads.update(&bench.address(POD), &elsewhere).unwrap();
        let run = bench.run("to_pod", &bench.tcp(PEER, POD, PORTS, SYN), 0);
        assert_eq!((run.verdict, run.reason), (DROP, None));
        bench.drops_for("to_pod", &bench.tcp(POD, PEER, PORTS, SYN), Reason::UnknownDestination);
    });
}

#[test]
#[ignore = "needs root"]
fn other_devices_leave_what_is_not_the_proxys_alone() {
    both(CLOSED, |bench| {
        for frame in [
            bench.tcp(PEER, POD, PORTS, SYN),
            bench.udp(PEER, POD, PORTS),
            bench.echo(PEER, NODE, true),
            bench.fragment(PEER, POD),
            bench.tcp(PEER, POD, PORTS, SYN)[..if bench.v6 { 58 } else { 38 }].to_vec(),
        ] {
            bench.passes("from_netdev", &frame);
        }
    });
}
