// SPDX-License-Identifier: Apache-2.0
//! User instructions per request, counted by callgrind between the end of a warm-up and the end of the
//! load: no start and no end of the process is in it, and noise of the machine cannot touch it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::{Bench, Options};
use crate::load::{Load, Shape};
use crate::peers::PeerName;
use crate::report::{Row, Table};
use crate::stats::Spread;

/// Requests that are not counted, and requests that are.
const WARM_UP: u64 = 1_000;
const COUNTED: u64 = 10_000;

pub(super) fn run(title: &str, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let mut rows = Vec::new();
    for peer in &options.peers {
        let mut cells = Vec::new();
        for shape in [Shape::Http1, Shape::Http2] {
            let mut spread = Spread::default();
            spread.push(per_request(&bench, *peer, shape)?);
            cells.push(spread);
        }
        rows.push(Row { name: peer.label().to_owned(), cells });
    }
    Ok(Table {
        title: title.to_owned(),
        columns: vec!["HTTP/1.1", "HTTP/2"],
        rows,
        notes: vec![format!("{COUNTED} requests on 4 connections, after {WARM_UP}")],
    })
}

fn per_request(bench: &Bench, peer: PeerName, shape: Shape) -> anyhow::Result<f64> {
    let file = bench.folder().join(format!("callgrind.{peer:?}.{shape:?}"));
    let option = format!("--callgrind-out-file={}", file.display());
    let running = bench.proxy(peer, shape, &["valgrind", "--tool=callgrind", &option])?;
    let streams = if shape == Shape::Http2 { 8 } else { 1 };
    let load = |requests| Load { shape, clients: 4, streams, requests };
    load(WARM_UP).run(running.address, bench.folder())?;
    control("--zero", running.process.id())?;
    load(COUNTED).run(running.address, bench.folder())?;
    control("--dump", running.process.id())?;
    // The first dump of a process has the number 1 behind the name that was asked for.
    let total = total(&file.with_file_name(format!("callgrind.{peer:?}.{shape:?}.1")))?;
    Ok(total as f64 / COUNTED as f64)
}

/// Tells callgrind in this process to forget, or to write, what it counted.
fn control(what: &str, process: u32) -> anyhow::Result<()> {
    let output = Command::new("callgrind_control")
        .args([what, &process.to_string()])
        .output()
        .context("cannot start callgrind_control")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !text.contains("OK") {
        bail!("callgrind_control {what}: {text}");
    }
    Ok(())
}

/// The line `totals: N` (or `summary: N`) of callgrind's file.
fn total(file: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file).context("callgrind wrote nothing")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")))
        .context("callgrind wrote no total")?;
    line.split_whitespace().next().context("empty total")?.parse().context("odd total")
}
