// SPDX-License-Identifier: Apache-2.0
//! Byte streams of any transport (TCP, TLS, HBONE), and the raw stream after an upgrade.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connected byte stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Io for T {}

/// A stream whose first bytes were read already.
pub struct RawStream {
    io: Box<dyn Io>,
    prefix: Bytes,
}

impl RawStream {
    /// A stream that yields `prefix` before what `io` yields.
    pub fn new(io: Box<dyn Io>, prefix: Bytes) -> Self {
        RawStream { io, prefix }
    }

    /// The bytes read ahead and the stream behind them.
    pub fn into_parts(self) -> (Bytes, Box<dyn Io>) {
        (self.prefix, self.io)
    }
}

impl std::fmt::Debug for RawStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawStream").field("prefix_bytes", &self.prefix.len()).finish_non_exhaustive()
    }
}

impl AsyncRead for RawStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..n]);
        self.prefix.advance(n);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Bytes that went each way through [`relay`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayBytes {
    /// From `a` to `b`.
    pub a_to_b: u64,
    /// From `b` to `a`.
    pub b_to_a: u64,
}

/// One direction of a relay: a buffer that is allocated only while bytes are on their way.
#[derive(Default)]
struct Direction {
    buf: Bytes,
    bytes: u64,
    eof: bool,
    done: bool,
}

const RELAY_CHUNK: usize = 16 * 1024;

impl Direction {
    /// Moves what can be moved; ready when the source ended and the sink was shut down. Counts
    /// progress in `moved`.
    fn poll_copy<A: Io + ?Sized, B: Io + ?Sized>(
        &mut self,
        from: &mut A,
        to: &mut B,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            while !self.buf.is_empty() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.buf))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.buf.advance(n);
                self.bytes += n as u64;
                *moved = true;
            }
            self.buf = Bytes::new();
            if self.eof {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                continue;
            }
            let mut read = BytesMut::new();
            self.eof = ready!(poll_read_into(from, cx, RELAY_CHUNK, &mut read))? == 0;
            self.buf = read.freeze();
        }
    }
}

/// Reads once through the thread's scratch buffer, so that a waiting stream holds no memory; 0 bytes at
/// the end of the stream.
pub(crate) fn poll_read_into<A: AsyncRead + Unpin + ?Sized>(
    from: &mut A,
    cx: &mut Context<'_>,
    limit: usize,
    into: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with(|scratch| {
        // A reader that re-enters (a transport that is itself a codec) takes a buffer of its own.
        let mut buf = scratch.take();
        if buf.len() < SCRATCH_BYTES {
            buf.resize(SCRATCH_BYTES, 0);
        }
        let mut read = ReadBuf::new(&mut buf[..limit.min(SCRATCH_BYTES)]);
        let polled = Pin::new(from).poll_read(cx, &mut read).map_ok(|()| {
            if into.capacity() == 0 {
                // One allocation of the right size, where growing would look for what can be reclaimed.
                *into = BytesMut::from(read.filled());
            } else {
                into.extend_from_slice(read.filled());
            }
            read.filled().len()
        });
        scratch.replace(buf);
        polled
    })
}

const SCRATCH_BYTES: usize = 64 * 1024;

/// Copies both ways until both ends have closed, one failed, or nothing moved for `idle`.
///
/// Returns the bytes moved, and the error that ended it. Cancel safe: dropping it closes both.
pub async fn relay(mut a: RawStream, mut b: RawStream, idle: Duration) -> (RelayBytes, io::Result<()>) {
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let mut deadline = std::pin::pin!(tokio::time::sleep(idle));
    let result = std::future::poll_fn(|cx| {
        let mut moved = false;
        let first = there.poll_copy(&mut a, &mut b, cx, &mut moved)?;
        let second = back.poll_copy(&mut b, &mut a, cx, &mut moved)?;
        if first.is_ready() && second.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if moved {
            deadline.as_mut().reset(tokio::time::Instant::now() + idle);
        }
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    })
    .await;
    (RelayBytes { a_to_b: there.bytes, b_to_a: back.bytes }, result)
}
