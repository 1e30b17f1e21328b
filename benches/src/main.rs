// SPDX-License-Identifier: Apache-2.0
//! `weft-bench`: Weft and its peers, measured in the same run, round by round.
//!
//! On two cores the proxy under test has core 1 to itself; generator and origin share core 0. Absolute
//! numbers of a virtual machine mean little, so that results are ratios of neighbouring windows, and CPU
//! time of the proxy's own process, with their spread. See `benches/README.md`.
//!
//! Reading order: `scenarios.rs`, one file of `scenarios/`, `peers.rs`, `workload.rs`, `load.rs`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};

mod client;
mod interrupt;
mod load;
mod machine;
mod page;
mod peers;
mod process;
mod programs;
mod report;
mod scenarios;
mod stats;
mod workload;

use peers::PeerName;
use scenarios::{Options, Scenario, instructions};

/// Compare Weft with its peers on this machine.
///
/// Results go to standard output, progress to standard error. Ctrl-C ends everything that was started.
#[derive(Debug, Parser)]
#[command(name = "weft-bench", bin_name = "cargo xtask bench")]
struct Cli {
    /// What to measure; everything when none is named.
    #[arg(value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// Rounds; in each one, every proxy is measured once.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Short windows and at most three rounds: to see that it works, not to publish.
    #[arg(long)]
    quick: bool,
    /// Only these; ratios are to those of Envoy, HAProxy and the relay that take part.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PEER")]
    peers: Vec<PeerName>,
    /// What to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Where to write all single measurements.
    #[arg(long, default_value = "target/bench.json", value_name = "FILE")]
    json: PathBuf,
    /// Also write the tables into this Markdown page, between its lines for results.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// With `instructions`: count Weft's alone, and fail at more than 3 % above those that were noted.
    #[arg(long, conflicts_with = "note")]
    check: bool,
    /// With `instructions`: count Weft's alone, and note them for later checks.
    #[arg(long)]
    note: bool,
    /// The table of noted instructions.
    #[arg(long, default_value = "benches/instructions.json", value_name = "FILE")]
    noted: PathBuf,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table for each scenario.
    Table,
    /// One JSON document with every single measurement.
    Json,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::is_asked() => ExitCode::from(interrupt::EXIT_STATUS),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    if (cli.check || cli.note) && cli.scenarios != [Scenario::Instructions] {
        bail!("--check and --note go with the scenario `instructions`, and with no other");
    }
    if let Some(page) = &cli.page {
        page::check(page)?;
    }
    interrupt::listen()?;
    let machine = machine::Machine::describe(&peers::envoy::program());
    if cli.output == Output::Table {
        println!("{machine}");
    }
    let text = measure(cli, &machine)?;
    match cli.output {
        Output::Table => println!("\nall measurements: {}", cli.json.display()),
        Output::Json => println!("{text}"),
    }
    Ok(())
}

/// Measures what was asked for, and keeps what is there after each scenario; all of it, as JSON.
fn measure(cli: &Cli, machine: &machine::Machine) -> anyhow::Result<String> {
    let start = Instant::now();
    let options = Options {
        rounds: if cli.quick { cli.rounds.min(3) } else { cli.rounds },
        quick: cli.quick,
        peers: if cli.peers.is_empty() { PeerName::USUAL.to_vec() } else { cli.peers.clone() },
    };
    let chosen = if cli.scenarios.is_empty() { Scenario::value_variants() } else { &cli.scenarios };
    let (mut results, mut text) = (Vec::new(), String::new());
    for (number, scenario) in chosen.iter().enumerate() {
        eprintln!("\n== {}/{} {}", number + 1, chosen.len(), scenario.title());
        let result = match scenario {
            Scenario::Instructions if cli.check => instructions::check(&cli.noted),
            Scenario::Instructions if cli.note => instructions::note(&cli.noted),
            scenario => scenario.run(&options),
        };
        let result = result.with_context(|| format!("scenario {}", scenario.title()))?;
        if cli.output == Output::Table {
            println!("\n{}\n{result}", result.title);
        }
        results.push(result);
        let json = serde_json::json!({ "machine": machine, "results": results });
        text = serde_json::to_string_pretty(&json)?;
        fs::write(&cli.json, &text).with_context(|| format!("cannot write {}", cli.json.display()))?;
        if let Some(page) = &cli.page {
            page::write(page, machine, start.elapsed().as_secs(), &results)?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_explained() {
        let command = Cli::command();
        command.clone().debug_assert();
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
            assert!(argument.get_help().is_some(), "{}", argument.get_id());
            for value in argument.get_possible_values() {
                let flag = matches!(value.get_name(), "true" | "false");
                assert!(flag || value.get_help().is_some(), "{} {}", argument.get_id(), value.get_name());
            }
        }
    }

    #[test]
    fn a_check_is_of_instructions_alone() {
        let wrong = Cli::parse_from(["weft-bench", "http1", "--check"]);
        assert!(run(&wrong).unwrap_err().to_string().contains("instructions"));
    }
}
