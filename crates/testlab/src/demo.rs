// SPDX-License-Identifier: Apache-2.0
//! The demo: the canary of `examples/canary` through the real redirect, told as a table.
//!
//! Every line of the table is a claim with what was asked and what was seen; one that does not hold makes
//! the demo fail.

use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::daemon::{self, KernelCheck};
use crate::netns;

mod gateway;
mod shop;
mod steps;
mod table;

use shop::Shop;
use table::Table;

/// What the demo is told.
#[derive(Clone, Copy, Debug, Args)]
pub struct Options {
    /// Leaves everything running until Ctrl-C, and prints commands to try.
    #[arg(long)]
    keep: bool,
    /// Shows the gateway on loopback also where the redirect would work.
    #[arg(long)]
    no_redirect: bool,
    /// Prints no colours.
    #[arg(long)]
    no_color: bool,
}

/// Runs the demo; the exit status says whether every claim holds.
pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(options.no_color);
    let obstacle = if options.no_redirect { Some("--no-redirect".to_owned()) } else { obstacle()? };
    match obstacle {
        None => in_the_lab(options, &mut table)?,
        Some(why) => {
            table.note(&format!("no redirect here: {why}"));
            table.note("running the same routes as an ordinary gateway on loopback instead");
            gateway::run(options.keep, &mut table)?;
        }
    }
    Ok(if table.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_the_lab(options: Options, table: &mut Table) -> anyhow::Result<()> {
    let shop = Shop::open(table)?;
    steps::run(&shop, table)?;
    table.print();
    if options.keep {
        shop.print_commands()?;
        wait_for_interrupt()?;
    }
    Ok(())
}

/// Waits for Ctrl-C, or for what service managers and closed terminals send.
fn wait_for_interrupt() -> anyhow::Result<()> {
    println!("\nCtrl-C ends all of it.");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => interrupt?,
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        Ok(())
    })
}

/// Why the redirect cannot be shown here; nothing when it can. An error is no obstacle of the machine,
/// and so no reason to show less.
fn obstacle() -> anyhow::Result<Option<String>> {
    if !netns::is_root() {
        return Ok(Some("it needs root, to load programs and to make network namespaces".to_owned()));
    }
    if let Err(error) = crate::cgroup::v2_mount() {
        return Ok(Some(format!("{error:#}")));
    }
    Ok(match daemon::check_kernel()? {
        KernelCheck::Fit => None,
        KernelCheck::Lacking(table) => Some(format!("this kernel lacks what it needs\n{table}")),
    })
}
