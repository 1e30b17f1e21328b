// SPDX-License-Identifier: Apache-2.0
//! Many bytes in one direction or the other, with a sum over them: for segmentation offload and for
//! half-closed connections, since the client ends its direction before the answer comes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is read or written at once.
const CHUNK: usize = 256 << 10;

/// What the server is told.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// Where to listen.
    #[arg(long, default_value = "[::]:9100")]
    listen: SocketAddr,
}

/// What the client is told.
#[derive(Clone, Debug, Args)]
pub struct ClientOptions {
    /// The server.
    address: SocketAddr,
    /// How many bytes are sent.
    #[arg(long, default_value_t = 30_000_000)]
    bytes: u64,
    /// How long it may take, in milliseconds.
    #[arg(long, default_value = "20000", value_parser = super::milliseconds)]
    timeout_ms: Duration,
}

/// What was received, as the receiver counts it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Received {
    /// Bytes.
    pub bytes: u64,
    /// The FNV-1a sum over them.
    pub sum: u64,
    /// The client's address.
    pub client: SocketAddr,
}

/// What the client tells.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// What the server counted.
    pub received: Received,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Serves until standard input ends.
pub async fn serve(options: ServerOptions) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    super::ready(listener.local_addr()?);
    let accept = async move {
        loop {
            if let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(receive(stream, super::canonical(peer)));
            }
        }
    };
    tokio::select! {
        () = accept => Ok(()),
        () = super::told_to_stop() => Ok(()),
    }
}

/// Sends, compares and prints the [`Summary`]; an error when the sums differ.
pub async fn run(options: ClientOptions) -> anyhow::Result<()> {
    let start = Instant::now();
    let (received, sum) =
        tokio::time::timeout(options.timeout_ms, send(&options)).await.context("too slow")??;
    if (received.bytes, received.sum) != (options.bytes, sum) {
        bail!("sent {} bytes with sum {sum:x}, received {received:?}", options.bytes);
    }
    let summary = Summary { received, took_ms: start.elapsed().as_millis() as u64 };
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}

async fn send(options: &ClientOptions) -> anyhow::Result<(Received, u64)> {
    let mut stream = TcpStream::connect(options.address).await.context("connect")?;
    let chunk: Vec<u8> = (0..CHUNK).map(|index| (index % 251) as u8).collect();
    let (mut left, mut sum) = (options.bytes, Sum::default());
    while left > 0 {
        let count = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        stream.write_all(&chunk[..count]).await.context("write")?;
        sum.add(&chunk[..count]);
        left -= count as u64;
    }
    stream.shutdown().await.context("half-close")?;
    let mut reply = String::new();
    stream.take(4096).read_to_string(&mut reply).await.context("reply")?;
    Ok((serde_json::from_str(&reply).context("reply")?, sum.0))
}

async fn receive(mut stream: TcpStream, client: SocketAddr) {
    let (mut buffer, mut bytes, mut sum) = (vec![0; CHUNK], 0, Sum::default());
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => {
                bytes += count as u64;
                sum.add(&buffer[..count]);
            }
            Err(_) => return,
        }
    }
    let reply = serde_json::to_vec(&Received { bytes, sum: sum.0, client }).unwrap_or_default();
    // A client that is gone learns nothing, and needs not.
    stream.write_all(&reply).await.ok();
}

struct Sum(u64);

impl Default for Sum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
