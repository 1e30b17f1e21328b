// SPDX-License-Identifier: Apache-2.0
//! Tells HTTP/2 from HTTP/1.1 by the first bytes.

use std::{future::poll_fn, rc::Rc, task::Poll};

use bytes::BytesMut;
use http::StatusCode;
use weft_ebpf_common::reason::Reason;

use crate::{
    config::{Protocols, ServerConfig},
    drain::Drain,
    error::ProtocolError,
    h1, h2,
    handler::{Handler, Served},
    io::{Io, RawStream, poll_read_into},
    timer::Timer,
};

/// The first bytes of an HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until the protocol is known, and serves it.
pub(crate) async fn serve<H: Handler>(
    io: Box<dyn Io>,
    config: Rc<ServerConfig>,
    handler: Rc<H>,
    drain: Drain,
) -> Served {
    match config.protocols {
        Protocols::Http1 => return h1::serve(io, BytesMut::new(), config, handler, drain).await,
        Protocols::Http2 => return Box::pin(h2::serve(io, config, handler, drain)).await,
        Protocols::Sniff => {}
    }
    let mut first = First { io: Some(io), input: BytesMut::new(), timer: Timer::default() };
    match first.read(&config, &drain).await {
        Sniffed::Http1(io, input) => h1::serve(io, input, config, handler, drain).await,
        Sniffed::Http2(io, input) => {
            let io = Box::new(RawStream::new(io, input.freeze()));
            // On the heap: most connections speak HTTP/1.1, and wait most of the time.
            Box::pin(h2::serve(io, config, handler, drain)).await
        }
        Sniffed::Close => Served { requests: 0, failure: None },
        Sniffed::Failed(error) => {
            handler.on_protocol_error(&error);
            Served { requests: 0, failure: Some(error.reason) }
        }
    }
}

enum Sniffed {
    Http1(Box<dyn Io>, BytesMut),
    Http2(Box<dyn Io>, BytesMut),
    Close,
    Failed(ProtocolError),
}

struct First {
    io: Option<Box<dyn Io>>,
    input: BytesMut,
    timer: Timer,
}

impl First {
    async fn read(&mut self, config: &ServerConfig, drain: &Drain) -> Sniffed {
        poll_fn(|cx| {
            loop {
                let Some(io) = &mut self.io else { return Poll::Ready(Sniffed::Close) };
                let seen = self.input.len().min(PREFACE.len());
                if !self.input.is_empty() && (self.input[..seen] != PREFACE[..seen] || seen == PREFACE.len())
                {
                    let is_h2 = self.input[..seen] == PREFACE[..seen];
                    let input = std::mem::take(&mut self.input);
                    let Some(io) = self.io.take() else { return Poll::Ready(Sniffed::Close) };
                    return Poll::Ready(if is_h2 {
                        Sniffed::Http2(io, input)
                    } else {
                        Sniffed::Http1(io, input)
                    });
                }
                if self.input.is_empty() && drain.poll_draining(cx).is_ready() {
                    return Poll::Ready(Sniffed::Close);
                }
                match poll_read_into(io, cx, PREFACE_READ, &mut self.input) {
                    Poll::Ready(Ok(0)) if self.input.is_empty() => return Poll::Ready(Sniffed::Close),
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Sniffed::Failed(CLOSED)),
                    Poll::Ready(Ok(_)) => self.timer.clear(),
                    Poll::Pending => {
                        let idle = self.input.is_empty();
                        let timeout = if idle { config.h1.idle_timeout } else { config.h1.head_timeout };
                        if !self.timer.poll_expired(cx, timeout) {
                            return Poll::Pending;
                        }
                        return Poll::Ready(if idle { Sniffed::Close } else { Sniffed::Failed(TIMED_OUT) });
                    }
                }
            }
        })
        .await
    }
}

/// Bytes read at once; a whole first request is wanted with its first bytes.
const PREFACE_READ: usize = 16 * 1024;

const CLOSED: ProtocolError =
    ProtocolError::silent(Reason::ClientReset, "the client closed inside the first bytes");
const TIMED_OUT: ProtocolError = ProtocolError {
    reason: Reason::RequestTimeout,
    status: None::<StatusCode>,
    detail: "the first bytes did not arrive within the time allowed",
};
