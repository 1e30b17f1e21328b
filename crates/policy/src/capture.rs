// SPDX-License-Identifier: Apache-2.0
//! What is captured: which connections go to the proxy instead of staying in the kernel, why, and what the
//! proxy reads of them. The kernel's tables and the proxy both ask here, so that what the one redirects the
//! other serves.

use std::net::SocketAddr;

use weft_ebpf_common::Action;
use weft_ir::{AppProtocol, Direction, EndpointPort, Endpoints, Protocol, ServicePort};

use crate::{Decision, L7Policy};

mod services;

pub use services::{ServiceView, Services};

/// What becomes of the connections to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capture {
    /// Why they go to the proxy; nothing where they stay in the kernel.
    pub reason: Option<CaptureReason>,
    /// What the proxy reads of those that come to it.
    pub reading: Reading,
}

/// Why connections go to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CaptureReason {
    /// A route is attached to the port.
    Route,
    /// A rate limit on the Service counts requests.
    RateLimit,
    /// A policy of one end has rules about what is said on the connection: of the client (egress), or of
    /// the endpoint (ingress).
    Policy(Direction),
}

/// What the proxy reads of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// Requests, in the version of HTTP that the port declares.
    Declared(AppProtocol),
    /// Requests, in the version that the client's first bytes tell.
    Sniffed,
    /// Nothing: it relays bytes, and needs no parser that could break a protocol.
    Bytes,
}

impl Capture {
    /// Connections that nothing names.
    const NONE: Capture = Capture { reason: None, reading: Reading::Bytes };

    /// What becomes of connections to a port of a Service, before an endpoint is chosen.
    ///
    /// Routes and limits speak about requests, and so about TCP only. A route makes even a port declared as
    /// plain TCP one of requests; a limit does not, since it names the whole Service and would break that
    /// port's protocol.
    pub(crate) fn of_service_port(port: &ServicePort, routed: bool, limited: bool) -> Capture {
        let reason = match (port.protocol, port.app_protocol) {
            (Protocol::Udp | Protocol::Sctp, _) => None,
            (Protocol::Tcp, _) if routed => Some(CaptureReason::Route),
            (Protocol::Tcp, AppProtocol::Tcp) => None,
            (Protocol::Tcp, AppProtocol::Unknown | AppProtocol::Http | AppProtocol::Http2) => {
                limited.then_some(CaptureReason::RateLimit)
            }
        };
        let reading = match port.app_protocol {
            declared @ (AppProtocol::Http | AppProtocol::Http2) => Reading::Declared(declared),
            AppProtocol::Unknown | AppProtocol::Tcp => Reading::Sniffed,
        };
        reason.map_or(Capture::NONE, |reason| Capture { reason: Some(reason), reading })
    }

    /// What becomes of connections to a port of an endpoint, by what the client's egress policy and the
    /// endpoint's ingress policy say about them.
    pub fn of_endpoint_port(egress: &Decision, ingress: &Decision) -> Capture {
        let reading = |decision: &Decision| match (decision.verdict.action(), &decision.l7) {
            (Action::Redirect, Some(L7Policy::Http(_))) => Some(Reading::Sniffed),
            // The peer has to prove who it is, and may then say anything.
            (Action::Redirect, None) => Some(Reading::Bytes),
            (Action::Allow | Action::Deny, _) => None,
        };
        let (direction, reading) = match (reading(egress), reading(ingress)) {
            (Some(reading), _) => (Direction::Egress, reading),
            (None, Some(reading)) => (Direction::Ingress, reading),
            (None, None) => return Capture::NONE,
        };
        Capture { reason: Some(CaptureReason::Policy(direction)), reading }
    }

    /// Whether the kernel hands the connections to the proxy.
    pub fn is_redirected(&self) -> bool {
        self.reason.is_some()
    }
}

/// The endpoints of one address family that take connections to a port, sorted: those that are ready or,
/// where none is, those that still serve while they end (Kubernetes' ProxyTerminatingEndpoints, which
/// looks at each family by itself).
pub fn backends<'a>(
    port: &ServicePort,
    slices: impl Iterator<Item = &'a Endpoints>,
    ipv6: bool,
) -> Vec<SocketAddr> {
    let same = |candidate: &&EndpointPort| candidate.name == port.name && candidate.protocol == port.protocol;
    let (mut ready, mut ending) = (Vec::new(), Vec::new());
    for slice in slices {
        let Some(target) = slice.ports.iter().find(same) else { continue };
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv6() == ipv6) {
            let address = SocketAddr::new(endpoint.address, target.port);
            match (endpoint.ready, endpoint.serving && endpoint.terminating) {
                (true, _) => ready.push(address),
                (false, true) => ending.push(address),
                (false, false) => {}
            }
        }
    }
    let mut chosen = if ready.is_empty() { ending } else { ready };
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests;
