// SPDX-License-Identifier: Apache-2.0
//! `weft status`: whether daemons are ready, at which revision, and the first numbers to look at.

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use clap::Args;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    Servers,
    client::{ClientError, Server},
    observe::Output,
};

/// Arguments of `weft status`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    /// Which daemons.
    #[command(flatten)]
    pub(crate) servers: Servers,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// What a daemon says at `/status`.
#[derive(Debug, Serialize, Deserialize)]
struct Status {
    daemon: String,
    version: String,
    node: String,
    revision: String,
    ready: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    counters: BTreeMap<String, u64>,
    #[serde(default)]
    attention: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Condition {
    name: String,
    ready: bool,
    message: String,
}

/// Prints the status of every daemon. The exit code is 0 only when all of them answered and are ready.
///
/// # Errors
/// When the output cannot be written.
pub(crate) async fn run(args: &StatusArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for server in &args.servers.servers {
        match ask(server).await {
            Ok(status) => {
                if !status.ready {
                    code = ExitCode::FAILURE;
                }
                match args.output {
                    Output::Json => writeln!(out, "{}", serde_json::to_string(&status)?)?,
                    Output::Compact => write!(out, "{}", text(&status))?,
                }
            }
            Err(error) => {
                code = ExitCode::FAILURE;
                eprintln!("weft: {:#}", anyhow::Error::from(error));
            }
        }
    }
    Ok(code)
}

async fn ask(server: &Server) -> Result<Status, ClientError> {
    let (status, text) = server.fetch_text("/status").await?;
    if status != StatusCode::OK {
        let message = String::from_utf8_lossy(&text).trim().to_owned();
        return Err(ClientError::Refused { server: server.clone(), status, message });
    }
    serde_json::from_slice(&text).map_err(|source| ClientError::Decode { server: server.clone(), source })
}

fn text(status: &Status) -> String {
    let ready = |ready| if ready { "ready" } else { "NOT READY" };
    let Status { daemon, version, node, revision, .. } = status;
    let place = if node.is_empty() { String::new() } else { format!(" on {node}") };
    let mut text = format!("{daemon} {version}{place}: {}, revision {revision}\n", ready(status.ready));
    for Condition { name, ready, message } in &status.conditions {
        let not_ready = if *ready { "" } else { "NOT READY: " };
        text += &format!("  {name}: {not_ready}{message}\n");
    }
    let width = status.counters.keys().map(String::len).max().unwrap_or_default();
    for (name, count) in &status.counters {
        text += &format!("  {name:<width$}  {count}\n");
    }
    for line in &status.attention {
        text += &format!("  ! {}\n", line.replace('\n', " "));
    }
    // Texts come from the daemon, and from the objects that it was given.
    text.chars().filter(|character| *character == '\n' || !character.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ready_says_why() {
        let status = Status {
            daemon: "weft-node".into(),
            version: "0.1.0".into(),
            node: "n1".into(),
            revision: "3f2a.7".into(),
            ready: false,
            conditions: vec![
                Condition { name: "state".into(), ready: false, message: "no\u{1b}[2J state yet".into() },
                Condition {
                    name: "controller".into(),
                    ready: true,
                    message: "disconnected since 12:03:05 UTC (2 min), serving revision 3f2a.7".into(),
                },
            ],
            counters: BTreeMap::from([("flows_seen".into(), 12)]),
            attention: vec!["a.yaml:3: two\nlines".into()],
        };
        assert_eq!(
            text(&status),
            "weft-node 0.1.0 on n1: NOT READY, revision 3f2a.7\n  state: NOT READY: no[2J state yet\n  controller: disconnected since 12:03:05 UTC (2 min), serving revision 3f2a.7\n  flows_seen  12\n  ! a.yaml:3: two lines\n"
        );
        let controller = Status { daemon: "weft-controller".into(), node: String::new(), ..status };
        assert!(text(&controller).starts_with("weft-controller 0.1.0: NOT READY"), "it is on no node");
    }
}
