// SPDX-License-Identifier: Apache-2.0
//! The bytes of one HTTP/1.1 connection: what was read ahead, what waits to be written, and until when.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::{
    io::{Io, RawStream, poll_read_into},
    timer::Timer,
};

/// A connection and its buffers, which are empty and freed while it is idle.
pub(crate) struct Wire {
    pub(crate) io: Box<dyn Io>,
    pub(crate) input: BytesMut,
    pub(crate) output: Output,
    /// The peer will send no more.
    pub(crate) eof: bool,
    pub(crate) read_timer: Timer,
    write_timer: Timer,
}

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

impl Wire {
    pub(crate) fn new(io: Box<dyn Io>, input: BytesMut) -> Self {
        Wire {
            io,
            input,
            output: Output::default(),
            eof: false,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
        }
    }

    /// Reads once. 0: the peer will send no more.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        let first = self.input.is_empty();
        let n = ready!(poll_read_into(&mut self.io, cx, READ_BYTES, &mut self.input))?;
        self.eof = n == 0;
        // A head's deadline counts from its first byte: more bytes of it do not move it.
        if first {
            self.read_timer.clear();
        }
        Poll::Ready(Ok(n))
    }

    /// Reads once; errs with `TimedOut` when `timeout` has passed since the wait began.
    pub(crate) fn poll_fill_timed(
        &mut self,
        cx: &mut Context<'_>,
        timeout: Duration,
    ) -> Poll<io::Result<usize>> {
        match self.poll_fill(cx) {
            Poll::Pending if self.read_timer.poll_expired(cx, timeout) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            polled => polled,
        }
    }

    /// Writes all that waits. Errs with `TimedOut` when nothing moved for `timeout`.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, timeout: Duration) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match self.output.poll_write(&mut self.io, cx) {
                Poll::Ready(Ok(())) => self.write_timer.clear(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_write_timeout(cx, timeout),
            }
        }
        self.output.release();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_write_timeout(&mut self, cx: &mut Context<'_>, timeout: Duration) -> Poll<io::Result<()>> {
        match self.write_timer.poll_expired(cx, timeout) {
            true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            false => Poll::Pending,
        }
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Takes the stream out, with what was read ahead; what stays behind is at its end.
    pub(crate) fn take_raw(&mut self) -> RawStream {
        let io = std::mem::replace(&mut self.io, Box::new(tokio::io::empty()));
        self.eof = true;
        RawStream::new(io, std::mem::take(&mut self.input).freeze())
    }
}

/// Bytes that wait to be written: small pieces are copied together, one large piece is kept as it is.
#[derive(Default)]
pub(crate) struct Output {
    small: Vec<u8>,
    written: usize,
    large: Bytes,
    after: Vec<u8>,
    /// Bytes that the connection has taken.
    pub(crate) sent: u64,
}

/// Pieces up to this size are cheaper to copy than to describe to the kernel.
const COPY_BYTES: usize = 4 * 1024;
/// Copied bytes that may wait before the sender has to.
const SMALL_LIMIT: usize = 32 * 1024;
/// A new buffer: a head and a copied piece of content without growing.
const FIRST_BYTES: usize = 2048;
/// Buffers that a worker keeps for its next messages, and the largest that it keeps.
const SPARE_BUFFERS: usize = 32;
const SPARE_BYTES: usize = 16 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.small.len() && self.large.is_empty() && self.after.is_empty()
    }

    /// Whether another piece may be pushed before a flush.
    pub(crate) fn has_room(&self) -> bool {
        self.large.is_empty() && self.small.len() - self.written < SMALL_LIMIT
    }

    /// The buffer behind all that was pushed.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if !self.large.is_empty() {
            return &mut self.after;
        }
        if self.small.capacity() == 0 {
            self.small = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(FIRST_BYTES));
        }
        &mut self.small
    }

    /// Adds content. Call only with [`has_room`](Self::has_room).
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_BYTES || !self.large.is_empty() {
            self.tail().extend_from_slice(&bytes);
        } else {
            self.large = bytes;
        }
    }

    fn poll_write(&mut self, io: &mut Box<dyn Io>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let small = &self.small[self.written..];
        let n = if self.large.is_empty() && self.after.is_empty() {
            ready!(Pin::new(io).poll_write(cx, small))?
        } else {
            let slices = [IoSlice::new(small), IoSlice::new(&self.large), IoSlice::new(&self.after)];
            let first = usize::from(small.is_empty());
            ready!(Pin::new(io).poll_write_vectored(cx, &slices[first..]))?
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(n);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, n: usize) {
        self.sent += n as u64;
        let from_small = n.min(self.small.len() - self.written);
        self.written += from_small;
        let from_large = (n - from_small).min(self.large.len());
        self.large.advance(from_large);
        if self.large.is_empty() {
            self.large = Bytes::new();
            self.after.drain(..n - from_small - from_large);
        }
        if self.written == self.small.len() {
            self.small.clear();
            self.written = 0;
            if self.large.is_empty() && !self.after.is_empty() {
                std::mem::swap(&mut self.small, &mut self.after);
            }
        }
    }

    /// Gives the buffers back to the worker.
    fn release(&mut self) {
        self.after = Vec::new();
        let small = std::mem::take(&mut self.small);
        self.written = 0;
        if (1..=SPARE_BYTES).contains(&small.capacity()) {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARE_BUFFERS {
                    spare.push(small);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_was_written_serves_the_next_message() {
        let mut output = Output::default();
        output.tail().extend_from_slice(b"head");
        let buffer = output.tail().as_ptr();
        output.advance(4);
        output.release();
        assert_eq!(Output::default().tail().as_ptr(), buffer);
    }

    #[test]
    fn pieces_leave_in_the_order_in_which_they_came() {
        let mut output = Output::default();
        output.tail().extend_from_slice(b"head");
        output.push(Bytes::from(vec![b'x'; COPY_BYTES + 1]));
        output.tail().extend_from_slice(b"tail");
        assert!(!output.has_room());
        let mut seen = Vec::new();
        while !output.is_empty() {
            let mut all = output.small[output.written..].to_vec();
            all.extend_from_slice(&output.large);
            all.extend_from_slice(&output.after);
            let n = all.len().min(3);
            seen.extend_from_slice(&all[..n]);
            output.advance(n);
        }
        assert_eq!(seen.len(), COPY_BYTES + 9);
        assert!(seen.starts_with(b"headx") && seen.ends_with(b"xtail"));
        assert_eq!(output.sent, seen.len() as u64);
    }
}
