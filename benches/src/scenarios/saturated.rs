// SPDX-License-Identifier: Apache-2.0
//! As many requests as come back: throughput, and CPU time per request.

use anyhow::Context;

use super::{Bench, Options};
use crate::load::{Load, Loaded, Shape};
use crate::machine::Steal;
use crate::peers::Running;
use crate::report::{Row, Table};
use crate::stats::Spread;

/// A window in which the hypervisor took more than this share is measured again.
const MAX_STEAL: f64 = 0.02;
/// How often a window is repeated for that; then it counts all the same, and is noted.
const ATTEMPTS: u32 = 3;
/// A generator that is busier than this limits the throughput of the proxy.
const SLACK: f64 = 0.80;

/// What one window showed.
struct Window {
    loaded: Loaded,
    proxy_seconds: f64,
    load_seconds: f64,
    steal: f64,
}

pub(super) fn run(title: &str, shape: Shape, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let window_seconds = if options.quick { 0.5 } else { 2.0 };
    let mut proxies = Vec::new();
    for peer in &options.peers {
        let running = bench.proxy(*peer, shape, &[])?;
        let requests = calibrate(&bench, shape, &running, window_seconds)
            .with_context(|| format!("first load on {}", peer.label()))?;
        proxies.push((*peer, running, requests, Measured::default()));
    }
    let mut stolen = 0;
    for round in 1..=options.rounds {
        for (peer, running, requests, measured) in &mut proxies {
            let window = quiet_window(&bench, shape, running, *requests)?;
            stolen += u32::from(window.steal > MAX_STEAL);
            eprintln!(
                "round {round} {:>8}: {:>7.0} req/s, {:>6.1} CPU-s/1M, load core {:.0} % busy",
                peer.label(),
                window.loaded.per_second,
                window.proxy_seconds * 1e6 / *requests as f64,
                window.load_seconds / window.loaded.seconds * 100.0,
            );
            measured.add(&window, *requests);
        }
    }
    let base = proxies.first().map(|(.., measured)| measured.clone()).unwrap_or_default();
    let rows = proxies
        .iter()
        .map(|(peer, _, _, measured)| Row { name: peer.label().to_owned(), cells: measured.cells(&base) })
        .collect();
    let mut notes = vec![format!(
        "median (min-max) of {} rounds; ratios within a round, to {}; higher is better",
        options.rounds,
        options.peers.first().map_or("none", |peer| peer.label()),
    )];
    for (peer, .., measured) in &proxies {
        if measured.load_core.median() > SLACK * 100.0 {
            notes.push(format!(
                "{}: the load's core is {:.0} % busy, so its req/s is a lower bound; judge by CPU time",
                peer.label(),
                measured.load_core.median()
            ));
        }
    }
    if stolen > 0 {
        notes.push(format!("{stolen} windows with more than 2 % steal, after {ATTEMPTS} attempts each"));
    }
    Ok(Table {
        title: title.to_owned(),
        columns: vec!["req/s", "CPU-s per 1M", "ratio req/s", "ratio CPU", "load core busy %"],
        rows,
        notes,
    })
}

#[derive(Clone, Default)]
struct Measured {
    per_second: Spread,
    cpu_per_million: Spread,
    requests_per_cpu_second: Spread,
    load_core: Spread,
}

impl Measured {
    fn add(&mut self, window: &Window, requests: u64) {
        self.per_second.push(window.loaded.per_second);
        self.cpu_per_million.push(window.proxy_seconds * 1e6 / requests as f64);
        self.requests_per_cpu_second.push(requests as f64 / window.proxy_seconds);
        self.load_core.push(window.load_seconds / window.loaded.seconds * 100.0);
    }

    fn cells(&self, base: &Measured) -> Vec<Spread> {
        vec![
            self.per_second.clone(),
            self.cpu_per_million.clone(),
            self.per_second.ratio_to(&base.per_second),
            self.requests_per_cpu_second.ratio_to(&base.requests_per_cpu_second),
            self.load_core.clone(),
        ]
    }
}

/// Requests for a window of this length, from two short runs; the first one warms up.
fn calibrate(bench: &Bench, shape: Shape, running: &Running, seconds: f64) -> anyhow::Result<u64> {
    load(shape, 2_000).run(running.address, bench.folder())?;
    let loaded = load(shape, 5_000).run(running.address, bench.folder())?;
    Ok((loaded.per_second * seconds) as u64)
}

fn load(shape: Shape, requests: u64) -> Load {
    let (clients, streams) = match shape {
        Shape::Http1 => (64, 1),
        Shape::Http2 => (8, 32),
    };
    Load { shape, clients, streams, requests }
}

fn quiet_window(bench: &Bench, shape: Shape, running: &Running, requests: u64) -> anyhow::Result<Window> {
    let mut attempt = 1;
    loop {
        let window = window(bench, shape, running, requests)?;
        if window.steal <= MAX_STEAL || attempt == ATTEMPTS {
            return Ok(window);
        }
        attempt += 1;
    }
}

fn window(bench: &Bench, shape: Shape, running: &Running, requests: u64) -> anyhow::Result<Window> {
    let steal = Steal::now();
    let (proxy, origin) = (running.process.cpu_seconds()?, bench.origin.cpu_seconds()?);
    let loaded = load(shape, requests).run(running.address, bench.folder())?;
    let origin_seconds = bench.origin.cpu_seconds()? - origin;
    Ok(Window {
        proxy_seconds: running.process.cpu_seconds()? - proxy,
        load_seconds: loaded.cpu_seconds + origin_seconds,
        steal: steal.share_since(),
        loaded,
    })
}
