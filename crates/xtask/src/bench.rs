// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: builds what is shipped, then runs the harness in `benches/`.

use std::process::{Command, ExitCode};

use crate::cli::BenchArgs;
use crate::setup::fetched;
use crate::{cargo, exec, workspace};

/// Builds with the profile `dist` and hands the arguments to `weft-bench`.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    eprintln!("building with the profile dist (fat LTO): minutes the first time");
    cargo::build_binaries("dist")?;
    let mut bench = Command::new(workspace::binary("weft-bench", "dist"));
    bench.env("WEFT_BENCH_ENVOY", fetched::envoy_path()).current_dir(workspace::root());
    exec::pass_through(bench.args(&args.args))
}
