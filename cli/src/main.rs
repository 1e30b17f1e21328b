// SPDX-License-Identifier: Apache-2.0
//! The command line of Weft. Each subcommand is a module; none of them changes anything on a node.
//!
//! Ctrl-C ends it at once, as it ends `tail -f`: it holds nothing that must be put in order.
//!
//! Read `client` (how daemons are asked), then `observe`, `status` and `translate`.

mod client;
mod observe;
mod status;
mod translate;

use std::{io, os::fd::AsFd, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tokio::{io::Interest, net::unix::pipe, runtime};

use client::Server;

/// See and check what the Weft service mesh does.
#[derive(Debug, Parser)]
#[command(name = "weft", version, max_term_width = 100)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Show flows: requests and connections, with their verdicts and reasons
    Observe(Box<observe::ObserveArgs>),
    /// Show whether daemons are ready, and at which revision
    Status(status::StatusArgs),
    /// Print the state and the statuses that manifests become
    Translate(translate::Args),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// Which daemons are asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct Servers {
    /// Admin endpoint of a daemon, unix:PATH or HOST:PORT; repeat it for several
    #[arg(
        long = "server",
        value_name = "SERVER",
        env = "WEFT_ADMIN",
        value_delimiter = ',',
        default_value = "unix:/run/weft/node.sock"
    )]
    pub(crate) servers: Vec<Server>,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the arguments ask for.
fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let done = match cli.command {
        Command::Observe(args) => runtime()?.block_on(async {
            let mut out = io::stdout().lock();
            tokio::select! {
                done = observe::run(&args, &mut out) => done,
                // Without this, `observe -f | head` would end only with the next flow.
                () = closed_output() => Ok(ExitCode::SUCCESS),
            }
        }),
        Command::Status(args) => runtime()?.block_on(status::run(&args, &mut io::stdout().lock())),
        Command::Translate(args) => translate::run(args, &mut io::stdout().lock()),
        Command::Completion { shell } => {
            // Rendered first, since the generator panics when a pipe is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "weft", &mut script);
            io::Write::write_all(&mut io::stdout().lock(), &script)
                .map(|()| ExitCode::SUCCESS)
                .map_err(Into::into)
        }
    };
    done.or_else(|error| if is_closed_pipe(&error) { Ok(ExitCode::SUCCESS) } else { Err(error) })
}

fn runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// Ends when the reader of our output goes away; never where that is a file.
async fn closed_output() {
    // Unchecked also means that writes still block, as the printing of flows wants.
    let watched = io::stdout().as_fd().try_clone_to_owned().and_then(pipe::Sender::from_owned_fd_unchecked);
    if let Ok(output) = watched
        && output.ready(Interest::ERROR).await.is_ok_and(|ready| ready.is_error())
    {
        return;
    }
    std::future::pending().await
}

/// Whether the reader of our output went away (`weft observe | head`), which is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}
