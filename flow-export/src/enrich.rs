// SPDX-License-Identifier: Apache-2.0
//! Names for addresses, and flows of kernel events.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use weft_ebpf_common::reason::Reason;
use weft_ir::{Protocol as IrProtocol, Resource, Snapshot, stream::Position};

use crate::{Direction, Event, Flow, FlowEndpoint, L4, Protocol, TcpFlags, Timestamp, Verdict};

/// Who is behind an address, in one state. Built on the control thread, shared by all workers.
#[derive(Debug, Default)]
pub struct Directory {
    node: Arc<str>,
    revision: Position,
    ends: HashMap<IpAddr, FlowEndpoint>,
    labels: HashMap<u32, Arc<[Arc<str>]>>,
    services: HashMap<(IpAddr, u16, u8), Arc<str>>,
}

/// What the kernel reports, in plain values.
#[derive(Clone, Debug)]
pub struct KernelEvent {
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
    pub source: KernelEnd,
    /// Address, port and identity of the receiver.
    pub destination: KernelEnd,
    /// The address and port that the client asked for, where that was a service's.
    pub service: Option<(IpAddr, u16)>,
    /// The protocol.
    pub protocol: Protocol,
    /// TCP flags of the packet.
    pub flags: TcpFlags,
    /// Whether the packet answers something.
    pub is_reply: Option<bool>,
    /// The policies that decided (`namespace/name`).
    pub policies: Vec<Arc<str>>,
}

/// One end in a kernel event.
#[derive(Clone, Copy, Debug)]
pub struct KernelEnd {
    /// The address.
    pub ip: IpAddr,
    /// The port; 0 when the protocol has none.
    pub port: u16,
    /// The identity that the kernel decided with.
    pub identity: u32,
}

impl Directory {
    /// Collects the names of a state, for the node of this name.
    pub fn build(snapshot: &Snapshot, node: &str) -> Directory {
        let mut directory =
            Directory { node: node.into(), revision: snapshot.position(), ..Directory::default() };
        for resource in snapshot.resources.values() {
            match &**resource {
                Resource::Identity(identity) => {
                    directory.labels.insert(identity.number.0, texts(&identity.labels));
                }
                Resource::Workload(workload) if !workload.host_network => {
                    let end = FlowEndpoint {
                        identity: workload.identity.0,
                        namespace: workload.name.namespace.clone(),
                        pod: workload.name.name.clone(),
                        workload: workload.owner.clone(),
                        ..FlowEndpoint::default()
                    };
                    for address in &workload.addresses {
                        let ip = address.to_canonical();
                        directory.ends.insert(ip, FlowEndpoint { ip: Some(ip), ..end.clone() });
                    }
                }
                Resource::Service(service) => {
                    let name: Arc<str> = service.name.to_string().into();
                    for (address, port) in
                        service.addresses.iter().flat_map(|a| service.ports.iter().map(move |p| (a, p)))
                    {
                        let key = (address.to_canonical(), port.port, number(port.protocol));
                        directory.services.insert(key, name.clone());
                    }
                }
                _ => {}
            }
        }
        for end in directory.ends.values_mut() {
            end.labels = directory.labels.get(&end.identity).cloned().unwrap_or_default();
        }
        directory
    }

    /// The node's name.
    pub fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// The state's revision.
    pub fn revision(&self) -> Position {
        self.revision
    }

    /// The end at an address. `identity` is the one that the decision was made with.
    pub fn endpoint(&self, ip: IpAddr, port: u16, identity: u32) -> FlowEndpoint {
        let ip = ip.to_canonical();
        match self.ends.get(&ip) {
            Some(end) if end.identity == identity => FlowEndpoint { port, ..end.clone() },
            // Another workload had the address when this was decided, so its name must not be shown.
            _ => FlowEndpoint {
                ip: Some(ip),
                port,
                identity,
                labels: self.labels.get(&identity).cloned().unwrap_or_else(|| reserved_labels(identity)),
                ..FlowEndpoint::default()
            },
        }
    }

    /// The service (`namespace/name`) at an address and port.
    pub fn service(&self, ip: IpAddr, port: u16, protocol: Protocol) -> Option<&Arc<str>> {
        self.services.get(&(ip.to_canonical(), port, protocol.0))
    }

    /// The flow of a kernel event.
    pub fn flow(&self, event: KernelEvent) -> Flow {
        let end = |end: KernelEnd| self.endpoint(end.ip, end.port, end.identity);
        let (mut source, mut destination) = (end(event.source), end(event.destination));
        let asked = event.service.and_then(|(ip, port)| self.service(ip, port, event.protocol));
        let server = if event.is_reply == Some(true) { &mut source } else { &mut destination };
        let direct = server.ip.and_then(|ip| self.service(ip, server.port, event.protocol));
        if let Some(service) = asked.or(direct) {
            server.service = service.clone();
        }
        Flow {
            time: event.time,
            node: self.node.clone(),
            revision: self.revision,
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
}

fn texts(labels: &BTreeMap<Arc<str>, Arc<str>>) -> Arc<[Arc<str>]> {
    labels.iter().map(|(key, value)| Arc::from(format!("{key}={value}"))).collect()
}

fn number(protocol: IrProtocol) -> u8 {
    protocol.number()
}

fn reserved_labels(identity: u32) -> Arc<[Arc<str>]> {
    match reserved_name(identity) {
        Some(name) => [Arc::from(format!("reserved:{name}"))].into(),
        None => Arc::default(),
    }
}

/// The name of a reserved identity, as Hubble prints it.
pub fn reserved_name(identity: u32) -> Option<&'static str> {
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
