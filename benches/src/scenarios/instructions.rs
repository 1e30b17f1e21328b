// SPDX-License-Identifier: Apache-2.0
//! User instructions per exchange, counted by callgrind between the end of a warm-up and the end of the
//! load: no start and no end of the process is in it, and noise of the machine cannot touch it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::{Bench, Options, same_work};
use crate::load::Load;
use crate::peers::PeerName;
use crate::process;
use crate::report::{Row, Table};
use crate::stats::Spread;
use crate::workload::Workload;

pub(crate) mod noted;

use noted::{Counted, Noted};

/// What is counted, with the number of exchanges; under callgrind a program is some fifty times slower.
const COUNTED: [(&str, Workload, u64); 6] = [
    ("http1", Workload::Http1, 10_000),
    ("http2", Workload::Http2, 10_000),
    ("grpc-stream", Workload::GrpcStream, 10_000),
    ("http1-64k", Workload::Http1Body64k, 500),
    ("http2-64k", Workload::Http2Body64k, 500),
    ("http1-connections", Workload::Http1Connections, 2_000),
];
/// The part of them that a run counts which is only to show that it works.
const QUICK: u64 = 20;
/// Connections, and streams on each.
const CLIENTS: u64 = 4;
const STREAMS: u32 = 8;

pub(super) fn run(title: &str, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let mut rows = Vec::new();
    for peer in &options.peers {
        let mut cells = Vec::new();
        for (name, workload, exchanges) in COUNTED {
            let exchanges = if options.quick { exchanges / QUICK } else { exchanges };
            cells.push(Spread::single(count(&bench, *peer, name, workload, exchanges)?));
        }
        rows.push(Row { name: peer.label().to_owned(), cells });
    }
    Ok(Table {
        title: title.to_owned(),
        columns: COUNTED.map(|(name, ..)| name.to_owned()).into(),
        rows,
        notes: vec![format!(
            "on {CLIENTS} connections, of up to {STREAMS} streams, after a tenth as a warm-up"
        )],
    })
}

/// Counts Weft's instructions and compares them with those that were noted; fails where they are more.
pub(crate) fn check(file: &Path) -> anyhow::Result<Table> {
    optimised()?;
    let noted = Noted::read(file)?;
    let counted = count_weft()?;
    let (table, failures) = noted.compare(&counted, &noted::compiler()?);
    if !failures.is_empty() {
        bail!(
            "{table}\n{}\nto note what was counted now: cargo xtask bench instructions --note",
            failures.join("\n")
        );
    }
    Ok(table)
}

/// Counts Weft's instructions and notes them.
pub(crate) fn note(file: &Path) -> anyhow::Result<Table> {
    optimised()?;
    let compiler = noted::compiler()?;
    let counted = count_weft()?;
    // A first table has nothing to compare with.
    let before = if file.exists() { Noted::read(file)? } else { Noted::default() };
    let (table, _) = before.compare(&counted, &compiler);
    Noted::of(&counted, &compiler).write(file)?;
    eprintln!("noted in {}", file.display());
    Ok(table)
}

/// Fails in a build that nobody would run: its counts are several times too high.
fn optimised() -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        bail!("this build is not optimised; `cargo xtask bench` makes one that is");
    }
    Ok(())
}

fn count_weft() -> anyhow::Result<Vec<Counted>> {
    let bench = Bench::start()?;
    COUNTED
        .into_iter()
        .map(|(name, workload, exchanges)| {
            let instructions = count(&bench, PeerName::Weft, name, workload, exchanges)?;
            Ok(Counted { scenario: name, instructions })
        })
        .collect()
}

/// User instructions of one exchange.
fn count(
    bench: &Bench,
    peer: PeerName,
    name: &str,
    workload: Workload,
    exchanges: u64,
) -> anyhow::Result<f64> {
    eprintln!("starting {} under callgrind", peer.label());
    let file = bench.folder().join(format!("callgrind.{peer:?}.{name}"));
    let option = format!("--callgrind-out-file={}", file.display());
    let label = format!("{} {name}", peer.label());
    let prefix = ["valgrind", "--tool=callgrind", &option];
    let running = bench.proxy(peer, &label, workload.protocol(), &prefix)?;
    same_work::verify(bench, workload.protocol(), peer, running.address)?;
    eprintln!("counting {}, {name}: {exchanges} {}", peer.label(), workload.unit());
    let load = |count| Load { workload, clients: CLIENTS, streams: STREAMS, count };
    load(exchanges / 10).run(running.address, bench.folder())?;
    control("--zero", running.process.id())?;
    load(exchanges).run(running.address, bench.folder())?;
    control("--dump", running.process.id())?;
    // The first dump of a process has the number 1 behind the name that was asked for.
    let total = total(&bench.folder().join(format!("callgrind.{peer:?}.{name}.1")))?;
    Ok(total as f64 / exchanges as f64)
}

/// Tells callgrind in this process to forget, or to write, what it counted.
fn control(what: &str, process: u32) -> anyhow::Result<()> {
    let mut command = Command::new("callgrind_control");
    let output = process::output(command.args([what, &process.to_string()]))?;
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
