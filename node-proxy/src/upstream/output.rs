// SPDX-License-Identifier: Apache-2.0
//! What is to be written to a socket, and the buffers for it, which the worker lends: a connection that
//! has nothing to say holds none.

use std::io::{self, IoSlice, Write};

/// Buffers that a worker keeps for connections that will need one.
const KEPT: usize = 256;
/// A buffer that has grown beyond this is freed, not kept.
const KEPT_BYTES: usize = 64 * 1024;
/// What a new buffer has room for: a response of the common size.
const FIRST_BYTES: usize = 2048;

/// Content of this many bytes is offered to the socket where it was read: to copy it costs more than the system
/// call that it may save.
const DIRECT: usize = 16 * 1024;

/// Content of this many bytes is seldom alone: a buffer that takes it has room for as much as a read gives from the
/// start, so that it need not grow and be copied with each further piece.
pub(crate) const LARGE: usize = 4 * 1024;
/// What such a buffer has room for: 64 KiB of content, and what frames and heads add to it.
const LARGE_BYTES: usize = 68 * 1024;

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// An empty buffer.
    pub(crate) fn lend(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(FIRST_BYTES))
    }

    /// Takes a buffer back.
    pub(crate) fn take_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= KEPT_BYTES && self.0.len() < KEPT {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    /// The buffer to append to.
    pub(crate) fn buffer(&mut self, buffers: &mut Buffers) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = buffers.lend();
        }
        &mut self.bytes
    }

    /// The same, with room for content of this many bytes and for more of it.
    pub(crate) fn buffer_for(&mut self, content: usize, buffers: &mut Buffers) -> &mut Vec<u8> {
        let bytes = self.buffer(buffers);
        if content >= LARGE && bytes.capacity() < LARGE_BYTES {
            bytes.reserve_exact(LARGE_BYTES - bytes.len());
        }
        bytes
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends content, and what follows it. A large piece is offered to the socket at once, where that may take
    /// something, so that only what it does not take is copied; says whether it took anything. An error of the
    /// socket shows when the rest is written.
    pub(crate) fn pass(
        &mut self,
        content: &[u8],
        behind: &[u8],
        socket: Option<&mut impl Write>,
        buffers: &mut Buffers,
    ) -> bool {
        let parts = [&self.bytes[self.written..], content, behind];
        let waiting = parts[0].len();
        let taken = match socket {
            Some(socket) if content.len() >= DIRECT => {
                socket.write_vectored(&parts.map(IoSlice::new)).unwrap_or(0)
            }
            _ => 0,
        };
        if taken >= waiting {
            self.bytes.clear();
            self.written = 0;
        } else {
            self.written += taken;
        }
        let mut left = taken.saturating_sub(waiting);
        for part in [content, behind] {
            let rest = &part[left.min(part.len())..];
            left -= part.len() - rest.len();
            if !rest.is_empty() {
                self.buffer(buffers).extend_from_slice(rest);
            }
        }
        taken > 0
    }

    /// Writes as much as the socket takes; how much that was, and whether it would take more.
    pub(crate) fn write(
        &mut self,
        socket: &mut impl Write,
        buffers: &mut Buffers,
    ) -> io::Result<(usize, bool)> {
        let before = self.written;
        while self.written < self.bytes.len() {
            match socket.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let count = self.written - before;
                    self.forget_written();
                    return Ok((count, false));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let count = self.written - before;
        self.discard(buffers);
        Ok((count, true))
    }

    /// Makes room where most of the buffer was written: a reader that never quite keeps up must not make it
    /// grow.
    fn forget_written(&mut self) {
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Forgets what waits.
    pub(crate) fn discard(&mut self, buffers: &mut Buffers) {
        self.written = 0;
        buffers.take_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then no more.
    struct Narrow(usize, Vec<u8>);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0).min(3);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0 -= count;
            self.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn content_goes_out_behind_what_waits_and_what_is_not_taken_is_kept() {
        /// Takes so many bytes at once, and then no more.
        struct Wide(usize, Vec<u8>);
        impl Write for Wide {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.write_vectored(&[IoSlice::new(bytes)])
            }

            fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
                let all = parts.iter().flat_map(|part| part.iter()).take(std::mem::take(&mut self.0));
                let before = self.1.len();
                self.1.extend(all);
                match self.1.len() - before {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    count => Ok(count),
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let content: Vec<u8> = (0..DIRECT).map(|at| at as u8).collect();
        let wanted = [b"head", &content[..], b"\r\n"].concat();
        for room in [0, 1, 3, 4, 5, DIRECT + 3, DIRECT + 4, DIRECT + 5, DIRECT + 6, 2 * DIRECT] {
            let (mut buffers, mut output) = (Buffers::default(), Output::default());
            let mut socket = Wide(room, Vec::new());
            output.buffer(&mut buffers).extend_from_slice(b"head");
            assert_eq!(output.pass(&content, b"\r\n", Some(&mut socket), &mut buffers), room > 0);
            assert_eq!(output.len(), wanted.len().saturating_sub(room), "{room}");
            socket.0 = usize::MAX;
            output.write(&mut socket, &mut buffers).expect("written");
            assert!(socket.1 == wanted && output.is_empty(), "{room}");
        }
    }

    #[test]
    fn what_a_socket_does_not_take_waits_in_order() {
        let (mut buffers, mut output) = (Buffers::default(), Output::default());
        let mut socket = Narrow(7, Vec::new());
        output.buffer(&mut buffers).extend_from_slice(b"0123456789");
        assert_eq!(output.write(&mut socket, &mut buffers).expect("written"), (7, false));
        output.buffer(&mut buffers).extend_from_slice(b"ab");
        socket.0 = 100;
        assert_eq!(output.write(&mut socket, &mut buffers).expect("written"), (5, true));
        assert_eq!(socket.1, b"0123456789ab");
        assert!(output.is_empty() && output.bytes.capacity() == 0, "the buffer went back");
        assert_eq!(buffers.0.len(), 1);
    }
}
