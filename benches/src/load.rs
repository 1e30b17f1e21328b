// SPDX-License-Identifier: Apache-2.0
//! The load generators, h2load and our own, and what they report.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Deserialize;
use weft_benches::traffic;

use crate::process::{self, LOAD_CORE, beside};
use crate::workload::{Generator, Protocol, Workload};

/// One run of a generator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) workload: Workload,
    /// Connections, or clients that open one after the other.
    pub(crate) clients: u64,
    /// Streams that are under way on each connection, at most.
    pub(crate) streams: u32,
    /// Exchanges in all.
    pub(crate) count: u64,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// Exchanges a second.
    pub(crate) per_second: f64,
    /// CPU time of the generator, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Wall time, in seconds.
    pub(crate) seconds: f64,
}

/// What `weft-bench-load` prints.
#[derive(Deserialize)]
struct Own {
    count: u64,
    seconds: f64,
}

impl Load {
    /// The load as the workload has it.
    pub(crate) fn of(workload: Workload, count: u64) -> Self {
        Self { workload, clients: workload.clients(), streams: u32::MAX, count }
    }

    /// Runs the load against `address`. Fails when a single exchange fails: a proxy that answers with
    /// errors is fast, and no comparison.
    pub(crate) fn run(&self, address: SocketAddr, folder: &Path) -> anyhow::Result<Loaded> {
        let before = process::children_cpu()?;
        let start = Instant::now();
        let output = process::output(&mut self.command(address, folder)?)?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu_seconds = process::children_cpu()?.since(before).sum();
        let text = String::from_utf8_lossy(&output.stdout);
        let took = match self.workload.generator() {
            Generator::H2load { .. } => self.check(&text).and_then(|()| finished_in(&text)),
            Generator::Own(_) => self.own_result(&text),
        };
        let took = took.with_context(|| {
            format!("load on {address}:\n{text}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        Ok(Loaded { per_second: self.count as f64 / took, cpu_seconds, seconds })
    }

    fn command(&self, address: SocketAddr, folder: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new("taskset");
        command.args(["-c", LOAD_CORE]);
        let (clients, count) = (self.clients.min(self.count).to_string(), self.count.to_string());
        match self.workload.generator() {
            Generator::Own(kind) => {
                command.arg(beside("weft-bench-load")?).arg(kind).arg(address.to_string());
                command.args(["--count", &count, "--clients", &clients]);
            }
            Generator::H2load { path, streams, body } => {
                command.args(["h2load", "-t", "1", "-n", &count, "-c", &clients]);
                command.args(["-m", &streams.min(self.streams).to_string()]);
                self.h2load_options(body, folder, &mut command)?;
                command.arg(format!("http://{address}{path}"));
            }
        }
        Ok(command)
    }

    fn h2load_options(
        &self,
        body: Option<usize>,
        folder: &Path,
        command: &mut Command,
    ) -> anyhow::Result<()> {
        match self.workload.protocol() {
            Protocol::Http1 => command.arg("--h1"),
            Protocol::Http2 => command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]),
        };
        if let Some(length) = body {
            let file = folder.join(format!("body-{length}"));
            let bytes =
                if length == traffic::MESSAGE { traffic::message().to_vec() } else { vec![b'm'; length] };
            fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
            command.arg("-d").arg(file);
        }
        Ok(())
    }

    fn check(&self, text: &str) -> anyhow::Result<()> {
        let line = text.lines().find(|line| line.starts_with("status codes:")).context("no status codes")?;
        let successes = line.split_whitespace().nth(2).and_then(|count| count.parse::<u64>().ok());
        if successes != Some(self.count) {
            bail!("{} requests, but {line}", self.count);
        }
        Ok(())
    }

    fn own_result(&self, text: &str) -> anyhow::Result<f64> {
        let own: Own = serde_json::from_str(text).context("the load printed no result")?;
        if own.count != self.count {
            bail!("{} exchanges instead of {}", own.count, self.count);
        }
        Ok(own.seconds)
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

    const LOAD: Load = Load { workload: Workload::Http1, clients: 1, streams: 1, count: 1000 };

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
        assert_eq!(LOAD.own_result(r#"{"count": 1000, "seconds": 0.5}"#).unwrap(), 0.5);
        assert!(LOAD.own_result(r#"{"count": 999, "seconds": 0.5}"#).is_err());
        assert!(LOAD.own_result("").is_err());
    }
}
