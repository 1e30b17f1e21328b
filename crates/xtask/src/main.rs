// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask`: one entry for set-up, builds, the demo, tests and benchmarks.
//!
//! It depends on no crate of the workspace, so that it starts in seconds, also when the rest does not
//! compile. Every subcommand first installs what is missing for it (`setup`).
//!
//! Reading order: `cli.rs` (what can be asked), `setup.rs` (what is installed), `suite.rs` (what
//! `cargo xtask test` runs), then one file per other subcommand.

use std::process::ExitCode;

use clap::Parser;

mod bench;
mod bpf;
mod cargo;
mod cli;
mod cluster;
mod doc_commands;
mod exec;
mod kernels;
mod lint;
mod outcome;
mod setup;
mod suite;
mod workspace;

use cli::{Cli, Command};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let needs = cli.command.needs(exec::is_root());
    setup::ensure(&needs)?;
    match cli.command {
        Command::Setup(_) => {
            println!("everything is installed for: {}", setup::names(&needs));
            Ok(ExitCode::SUCCESS)
        }
        Command::Build(args) => cargo::build_binaries(args.profile()).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => suite::demo(&args.args),
        Command::Test(args) => suite::test(&args),
        Command::Lab(args) => suite::lab(&args),
        Command::Lint(args) => lint::check(&args),
        Command::Fmt => lint::format().map(|()| ExitCode::SUCCESS),
        Command::Bpf(args) => bpf::build(&args).map(|()| ExitCode::SUCCESS),
        Command::Kernels(args) => kernels::run(&args),
        Command::Cluster(command) => cluster::run(&command),
        Command::Bench(args) => bench::run(&args),
    }
}
