// SPDX-License-Identifier: Apache-2.0
//! `weft-lab`: the demo, and every process of a lab that is not a daemon.

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use weft_testlab::lab::{Lab, Shape};
use weft_testlab::{demo, peer, process, reaper};

/// Nodes and pods on one machine.
#[derive(Debug, Parser)]
#[command(name = "weft-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the canary of `examples/canary`, with real traffic.
    Demo(demo::Options),
    /// Removes what labs left behind whose process is gone.
    Cleanup,
    /// Makes two nodes with two pods each, and holds them until standard input ends.
    Hold,
    /// Runs a server or a client, as in a pod.
    Pod {
        #[command(subcommand)]
        peer: peer::Peer,
    },
    /// Joins a cgroup and enters a network namespace, then becomes another program.
    #[command(hide = true)]
    Enter(process::Entry),
    /// Waits for the end of standard input, then removes a lab.
    #[command(hide = true)]
    Reap { id: String },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(options) => return demo::run(options),
        Command::Cleanup => {
            for id in reaper::remove_dead()? {
                println!("removed lab {id}");
            }
        }
        Command::Hold => hold()?,
        Command::Pod { peer } => peer::run(peer)?,
        Command::Enter(entry) => process::enter(&entry)?,
        Command::Reap { id } => reaper::reap(&id)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn hold() -> anyhow::Result<()> {
    let lab = Lab::new()?;
    println!("lab {}", lab.id());
    for (name, shape) in [("n1", Shape::Routed), ("n2", Shape::Bridged)] {
        let node = lab.add_node(name, shape)?;
        for pod in ["a", "b"] {
            let pod = node.add_pod("default", pod)?;
            let shown = pod.netns().path();
            println!("{name}/{}: {} {} nsenter --net={}", pod.name(), pod.ip4(), pod.ip6(), shown.display());
        }
    }
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}
