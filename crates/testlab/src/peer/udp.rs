// SPDX-License-Identifier: Apache-2.0
//! A UDP client of the echo server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;

/// What the client is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The server.
    address: SocketAddr,
    /// How many datagrams.
    #[arg(long, default_value_t = 1)]
    datagrams: u64,
    /// Names the server in each datagram (`sendto`) instead of connecting the socket.
    #[arg(long)]
    unconnected: bool,
    /// How long a reply may take, in milliseconds.
    #[arg(long, default_value = "1000", value_parser = super::milliseconds)]
    timeout_ms: Duration,
    /// The length of each datagram.
    #[arg(long, default_value_t = 5)]
    length: usize,
}

/// What came of the datagrams.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Datagrams that came back whole.
    pub echoed: u64,
    /// What went wrong.
    pub failures: BTreeMap<String, u64>,
    /// Who answered, and what address they saw: `name address`, without the port.
    pub seen: BTreeMap<String, u64>,
    /// Where the last reply came from.
    pub from: Option<SocketAddr>,
}

/// Sends the datagrams and prints the [`Summary`].
pub async fn run(options: Options) -> anyhow::Result<()> {
    let any = if options.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    if !options.unconnected {
        socket.connect(options.address).await?;
    }
    let mut summary = Summary::default();
    for _ in 0..options.datagrams {
        if let Err(why) = exchange(&options, &socket, &mut summary).await {
            *summary.failures.entry(why).or_default() += 1;
        }
    }
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}

async fn exchange(options: &Options, socket: &UdpSocket, summary: &mut Summary) -> Result<(), String> {
    let payload = "u".repeat(options.length);
    let sent = if options.unconnected {
        socket.send_to(payload.as_bytes(), options.address).await
    } else {
        socket.send(payload.as_bytes()).await
    };
    sent.map_err(|error| format!("send: {error}"))?;
    let mut buffer = vec![0; 65_536];
    let received = tokio::time::timeout(options.timeout_ms, socket.recv_from(&mut buffer)).await;
    let (count, from) = received
        .map_err(|_elapsed| "no reply in time".to_owned())?
        .map_err(|error| format!("receive: {error}"))?;
    summary.from = Some(super::canonical(from));
    let reply = String::from_utf8_lossy(&buffer[..count]).into_owned();
    let mut fields = reply.splitn(3, ' ');
    let (Some(name), Some(address), Some(rest)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("a strange reply".to_owned());
    };
    if rest != payload {
        return Err("another payload came back".to_owned());
    }
    let address: SocketAddr = address.parse().map_err(|error| format!("a strange address: {error}"))?;
    *summary.seen.entry(format!("{name} {}", address.ip())).or_default() += 1;
    summary.echoed += 1;
    Ok(())
}
