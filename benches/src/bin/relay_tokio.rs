// SPDX-License-Identifier: Apache-2.0
//! `weft-bench-relay-tokio`: the relay of `relay.rs` as tasks of tokio, one for each direction, on a runtime of
//! one thread. What it takes more than the other is what tokio's reactor and its tasks cost.
//!
//! As cheap as tokio lets it be: one buffer for all tasks, a read that does not fill it is not followed by one
//! that finds nothing (`poll_read` says so to the reactor), and what was read is written at once, without
//! waiting to be told that it can be.

use std::cell::RefCell;
use std::env;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Waking, Poll, ready};

use anyhow::{Context, bail};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Size of the buffer, as in the other relay.
const BUFFER: usize = 64 * 1024;

thread_local! {
    static BYTES: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, origin] = arguments.as_slice() else {
        bail!("usage: weft-bench-relay-tokio LISTEN_ADDRESS ORIGIN_ADDRESS");
    };
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    serve(listener, origin.parse().context("ORIGIN_ADDRESS")?).await
}

async fn serve(listener: TcpListener, origin: SocketAddr) -> anyhow::Result<()> {
    loop {
        let client = listener.accept().await.context("cannot accept")?.0;
        // A pair that fails ends alone; whoever measures sees it at both ends.
        tokio::spawn(async move { open(client, origin).await.unwrap_or(()) });
    }
}

async fn open(client: TcpStream, origin: SocketAddr) -> io::Result<()> {
    let origin = TcpStream::connect(origin).await?;
    client.set_nodelay(true)?;
    origin.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_origin, to_origin) = origin.into_split();
    tokio::spawn(async move { copy(from_client, to_origin).await.unwrap_or(()) });
    copy(from_origin, to_client).await
}

/// Copies one direction to its end, which is passed on when `to` is dropped.
async fn copy(mut from: OwnedReadHalf, to: OwnedWriteHalf) -> io::Result<()> {
    while let Some(mut left) = poll_fn(|waking| once(&mut from, &to, waking)).await? {
        while !left.is_empty() {
            to.writable().await?;
            let written = written(&to, &left)?;
            left.drain(..written);
        }
    }
    Ok(())
}

/// Reads once and writes it; what the other side did not take, or nothing at the end.
fn once(
    from: &mut OwnedReadHalf,
    to: &OwnedWriteHalf,
    waking: &mut Waking<'_>,
) -> Poll<io::Result<Option<Vec<u8>>>> {
    BYTES.with_borrow_mut(|bytes| {
        let mut room = ReadBuf::new(bytes);
        ready!(Pin::new(from).poll_read(waking, &mut room))?;
        let came = room.filled();
        if came.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let written = written(to, came)?;
        Poll::Ready(Ok(Some(came[written..].to_vec())))
    })
}

fn written(to: &OwnedWriteHalf, bytes: &[u8]) -> io::Result<usize> {
    match to.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{self, Shutdown};
    use std::thread;

    use super::*;

    /// More than all socket buffers on the way: the origin answers only after the end, and the client reads only
    /// after it has sent everything.
    #[test]
    fn every_byte_and_each_end_are_passed_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let origin = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let origin_address = origin.local_addr().unwrap();
        thread::spawn(move || runtime.block_on(serve(listener, origin_address)));
        thread::spawn(move || {
            for stream in origin.incoming() {
                let (mut stream, mut all) = (stream.unwrap(), Vec::new());
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            }
        });
        for bytes in [0, 5, BUFFER * 300] {
            let mut client = net::TcpStream::connect(address).unwrap();
            let sent: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).unwrap();
            assert!(back == sent, "{} bytes came back of {bytes}", back.len());
        }
    }
}
