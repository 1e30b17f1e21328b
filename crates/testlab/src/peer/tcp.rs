// SPDX-License-Identifier: Apache-2.0
//! A TCP client of the echo server: sends lines, on one connection or on many.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// What the client is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The server.
    address: SocketAddr,
    /// How many connections, one after the other.
    #[arg(long, default_value_t = 1)]
    connections: u64,
    /// How many lines on each; without it and with `--hold`, until standard input ends.
    #[arg(long, default_value_t = 1)]
    lines: u64,
    /// Sends lines on each connection until standard input ends.
    #[arg(long)]
    hold: bool,
    /// The pause between two lines, in milliseconds.
    #[arg(long, default_value = "0", value_parser = super::milliseconds)]
    pause_ms: Duration,
    /// How long connecting, and each reply, may take, in milliseconds.
    #[arg(long, default_value = "3000", value_parser = super::milliseconds)]
    timeout_ms: Duration,
    /// The port to connect from, which makes connections the same tuple again and again.
    #[arg(long)]
    from_port: Option<u16>,
    /// The length of each line.
    #[arg(long, default_value_t = 5)]
    length: usize,
}

/// What came of the connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Connections that were made.
    pub connected: u64,
    /// Lines that came back whole.
    pub echoed: u64,
    /// What went wrong.
    pub failures: BTreeMap<String, u64>,
    /// Who answered, and what address they saw: `name address`, without the port.
    pub seen: BTreeMap<String, u64>,
    /// The server's address, as the socket tells it.
    pub peer: Option<SocketAddr>,
    /// The client's address, as the socket tells it.
    pub local: Option<SocketAddr>,
}

/// Runs the connections and prints the [`Summary`].
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut summary = Summary::default();
    let mut stop = std::pin::pin!(super::told_to_stop());
    for _ in 0..options.connections {
        let work = connection(&options, &mut summary);
        let result = tokio::select! {
            result = work => result,
            () = &mut stop, if options.hold => Ok(()),
        };
        if let Err(error) = result {
            *summary.failures.entry(format!("{error:#}")).or_default() += 1;
        }
    }
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}

async fn connection(options: &Options, summary: &mut Summary) -> anyhow::Result<()> {
    let stream = within(options.timeout_ms, "connect", connect(options)).await?;
    stream.set_nodelay(true)?;
    summary.connected += 1;
    summary.peer = Some(super::canonical(stream.peer_addr()?));
    summary.local = Some(super::canonical(stream.local_addr()?));
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let line = format!("{}\n", "x".repeat(options.length));
    let lines = if options.hold { u64::MAX } else { options.lines };
    for _ in 0..lines {
        write.write_all(line.as_bytes()).await.context("write")?;
        let mut reply = String::new();
        within(options.timeout_ms, "reply", async { Ok(read.read_line(&mut reply).await?) }).await?;
        let mut fields = reply.splitn(3, ' ');
        let (Some(name), Some(address), Some(rest)) = (fields.next(), fields.next(), fields.next()) else {
            bail!("the connection ended");
        };
        if rest != line {
            bail!("another line came back");
        }
        let address: SocketAddr = address.parse().context("reply")?;
        let address: IpAddr = address.ip();
        *summary.seen.entry(format!("{name} {address}")).or_default() += 1;
        summary.echoed += 1;
        tokio::time::sleep(options.pause_ms).await;
    }
    Ok(())
}

async fn connect(options: &Options) -> anyhow::Result<TcpStream> {
    let v4 = options.address.is_ipv4();
    let socket = if v4 { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(port) = options.from_port {
        socket.set_reuseaddr(true)?;
        let any = if v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        socket.bind(SocketAddr::new(any, port)).context("bind")?;
    }
    Ok(socket.connect(options.address).await?)
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.context(what),
        Err(_) => bail!("{what}: nothing in time"),
    }
}
