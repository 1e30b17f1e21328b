// SPDX-License-Identifier: Apache-2.0
//! A fixed rate that every proxy can carry: latency, and CPU time where the core is mostly idle.

use super::{Bench, Options};
use crate::load::{Load, Loaded, Shape};
use crate::peers::Running;
use crate::report::{Row, Table};
use crate::stats::Spread;

/// Connections, and requests a second on each: 3,000 in all.
const CLIENTS: u32 = 30;
const RATE: u32 = 100;

#[derive(Default)]
struct Measured {
    p50_us: Spread,
    p99_us: Spread,
    cpu_per_million: Spread,
    requests_per_cpu_second: Spread,
}

pub(super) fn run(title: &str, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let seconds = if options.quick { 1 } else { 5 };
    let requests = u64::from(CLIENTS * RATE) * seconds;
    let load = Load { shape: Shape::Http1, clients: CLIENTS, streams: 1, requests, rate: Some(RATE) };
    let mut proxies = Vec::new();
    for peer in &options.peers {
        let running = bench.proxy(*peer, Shape::Http1, &[])?;
        Load { rate: None, ..load }.run(running.address, bench.folder())?;
        proxies.push((*peer, running, Measured::default()));
    }
    let mut direct = Measured::default();
    for _ in 0..options.rounds {
        direct.latencies(&load.run(bench.http1, bench.folder())?);
        for (_, running, measured) in &mut proxies {
            measured.window(&bench, running, &load)?;
        }
    }
    let base = proxies.first().map(|(.., measured)| measured.requests_per_cpu_second.clone());
    let mut rows = vec![Row {
        name: "no proxy".to_owned(),
        cells: vec![direct.p50_us, direct.p99_us, Spread::default(), Spread::default()],
    }];
    for (peer, _, measured) in proxies {
        let ratio = measured.requests_per_cpu_second.ratio_to(&base.clone().unwrap_or_default());
        let cells = vec![measured.p50_us, measured.p99_us, measured.cpu_per_million, ratio];
        rows.push(Row { name: peer.label().to_owned(), cells });
    }
    Ok(Table {
        title: title.to_owned(),
        columns: vec!["p50 us", "p99 us", "CPU-s per 1M", "ratio CPU"],
        rows,
        notes: vec![
            "median (min-max) of the rounds; h2load paces in bursts, so that latencies compare with \
                     each other only"
                .to_owned(),
        ],
    })
}

impl Measured {
    fn window(&mut self, bench: &Bench, running: &Running, load: &Load) -> anyhow::Result<()> {
        let before = running.process.cpu_seconds()?;
        let loaded = load.run(running.address, bench.folder())?;
        let seconds = running.process.cpu_seconds()? - before;
        self.cpu_per_million.push(seconds * 1e6 / load.requests as f64);
        self.requests_per_cpu_second.push(load.requests as f64 / seconds);
        self.latencies(&loaded);
        Ok(())
    }

    fn latencies(&mut self, loaded: &Loaded) {
        self.p50_us.push(percentile(&loaded.latencies_us, 0.50));
        self.p99_us.push(percentile(&loaded.latencies_us, 0.99));
    }
}

/// The value below which this share of the sorted values lies; 0 for none.
fn percentile(sorted: &[u64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 0.5), 51.0);
        assert_eq!(percentile(&values, 1.0), 100.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
