// SPDX-License-Identifier: Apache-2.0
//! The loads that are sent as fast as answers come back: what one exchange is, and how many are under way.

use weft_benches::traffic;

/// The protocol of a load, on both sides of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in the clear, with prior knowledge.
    Http2,
}

impl Protocol {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    /// The name in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }

    /// The prefix that the route of each proxy matches.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Http1 => "/api",
            Self::Http2 => "/api.Items",
        }
    }

    /// The expression for the whole path in the policy of each proxy.
    pub(crate) fn allowed_path(self) -> &'static str {
        match self {
            Self::Http1 => "/api/.*",
            Self::Http2 => "/api[.]Items/.*",
        }
    }

    /// The path of the small answer.
    pub(crate) fn small_path(self) -> &'static str {
        match self {
            Self::Http1 => traffic::SMALL,
            Self::Http2 => traffic::GRPC_SMALL,
        }
    }

    /// The path whose answer is the head of the request, as it came to the origin.
    pub(crate) fn seen_path(self) -> &'static str {
        match self {
            Self::Http1 => traffic::SEEN,
            Self::Http2 => traffic::GRPC_SEEN,
        }
    }
}

/// A closed-loop load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// GET with a 1 KB answer, 64 connections.
    Http1,
    /// gRPC-like POST with trailers, 8 connections of 32 streams.
    Http2,
    /// Messages there and back, on one stream of each of 8 connections.
    GrpcStream,
    /// POST of 64 KB that is answered with as much, HTTP/1.1.
    Http1Body64k,
    /// POST of 1 MB that is answered with as much, HTTP/1.1.
    Http1Body1m,
    /// POST of 64 KB that is answered with as much, HTTP/2.
    Http2Body64k,
    /// POST of 1 MB that is answered with as much, HTTP/2.
    Http2Body1m,
    /// A connection for each request, HTTP/1.1.
    Http1Connections,
    /// A connection for each request, HTTP/2.
    Http2Connections,
}

/// Who sends it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Generator {
    /// h2load: this path, so many streams to a connection, a body of so many bytes.
    H2load { path: &'static str, streams: u32, body: Option<usize> },
    /// `weft-bench-load`, with this word.
    Own(&'static str),
}

impl Workload {
    /// The protocol on both sides of the proxy.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Http1 | Self::Http1Body64k | Self::Http1Body1m | Self::Http1Connections => Protocol::Http1,
            Self::Http2
            | Self::GrpcStream
            | Self::Http2Body64k
            | Self::Http2Body1m
            | Self::Http2Connections => Protocol::Http2,
        }
    }

    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::GrpcStream => "messages",
            Self::Http1Connections | Self::Http2Connections => "connections",
            _ => "requests",
        }
    }

    /// Who sends it.
    pub(crate) fn generator(self) -> Generator {
        let echo1 = |body| Generator::H2load { path: traffic::ECHO, streams: 1, body: Some(body) };
        let echo2 = |body| Generator::H2load { path: traffic::GRPC_ECHO, streams: 4, body: Some(body) };
        match self {
            Self::Http1 => Generator::H2load { path: traffic::SMALL, streams: 1, body: None },
            Self::Http2 => {
                Generator::H2load { path: traffic::GRPC_SMALL, streams: 32, body: Some(traffic::MESSAGE) }
            }
            Self::GrpcStream => Generator::Own("stream"),
            Self::Http1Body64k => echo1(64 << 10),
            Self::Http1Body1m => echo1(1 << 20),
            Self::Http2Body64k => echo2(64 << 10),
            Self::Http2Body1m => echo2(1 << 20),
            Self::Http1Connections => Generator::Own("http1-connection"),
            Self::Http2Connections => Generator::Own("http2-connection"),
        }
    }

    /// Connections, or clients that open one after the other.
    pub(crate) fn clients(self) -> u64 {
        match self {
            Self::Http1 => 64,
            Self::Http2 | Self::GrpcStream => 8,
            Self::Http1Body64k | Self::Http1Connections | Self::Http2Connections => 16,
            Self::Http2Body64k | Self::Http1Body1m => 4,
            Self::Http2Body1m => 2,
        }
    }

    /// Exchanges after which a proxy has its connections and its caches: about a tenth of a second of a
    /// slow one.
    pub(crate) fn warm_up(self) -> u64 {
        match self {
            Self::Http1 | Self::Http2 => 2_000,
            Self::GrpcStream => 8_000,
            Self::Http1Connections | Self::Http2Connections => 500,
            Self::Http1Body64k | Self::Http2Body64k => 200,
            Self::Http1Body1m | Self::Http2Body1m => 20,
        }
    }

    /// Whether a relay does the least that a proxy can do for it. Where each request has a connection, it
    /// opens another to the origin, and a proxy does not.
    pub(crate) fn has_floor(self) -> bool {
        !matches!(self, Self::Http1Connections | Self::Http2Connections)
    }
}
