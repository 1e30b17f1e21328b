// SPDX-License-Identifier: Apache-2.0
//! Requests and responses as the proxy sees them, whatever version they came in.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Version};
use weft_ebpf_common::reason::Reason;

use crate::{body::Body, headers::Headers, io::RawStream};

/// The head of a request, without framing and without connection-specific fields.
///
/// `Host` and `:authority` are both in [`authority`](Self::authority) and never among the headers.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method; CONNECT never reaches a handler.
    pub method: Method,
    /// Path and query exactly as received (no decoding, no dot removal); `*` for `OPTIONS *`.
    pub target: PathAndQuery,
    /// Host and port; none for an HTTP/1.0 request or an empty `Host` (RFC 9110 section 7.2).
    pub authority: Option<Authority>,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// The version that the client spoke.
    pub version: Version,
    /// End-to-end fields, and `te: trailers`.
    pub headers: Headers,
    /// The protocols that the client offers to switch to (`Upgrade`, RFC 9110 section 7.8). What is
    /// here when the head is sent to an HTTP/1.1 upstream is offered to it.
    pub upgrade: Option<Bytes>,
}

impl RequestHead {
    /// A head with this method, target and authority, HTTP/1.1, scheme `http` and no fields.
    pub fn new(method: Method, target: PathAndQuery, authority: Option<Authority>) -> Self {
        RequestHead {
            method,
            target,
            authority,
            scheme: Scheme::HTTP,
            version: Version::HTTP_11,
            headers: Headers::default(),
            upgrade: None,
        }
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// The query, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }
}

/// A request with its body.
#[derive(Debug)]
pub struct Request {
    /// Everything before the body.
    pub head: RequestHead,
    /// The content, streamed from the connection.
    pub body: Body,
}

/// The head of a response, without framing and without connection-specific fields.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The final status (never 1xx, except 101).
    pub status: StatusCode,
    /// The version that the server spoke.
    pub version: Version,
    /// End-to-end fields. `content-length` stays here for HEAD and 304, where there is no body.
    pub headers: Headers,
    /// The protocol that the server switched to, with status 101.
    pub upgrade: Option<Bytes>,
}

impl ResponseHead {
    /// A head with this status and no fields.
    pub fn new(status: StatusCode) -> Self {
        ResponseHead { status, version: Version::HTTP_11, headers: Headers::default(), upgrade: None }
    }
}

/// What happens on the client's connection after a 101 was sent: gets the raw stream.
pub type OnUpgrade = Box<dyn FnOnce(RawStream) -> Pin<Box<dyn Future<Output = ()>>>>;

/// A response with its body, and what the proxy wants to hear about its delivery.
pub struct Response {
    /// Everything before the body.
    pub head: ResponseHead,
    /// The content.
    pub body: Body,
    /// Is told how the delivery ended; dropped unheard when the connection is dropped.
    pub observer: Option<Box<dyn Observer>>,
    /// With status 101: takes over the client's raw stream. Without it, and with the body of a
    /// switched upstream, the codec relays the two streams itself.
    pub on_upgrade: Option<OnUpgrade>,
    /// Close the client's connection after this response.
    pub close: bool,
}

impl Response {
    /// A response without observer.
    pub fn new(head: ResponseHead, body: Body) -> Self {
        Response { head, body, observer: None, on_upgrade: None, close: false }
    }

    /// A response with this status and no body.
    pub fn empty(status: StatusCode) -> Self {
        Response::new(ResponseHead::new(status), Body::empty())
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("head", &self.head).field("body", &self.body).finish_non_exhaustive()
    }
}

/// How the delivery of a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes of content written to the client's connection.
    pub sent_bytes: u64,
    /// Bytes of the request's content that were read from it.
    pub received_bytes: u64,
    /// None: complete. Else why it was cut: the client's doing, or the body's error.
    pub failure: Option<Reason>,
}

/// Hears how the delivery of one response ended.
pub trait Observer {
    /// Called once, when the last byte was handed to the connection or the response was cut.
    fn delivered(self: Box<Self>, delivery: Delivery);
}
