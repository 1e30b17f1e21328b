// SPDX-License-Identifier: Apache-2.0
//! Who asks for what no service has is told so, and nobody is flooded with that. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use weft_ebpf_common::{
    Reason,
    layout::{EGRESS, METRIC_DROP, metric_index},
};
use weft_ebpf_redirect::bpf;

#[path = "support/bench.rs"]
mod bench;

use bench::*;

/// More than any number of CPUs that the few milliseconds are spread over may answer.
const TIMES: usize = 2_000;

fn dropped(bench: &Bench) -> u64 {
    let index = metric_index(Reason::UnknownServicePort as u16, METRIC_DROP, EGRESS);
    let values = bench.maps.metrics.lookup(&index).unwrap().unwrap();
    values.iter().map(|value| value.packets).sum()
}

#[test]
#[ignore = "needs root"]
fn a_flood_of_what_no_service_has_is_answered_a_bounded_number_of_times() {
    both(0, |bench| {
        bench.service_with(80, UDP, 0, 1);
        for (program, from, verdict) in [("from_pod", POD, BOUNCE), ("bounced", NODE, 0)] {
            let datagram = bench.udp(from, VIP, (5000, 81));
            let (_, reason, _) = bench.answer(program, &datagram);
            assert_eq!(reason, Some(Reason::UnknownServicePort));
            let before = dropped(bench);
            let run = |_: &usize| {
                let mut context = [0_u8; 192];
                context[40..44].copy_from_slice(&DEVICE.to_ne_bytes());
                bpf::test_run(bench.programs.fd(program).unwrap(), &datagram, &mut context).unwrap().0
                    == verdict
            };
            let answered = (0..TIMES).filter(run).count();
            assert_eq!(dropped(bench), before + TIMES as u64, "each of them is counted");
            assert!((1..TIMES / 2).contains(&answered), "{program}: {answered} of {TIMES} were answered");
        }
    });
}
