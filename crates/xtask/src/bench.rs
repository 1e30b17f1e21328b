// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: builds what is shipped, then runs the harness in `benches/`.

use std::process::{Command, ExitCode};

use crate::cli::BenchArgs;
use crate::setup::fetched;
use crate::{cargo, exec, workspace};

/// Builds with the profile `dist` and hands the arguments to `weft-bench`, which takes our place: a Ctrl-C is
/// for it alone, and it ends what it started before it ends itself.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let profile = if args.asks_for_help() { "dev" } else { "dist" };
    if args.asks_for_help() {
        cargo::build_binary("weft-benches", "weft-bench")?;
    } else {
        eprintln!("building with the profile dist (fat LTO): minutes the first time");
        cargo::build_binaries(profile)?;
    }
    let mut bench = Command::new(workspace::binary("weft-bench", profile));
    bench.env("WEFT_BENCH_ENVOY", fetched::envoy_path()).current_dir(workspace::root());
    exec::replace_us(bench.args(&args.args))
}
