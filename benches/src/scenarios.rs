// SPDX-License-Identifier: Apache-2.0
//! What can be measured.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use tempfile::TempDir;

use crate::load::Shape;
use crate::peers::{PeerName, Running, Setup};
use crate::process::{self, LOAD_CORE, Process, beside};
use crate::report::Table;

mod connect;
mod instructions;
mod memory;
mod paced;
mod saturated;

/// A scenario of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// HTTP/1.1 with a route and a policy, 64 connections, as fast as it goes.
    Http1,
    /// HTTP/2, gRPC-like, 8 connections of 32 streams, as fast as it goes.
    Http2,
    /// HTTP/1.1 at 3,000 requests a second: latency, and CPU time at low load.
    Paced,
    /// Memory after the start and with 1,000 idle connections.
    Memory,
    /// Time of connect(2) to a ClusterIP, with 10 and with 10,000 services (root).
    Connect,
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
    /// The proxies; ratios are to the first.
    pub(crate) peers: Vec<PeerName>,
}

impl Scenario {
    /// All of them, in the order in which they are run.
    pub(crate) const ALL: [Self; 6] =
        [Self::Http1, Self::Http2, Self::Paced, Self::Memory, Self::Connect, Self::Instructions];

    /// A headline.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1, route and policy, one core, 64 connections, saturated",
            Self::Http2 => "HTTP/2, gRPC-like, route and policy, one core, 8 x 32 streams, saturated",
            Self::Paced => "HTTP/1.1, route and policy, one core, 3,000 requests/s",
            Self::Memory => "memory",
            Self::Connect => "connect(2) to a ClusterIP",
            Self::Instructions => "user instructions per request (callgrind)",
        }
    }

    /// Measures.
    pub(crate) fn run(self, options: &Options) -> anyhow::Result<Table> {
        match self {
            Self::Http1 => saturated::run(self.title(), Shape::Http1, options),
            Self::Http2 => saturated::run(self.title(), Shape::Http2, options),
            Self::Paced => paced::run(self.title(), options),
            Self::Memory => memory::run(self.title(), options),
            Self::Connect => connect::run(self.title(), options),
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
        let [http1, http2] = process::free_addresses()?;
        let program = beside("weft-bench-origin")?;
        let log = folder.path().join("origin.log");
        let command = [&*program.to_string_lossy(), &http1.to_string(), &http2.to_string()];
        let mut origin = Process::start(LOAD_CORE, &command, &log)?;
        origin.wait_for(http1, &log)?;
        Ok(Self { folder, http1, http2, origin })
    }

    /// Starts a proxy; `prefix` are words in front of its command line.
    fn proxy(&self, peer: PeerName, shape: Shape, prefix: &[&str]) -> anyhow::Result<Running> {
        let folder = self.folder.path().join(peer.label());
        std::fs::create_dir_all(&folder)?;
        let origin = match shape {
            Shape::Http1 => self.http1,
            Shape::Http2 => self.http2,
        };
        let setup = Setup { shape, origin, folder: &folder, prefix };
        peer.start(&setup).with_context(|| format!("cannot start {}", peer.label()))
    }

    /// A folder for files of this run.
    fn folder(&self) -> &Path {
        self.folder.path()
    }
}
