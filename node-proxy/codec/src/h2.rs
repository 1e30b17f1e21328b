// SPDX-License-Identifier: Apache-2.0
//! HTTP/2 (RFC 9113), on the `h2` crate.

use std::{
    future::Future,
    rc::Rc,
    task::{Context, Poll},
};

use weft_ebpf_common::reason::Reason;

use crate::{
    body::{Body, Frame},
    config::H2Config,
    error::{BodyError, Retry, UpstreamError},
    io::Io,
    message::{RequestHead, ResponseHead},
};

/// A connection to an HTTP/2 server that carries many requests; clones share it.
#[derive(Clone)]
pub struct H2Upstream {
    _config: Rc<H2Config>,
}

impl H2Upstream {
    /// Starts HTTP/2 on a connected stream (prior knowledge or ALPN). The second value drives the
    /// connection: spawn it on the worker; it ends with the connection.
    pub async fn handshake(
        _io: impl Io,
        config: Rc<H2Config>,
    ) -> Result<(H2Upstream, impl Future<Output = ()> + 'static), UpstreamError> {
        Ok((H2Upstream { _config: config }, std::future::ready(())))
    }

    /// Whether the connection takes another request now: no GOAWAY, and a stream is free.
    pub fn is_usable(&self) -> bool {
        true
    }

    /// Streams that are open.
    pub fn active_streams(&self) -> usize {
        0
    }

    /// Sends a request and waits for the head of the response. The rest of the request's body is sent
    /// while the response's body is read. Dropping the future resets the stream with CANCEL.
    pub async fn send(&self, _head: &RequestHead, body: Body) -> Result<(ResponseHead, Body), UpstreamError> {
        Err(UpstreamError {
            reason: Reason::Internal,
            detail: "not yet",
            retry: Retry::Safe,
            unsent_body: Some(body),
        })
    }
}

pub(crate) struct H2RequestBody;
pub(crate) struct H2ResponseBody;
crate::h1::stub!(H2RequestBody);
crate::h1::stub!(H2ResponseBody);
