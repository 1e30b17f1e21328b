// SPDX-License-Identifier: Apache-2.0
//! A fixed rate that every proxy can carry: latency, and CPU time where the core is mostly idle.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, bail};
use weft_benches::open_loop::{LATE, MAX_LATE_SHARE, Report};
use weft_benches::traffic;

use super::compare::{self, Contender};
use super::{Bench, Options};
use crate::process::{self, Cpu, LOAD_CORE, beside};
use crate::report::{Row, Table};
use crate::stats::Spread;
use crate::workload::Protocol;

/// Requests a second.
const RATE: &str = "3000";
/// Windows of one proxy in one round, at most: those in which the generator was late are dropped.
const ATTEMPTS: u32 = 4;

/// Latencies of one contender, and how far the generator was late in the windows that count.
#[derive(Default)]
struct Latency {
    windows: Windows,
    p50_us: Spread,
    p99_us: Spread,
    late_percent: Spread,
    late_p50_us: Spread,
}

/// Windows that were measured, and how many of them the generator spoilt.
#[derive(Default)]
struct Windows {
    all: u32,
    dropped: u32,
}

pub(super) fn run(title: &str, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let seconds = if options.quick { "1" } else { "5" };
    let mut contenders = compare::start(&bench, Protocol::Http1, options)?;
    for contender in &contenders {
        load(contender.running.address, "1").with_context(|| format!("first load on {}", contender.label))?;
    }
    let mut direct = Latency::default();
    let mut latencies: Vec<Latency> = contenders.iter().map(|_| Latency::default()).collect();
    for round in 0..options.rounds {
        let name = format!("round {}/{} {:>12}", round + 1, options.rounds, "no proxy");
        let window = direct.windows.measure(&name, || Ok((load(bench.http1, seconds)?, ())))?;
        direct.push(&name, window.map(|(report, ())| report));
        for index in compare::order(round, contenders.len()) {
            let contender = &mut contenders[index];
            let name = format!("round {}/{} {:>12}", round + 1, options.rounds, contender.label);
            let window = latencies[index].windows.measure(&name, || self::window(contender, seconds))?;
            contender.cpu.push(window.as_ref().map(|(report, cpu)| (*cpu, report.requests)));
            latencies[index].push(&name, window.map(|(report, _)| report));
        }
    }
    Ok(table(title, options, &contenders, &latencies, &direct))
}

fn table(
    title: &str,
    options: &Options,
    contenders: &[Contender],
    latencies: &[Latency],
    direct: &Latency,
) -> Table {
    let mut columns = ["p50 us", "p99 us", "added p50 us", "late starts %", "late p50 us", "dropped"]
        .map(str::to_owned)
        .to_vec();
    columns.extend(compare::columns(contenders, true));
    let mut rows = vec![Row { name: "no proxy".to_owned(), cells: direct.cells(&Latency::default()) }];
    rows[0].cells.resize(columns.len(), Spread::default());
    for (contender, latency) in contenders.iter().zip(latencies) {
        let mut cells = latency.cells(direct);
        cells.extend(compare::cells(&contender.cpu, contenders, true));
        rows.push(Row { name: contender.label.clone(), cells });
    }
    let all = || latencies.iter().chain([direct]).map(|latency| &latency.windows);
    let mut notes = vec![
        format!(
            "median (min-max) of {} rounds; requests are due at random times, whether or not earlier ones were \
             answered, and a latency counts from when its request was due",
            options.rounds
        ),
        format!(
            "{} of {} windows dropped: in them the generator took up more than {} % of the requests more than \
             {} us late; a round has up to {ATTEMPTS} windows of each",
            all().map(|windows| windows.dropped).sum::<u32>(),
            all().map(|windows| windows.all).sum::<u32>(),
            MAX_LATE_SHARE * 100.0,
            LATE.as_micros()
        ),
    ];
    notes.extend(compare::control_note(contenders, "CPU time", |index| contenders[index].cpu.sum.clone()));
    notes.extend(compare::control_note(contenders, "p50", |index| latencies[index].p50_us.clone()));
    notes.extend(compare::control_note(contenders, "p99", |index| latencies[index].p99_us.clone()));
    Table { title: title.to_owned(), columns, rows, notes }
}

