// SPDX-License-Identifier: Apache-2.0
//! Names for addresses, and for the ends of flows.

use std::{net::IpAddr, sync::Arc};

use weft_ebpf_common::reason::Reason;
use weft_ir::{Direction, IdentityNumber};
use weft_policy::{Directory, Party};
use weft_time::Timestamp;

use crate::{Event, Flow, FlowEndpoint, IpProtocol, L4, TcpFlags, Verdict};

/// What was seen of a flow, before its ends have names.
#[derive(Clone, Debug)]
pub struct UnnamedFlow {
    /// When.
    pub time: Timestamp,
    /// What happened.
    pub event: Event,
    /// What was done.
    pub verdict: Verdict,
    /// Why not.
    pub reason: Option<Reason>,
    /// The direction of the connection.
    pub direction: Direction,
    /// Address, port and identity of the sender.
    pub source: UnnamedEnd,
    /// Address, port and identity of the receiver.
    pub destination: UnnamedEnd,
    /// The address and port that the client asked for, where that was a service's.
    pub service: Option<(IpAddr, u16)>,
    /// The protocol.
    pub protocol: IpProtocol,
    /// TCP flags of the packet.
    pub flags: TcpFlags,
    /// Whether the packet answers something.
    pub is_reply: Option<bool>,
    /// The policies that decided (`namespace/name`).
    pub policies: Vec<Arc<str>>,
}

/// One end of it.
#[derive(Clone, Copy, Debug)]
pub struct UnnamedEnd {
    /// The address.
    pub ip: IpAddr,
    /// The port; 0 when the protocol has none.
    pub port: u16,
    /// The identity that the kernel decided with.
    pub identity: u32,
}

/// The end at an address. `identity` is the one that the decision was made with.
pub fn endpoint(directory: &Directory, ip: IpAddr, port: u16, identity: u32) -> FlowEndpoint {
    let ip = ip.to_canonical();
    let nameless = FlowEndpoint { ip: Some(ip), port, identity, ..FlowEndpoint::default() };
    let party = directory.find(ip);
    match &party.workload {
        // Where another workload had the address when this was decided, no name must be shown.
        Some(workload) if party.identity.0 == identity => FlowEndpoint {
            namespace: workload.name.namespace.clone(),
            pod: workload.name.name.clone(),
            workload: workload.owner.clone(),
            labels: directory.labels(workload.identity).cloned().unwrap_or_default(),
            ..nameless
        },
        _ => FlowEndpoint { labels: nameless_labels(directory, party, identity), ..nameless },
    }
}

/// The flow, with names for its ends.
pub fn flow(directory: &Directory, event: UnnamedFlow) -> Flow {
    let end = |end: UnnamedEnd| endpoint(directory, end.ip, end.port, end.identity);
    let (mut source, mut destination) = (end(event.source), end(event.destination));
    let service = |ip, port| directory.service(ip, port, event.protocol.0);
    let asked = event.service.and_then(|(ip, port)| service(ip, port));
    let server = if event.is_reply == Some(true) { &mut source } else { &mut destination };
    let direct = server.ip.and_then(|ip| service(ip, server.port));
    if let Some(service) = asked.or(direct) {
        server.service = service.clone();
    }
    Flow {
        time: event.time,
        node: directory.node().clone(),
        revision: directory.position(),
        source,
        destination,
        direction: event.direction,
        verdict: event.verdict,
        reason: event.reason,
        policies: event.policies,
        l4: L4 { protocol: event.protocol, flags: event.flags },
        http: None,
        is_reply: event.is_reply,
        event: event.event,
    }
}

/// The labels of an identity without a pod, and which pods claim the address where it is nobody's.
fn nameless_labels(directory: &Directory, party: &Party, identity: u32) -> Arc<[Arc<str>]> {
    let labels = || match directory.labels(IdentityNumber(identity)) {
        Some(labels) => labels.clone(),
        None => reserved_labels(identity),
    };
    match &party.claimants {
        Some(names) if party.identity.0 == identity => {
            let claims = names.iter().map(|name| Arc::from(format!("weft:claimed-by={name}")));
            labels().iter().cloned().chain(claims).collect()
        }
        _ => labels(),
    }
}

fn reserved_labels(identity: u32) -> Arc<[Arc<str>]> {
    match reserved_name(identity) {
        Some(name) => [Arc::from(format!("reserved:{name}"))].into(),
        None => Arc::default(),
    }
}

/// The name of a reserved identity, as Hubble prints it.
pub(crate) fn reserved_name(identity: u32) -> Option<&'static str> {
    const NAMES: [&str; 11] = [
        "unknown",
        "host",
        "world",
        "unmanaged",
        "health",
        "init",
        "remote-node",
        "kube-apiserver",
        "ingress",
        "world-ipv4",
        "world-ipv6",
    ];
    NAMES.get(usize::try_from(identity).ok()?).copied()
}

#[cfg(test)]
mod tests;
