// SPDX-License-Identifier: Apache-2.0
//! What can be measured.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use tempfile::TempDir;

use crate::peers::{PeerName, Running, Setup};
use crate::process::{self, LOAD_CORE, Process, beside};
use crate::report::Table;
use crate::workload::{Protocol, Workload};

mod compare;
mod connect;
pub(crate) mod instructions;
mod memory;
mod paced;
mod path;
mod same_work;
mod saturated;

/// A scenario of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Whether every proxy does the same: what the origin and the client see, and what is refused.
    SameWork,
    /// HTTP/1.1 with a route and a policy, 64 connections, as fast as it goes.
    Http1,
    /// HTTP/2, gRPC-like, 8 connections of 32 streams, as fast as it goes.
    Http2,
    /// gRPC messages in both directions, on one stream of each of 8 connections, as fast as it goes.
    GrpcStream,
    /// HTTP/1.1, bodies of 64 KB in both directions.
    #[value(name = "http1-64k")]
    Http1Body64k,
    /// HTTP/1.1, bodies of 1 MB in both directions.
    #[value(name = "http1-1m")]
    Http1Body1m,
    /// HTTP/2, bodies of 64 KB in both directions.
    #[value(name = "http2-64k")]
    Http2Body64k,
    /// HTTP/2, bodies of 1 MB in both directions.
    #[value(name = "http2-1m")]
    Http2Body1m,
    /// HTTP/1.1, a new connection for each request.
    Http1Connections,
    /// HTTP/2, a new connection for each request.
    Http2Connections,
    /// HTTP/1.1 at 3,000 requests a second: latency, and CPU time at low load.
    Paced,
    /// Memory after the start, and with 1,000 idle connections of each version.
    Memory,
    /// Time of connect(2) to a ClusterIP, with 10 and with 10,000 services (root).
    Connect,
    /// CPU time of a UDP datagram from pod to pod (root).
    Datagram,
    /// CPU time of 64 KB from pod to pod by TCP (root).
    Stream,
    /// CPU time of a request and its answer from pod to pod by TCP (root).
    Rr,
    /// CPU time of a connection from pod to pod (root).
    New,
    /// User instructions per request, counted by callgrind.
    Instructions,
}

/// How to measure.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Rounds over all proxies.
    pub(crate) rounds: u32,
    /// Short windows.
    pub(crate) quick: bool,
    /// The proxies.
    pub(crate) peers: Vec<PeerName>,
}

impl Options {
    /// Those of the peers that route and decide.
    fn proxies(&self) -> impl Iterator<Item = PeerName> {
        self.peers.iter().copied().filter(|peer| peer.is_proxy())
    }
}

impl Scenario {
    /// A headline.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::SameWork => "the same work for every proxy",
            Self::Http1 => "HTTP/1.1, route and policy, one core, 64 connections, saturated",
            Self::Http2 => "HTTP/2, gRPC-like, route and policy, one core, 8 x 32 streams, saturated",
            Self::GrpcStream => "gRPC, messages in both directions on 8 streams, one core, saturated",
            Self::Http1Body64k => "HTTP/1.1, bodies of 64 KB there and back, one core, saturated",
            Self::Http1Body1m => "HTTP/1.1, bodies of 1 MB there and back, one core, saturated",
            Self::Http2Body64k => "HTTP/2, bodies of 64 KB there and back, one core, saturated",
            Self::Http2Body1m => "HTTP/2, bodies of 1 MB there and back, one core, saturated",
            Self::Http1Connections => "HTTP/1.1, a connection for each request, one core, saturated",
            Self::Http2Connections => "HTTP/2, a connection for each request, one core, saturated",
            Self::Paced => "HTTP/1.1, route and policy, one core, 3,000 requests/s, open loop",
            Self::Memory => "memory",
            Self::Connect => "connect(2) to a ClusterIP",
            Self::Datagram => "a datagram from pod to pod",
            Self::Stream => "64 KB from pod to pod by TCP",
            Self::Rr => "a request from pod to pod by TCP",
            Self::New => "a new connection from pod to pod",
            Self::Instructions => "user instructions per exchange (callgrind)",
        }
    }

    /// Measures.
    pub(crate) fn run(self, options: &Options) -> anyhow::Result<Table> {
        let saturated = |workload| saturated::run(self.title(), workload, options);
        match self {
            Self::SameWork => same_work::run(self.title(), options),
            Self::Http1 => saturated(Workload::Http1),
            Self::Http2 => saturated(Workload::Http2),
            Self::GrpcStream => saturated(Workload::GrpcStream),
            Self::Http1Body64k => saturated(Workload::Http1Body64k),
            Self::Http1Body1m => saturated(Workload::Http1Body1m),
            Self::Http2Body64k => saturated(Workload::Http2Body64k),
            Self::Http2Body1m => saturated(Workload::Http2Body1m),
            Self::Http1Connections => saturated(Workload::Http1Connections),
            Self::Http2Connections => saturated(Workload::Http2Connections),
            Self::Paced => paced::run(self.title(), options),
            Self::Memory => memory::run(self.title(), options),
            Self::Connect => connect::run(self.title(), options),
            Self::Datagram => path::run(self.title(), path::Load::Datagram, options),
            Self::Stream => path::run(self.title(), path::Load::Stream, options),
            Self::Rr => path::run(self.title(), path::Load::Rr, options),
            Self::New => path::run(self.title(), path::Load::New, options),
            Self::Instructions => instructions::run(self.title(), options),
        }
    }
}

/// The origin and a folder for files; proxies are started in front of it.
struct Bench {
    folder: TempDir,
    http1: SocketAddr,
    http2: SocketAddr,
    origin: Process,
}

impl Bench {
    /// Starts the origin on the core of the load.
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let [http1, http2] = process::free_addresses_of(process::own_address()?)?;
        let program = beside("weft-bench-origin")?;
        let log = folder.path().join("origin.log");
        let command = [&*program.to_string_lossy(), &http1.to_string(), &http2.to_string()];
        let mut origin = Process::start(LOAD_CORE, &command, &log)?;
        origin.wait_for(http1, &log)?;
        Ok(Self { folder, http1, http2, origin })
    }

    /// Where the origin listens.
    fn origin(&self, protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Http1 => self.http1,
            Protocol::Http2 => self.http2,
        }
    }

    /// Starts a proxy, which is called `label`; `prefix` are words in front of its command line.
    fn proxy(
        &self,
        peer: PeerName,
        label: &str,
        protocol: Protocol,
        prefix: &[&str],
    ) -> anyhow::Result<Running> {
        let folder = self.folder.path().join(format!("{label} {}", protocol.label().replace('/', "-")));
        std::fs::create_dir_all(&folder)?;
        let setup = Setup { protocol, origin: self.origin(protocol), folder: &folder, prefix };
        peer.start(&setup).with_context(|| format!("cannot start {label}"))
    }

    /// A folder for files of this run.
    fn folder(&self) -> &Path {
        self.folder.path()
    }
}