impl Windows {
    /// Measures until the generator was on time; none when it never was.
    fn measure<T>(
        &mut self,
        name: &str,
        mut window: impl FnMut() -> anyhow::Result<(Report, T)>,
    ) -> anyhow::Result<Option<(Report, T)>> {
        for _ in 0..ATTEMPTS {
            let (report, beside) = window()?;
            self.all += 1;
            if report.is_on_time() {
                return Ok(Some((report, beside)));
            }
            self.dropped += 1;
            eprintln!(
                "{name}: dropped a window: {} of {} requests started late, by up to {:.0} us",
                report.late_starts, report.requests, report.late_max_us
            );
        }
        Ok(None)
    }
}

impl Latency {
    /// Notes a window; none where all of the round were dropped.
    fn push(&mut self, name: &str, report: Option<Report>) {
        if let Some(report) = &report {
            eprintln!(
                "{name}: p50 {:>5.0} us, p99 {:>6.0} us; {} of {} requests started late, median {:.0} us",
                report.p50_us, report.p99_us, report.late_starts, report.requests, report.late_p50_us
            );
        } else {
            eprintln!("{name}: no window that counts");
        }
        self.p50_us.push(report.as_ref().map(|report| report.p50_us));
        self.p99_us.push(report.as_ref().map(|report| report.p99_us));
        self.late_percent.push(report.as_ref().map(|report| report.late_share() * 100.0));
        self.late_p50_us.push(report.as_ref().map(|report| report.late_p50_us));
    }

    fn cells(&self, direct: &Latency) -> Vec<Spread> {
        vec![
            self.p50_us.clone(),
            self.p99_us.clone(),
            self.p50_us.less(&direct.p50_us),
            self.late_percent.clone(),
            self.late_p50_us.clone(),
            Spread::single(f64::from(self.windows.dropped)),
        ]
    }
}

fn window(contender: &Contender, seconds: &str) -> anyhow::Result<(Report, Cpu)> {
    let before = contender.running.process.cpu()?;
    let report =
        load(contender.running.address, seconds).with_context(|| format!("load on {}", contender.label))?;
    Ok((report, contender.running.process.cpu()?.since(before)))
}

/// Runs the load against `address`.
fn load(address: SocketAddr, seconds: &str) -> anyhow::Result<Report> {
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE]);
    if rustix::process::geteuid().is_root() {
        // The origin has the same core: in front of it the generator starts on time.
        command.args(["chrt", "--fifo", "1"]);
    }
    command.arg(beside("weft-bench-paced")?).args([&address.to_string(), traffic::SMALL]);
    let output = process::output(command.args(["--rate", RATE, "--seconds", seconds]))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("the load printed no result")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(late_starts: u64) -> Report {
        Report {
            requests: 15_000,
            p50_us: 80.0,
            p99_us: 800.0,
            late_starts,
            late_p50_us: 5.0,
            late_max_us: 3_500.0,
            queued: 0,
        }
    }

    #[test]
    fn a_window_of_a_late_generator_is_dropped_counted_and_repeated() {
        let mut windows = Windows::default();
        let mut late = [150, 16, 15].into_iter();
        let kept = windows.measure("x", || Ok((report(late.next().unwrap()), ()))).unwrap();
        assert_eq!(kept.unwrap().0.late_starts, 15);
        assert_eq!((windows.all, windows.dropped), (3, 2));
        assert!(windows.measure("x", || Ok((report(16), ()))).unwrap().is_none(), "it is never on time");
        assert_eq!((windows.all, windows.dropped), (3 + ATTEMPTS, 2 + ATTEMPTS));
    }

    #[test]
    fn a_round_without_a_window_has_no_latency() {
        let mut latency = Latency::default();
        latency.push("x", None);
        latency.push("x", Some(report(0)));
        assert_eq!((latency.p99_us.count(), latency.p99_us.median()), (1, 800.0));
    }
}
