// SPDX-License-Identifier: Apache-2.0
//! A fixed rate that every proxy can carry: latency, and CPU time where the core is mostly idle.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::{Bench, Options};
use crate::load::Shape;
use crate::peers::Running;
use crate::process::{LOAD_CORE, beside};
use crate::report::{Row, Table};
use crate::stats::Spread;

/// Requests a second.
const RATE: &str = "3000";

/// What the load printed.
#[derive(Deserialize)]
struct Loaded {
    requests: f64,
    p50_us: f64,
    p99_us: f64,
}

#[derive(Default)]
struct Measured {
    p50_us: Spread,
    p99_us: Spread,
    cpu_per_million: Spread,
    requests_per_cpu_second: Spread,
}

pub(super) fn run(title: &str, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let seconds = if options.quick { "1" } else { "5" };
    let mut proxies = Vec::new();
    for peer in &options.peers {
        let running = bench.proxy(*peer, Shape::Http1, &[])?;
        load(running.address, "1")?;
        proxies.push((*peer, running, Measured::default()));
    }
    let mut direct = Measured::default();
    for _ in 0..options.rounds {
        direct.latencies(&load(bench.http1, seconds)?);
        for (_, running, measured) in &mut proxies {
            measured.window(running, seconds)?;
        }
    }
    let base = proxies.first().map(|(.., measured)| measured.requests_per_cpu_second.clone());
    let base = base.unwrap_or_default();
    let none = Spread::default;
    let mut rows = vec![Row {
        name: "no proxy".to_owned(),
        cells: vec![direct.p50_us.clone(), direct.p99_us, none(), none(), none()],
    }];
    for (peer, _, measured) in proxies {
        let added = measured.p50_us.less(&direct.p50_us);
        let ratio = measured.requests_per_cpu_second.ratio_to(&base);
        let cells = vec![measured.p50_us, measured.p99_us, added, measured.cpu_per_million, ratio];
        rows.push(Row { name: peer.label().to_owned(), cells });
    }
    Ok(Table {
        title: title.to_owned(),
        columns: vec!["p50 us", "p99 us", "added p50 us", "CPU-s per 1M", "ratio CPU"],
        rows,
        notes: vec![
            "median (min-max) of the rounds; requests are due at random times on 32 connections, and a \
                     latency counts from when its request was due"
                .to_owned(),
        ],
    })
}

/// Runs the load against `address`.
fn load(address: SocketAddr, seconds: &str) -> anyhow::Result<Loaded> {
    let output = Command::new("taskset")
        .args(["-c", LOAD_CORE])
        .arg(beside("weft-bench-paced")?)
        .args([&address.to_string(), Shape::Http1.path(), RATE, seconds])
        .output()
        .context("cannot start the load")?;
    if !output.status.success() {
        bail!("load on {address}: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("the load printed no result")
}

impl Measured {
    fn window(&mut self, running: &Running, seconds: &str) -> anyhow::Result<()> {
        let before = running.process.cpu_seconds()?;
        let loaded = load(running.address, seconds)?;
        let used = running.process.cpu_seconds()? - before;
        self.cpu_per_million.push(used * 1e6 / loaded.requests);
        self.requests_per_cpu_second.push(loaded.requests / used);
        self.latencies(&loaded);
        Ok(())
    }

    fn latencies(&mut self, loaded: &Loaded) {
        self.p50_us.push(loaded.p50_us);
        self.p99_us.push(loaded.p99_us);
    }
}
