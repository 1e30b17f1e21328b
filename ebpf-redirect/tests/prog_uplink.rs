// SPDX-License-Identifier: Apache-2.0
//! What comes from devices behind which nothing of the node is. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use weft_ebpf_common::Reason;

#[path = "support/bench.rs"]
mod bench;

use bench::*;

#[test]
#[ignore = "needs root"]
fn nobody_outside_has_the_address_of_a_workload_here() {
    both(0, |bench| {
        let later = bench.part(POD, PEER, UDP, &[0; 8], (2, false, 7));
        for frame in [
            bench.tcp(POD, PEER, PORTS, SYN),
            bench.tcp(POD, NODE, PORTS, ACK),
            bench.udp(POD, PEER, PORTS),
            bench.echo(POD, NODE, true),
            bench.packet(POD, PEER, 47, &[0; 8]),
            later,
        ] {
            bench.drops_for("from_uplink", &frame, Reason::InvalidSourceIp);
            // Through a bridge or between parts of the node a workload's packets come.
            bench.passes("from_netdev", &frame);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn what_comes_from_others_goes_on_to_who_decides() {
    both(CLOSED, |bench| {
        for frame in [
            bench.tcp(PEER, POD, PORTS, SYN),
            bench.udp(PEER, POD, PORTS),
            bench.echo(NODE, POD, true),
            bench.tcp(PEER, NODE, PORTS, SYN)[..if bench.v6 { 58 } else { 38 }].to_vec(),
        ] {
            bench.passes("from_uplink", &frame);
            // A mark from here says that a device in front of this one has handed it over.
            let mark = weft_ebpf_redirect::DEFAULT_MARK.to_proxy;
            assert_eq!(bench.run("from_uplink", &frame, mark), Run { verdict: PASS, mark, reason: None });
        }
    });
}
