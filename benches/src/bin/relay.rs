// SPDX-License-Identifier: Apache-2.0
//! `weft-bench-relay`: copies bytes between each connection that it takes and one of its own to the origin.
//!
//! This is the floor for a proxy that is a process with sockets: what the kernel takes for two connections,
//! and nearly nothing of its own. One thread, edge-triggered epoll, one buffer; nothing is parsed.
//!
//! A socket is read until a read does not fill the buffer, which for an open stream says that it is empty
//! (epoll(7)). What the other side does not take at once is kept, and no more is read until it did.
//!
//! With `--in-tokio` the same set of sockets lies in tokio's as one descriptor, and tokio waits.

use std::env;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use tokio::io::unix::AsyncFd;

/// Size of the buffer: most exchanges fit into one read.
const BUFFER: usize = 64 * 1024;
/// Events that are taken from the kernel at once.
const EVENTS: usize = 1024;
const LISTENER: Token = Token(usize::MAX - 1);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, origin, how @ ..] = arguments.as_slice() else {
        bail!("usage: weft-bench-relay LISTEN_ADDRESS ORIGIN_ADDRESS [--in-tokio]");
    };
    let (listen, origin) =
        (listen.parse().context("LISTEN_ADDRESS")?, origin.parse().context("ORIGIN_ADDRESS")?);
    let relay = Relay::bind(listen, origin)?;
    match how {
        [] => relay.run(),
        [how] if how == "--in-tokio" => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(relay.run_in_tokio())
        }
        _ => bail!("the only option is --in-tokio"),
    }
}

/// One of the two sockets of a pair; the other has the number with the lowest bit changed.
struct Side {
    stream: TcpStream,
    /// Bytes of the other side that this one did not take yet.
    pending: Vec<u8>,
    /// The other side may have bytes that were left in its socket since `pending` was not empty.
    unread: bool,
    /// The end is in the socket, behind the bytes that it still has.
    closing: bool,
    /// The end was read.
    ended: bool,
}

struct Relay {
    poll: Poll,
    listener: TcpListener,
    origin: SocketAddr,
    sides: Vec<Option<Side>>,
    /// Numbers of pairs that ended.
    unused: Vec<usize>,
    buffer: Vec<u8>,
}

/// Whether a pair goes on.
#[derive(PartialEq, Eq)]
enum Pair {
    Open,
    Over,
}

impl Relay {
    fn bind(listen: SocketAddr, origin: SocketAddr) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self { poll, listener, origin, sides: Vec::new(), unused: Vec::new(), buffer: vec![0; BUFFER] })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.once(&mut events, None)?;
        }
    }

    async fn run_in_tokio(mut self) -> anyhow::Result<()> {
        let set = self.poll.registry().try_clone()?;
        #[allow(deprecated, reason = "it owns its descriptor, and closes it only when it ends")]
        let set = AsyncFd::new(set).context("tokio takes no set")?;
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let mut ready = set.readable().await?;
            self.once(&mut events, Some(Duration::ZERO))?;
            // Fewer than there was room for: the set has no more.
            if events.iter().count() < EVENTS {
                ready.clear_ready();
            }
        }
    }

    /// Handles what is ready.
    fn once(&mut self, events: &mut Events, patience: Option<Duration>) -> anyhow::Result<()> {
        match self.poll.poll(events, patience) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result.context("epoll_wait")?,
        }
        for event in &*events {
            if event.token() == LISTENER {
                self.accept()?;
                continue;
            }
            let side = event.token().0;
            // A failed socket ends its pair alone; whoever measures sees it at both ends.
            if self.turn(side, event).unwrap_or(Pair::Over) == Pair::Over {
                self.end(side);
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((client, _)) => self.open(client)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The client was gone before it was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error).context("cannot accept"),
            }
        }
    }

    fn open(&mut self, client: TcpStream) -> anyhow::Result<()> {
        let origin = TcpStream::connect(self.origin).context("cannot connect to the origin")?;
        let first = self.unused.pop().unwrap_or(self.sides.len());
        self.sides.resize_with(self.sides.len().max(first + 2), || None);
        for (side, stream) in [(first, client), (first + 1, origin)] {
            self.sides[side] = Some(Side::register(stream, side, self.poll.registry())?);
        }
        Ok(())
    }

    fn turn(&mut self, number: usize, event: &Event) -> io::Result<Pair> {
        // An event may have been for a pair that ended earlier in this turn.
        let (Some(mut side), Some(mut other)) = (self.take(number), self.take(number ^ 1)) else {
            return Ok(Pair::Open);
        };
        let result = Side::turn(&mut side, &mut other, event, &mut self.buffer);
        (self.sides[number], self.sides[number ^ 1]) = (Some(side), Some(other));
        result
    }

    fn take(&mut self, number: usize) -> Option<Side> {
        self.sides.get_mut(number).and_then(Option::take)
    }

    /// Closes both sockets, which also takes them out of the epoll set.
    fn end(&mut self, number: usize) {
        let first = number & !1;
        self.sides[first] = None;
        self.sides[first + 1] = None;
        self.unused.push(first);
    }
}

