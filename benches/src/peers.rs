// SPDX-License-Identifier: Apache-2.0
//! The proxies: each is started with the same route and the same policy in front of the same origin.

use std::net::SocketAddr;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use crate::load::Shape;
use crate::process::Process;

pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod weft;

/// A proxy to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PeerName {
    /// Envoy 1.40, one worker: the base of all ratios.
    Envoy,
    /// HAProxy 2.6, one thread.
    Haproxy,
    /// Weft, one worker, as an ordinary gateway: no kernel part.
    Weft,
}

impl PeerName {
    /// All of them; ratios are to the first.
    pub(crate) const ALL: [Self; 3] = [Self::Envoy, Self::Haproxy, Self::Weft];

    /// The name in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
            Self::Weft => "Weft",
        }
    }

    /// Starts the proxy for `shape` in front of `origin`; its files go to `folder`.
    pub(crate) fn start(self, setup: &Setup<'_>) -> anyhow::Result<Running> {
        match self {
            Self::Envoy => envoy::start(setup),
            Self::Haproxy => haproxy::start(setup),
            Self::Weft => weft::start(setup),
        }
    }
}

/// What a proxy is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// Protocol on both sides.
    pub(crate) shape: Shape,
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
