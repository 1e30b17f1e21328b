// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 (RFC 9112), and HTTP/1.0 from clients.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use weft_ebpf_common::reason::Reason;

use crate::{
    body::{Body, Frame},
    config::H1Config,
    error::{BodyError, Retry, UpstreamError},
    io::Io,
    message::{RequestHead, ResponseHead},
};

/// Takes back connections whose response was read to its end.
pub trait Recycle {
    /// The connection can carry another request.
    fn recycle(&self, upstream: H1Upstream);
}

/// A connection to an HTTP/1.1 server that carries one request at a time.
pub struct H1Upstream {
    _io: Box<dyn Io>,
}

impl H1Upstream {
    /// A client over a connected stream. `recycle` gets it back after each complete response.
    pub fn new(io: impl Io, _config: Rc<H1Config>, _recycle: Option<Rc<dyn Recycle>>) -> Self {
        H1Upstream { _io: Box::new(io) }
    }

    /// Whether the server has neither closed nor sent anything since the last response: ask before reuse.
    pub fn is_usable(&mut self) -> bool {
        true
    }

    /// Sends a request and waits for the head of the final response. The rest of the request's body is
    /// sent while the response's body is read. Dropping the future closes the connection.
    pub async fn send(self, _head: &RequestHead, body: Body) -> Result<(ResponseHead, Body), UpstreamError> {
        Err(UpstreamError {
            reason: Reason::Internal,
            detail: "not yet",
            retry: Retry::Safe,
            unsent_body: Some(body),
        })
    }
}

pub(crate) struct RequestBody;
pub(crate) struct ResponseBody;

macro_rules! stub {
    ($name:ident) => {
        impl $name {
            pub(crate) fn poll_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
                Poll::Ready(None)
            }
            pub(crate) fn content_length(&self) -> Option<u64> {
                None
            }
            pub(crate) fn is_end(&self) -> bool {
                true
            }
        }
    };
}
pub(crate) use stub;
stub!(RequestBody);
stub!(ResponseBody);
