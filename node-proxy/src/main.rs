// SPDX-License-Identifier: Apache-2.0
//! The `weft-node` binary.

use anyhow::Context;
use clap::Parser;
use weft_node_proxy::{config::Args, node};
use weft_runtime::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let raw = args.raw.over_file(args.config.as_deref())?;
    let (format, filter) = raw.logging()?;
    telemetry::init(format, filter)?;
    let config = raw.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    runtime.block_on(node::run(config))?;
    // Tasks that wait for a slow disk or client must not hold up the end.
    runtime.shutdown_background();
    Ok(())
}
