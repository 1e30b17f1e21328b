// SPDX-License-Identifier: Apache-2.0
//! A server that sends back every line (TCP) or datagram (UDP), after its name and the client's address.

use std::net::SocketAddr;

use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// The longest line or datagram.
const MAX_LINE: u64 = 65_536;

/// What the server is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Where to listen; port 0 is another one for UDP than for TCP.
    #[arg(long, default_value = "[::]:9000")]
    listen: SocketAddr,
    /// The name that replies begin with.
    #[arg(long, default_value = "echo")]
    name: String,
}

/// Serves until standard input ends.
pub async fn serve(options: Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    let socket = UdpSocket::bind(options.listen).await?;
    super::ready(listener.local_addr()?);
    let name = options.name.clone();
    let streams = async move {
        loop {
            if let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(lines(stream, super::canonical(peer), name.clone()));
            }
        }
    };
    tokio::select! {
        () = streams => Ok(()),
        () = datagrams(socket, options.name) => Ok(()),
        () = super::told_to_stop() => Ok(()),
    }
}

async fn lines(stream: TcpStream, peer: SocketAddr, name: String) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    while let Ok(count) = (&mut read).take(MAX_LINE).read_line(&mut line).await {
        if count == 0 || write.write_all(format!("{name} {peer} {line}").as_bytes()).await.is_err() {
            break;
        }
        line.clear();
    }
}

async fn datagrams(socket: UdpSocket, name: String) {
    let mut buffer = vec![0; MAX_LINE as usize];
    loop {
        if let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
            let mut reply = format!("{name} {} ", super::canonical(peer)).into_bytes();
            reply.extend_from_slice(&buffer[..count]);
            // A client that is gone is no error of the server.
            socket.send_to(&reply, peer).await.ok();
        }
    }
}
