// SPDX-License-Identifier: Apache-2.0
//! The load generator, h2load, and what it reports.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::process::{self, LOAD_CORE};

/// Protocol and shape of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// HTTP/1.1, GET with a 1 KB answer, keep-alive.
    Http1,
    /// HTTP/2 in the clear, POST of a gRPC-like message, trailers.
    Http2,
}

impl Shape {
    /// The path that is requested.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Http1 => "/api/items",
            Self::Http2 => "/api.Items/Get",
        }
    }

    /// The prefix that the route of each proxy matches.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Http1 => "/api",
            Self::Http2 => "/api.Items",
        }
    }

    /// The expression for the whole path in the policy of each proxy.
    pub(crate) fn allowed_path(self) -> &'static str {
        match self {
            Self::Http1 => "/api/.*",
            Self::Http2 => "/api[.]Items/.*",
        }
    }
}

/// One run of the generator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) shape: Shape,
    /// Connections.
    pub(crate) clients: u32,
    /// Requests under way on each connection.
    pub(crate) streams: u32,
    /// Requests in all.
    pub(crate) requests: u64,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// Answered requests a second.
    pub(crate) per_second: f64,
    /// CPU time of the generator, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Wall time, in seconds.
    pub(crate) seconds: f64,
}

impl Load {
    /// Runs the load against `address`. Fails when a single request fails: a proxy that answers with
    /// errors is fast, and no comparison.
    pub(crate) fn run(&self, address: SocketAddr, folder: &Path) -> anyhow::Result<Loaded> {
        let before = process::children_cpu_seconds()?;
        let start = Instant::now();
        let output = self.command(address, folder)?.output().context("cannot start h2load")?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu_seconds = process::children_cpu_seconds()? - before;
        let text = String::from_utf8_lossy(&output.stdout);
        self.check(&text).with_context(|| format!("load on {address}:\n{text}"))?;
        let per_second = self.requests as f64 / finished_in(&text)?;
        Ok(Loaded { per_second, cpu_seconds, seconds })
    }

    fn command(&self, address: SocketAddr, folder: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new("taskset");
        command.args(["-c", LOAD_CORE, "h2load", "-t", "1"]);
        command.args(["-n", &self.requests.to_string(), "-c", &self.clients.to_string()]);
        command.args(["-m", &self.streams.to_string()]);
        match self.shape {
            Shape::Http1 => command.arg("--h1"),
            Shape::Http2 => {
                let message = folder.join("message");
                fs::write(&message, [&[0, 0, 0, 0, 105][..], &[b'm'; 105]].concat())?;
                command.arg("-d").arg(message);
                command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            }
        };
        command.arg(format!("http://{address}{}", self.shape.path()));
        Ok(command)
    }

    fn check(&self, text: &str) -> anyhow::Result<()> {
        let line = text.lines().find(|line| line.starts_with("status codes:")).context("no status codes")?;
        let successes = line.split_whitespace().nth(2).and_then(|count| count.parse::<u64>().ok());
        if successes != Some(self.requests) {
            bail!("{} requests, but {line}", self.requests);
        }
        Ok(())
    }
}

/// The duration in `finished in 1.05s, 950.30 req/s, 1.05MB/s`, in seconds.
fn finished_in(text: &str) -> anyhow::Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("finished in ")).context("no duration")?;
    let duration = line.split(',').next().unwrap_or_default();
    let seconds = if let Some(number) = duration.strip_suffix("ms") {
        number.parse::<f64>()? / 1e3
    } else if let Some(number) = duration.strip_suffix("us") {
        number.parse::<f64>()? / 1e6
    } else {
        duration.trim_end_matches('s').parse::<f64>()?
    };
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { shape: Shape::Http1, clients: 1, streams: 1, requests: 1000 };

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(finished_in("finished in 1.05s, 950.30 req/s, 1.05MB/s").unwrap(), 1.05);
        assert_eq!(finished_in("finished in 980.00ms, 950.30 req/s").unwrap(), 0.98);
        assert!(finished_in("nothing").is_err());
    }

    #[test]
    fn a_single_refused_request_fails_the_run() {
        assert!(LOAD.check("status codes: 1000 2xx, 0 3xx, 0 4xx, 0 5xx").is_ok());
        assert!(LOAD.check("status codes: 999 2xx, 0 3xx, 1 4xx, 0 5xx").is_err());
        assert!(LOAD.check("").is_err());
    }
}
