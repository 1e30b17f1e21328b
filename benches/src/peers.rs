// SPDX-License-Identifier: Apache-2.0
//! The proxies: each is started with the same route and the same policy in front of the same origin.

use std::net::SocketAddr;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use crate::process::Process;
use crate::workload::Protocol;

pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod relay;
pub(crate) mod weft;

/// A proxy to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PeerName {
    /// Envoy 1.40, one worker.
    Envoy,
    /// HAProxy 2.6, one thread.
    Haproxy,
    /// Weft, one worker, as an ordinary gateway: no kernel part.
    Weft,
    /// A byte relay without any work of its own: the floor for a process with sockets.
    Relay,
    /// The same relay, whose set of sockets lies in tokio's as one descriptor.
    RelayInTokio,
    /// A relay of tokio's tasks and tokio's set of sockets.
    RelayTokio,
}

impl PeerName {
    /// Those that take part where none is named. What ways to wait for sockets cost is a question of its own.
    pub(crate) const USUAL: [Self; 4] = [Self::Envoy, Self::Haproxy, Self::Weft, Self::Relay];

    /// The name in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
            Self::Weft => "Weft",
            Self::Relay => "relay",
            Self::RelayInTokio => "relay, in tokio",
            Self::RelayTokio => "relay of tokio",
        }
    }

    /// Whether it routes and decides, and so is a proxy to compare with.
    pub(crate) fn is_proxy(self) -> bool {
        matches!(self, Self::Envoy | Self::Haproxy | Self::Weft)
    }

    /// Starts the proxy in front of the origin.
    pub(crate) fn start(self, setup: &Setup<'_>) -> anyhow::Result<Running> {
        match self {
            Self::Envoy => envoy::start(setup),
            Self::Haproxy => haproxy::start(setup),
            Self::Weft => weft::start(setup),
            Self::Relay => relay::start(setup, "weft-bench-relay", &[]),
            Self::RelayInTokio => relay::start(setup, "weft-bench-relay", &["--in-tokio"]),
            Self::RelayTokio => relay::start(setup, "weft-bench-relay-tokio", &[]),
        }
    }
}

/// What a proxy is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// Protocol on both sides.
    pub(crate) protocol: Protocol,
    /// Where the origin listens for that protocol.
    pub(crate) origin: SocketAddr,
    /// A folder for configuration and logs, of this proxy alone.
    pub(crate) folder: &'a Path,
    /// Words in front of the proxy's own command line, such as valgrind's.
    pub(crate) prefix: &'a [&'a str],
}

/// A proxy that accepts connections.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The process that carries the traffic.
    pub(crate) process: Process,
    /// Processes that it needs, but that carry no traffic.
    pub(crate) _beside: Vec<Process>,
}
