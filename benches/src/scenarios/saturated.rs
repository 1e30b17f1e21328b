// SPDX-License-Identifier: Apache-2.0
//! As many exchanges as come back: CPU time for each, and throughput.

use anyhow::Context;

use super::compare::{self, Contender};
use super::{Bench, Options};
use crate::interrupt;
use crate::load::{Load, Loaded};
use crate::machine::Steal;
use crate::peers::Running;
use crate::process::Cpu;
use crate::report::{Row, Table};
use crate::stats::Spread;
use crate::workload::Workload;

/// A window in which the hypervisor took more than this share is measured again.
const MAX_STEAL: f64 = 0.02;
/// How often a window is repeated for that; then it counts all the same, and is noted.
const ATTEMPTS: u32 = 3;
/// A generator that is busier than this limits the throughput of the proxy.
const SLACK: f64 = 0.80;

/// What one window showed.
struct Window {
    loaded: Loaded,
    cpu: Cpu,
    load_seconds: f64,
    steal: f64,
}

/// What is measured of one contender, beside its CPU time.
struct Measured {
    /// Exchanges in a window.
    count: u64,
    per_second: Spread,
    load_core: Spread,
}

pub(super) fn run(title: &str, workload: Workload, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let mut contenders = compare::start(&bench, workload.protocol(), options)?;
    let mut measured = Vec::new();
    let seconds = if options.quick { 0.5 } else { 2.0 };
    for contender in &contenders {
        let count = calibrate(&bench, workload, &contender.running, seconds)
            .with_context(|| format!("first load on {}", contender.label))?;
        measured.push(Measured { count, per_second: Spread::default(), load_core: Spread::default() });
    }
    let mut stolen = 0;
    for round in 0..options.rounds {
        for index in compare::order(round, contenders.len()) {
            interrupt::check()?;
            let (contender, measured) = (&mut contenders[index], &mut measured[index]);
            let window = quiet_window(&bench, Load::of(workload, measured.count), &contender.running)
                .with_context(|| format!("{} in round {}", contender.label, round + 1))?;
            stolen += u32::from(window.steal > MAX_STEAL);
            progress(round, options, contender, measured.count, workload, &window);
            contender.cpu.push(Some((window.cpu, measured.count)));
            measured.per_second.push(Some(window.loaded.per_second));
            measured.load_core.push(Some(window.load_seconds / window.loaded.seconds * 100.0));
        }
    }
    Ok(table(title, workload, options, &contenders, &measured, stolen))
}

fn progress(
    round: u32,
    options: &Options,
    contender: &Contender,
    count: u64,
    workload: Workload,
    window: &Window,
) {
    eprintln!(
        "round {}/{} {:>12}: {:>7.0} {}/s, {:>6.1} CPU-s/1M ({:.0} % user), load core {:.0} % busy",
        round + 1,
        options.rounds,
        contender.label,
        window.loaded.per_second,
        workload.unit(),
        window.cpu.sum() * 1e6 / count as f64,
        window.cpu.user / window.cpu.sum().max(f64::EPSILON) * 100.0,
        window.load_seconds / window.loaded.seconds * 100.0,
    );
}

fn table(
    title: &str,
    workload: Workload,
    options: &Options,
    contenders: &[Contender],
    measured: &[Measured],
    stolen: u32,
) -> Table {
    let has_floor = workload.has_floor();
    let mut columns = compare::columns(contenders, has_floor);
    columns.extend([format!("{}/s", workload.unit()), "load core busy %".to_owned()]);
    let rows = contenders.iter().zip(measured).map(|(contender, measured)| {
        let mut cells = compare::cells(&contender.cpu, contenders, has_floor);
        cells.extend([measured.per_second.clone(), measured.load_core.clone()]);
        Row { name: contender.label.clone(), cells }
    });
    let mut notes = vec![format!(
        "median (min-max) of {} rounds, ratios within a round; CPU seconds of the proxy's process for a \
         million {}",
        options.rounds,
        workload.unit()
    )];
    notes.extend(compare::control_note(contenders, "CPU time", |index| contenders[index].cpu.sum.clone()));
    for (contender, measured) in contenders.iter().zip(measured) {
        let busy = measured.load_core.median();
        if busy > SLACK * 100.0 {
            let label = &contender.label;
            notes.push(format!(
                "{label}: the load's core is {busy:.0} % busy, so {}/s is no result",
                workload.unit()
            ));
        }
    }
    if stolen > 0 {
        notes.push(format!("{stolen} windows with more than 2 % steal, after {ATTEMPTS} attempts each"));
    }
    Table { title: title.to_owned(), columns, rows: rows.collect(), notes }
}

/// Exchanges for a window of this length, from two short runs; the first one warms up.
fn calibrate(bench: &Bench, workload: Workload, running: &Running, seconds: f64) -> anyhow::Result<u64> {
    let warm_up = workload.warm_up();
    Load::of(workload, warm_up).run(running.address, bench.folder())?;
    let loaded = Load::of(workload, warm_up * 2).run(running.address, bench.folder())?;
    Ok(((loaded.per_second * seconds) as u64).max(1))
}

fn quiet_window(bench: &Bench, load: Load, running: &Running) -> anyhow::Result<Window> {
    let mut attempt = 1;
    loop {
        let window = window(bench, load, running)?;
        if window.steal <= MAX_STEAL || attempt == ATTEMPTS {
            return Ok(window);
        }
        attempt += 1;
    }
}

fn window(bench: &Bench, load: Load, running: &Running) -> anyhow::Result<Window> {
    let steal = Steal::now();
    let (proxy, origin) = (running.process.cpu()?, bench.origin.cpu()?);
    let loaded = load.run(running.address, bench.folder())?;
    let origin_seconds = bench.origin.cpu()?.since(origin).sum();
    Ok(Window {
        cpu: running.process.cpu()?.since(proxy),
        load_seconds: loaded.cpu_seconds + origin_seconds,
        steal: steal.share_since(),
        loaded,
    })
}
