// SPDX-License-Identifier: Apache-2.0
//! `weft-bench`: Weft and its peers, measured in the same run, round by round.
//!
//! On two cores the proxy under test has core 1 to itself; generator and origin share core 0. Absolute
//! numbers of a virtual machine mean little, so that results are ratios of neighbouring windows, and CPU
//! time of the proxy's own process, with their spread. See `benches/README.md`.
//!
//! Reading order: `scenarios.rs`, one file of `scenarios/`, `peers.rs`, `load.rs`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

mod load;
mod machine;
mod peers;
mod process;
mod report;
mod scenarios;
mod stats;

use peers::PeerName;
use scenarios::{Options, Scenario};

/// Compare Weft with its peers on this machine.
#[derive(Debug, Parser)]
#[command(name = "weft-bench", bin_name = "cargo xtask bench")]
struct Cli {
    /// What to measure; everything when none is named.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Rounds; in each one, every proxy is measured once.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Short windows and three rounds: to see that it works, not to publish.
    #[arg(long)]
    quick: bool,
    /// Only these proxies.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<PeerName>,
    /// Where to write all single measurements.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let options = Options {
        rounds: if cli.quick { cli.rounds.min(3) } else { cli.rounds },
        quick: cli.quick,
        peers: if cli.peers.is_empty() { PeerName::ALL.to_vec() } else { cli.peers.clone() },
    };
    let chosen = if cli.scenarios.is_empty() { Scenario::ALL.to_vec() } else { cli.scenarios.clone() };
    let machine = machine::Machine::describe(&peers::envoy::program());
    println!("{machine}");
    let mut results = Vec::new();
    for scenario in chosen {
        println!("\n== {}", scenario.title());
        let result = scenario.run(&options).with_context(|| format!("scenario {}", scenario.title()))?;
        println!("{result}");
        results.push(result);
    }
    let json = serde_json::json!({ "machine": machine, "results": results });
    fs::write(&cli.json, serde_json::to_string_pretty(&json)?)
        .with_context(|| format!("cannot write {}", cli.json.display()))?;
    println!("\nall measurements: {}", cli.json.display());
    Ok(())
}
