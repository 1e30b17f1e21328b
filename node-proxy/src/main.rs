// SPDX-License-Identifier: Apache-2.0
//! The `weft-node` binary.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use weft_ebpf_redirect::Datapath;
use weft_node_proxy::Args;
use weft_runtime::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    if args.check {
        return check();
    }
    let raw = args.raw.over_file(args.config.as_deref())?;
    let (format, filter) = raw.logging()?;
    telemetry::init(format, filter)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let result = match args.cleanup {
        true => runtime
            .block_on(weft_node_proxy::clean_up(&raw))
            .context("something of this node is left in the kernel"),
        false => runtime.block_on(weft_node_proxy::run(raw.check()?)).map_err(Into::into),
    };
    // Tasks that wait for a slow disk or client must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Prints the table of kernel features; fails when something is missing that nothing replaces.
fn check() -> anyhow::Result<()> {
    let report = Datapath::check();
    print!("{report}");
    anyhow::ensure!(
        report.usable(),
        "this machine cannot redirect: see what is MISSING above; `--no-redirect` serves gateways without it"
    );
    Ok(())
}
