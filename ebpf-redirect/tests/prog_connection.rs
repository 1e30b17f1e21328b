// SPDX-License-Identifier: Apache-2.0
//! The connection table: who is held to what as policies change and entries are lost, and what one workload
//! may take of it. Every case for IPv4 and IPv6. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use weft_ebpf_common::{
    Reason,
    connection::{CLOSING, ESTABLISHED, HALF_OPEN},
    layout::{EGRESS, INGRESS, Workload},
};
use weft_ebpf_redirect::{bpf, load::Programs};

#[path = "support/bench.rs"]
mod bench;

use bench::*;

const FIN: u8 = 1;
const RST: u8 = 4;

impl Bench {
    /// A TCP segment without data.
    fn segment(
        &self,
        from: usize,
        to: usize,
        ports: (u16, u16),
        flags: u8,
        (seq, ack): (u32, u32),
    ) -> Vec<u8> {
        let mut frame = self.tcp(from, to, ports, flags);
        let at = if self.v6 { 54 } else { 34 };
        frame[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
        frame[at + 8..at + 12].copy_from_slice(&ack.to_be_bytes());
        frame
    }

    /// PEER connects to POD, which is a server.
    fn connect(&self) {
        self.passes("to_pod", &self.segment(PEER, POD, PORTS, SYN, (100, 0)));
        self.passes("from_pod", &self.segment(POD, PEER, BACK, SYN | ACK, (500, 101)));
        self.passes("to_pod", &self.segment(PEER, POD, PORTS, ACK, (101, 501)));
    }

    /// What both ends say next; the server pushes.
    fn talk(&self) -> [(&'static str, Vec<u8>); 2] {
        [("from_pod", self.tcp(POD, PEER, BACK, ACK)), ("to_pod", self.tcp(PEER, POD, PORTS, ACK))]
    }

    fn changed(&self) {
        self.configure(|config| config.epoch += 1);
    }
}

#[test]
#[ignore = "needs root"]
fn a_tightened_policy_ends_the_connections_that_it_names_whoever_speaks() {
    for (rule, reason) in [(DENY, Reason::DeniedByRule), (REDIRECT, Reason::PolicyTightened)] {
        for first in [0, 1] {
            both(GUARDED, |bench| {
                bench.connect();
                bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, rule);
                bench.changed();
                let said = bench.talk();
                for at in [first, first, 1 - first, first, 1 - first] {
                    bench.drops_for(said[at].0, &said[at].1, reason);
                }
                // A new connection is decided on its own, and opens no way back.
                let syn = bench.tcp(PEER, POD, PORTS, SYN);
                let run = bench.run("to_pod", &syn, 0);
                assert!(run.verdict == DROP && run.reason != Some(Reason::UnknownConnection), "{run:?}");
                bench.drops_for(said[0].0, &said[0].1, reason);
            });
        }
    }
}

#[test]
#[ignore = "needs root"]
fn datagrams_of_a_server_do_not_reopen_what_a_policy_has_ended() {
    both(GUARDED, |bench| {
        let (asked, pushed) = (bench.udp(PEER, POD, PORTS), bench.udp(POD, PEER, BACK));
        bench.passes("to_pod", &asked);
        bench.passes("from_pod", &pushed);
        bench.rule(INGRESS, PEER_IDENTITY, UDP, 8080, 16, DENY);
        bench.changed();
        for _ in 0..3 {
            bench.drops_for("from_pod", &pushed, Reason::DeniedByRule);
            bench.drops_for("to_pod", &asked, Reason::DeniedByRule);
        }
        // What is allowed again goes on.
        bench.rule(INGRESS, PEER_IDENTITY, UDP, 8080, 16, ALLOW);
        bench.changed();
        bench.passes("from_pod", &pushed);
        bench.passes("to_pod", &asked);
    });
}

#[test]
#[ignore = "needs root"]
fn what_was_there_before_is_held_to_the_policy_whoever_speaks() {
    for rule in [DENY, REDIRECT] {
        both(GUARDED, |bench| {
            bench.rule(INGRESS, PEER_IDENTITY, TCP, 8080, 16, rule);
            let [push, talk] = bench.talk();
            for _ in 0..2 {
                bench.drops_for(push.0, &push.1, Reason::UnknownConnection);
                bench.drops_for(talk.0, &talk.1, Reason::UnknownConnection);
                assert_eq!(
                    bench.maps.connections.keys().unwrap(),
                    [],
                    "a packet that opens nothing made an entry"
                );
            }
        });
    }
}

#[test]
#[ignore = "needs root"]
fn a_lost_entry_comes_back_where_both_ways_are_allowed_and_is_reset_elsewhere() {
    both(GUARDED, |bench| {
        bench.connect();
        bench.forget();
        for (hook, frame) in bench.talk() {
            bench.passes(hook, &frame);
        }
        // It is held to both, since nobody knows who began.
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 40_000, 16, DENY);
        bench.changed();
        for (hook, frame) in bench.talk() {
            bench.drops_for(hook, &frame, Reason::DeniedByRule);
        }
        // With a proxy, the stack answers what comes to its listener: here it goes around to be reset.
        bench.forget();
        bench.configure(|config| config.listeners = 1);
        let [_, talk] = bench.talk();
        assert_eq!(bench.run(talk.0, &talk.1, 0).verdict, BOUNCE);
        bench.workload(GUARDED | weft_ebpf_common::layout::WORKLOAD_BRIDGED);
        let [push, _] = bench.talk();
        assert_eq!(bench.run(push.0, &push.1, 0).verdict, BOUNCE);
        let reset = bench.tcp(POD, PEER, BACK, RST);
        assert_eq!(bench.run("from_pod", &reset, 0).verdict, DROP, "a reset is not answered");
    });
}

