// SPDX-License-Identifier: Apache-2.0
//! Resident memory of the proxy's process: after the start, and with idle connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Bench, Options};
use crate::load::Shape;
use crate::report::{Row, Table};
use crate::stats::Spread;

/// Idle keep-alive connections, each after one request.
const CONNECTIONS: usize = 1_000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(title: &str, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let rounds = options.rounds.min(3);
    let mut rows = Vec::new();
    for peer in &options.peers {
        let (mut start, mut idle) = (Spread::default(), Spread::default());
        for _ in 0..rounds {
            let running = bench.proxy(*peer, Shape::Http1, &[])?;
            let _first = request(running.address)?;
            let before = running.process.resident_bytes()?;
            let connections =
                (0..CONNECTIONS).map(|_| request(running.address)).collect::<Result<Vec<_>, _>>()?;
            let grown = running.process.resident_bytes()?.saturating_sub(before);
            start.push(before as f64 / 1e6);
            idle.push(grown as f64 / 1e3 / connections.len() as f64);
        }
        rows.push(Row { name: peer.label().to_owned(), cells: vec![start, idle] });
    }
    Ok(Table {
        title: title.to_owned(),
        columns: vec!["RSS at start, MB", "KB per idle connection"],
        rows,
        notes: vec![format!(
            "median (min-max) of {rounds} starts; after the first request, then {CONNECTIONS} connections with \
             one request each; the sockets' memory in the kernel is not part of it"
        )],
    })
}

/// Opens a connection, sends one request and reads the whole answer.
fn request(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {} HTTP/1.1\r\nhost: {address}\r\n\r\n", Shape::Http1.path())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !is_complete(&answer) {
        let read = stream.read(&mut chunk).context("no answer")?;
        if read == 0 {
            bail!("the proxy closed the connection: {}", String::from_utf8_lossy(&answer));
        }
        answer.extend_from_slice(&chunk[..read]);
    }
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("unexpected answer: {}", String::from_utf8_lossy(&answer));
    }
    Ok(stream)
}

/// Whether the answer has its head and a kilobyte of body.
fn is_complete(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    head.is_some_and(|head| answer.len() >= head + 4 + 1024)
}
