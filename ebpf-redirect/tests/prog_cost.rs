// SPDX-License-Identifier: Apache-2.0
//! What the hooks of devices cost: instructions that the verifier looked at, and time per packet of an
//! established connection. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use weft_ebpf_common::layout::{EGRESS, INGRESS};
use weft_ebpf_redirect::bpf;

#[path = "support/bench.rs"]
mod bench;

use bench::*;

/// The least of several rounds: others use the machine too.
fn nanoseconds(bench: &Bench, program: &str, frame: &[u8]) -> u32 {
    let time = || {
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&DEVICE.to_ne_bytes());
        bpf::test_time(bench.programs.fd(program).unwrap(), frame, &mut context, 20_000).unwrap()
    };
    (0..15).map(|_| time()).min().unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_packet_of_an_established_connection_takes_no_longer_than_it_has_to() {
    both(CLOSED, |bench| {
        bench.rule(EGRESS, PEER_IDENTITY, TCP, 8080, 16, ALLOW);
        bench.rule(INGRESS, PEER_IDENTITY, TCP, 9090, 16, ALLOW);
        let (up, down) = ((40_000, 8080), (40_001, 9090));
        bench.passes("from_pod", &bench.tcp(POD, PEER, up, SYN));
        bench.passes("to_pod", &bench.tcp(PEER, POD, (up.1, up.0), SYN | ACK));
        bench.passes("to_pod", &bench.tcp(PEER, POD, down, SYN));
        bench.passes("from_pod", &bench.tcp(POD, PEER, (down.1, down.0), SYN | ACK));
        for (program, frame) in [
            ("from_pod", bench.tcp(POD, PEER, up, ACK)),
            ("from_pod", bench.tcp(POD, PEER, (down.1, down.0), ACK)),
            ("to_pod", bench.tcp(PEER, POD, down, ACK)),
            ("to_pod", bench.tcp(PEER, POD, (up.1, up.0), ACK)),
        ] {
            let took = nanoseconds(bench, program, &frame);
            eprintln!("v6 {} {program}: {took} ns", bench.v6);
            // Ten times what it is: more than a busy machine makes of it.
            assert!(
                took < 1_600,
                "{program} takes {took} ns for a packet of a connection that is established"
            );
        }
    });
}

/// Bytes of the translated program, and how many instructions the verifier may look at: a third of each above
/// what they are on 6.18. What a kernel accepts is a million; what it takes to load counts at every restart.
const LIMITS: [(&str, u32, u32); 7] = [
    ("from_pod", 68_000, 42_600),
    ("to_pod", 51_500, 29_600),
    ("from_unowned", 21_000, 7_100),
    ("to_unowned", 19_100, 6_800),
    ("from_netdev", 19_000, 6_700),
    ("from_uplink", 36_200, 15_500),
    ("bounced", 35_000, 18_000),
];

#[test]
#[ignore = "needs root"]
fn the_hooks_are_no_larger_than_they_have_to_be() {
    let bench = Bench::new(false, CLOSED);
    for (program, bytes, verified) in LIMITS {
        let size = bench.programs.size(program).unwrap();
        eprintln!("{program}: {size:?}");
        assert!(size.0 <= bytes, "{program} has {} bytes", size.0);
        // Kernels before 5.16 do not tell.
        assert!(size.1.is_none_or(|looked| looked <= verified), "{program}: {:?}", size.1);
    }
}