/// Both ends are pods of the node.
fn neighbours(bench: &Bench) {
    let pod = bench.maps.workloads.lookup(&bench.address(POD)).unwrap().unwrap();
    let peer = Workload { id: 10, identity: PEER_IDENTITY, policy: 0, ..pod };
    bench.maps.workloads.update(&bench.address(PEER), &peer).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_connection_between_pods_of_one_node_has_one_entry_and_counts_once() {
    both(GUARDED, |bench| {
        neighbours(bench);
        let syn = bench.tcp(POD, PEER, PORTS, SYN);
        let answer = bench.tcp(PEER, POD, BACK, SYN | ACK);
        let more = bench.tcp(POD, PEER, PORTS, ACK);
        for frame in [&syn, &answer, &more] {
            bench.passes("from_pod", frame);
            bench.passes("to_pod", frame);
        }
        assert_eq!(bench.maps.connections.keys().unwrap().len(), 1);
        let found = bench.connection((POD, PEER), PORTS, TCP).unwrap();
        let (opener, other) =
            (found.ends[usize::from(found.opener)], found.ends[usize::from(found.opener ^ 1)]);
        assert_eq!((found.state, opener.packets, other.packets), (ESTABLISHED, 2, 1));
        assert_eq!((opener.workload, opener.identity, opener.way), (9, POD_IDENTITY, EGRESS));
        assert_eq!((other.workload, other.identity, other.way), (10, PEER_IDENTITY, INGRESS));
        assert_eq!(opener.bytes, (syn.len() + more.len()) as u64);
    });
}

#[test]
#[ignore = "needs root"]
fn the_same_addresses_and_ports_of_two_protocols_are_two_connections() {
    both(CLOSED, |bench| {
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
        bench.passes("from_pod", &bench.tcp(POD, PEER, PORTS, SYN));
        bench.drops_for("to_pod", &bench.udp(PEER, POD, BACK), Reason::PolicyDenied);
    });
}

#[test]
#[ignore = "needs root"]
fn only_what_is_in_the_window_closes_a_connection() {
    both(GUARDED, |bench| {
        let state = || bench.connection((PEER, POD), PORTS, TCP).unwrap().state;
        let send =
            |flags, seq, ack| bench.passes("to_pod", &bench.segment(PEER, POD, PORTS, flags, (seq, ack)));
        let reply =
            |flags, seq, ack| bench.passes("from_pod", &bench.segment(POD, PEER, BACK, flags, (seq, ack)));
        bench.connect();
        send(RST, 101 + (1 << 20), 0);
        send(RST, 99, 0);
        reply(RST, 0, 0);
        send(FIN | ACK, 5_000_000, 501);
        reply(FIN | ACK, 501, 101);
        assert_eq!(state(), ESTABLISHED);
        send(FIN | ACK, 101, 502);
        assert_eq!(state(), CLOSING);
        bench.forget();
        bench.connect();
        send(RST, 101, 0);
        assert_eq!(state(), CLOSING);
        // A refusal answers the SYN that it refuses.
        bench.forget();
        send(SYN, 100, 0);
        reply(RST | ACK, 0, 77);
        assert_eq!(state(), HALF_OPEN);
        reply(RST | ACK, 0, 101);
        assert_eq!(state(), CLOSING);
    });
}

#[test]
#[ignore = "needs root"]
fn a_flood_of_one_pod_takes_its_own_places_and_tells_of_so_much() {
    both(GUARDED, |bench| {
        neighbours(bench);
        bench.connect();
        let waiting = bench.tcp(PEER, NODE, (50_000, 443), SYN);
        bench.passes("from_pod", &waiting);
        let mut frame = bench.tcp(POD, NODE, (1, 1), SYN);
        let at = if bench.v6 { 54 } else { 34 };
        let program = bench.programs.fd("from_pod").unwrap();
        let flood = 20_000_u32;
        for number in 0..flood {
            frame[at..at + 4].copy_from_slice(&(number + 0x0400_0001).to_be_bytes());
            let mut context = [0_u8; 192];
            context[40..44].copy_from_slice(&DEVICE.to_ne_bytes());
            assert_eq!(bpf::test_run(program, &frame, &mut context).unwrap().0, PASS);
        }
        let places = 64 * std::thread::available_parallelism().unwrap().get();
        let entries = bench.maps.connections.keys().unwrap().len();
        assert!(entries <= places + 2, "{entries} entries");
        assert_eq!(bench.connection((PEER, POD), PORTS, TCP).unwrap().state, ESTABLISHED);
        assert!(bench.connection((PEER, NODE), (50_000, 443), TCP).is_some(), "another pod's was displaced");
        bench.passes("to_pod", &bench.tcp(NODE, PEER, (443, 50_000), SYN | ACK));
        // What was told and what was not make up the whole, and most was not.
        let lost: u64 = bench.maps.lost.lookup(&0).unwrap().unwrap().iter().sum();
        assert!(lost > u64::from(flood) * 9 / 10 && lost < u64::from(flood), "{lost} were not told");
    });
}

#[test]
#[ignore = "needs root"]
fn a_table_is_walked_in_parts_that_make_up_the_whole() {
    let bench = Bench::new(false, GUARDED);
    bench.configure(|config| config.half_open_places = 10_000);
    for port in 0..3_000 {
        bench.passes("to_pod", &bench.udp(NODE, POD, (port + 1, 53)));
    }
    let all = bench.maps.connections.keys().unwrap();
    let (mut from, mut found, mut parts) = (None, Vec::new(), 0);
    loop {
        let (some, next) = bench.maps.connections.some(from, 256).unwrap();
        assert!(some.len() <= 256);
        found.extend(some.into_iter().map(|(key, _)| key));
        parts += 1;
        from = next;
        if from.is_none() {
            break;
        }
    }
    found.sort_unstable();
    let mut all = all;
    all.sort_unstable();
    assert_eq!(found, all);
    assert!(parts >= all.len() / 256);
}

#[test]
#[ignore = "needs root"]
fn a_pinned_table_of_another_version_is_made_anew_and_one_of_ours_is_kept() {
    let bench = Bench::new(false, GUARDED);
    bench.connect();
    drop(Programs::load(&bench.bpffs).unwrap());
    assert!(bench.maps.connections.keys().unwrap().len() == 1);
    let (key, entry) = bench.maps.connections.entries().unwrap()[0];
    let other = weft_ebpf_common::connection::Connection { version: entry.version + 1, ..entry };
    bench.maps.connections.update(&key, &other).unwrap();
    let stray = bench.bpffs.join("maps/weft_flows_v1");
    bpf::pin(
        bpf::open(&bench.bpffs.join("maps/weft_lost_v1")).as_ref().map(std::os::fd::AsFd::as_fd).unwrap(),
        &stray,
    )
    .unwrap();
    let _programs = Programs::load(&bench.bpffs).unwrap();
    let maps = weft_ebpf_redirect::maps::Maps::open(&bench.bpffs.join("maps")).unwrap();
    assert_eq!(maps.connections.keys().unwrap(), []);
    assert!(!stray.exists(), "a map of another version stays");
}
