// SPDX-License-Identifier: Apache-2.0
//! What is written behind a head, to either side and in either version.

use mio::net::TcpStream;
use weft_ebpf_common::reason::Reason;
use weft_http::{
    error::Error,
    h1,
    h2::{self, SendError, StreamId},
    head::Head,
};

use crate::upstream::output::{Buffers, Output};

/// The two ends of HTTP/1.1, which write content in the same way.
pub(crate) trait Http1 {
    /// Writes what stands before so many bytes of content; yields what stands behind them, and nothing if they are
    /// not to be written.
    fn open_data(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<Option<&'static [u8]>, Error>;
    /// Ends the message.
    fn finish(&mut self, trailers: Option<&Head>, out: &mut Vec<u8>) -> Result<(), Error>;
}

impl Http1 for h1::Server {
    fn open_data(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<Option<&'static [u8]>, Error> {
        self.open_data(bytes, out)
    }

    fn finish(&mut self, trailers: Option<&Head>, out: &mut Vec<u8>) -> Result<(), Error> {
        match trailers {
            Some(trailers) => self.send_trailers(trailers, out),
            None => self.finish(out),
        }
    }
}

impl Http1 for h1::Client {
    fn open_data(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<Option<&'static [u8]>, Error> {
        self.open_data(bytes, out)
    }

    fn finish(&mut self, trailers: Option<&Head>, out: &mut Vec<u8>) -> Result<(), Error> {
        match trailers {
            Some(trailers) => self.send_trailers(trailers, out),
            None => self.finish(out),
        }
    }
}

/// What is spoken on a connection, as far as content goes.
pub(crate) enum Spoken<'a, H> {
    /// HTTP/1.1.
    H1(&'a mut H),
    /// A stream of HTTP/2.
    H2(&'a mut h2::Connection, StreamId),
    /// Bytes of a request that has switched; whether its end is to be sent behind what was written.
    Switched(&'a mut bool),
    /// Nothing that content belongs to.
    Other,
}

/// Where a connection's bytes go.
pub(crate) struct Line<'a> {
    /// What is to be written.
    pub(crate) output: &'a mut Output,
    /// What it is written to, where that may take something now.
    pub(crate) socket: Option<&'a mut TcpStream>,
    /// Lends room.
    pub(crate) buffers: &'a mut Buffers,
}

/// What became of a piece of content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// How much of it was taken.
    pub(crate) taken: usize,
    /// The socket took bytes at once.
    pub(crate) at_once: bool,
}

impl Line<'_> {
    /// Writes bytes, and those that follow them.
    fn pass(self, data: &[u8], behind: &[u8]) -> Written {
        let at_once = self.output.pass(data, behind, self.socket, self.buffers);
        Written { taken: data.len(), at_once }
    }
}

impl<H: Http1> Spoken<'_, H> {
    /// Writes a piece of content, the last where it ends.
    pub(crate) fn data(self, data: &[u8], end: bool, line: Line<'_>) -> Result<Written, Reason> {
        let out = line.output.buffer(line.buffers);
        match self {
            Spoken::H1(http1) => Ok(match http1.open_data(data.len(), out).map_err(reason)? {
                Some(behind) => line.pass(data, behind),
                None => Written { taken: data.len(), at_once: false },
            }),
            Spoken::H2(connection, stream) => {
                let out = line.output.buffer_for(data.len(), line.buffers);
                let taken = connection.send_data(stream, data, end, out).map_err(unsent)?;
                Ok(Written { taken, at_once: false })
            }
            Spoken::Switched(ended) => {
                *ended |= end;
                Ok(line.pass(data, b""))
            }
            Spoken::Other => Err(Reason::Internal),
        }
    }

    /// Ends what is written.
    pub(crate) fn finish(self, trailers: Option<&Head>, out: &mut Vec<u8>) -> Result<(), Reason> {
        match (self, trailers) {
            (Spoken::H1(http1), trailers) => http1.finish(trailers, out).map_err(reason),
            (Spoken::H2(connection, stream), Some(trailers)) => {
                connection.send_trailers(stream, trailers, out).map_err(unsent)
            }
            (Spoken::H2(connection, stream), None) => {
                connection.send_data(stream, b"", true, out).map(|_| ()).map_err(unsent)
            }
            (Spoken::Switched(ended), _) => {
                *ended = true;
                Ok(())
            }
            (Spoken::Other, _) => Err(Reason::Internal),
        }
    }
}

/// Why HTTP/1.1 could not be written.
pub(crate) fn reason(error: Error) -> Reason {
    error.reason
}

/// Why HTTP/2 could not be written.
pub(crate) fn unsent(error: SendError) -> Reason {
    match error {
        SendError::Gone => Reason::ClientReset,
        SendError::OutOfOrder => Reason::Internal,
        SendError::TooLarge => Reason::UpstreamProtocol,
    }
}
