// SPDX-License-Identifier: Apache-2.0
//! User instructions per request, counted by callgrind: the difference between a long and a short run,
//! divided by the difference in requests. Noise of the machine cannot touch it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::{Bench, Options};
use crate::load::{Load, Shape};
use crate::peers::PeerName;
use crate::report::{Row, Table};
use crate::stats::Spread;

/// Requests of the short and of the long run.
const REQUESTS: [u64; 2] = [1_000, 5_000];
/// How long a proxy under valgrind may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

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
        notes: vec![format!("4 connections; {} requests less {}", REQUESTS[1], REQUESTS[0])],
    })
}

fn per_request(bench: &Bench, peer: PeerName, shape: Shape) -> anyhow::Result<f64> {
    let mut counted = [0; 2];
    for (count, requests) in counted.iter_mut().zip(REQUESTS) {
        let file = bench.folder().join("callgrind.out");
        let option = format!("--callgrind-out-file={}", file.display());
        let mut running = bench.proxy(peer, shape, &["valgrind", "--tool=callgrind", &option])?;
        let streams = if shape == Shape::Http2 { 8 } else { 1 };
        Load { shape, clients: 4, streams, requests }.run(running.address, bench.folder())?;
        running.process.terminate(PATIENCE)?;
        *count = total(&file)?;
        fs::remove_file(&file)?;
        eprintln!("{} {shape:?}: {count} instructions for {requests} requests", peer.label());
    }
    Ok(counted[1].saturating_sub(counted[0]) as f64 / (REQUESTS[1] - REQUESTS[0]) as f64)
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
