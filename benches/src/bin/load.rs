// SPDX-License-Identifier: Apache-2.0
//! `weft-bench-load`: closed-loop loads that h2load has no words for. Each prints how long it took.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_benches::traffic;

/// How long one exchange, or one message there and back, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages that are under way on each stream.
const UNDER_WAY: u64 = 16;

/// Send a number of exchanges, as many at a time as there are clients; print the seconds that it took.
#[derive(Debug, Parser)]
struct Cli {
    /// What an exchange is.
    #[arg(value_enum)]
    kind: Kind,
    /// Where to send them.
    address: SocketAddr,
    /// How many exchanges, of all clients together.
    #[arg(long)]
    count: u64,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A gRPC message there and back, on one stream for each client.
    Stream,
    /// A new connection with one HTTP/1.1 request.
    Http1Connection,
    /// A new connection with one HTTP/2 request.
    Http2Connection,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..cli.clients {
        // What cannot be divided evenly is left to the first clients.
        let count = cli.count / cli.clients + u64::from(client < cli.count % cli.clients);
        clients.spawn(run(cli.kind, cli.address, count));
    }
    while let Some(client) = clients.join_next().await {
        client.context("a client panicked")??;
    }
    println!("{}", serde_json::json!({ "count": cli.count, "seconds": start.elapsed().as_secs_f64() }));
    Ok(())
}

async fn run(kind: Kind, address: SocketAddr, count: u64) -> anyhow::Result<()> {
    match kind {
        Kind::Stream => stream(address, count).await,
        Kind::Http1Connection => {
            for _ in 0..count {
                timeout(PATIENCE, http1(address)).await.context("no answer")??;
            }
            Ok(())
        }
        Kind::Http2Connection => {
            for _ in 0..count {
                timeout(PATIENCE, http2(address)).await.context("no answer")??;
            }
            Ok(())
        }
    }
}

/// One request that says it is the last, read to the end of the connection.
async fn http1(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = connect(address).await?;
    let request = format!("GET {} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n", traffic::SMALL);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(2 * traffic::SMALL_ANSWER);
    stream.read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.1 200") || answer.len() < traffic::SMALL_ANSWER {
        bail!("unexpected answer: {}", String::from_utf8_lossy(&answer[..answer.len().min(60)]));
    }
    Ok(())
}

async fn http2(address: SocketAddr) -> anyhow::Result<()> {
    let (mut client, driver) = handshake(address).await?;
    let (answer, mut body) = client.send_request(request(address, traffic::GRPC_SMALL)?, false)?;
    body.send_data(Bytes::copy_from_slice(&traffic::message()), true)?;
    let answer = answer.await?;
    if answer.status() != 200 {
        bail!("unexpected answer: {}", answer.status());
    }
    let received = read(&mut answer.into_body(), |_| Ok(())).await?;
    if received != traffic::MESSAGE as u64 {
        bail!("an answer of {received} bytes");
    }
    // The connection ends, with GOAWAY, when nothing of it is held any more.
    drop((client, body));
    driver.await.context("the connection's task panicked")?;
    Ok(())
}

/// Messages on one stream: as many are sent as come back, after the first few.
async fn stream(address: SocketAddr, count: u64) -> anyhow::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let (mut client, _driver) = handshake(address).await?;
    let (answer, mut outbound) = client.send_request(request(address, traffic::GRPC_STREAM)?, false)?;
    let message = Bytes::copy_from_slice(&traffic::message());
    let mut sent = 0;
    // Each message has a frame of its own, and the last one ends the stream.
    let mut send_until = |limit: u64| {
        while sent < limit.min(count) {
            sent += 1;
            outbound.send_data(message.clone(), sent == count)?;
        }
        Ok::<(), h2::Error>(())
    };
    send_until(UNDER_WAY)?;
    let answer = timeout(PATIENCE, answer).await.context("no answer")??;
    if answer.status() != 200 {
        bail!("unexpected answer: {}", answer.status());
    }
    let mut inbound = answer.into_body();
    let length = traffic::MESSAGE as u64;
    let received = read(&mut inbound, |received| Ok(send_until(received / length + UNDER_WAY)?)).await?;
    if received != count * length {
        bail!("{received} bytes came back of {}", count * length);
    }
    let trailers = timeout(PATIENCE, inbound.trailers()).await.context("no trailers")??;
    let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    if status.is_none_or(|status| status != "0") {
        bail!("the stream did not end with grpc-status: 0");
    }
    Ok(())
}

/// Reads to the end, and says after each chunk how many bytes there were.
async fn read(
    body: &mut h2::RecvStream,
    mut progress: impl FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut received = 0;
    while let Some(chunk) = timeout(PATIENCE, body.data()).await.context("no message")? {
        let length = chunk?.len();
        body.flow_control().release_capacity(length)?;
        received += length as u64;
        progress(received)?;
    }
    Ok(received)
}

fn request(address: SocketAddr, path: &str) -> anyhow::Result<Request<()>> {
    let request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    Ok(request.body(())?)
}

async fn handshake(
    address: SocketAddr,
) -> anyhow::Result<(h2::client::SendRequest<Bytes>, tokio::task::JoinHandle<()>)> {
    let (client, connection) = h2::client::handshake(connect(address).await?).await?;
    // An error of the connection shows in its streams.
    let driver = tokio::spawn(async move { connection.await.unwrap_or(()) });
    Ok((client.ready().await?, driver))
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
