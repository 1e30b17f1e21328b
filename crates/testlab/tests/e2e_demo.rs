// SPDX-License-Identifier: Apache-2.0
//! The demo as a user sees it.

use std::process::Command;
use std::time::{Duration, Instant};

#[test]
#[ignore = "needs root"]
fn the_demo_holds_with_the_redirect_in_twenty_seconds() {
    let start = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_weft-lab")).args(["demo", "--no-color"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    // What the gateway on loopback cannot claim.
    assert!(text.contains("ledger: in the proxy"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}\n{text}", start.elapsed());
}
