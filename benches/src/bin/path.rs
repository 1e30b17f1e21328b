// SPDX-License-Identifier: Apache-2.0
//! One thread that sends and receives what it sent, in two network namespaces: what the kernel takes for the
//! way between, with no process that waits or is woken.
//!
//! Usage: `weft-bench-path LOAD NETNS LISTEN TARGET COUNT` has the server in the namespace `NETNS` at `LISTEN`,
//! the client where it was started, and prints `{"ns": ...}`: CPU time of the thread for one of `COUNT`. LOAD is
//! `datagram` (64 bytes, one way), `stream` (64 KB by TCP, one way), `rr` (64 bytes there and back by TCP) or
//! `new` (a connection that is opened and closed).

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use weft_testlab::netns;

/// Datagrams that are under way at a time: they fit into the smallest receive buffer.
const BURST: usize = 16;
/// Exchanges before the clock is read, so that connection, neighbours and caches are there.
const WARM_UP: usize = 256;
/// Longest wait for what was sent.
const PATIENCE: Duration = Duration::from_secs(2);
const MESSAGE: [u8; 64] = [7; 64];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [load, server, listen, target, count] = words.as_slice() else {
        bail!("usage: weft-bench-path datagram|stream|rr|new NETNS LISTEN TARGET COUNT");
    };
    let (server, listen, target) = (Path::new(server), listen.parse()?, target.parse()?);
    let count: usize = count.parse()?;
    let nanoseconds = match *load {
        "datagram" => datagrams(server, listen, target, count)?,
        "stream" => stream(server, listen, target, count)?,
        "rr" => requests(server, listen, target, count)?,
        "new" => connections(server, listen, target, count)?,
        other => bail!("there is no load {other}"),
    };
    println!("{}", serde_json::json!({ "ns": nanoseconds as f64 / count as f64 }));
    Ok(())
}

/// CPU time of the calling thread in nanoseconds (the first field of schedstat), with what the kernel did in its
/// name: packets that it sends to a veth are received before it goes on.
fn cpu() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().context("empty schedstat")?.parse()?)
}

/// Runs `work` in another namespace: a socket stays in that in which it was made.
fn at<T: Send>(server: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> anyhow::Result<T> {
    let done = thread::scope(|scope| {
        scope
            .spawn(|| netns::enter(server).and_then(|()| work()))
            .join()
            .map_err(|_panic| "a thread panicked")
    });
    Ok(done.map_err(anyhow::Error::msg)??)
}

fn datagrams(server: &Path, listen: SocketAddr, target: SocketAddr, count: usize) -> anyhow::Result<u64> {
    let receiver = at(server, || UdpSocket::bind(listen))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let sender = UdpSocket::bind(SocketAddr::new(unspecified(target), 0))?;
    sender.connect(target)?;
    sender.set_read_timeout(Some(PATIENCE))?;
    // The first one asks for neighbours; an answer makes it a connection of both.
    let mut buffer = MESSAGE;
    sender.send(&MESSAGE)?;
    let (_, from) = receiver.recv_from(&mut buffer).context("the first datagram did not arrive")?;
    receiver.send_to(&MESSAGE, from)?;
    sender.recv(&mut buffer).context("its answer did not arrive")?;
    let burst = |sender: &UdpSocket, receiver: &UdpSocket| -> anyhow::Result<()> {
        for _ in 0..BURST {
            sender.send(&MESSAGE)?;
        }
        for _ in 0..BURST {
            receiver.recv(&mut [0; 64]).context("a datagram was lost")?;
        }
        Ok(())
    };
    for _ in 0..WARM_UP / BURST {
        burst(&sender, &receiver)?;
    }
    let start = cpu()?;
    for _ in 0..count / BURST {
        burst(&sender, &receiver)?;
    }
    Ok(cpu()? - start)
}

fn unspecified(target: SocketAddr) -> std::net::IpAddr {
    if target.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    }
}

/// A connection and its other end, and the listener that it came to.
fn pair(server: &Path, listen: SocketAddr, target: SocketAddr) -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = at(server, || TcpListener::bind(listen))?;
    let client =
        TcpStream::connect_timeout(&target, PATIENCE).with_context(|| format!("connect to {target}"))?;
    let (other, _) = listener.accept()?;
    for stream in [&client, &other] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((client, other))
}

fn stream(server: &Path, listen: SocketAddr, target: SocketAddr, count: usize) -> anyhow::Result<u64> {
    let (mut client, mut other) = pair(server, listen, target)?;
    let (chunk, mut buffer) = (vec![7; 65_536], vec![0; 262_144]);
    client.set_nonblocking(true)?;
    let mut move_all = |chunks: usize| -> anyhow::Result<()> {
        let (total, mut sent, mut received) = (chunks * chunk.len(), 0, 0);
        while received < total {
            let end = chunk.len().min(total - sent);
            match client.write(&chunk[..end]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            let read = other.read(&mut buffer).context("nothing arrives")?;
            ensure!(read != 0, "the connection ended");
            received += read;
        }
        Ok(())
    };
    move_all(WARM_UP)?;
    let start = cpu()?;
    move_all(count)?;
    Ok(cpu()? - start)
}

fn requests(server: &Path, listen: SocketAddr, target: SocketAddr, count: usize) -> anyhow::Result<u64> {
    let (mut client, mut other) = pair(server, listen, target)?;
    let mut exchange = |times: usize| -> anyhow::Result<()> {
        let mut buffer = [0; 64];
        for _ in 0..times {
            client.write_all(&MESSAGE)?;
            other.read_exact(&mut buffer).context("a request did not arrive")?;
            other.write_all(&MESSAGE)?;
            client.read_exact(&mut buffer).context("an answer did not arrive")?;
        }
        Ok(())
    };
    exchange(WARM_UP)?;
    let start = cpu()?;
    exchange(count)?;
    Ok(cpu()? - start)
}

fn connections(server: &Path, listen: SocketAddr, target: SocketAddr, count: usize) -> anyhow::Result<u64> {
    let listener = at(server, || TcpListener::bind(listen))?;
    let open = |times: usize| -> anyhow::Result<()> {
        for _ in 0..times {
            let mut client = TcpStream::connect_timeout(&target, PATIENCE)
                .with_context(|| format!("connect to {target}"))?;
            let (other, _) = listener.accept()?;
            // The server closes first: the state TIME_WAIT, and its port, stay on its side.
            drop(other);
            ensure!(client.read(&mut [0; 16])? == 0, "{target} is not the listener of this benchmark");
        }
        Ok(())
    };
    open(WARM_UP)?;
    let start = cpu()?;
    open(count)?;
    Ok(cpu()? - start)
}
