// SPDX-License-Identifier: Apache-2.0
//! The programs that run in pods: servers that tell what they saw, and clients that tell what came back.
//!
//! Each is a subcommand of `weft-lab pod`, with one data thread. A server prints one line that begins
//! with [`READY`](crate::process::READY) once it listens; a client prints one line of JSON at its end. A
//! peer that runs until it is told ends when its standard input does, or on SIGTERM.

use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

pub mod bulk;
pub mod client;
pub mod echo;
pub mod http;
pub mod raw;
pub mod tcp;
pub mod udp;

/// The peers.
#[derive(Debug, Subcommand)]
pub enum Peer {
    /// HTTP/1.1, HTTP/2 and gRPC-like server on one port.
    Http(http::Options),
    /// Echo server for lines on TCP and datagrams on UDP, which tells the client's address.
    Echo(echo::Options),
    /// HTTP client: sends many requests and counts what comes back.
    Client(client::Options),
    /// TCP client of the echo server.
    TcpClient(tcp::Options),
    /// UDP client of the echo server.
    UdpClient(udp::Options),
    /// Sends bytes as they are and prints what comes back.
    Raw(raw::Options),
    /// Does nothing until it is told to stop: a pod to run clients in.
    Sleep,
    /// Receives bytes until their end, and answers with their count and sum.
    BulkServer(bulk::ServerOptions),
    /// Sends many bytes and compares what the server counted.
    BulkClient(bulk::ClientOptions),
}

/// Runs a peer to its end.
pub fn run(peer: Peer) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match peer {
            Peer::Http(options) => http::serve(options).await,
            Peer::Echo(options) => echo::serve(options).await,
            Peer::Client(options) => client::run(options).await,
            Peer::TcpClient(options) => tcp::run(options).await,
            Peer::UdpClient(options) => udp::run(options).await,
            Peer::Raw(options) => raw::run(options).await,
            Peer::Sleep => {
                told_to_stop().await;
                Ok(())
            }
            Peer::BulkServer(options) => bulk::serve(options).await,
            Peer::BulkClient(options) => bulk::run(options).await,
        }
    })
}

/// Returns on SIGTERM, and when standard input ends if that is a pipe, which is how the lab tells a peer
/// to stop. In a container it is /dev/null, whose end says nothing.
async fn told_to_stop() {
    let is_pipe = std::fs::metadata("/proc/self/fd/0").is_ok_and(|stdin| stdin.file_type().is_fifo());
    let (ended, wait) = tokio::sync::oneshot::channel();
    if is_pipe {
        // A thread that nothing waits for: a read of standard input cannot be taken back.
        std::thread::spawn(move || {
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
            ended.send(()).ok();
        });
    }
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        Ok(()) = wait => {}
        () = terminated => {}
    }
}

/// An IPv4 address that came through an IPv6 socket, as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Says that a server listens.
fn ready(address: SocketAddr) {
    println!("{}{address}", crate::process::READY);
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}
