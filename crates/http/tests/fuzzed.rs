// SPDX-License-Identifier: Apache-2.0
//! Every input that fuzzing has found worth keeping, through the properties of its target.

#![allow(clippy::unwrap_used, reason = "the drivers are those of tests")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use targets::{proxy, support};

fn replay(kept: &str, target: fn(&[u8])) {
    let mut inputs = 0;
    for line in kept.lines() {
        target(&targets::kept::input(line));
        inputs += 1;
    }
    assert!(inputs > 50, "only {inputs} inputs");
}

#[test]
fn what_fuzzing_kept_of_http_1_still_holds() {
    replay(include_str!("../fuzz/kept/h1_server.txt"), targets::h1_server);
    replay(include_str!("../fuzz/kept/h1_client.txt"), targets::h1_client);
    replay(include_str!("../fuzz/kept/h1_proxy.txt"), targets::h1_proxy);
}

#[test]
fn what_fuzzing_kept_of_http_2_still_holds() {
    replay(include_str!("../fuzz/kept/h2_server.txt"), targets::h2_server);
    replay(include_str!("../fuzz/kept/h2_client.txt"), targets::h2_client);
    replay(include_str!("../fuzz/kept/hpack.txt"), targets::hpack);
}

#[test]
fn a_kept_line_is_its_input() {
    let every: Vec<u8> = (0..=255).collect();
    for input in [every.as_slice(), b"", br"\\x0d'\"] {
        assert_eq!(targets::kept::input(&targets::kept::line(input)), input);
    }
}