impl Side {
    fn register(mut stream: TcpStream, number: usize, registry: &Registry) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        registry.register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, pending: Vec::new(), unread: false, closing: false, ended: false })
    }

    fn turn(side: &mut Self, other: &mut Self, event: &Event, buffer: &mut [u8]) -> io::Result<Pair> {
        side.closing |= event.is_read_closed();
        if event.is_readable() || side.closing {
            Self::copy(side, other, buffer)?;
        }
        if event.is_writable() && !side.pending.is_empty() && side.flush()? {
            if side.unread {
                side.unread = false;
                Self::copy(other, side, buffer)?;
            } else if other.ended {
                side.stream.shutdown(Shutdown::Write)?;
            }
        }
        let over = side.ended && other.ended && side.pending.is_empty() && other.pending.is_empty();
        Ok(if over { Pair::Over } else { Pair::Open })
    }

    /// Reads what there is and writes it to the other side.
    fn copy(from: &mut Self, to: &mut Self, buffer: &mut [u8]) -> io::Result<()> {
        while !from.ended {
            if !to.pending.is_empty() {
                to.unread = true;
                return Ok(());
            }
            let read = match from.stream.read(buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if read == 0 {
                from.ended = true;
                return to.stream.shutdown(Shutdown::Write);
            }
            to.write(&buffer[..read])?;
            // No further event comes for an end that came with these bytes.
            if read < buffer.len() && !from.closing {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes, and keeps what the socket does not take; a socket that is still connecting takes nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = match self.stream.write(bytes) {
            Ok(written) => written,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                0
            }
            Err(error) => return Err(error),
        };
        self.pending.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes what was kept; true when nothing is left.
    fn flush(&mut self) -> io::Result<bool> {
        match self.stream.write(&self.pending) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
            }
            Err(error) => return Err(error),
        }
        Ok(self.pending.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::net;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// A relay in front of an origin that sends everything back after it has read everything.
    fn echo(bytes: usize, in_tokio: bool) -> Vec<u8> {
        let origin = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::bind("127.0.0.1:0".parse().unwrap(), origin.local_addr().unwrap()).unwrap();
        let address = relay.listener.local_addr().unwrap();
        thread::spawn(move || match in_tokio {
            false => relay.run(),
            true => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(relay.run_in_tokio())
            }
        });
        thread::spawn(move || {
            let (mut stream, _) = origin.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let mut client = net::TcpStream::connect(address).unwrap();
        let sent: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert!(back == sent, "{} bytes came back of {bytes}", back.len());
        back
    }

    #[test]
    fn every_byte_and_each_end_are_passed_on() {
        for in_tokio in [false, true] {
            assert_eq!(echo(5, in_tokio).len(), 5);
            assert_eq!(echo(0, in_tokio).len(), 0);
        }
    }

    #[test]
    fn an_end_that_comes_with_the_last_bytes_is_passed_on() {
        let origin = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::bind("127.0.0.1:0".parse().unwrap(), origin.local_addr().unwrap()).unwrap();
        let address = relay.listener.local_addr().unwrap();
        thread::spawn(move || relay.run());
        thread::spawn(move || {
            for stream in origin.incoming() {
                let mut stream = stream.unwrap();
                assert_eq!(stream.read(&mut [0; 64]).unwrap(), 7);
                stream.write_all(b"answer").unwrap();
            }
        });
        for _ in 0..2_000 {
            let mut client = net::TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            client.write_all(b"request").unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"answer");
        }
    }

    #[test]
    fn what_the_other_side_does_not_take_is_kept_in_order() {
        // More than all socket buffers on the way: the origin answers only after the end, and the client
        // reads only after it has sent everything.
        echo(BUFFER * 300, false);
        echo(BUFFER * 300, true);
    }
}
