// SPDX-License-Identifier: Apache-2.0
//! The committed object belongs to the sources beside it. `cargo xtask test` builds it again besides,
//! where the toolchain that made it is installed.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{path::Path, process::Command};

fn script(argument: &str) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/build.sh");
    let mut command = Command::new(script);
    // Variables of the cargo that runs us would select its compiler.
    for variable in ["RUSTC", "CARGO", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    let output = command.arg(argument).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn the_recorded_hash_is_that_of_the_sources() {
    let (done, hash) = script("--hash");
    assert!(done, "{hash}");
    let recorded = include_str!("../prebuilt/weft.bpf.toml");
    assert!(recorded.contains(&format!("sources = \"{}\"", hash.trim())), "changed: run cargo xtask bpf");
}
