// SPDX-License-Identifier: Apache-2.0
//! Which live connections are decided again after a change. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::net::IpAddr;

use weft_ebpf_common::{
    Reason, Verdict,
    layout::{Address, CHANGES, CHANGES_READ, Change, EGRESS, METRIC_AGAIN, metric_index},
    verdict::{Level, TIER_NORMAL},
};
use weft_ebpf_redirect::desired::address_prefix;

#[path = "support/bench.rs"]
mod bench;

use bench::*;

/// So many connections, each with somebody else.
const LIVE: usize = 10_000;

/// The peer of a connection: 10.1.x.y or fd00:1::x:y.
fn peer(bench: &Bench, number: usize) -> IpAddr {
    let [high, low] = (number as u16).to_be_bytes();
    match bench.v6 {
        false => [10, 1, high, low].into(),
        true => [0xfd00, 1, 0, 0, 0, 0, 0, number as u16].into(),
    }
}

/// A datagram of the pod to a peer.
fn datagram(bench: &Bench, number: usize) -> Vec<u8> {
    let mut frame = bench.udp(POD, PEER, PORTS);
    match peer(bench, number) {
        IpAddr::V4(to) => frame[30..34].copy_from_slice(&to.octets()),
        IpAddr::V6(to) => frame[38..54].copy_from_slice(&to.octets()),
    }
    frame
}

/// Tells of changes as a synchronisation does.
fn change(bench: &Bench, prefixes: &[&str]) {
    for prefix in prefixes {
        let prefix = address_prefix(prefix.parse().unwrap());
        let mask = (0..4).map(|word| {
            let bits = (prefix.length.saturating_sub(word * 32)).min(32);
            u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be()
        });
        let mask = Address(mask.collect::<Vec<_>>().try_into().unwrap());
        bench.configure(|config| {
            config.epoch += 1;
            let change = Change { epoch: config.epoch, address: prefix.data, mask };
            bench.maps.changes.update(&(config.epoch % CHANGES), &change).unwrap();
        });
    }
}

fn again(bench: &Bench) -> u64 {
    let index = metric_index(0, METRIC_AGAIN, EGRESS);
    bench.maps.metrics.lookup(&index).unwrap().unwrap().iter().map(|metric| metric.packets).sum()
}

/// How many are decided again when each connection has its next packet.
fn next(bench: &Bench) -> u64 {
    let before = again(bench);
    (0..LIVE).for_each(|number| bench.sends("from_pod", &datagram(bench, number)));
    again(bench) - before
}

#[test]
#[ignore = "needs root"]
fn a_change_concerns_the_connections_of_its_addresses_and_no_others() {
    both(GUARDED, |bench| {
        // Nobody answers, and each is to be kept.
        bench.configure(|config| config.half_open_places = 1 << 20);
        assert_eq!(next(bench), 0, "they are new");
        let live = bench.maps.connections.keys().unwrap().len();
        assert_eq!(live, LIVE);
        let of = |v4: &'static str, v6: &'static str| if bench.v6 { v6 } else { v4 };
        change(bench, &[of("10.2.0.7/32", "fd00:2::7/128")]);
        assert_eq!(next(bench), 0, "somebody else's identity");
        change(bench, &[of("10.1.0.77/32", "fd00:1::4d/128")]);
        assert_eq!(next(bench), 1, "one peer's");
        assert_eq!(next(bench), 0, "it was decided");
        change(bench, &[of("10.1.3.0/24", "fd00:1::300/120"), of("10.2.0.0/16", "fd00:2::/64")]);
        assert_eq!(next(bench), 256, "those of a prefix, whatever else changed");
        change(bench, &[of("10.244.9.2/32", "fd00:9::2/128")]);
        assert_eq!(next(bench), LIVE as u64, "the pod's own");
        // What nobody has written down, and what is further behind than anybody looks.
        bench.configure(|config| config.epoch += 1);
        assert_eq!(next(bench), LIVE as u64, "an epoch of which nothing is known");
        let other = of("10.2.0.8/32", "fd00:2::8/128");
        change(bench, &vec![other; CHANGES_READ as usize]);
        assert_eq!(next(bench), 0, "as many as are read");
        change(bench, &vec![other; CHANGES_READ as usize + 1]);
        assert_eq!(next(bench), LIVE as u64, "more than are read");
        change(bench, &vec![other; CHANGES as usize]);
        assert_eq!(next(bench), LIVE as u64, "a whole round");
    });
}

#[test]
#[ignore = "needs root"]
fn who_is_concerned_is_held_to_what_holds_now() {
    both(GUARDED, |bench| {
        let tcp = |flags| bench.tcp(POD, PEER, PORTS, flags);
        bench.passes("from_pod", &tcp(SYN));
        bench.passes("to_pod", &bench.tcp(PEER, POD, BACK, SYN | ACK));
        bench.passes("from_pod", &tcp(ACK));
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, Verdict::deny(Level::new(TIER_NORMAL, 0), 1, 181));
        let (peer, other) =
            if bench.v6 { ("fd00:7::7/128", "fd00:7::8/128") } else { ("10.244.7.7/32", "10.244.7.8/32") };
        change(bench, &[other, peer, other]);
        bench.drops_for("from_pod", &tcp(ACK), Reason::DeniedByRule);
        change(bench, &[other]);
        bench.drops_for("from_pod", &tcp(ACK), Reason::DeniedByRule);
    });
}
