// SPDX-License-Identifier: Apache-2.0
//! Resident memory of the proxy's process: after the start, and with idle connections of each version.

use std::net::{SocketAddr, TcpStream};

use anyhow::bail;

use super::{Bench, Options};
use crate::client;
use crate::interrupt;
use crate::peers::PeerName;
use crate::report::{Row, Table};
use crate::stats::Spread;
use crate::workload::Protocol;

/// Idle keep-alive connections, each after one request.
const CONNECTIONS: usize = 1_000;

pub(super) fn run(title: &str, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let rounds = options.rounds.min(3);
    let mut rows = Vec::new();
    for peer in options.proxies() {
        let mut start = Spread::default();
        let mut cells = Vec::new();
        for protocol in Protocol::ALL {
            let mut idle = Spread::default();
            for round in 0..rounds {
                let (before, grown) = idle_connections(&bench, peer, protocol)?;
                eprintln!(
                    "start {}/{rounds} {:>8}, {}: {:.1} MB, {:.2} KB for a connection",
                    round + 1,
                    peer.label(),
                    protocol.label(),
                    before / 1e6,
                    grown / 1e3
                );
                if protocol == Protocol::Http1 {
                    start.push(Some(before / 1e6));
                }
                idle.push(Some(grown / 1e3));
            }
            cells.push(idle);
        }
        cells.insert(0, start);
        rows.push(Row { name: peer.label().to_owned(), cells });
    }
    let mut columns = vec!["RSS at start, MB".to_owned()];
    columns.extend(Protocol::ALL.map(|protocol| format!("KB per idle {} connection", protocol.label())));
    Ok(Table {
        title: title.to_owned(),
        columns,
        rows,
        notes: vec![format!(
            "median (min-max) of {rounds} starts; after the first request, then {CONNECTIONS} connections with \
             one request each; the sockets' memory in the kernel is not part of it"
        )],
    })
}

/// Resident bytes after the first request, and for each of the idle connections.
fn idle_connections(bench: &Bench, peer: PeerName, protocol: Protocol) -> anyhow::Result<(f64, f64)> {
    let running = bench.proxy(peer, peer.label(), protocol, &[])?;
    let mut idle = Idle::new(protocol)?;
    idle.open(running.address)?;
    let before = running.process.resident_bytes()?;
    for _ in 0..CONNECTIONS {
        interrupt::check()?;
        idle.open(running.address)?;
    }
    let grown = running.process.resident_bytes()?.saturating_sub(before);
    Ok((before as f64, grown as f64 / CONNECTIONS as f64))
}

/// Connections of one version that are kept open.
enum Idle {
    Http1(Vec<TcpStream>),
    Http2(client::Http2),
}

impl Idle {
    fn new(protocol: Protocol) -> anyhow::Result<Self> {
        Ok(match protocol {
            Protocol::Http1 => Self::Http1(Vec::new()),
            Protocol::Http2 => Self::Http2(client::Http2::new()?),
        })
    }

    /// Opens one more, with one request.
    fn open(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let status = match self {
            Self::Http1(streams) => {
                let (stream, answer) = client::http1(address, "GET", Protocol::Http1.small_path())?;
                streams.push(stream);
                answer.status
            }
            Self::Http2(client) => client.ask(address, "GET", Protocol::Http2.small_path())?.status,
        };
        if status != 200 {
            bail!("unexpected answer: {status}");
        }
        Ok(())
    }
}
