// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Keys and values of the maps that the kernel programs and user space share.
//!
//! Every type is plain numbers with explicit padding: the kernel compares keys byte by byte. Ports
//! and addresses are in network order, everything else in the machine's. A pinned map whose key or value
//! has another size than here is made anew by the daemon that finds it; a change that keeps the size takes
//! a new name.

use core::mem::{offset_of, size_of};
use core::net::IpAddr;

use crate::Verdict;

/// An IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291 section 2.5.5.2), in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u32; 4]);

/// The third word of a mapped IPv4 address.
pub const MAPPED: u32 = 0xffff_u32.to_be();

impl Address {
    /// A mapped IPv4 address; the word is in network order.
    #[inline(always)]
    pub const fn v4(word: u32) -> Address {
        Address([0, 0, MAPPED, word])
    }

    /// Whether it is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Less than, equal to or greater than 0, as the address is to another. The order means nothing.
    #[inline(always)]
    pub const fn order(&self, other: &Address) -> i32 {
        let (mine, others) = (self.halves(), other.halves());
        if mine.1 != others.1 {
            return if mine.1 > others.1 { 1 } else { -1 };
        }
        if mine.0 == others.0 {
            return 0;
        }
        if mine.0 > others.0 { 1 } else { -1 }
    }

    #[inline(always)]
    const fn halves(&self) -> (u64, u64) {
        let [first, second, third, last] = self.0;
        ((first as u64) << 32 | second as u64, (third as u64) << 32 | last as u64)
    }

    /// The address as the standard library has it.
    pub fn ip(self) -> IpAddr {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        core::net::Ipv6Addr::from(bytes).to_canonical()
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Address {
        let bytes = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Address(words)
    }
}

/// The key of the owners under which a process of the proxy writes a number that it then names: no process has
/// the number 0.
pub const CLAIM: u32 = 0;

/// Settings of the programs: the one entry of `weft_config_v1`, written by user space.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The bits of the packet mark that are ours.
    pub mark_mask: u32,
    /// Mark of packets on their way to a socket of the proxy.
    pub to_proxy: u32,
    /// Mark of the proxy's own sockets.
    pub from_proxy: u32,
    /// Index of our device, at whose ingress sockets are assigned.
    pub device: u32,
    /// How many entries of `weft_listeners_v1` are valid; 0 means that there is no proxy.
    pub listeners: u32,
    /// Counts what may make an established connection be decided again, see [`Change`].
    pub epoch: u32,
    /// First port of the proxy's block (host order).
    pub first_port: u16,
    /// Last port of the proxy's block (host order).
    pub last_port: u16,
    /// Shortest time between two equal drop events, in milliseconds.
    pub drop_interval_ms: u32,
    /// Idle time after which a connection without TCP state is forgotten, in seconds.
    pub datagram_idle_s: u32,
    /// Idle time after which an established TCP connection is forgotten, in seconds.
    pub stream_idle_s: u32,
    /// Idle time after which a connection is forgotten that was not answered, in seconds.
    pub half_open_s: u32,
    /// How long a closed TCP connection is remembered for what is still on its way, in seconds.
    pub closed_s: u32,
    /// How many of these a workload may have, on each CPU.
    pub half_open_places: u32,
    /// How many events a workload may cause in a second, on each CPU.
    pub events_per_second: u32,
}

/// Most workers of the proxy: the size of `weft_listeners_v1`.
pub const MAX_LISTENERS: u32 = 64;

/// A service's address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The address.
    pub address: Address,
    /// The port; 0 with protocol 0 marks the address itself.
    pub port_be: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// What is behind a service's address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Stable number, key of the counters.
    pub id: u32,
    /// Number of the current list of backends.
    pub list: u32,
    /// Length of the list.
    pub backends: u32,
    /// [`SERVICE_KEPT`].
    pub flags: u32,
}

/// Connections keep the service's address and are redirected to the proxy.
pub const SERVICE_KEPT: u32 = 1;

/// One place in a list of backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    /// Number of the list.
    pub list: u32,
    /// Index, from 0.
    pub slot: u32,
}

/// An address and a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port.
    pub port_be: u16,
    /// Zero.
    pub pad: u16,
}

/// Finds the service that a socket asked for by what it was given.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReverseKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// The backend.
    pub backend: Endpoint,
    /// Zero.
    pub pad: u32,
}

/// Counters of a service, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Connections and datagrams sent straight to a backend.
    pub translated: u64,
    /// Connections handed to the proxy.
    pub redirected: u64,
    /// Connections refused for want of a backend.
    pub refused: u64,
}

/// A workload on this node, by its address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Number of the workload in events.
    pub id: u32,
    /// The host-side device that leads to it; 0 while that is not known.
    pub ifindex: u32,
    /// Its identity.
    pub identity: u32,
    /// The set of policy entries that holds for it.
    pub policy: u32,
    /// `WORKLOAD_*`.
    pub flags: u32,
    /// What holds for what it sends where no entry says more.
    pub egress: Verdict,
    /// What holds for what it receives where no entry says more.
    pub ingress: Verdict,
}

/// Nothing that it sends has to be decided.
pub const WORKLOAD_EGRESS_OPEN: u32 = 1;
/// Nothing that it receives has to be decided.
pub const WORKLOAD_INGRESS_OPEN: u32 = 2;
/// Its device is a port of a bridge.
pub const WORKLOAD_BRIDGED: u32 = 4;

/// Data of a key of `weft_policy_v1`, a trie: everything up to the port is compared as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// The set.
    pub set: u32,
    /// The peer's identity, or [`ANY_IDENTITY`].
    pub identity: u32,
    /// [`EGRESS`] or [`INGRESS`].
    pub direction: u8,
    /// IP protocol number, or 0 for any.
    pub protocol: u8,
    /// Destination port.
    pub port_be: u16,
}

/// Matches every peer. Not 0, which is a real identity: unknown.
pub const ANY_IDENTITY: u32 = u32::MAX;
/// Bits of a policy key before the port.
pub const POLICY_PREFIX: u32 = 80;
/// Seen from the workload that opens the connection.
pub const EGRESS: u8 = 0;
/// Seen from the workload that is connected to.
pub const INGRESS: u8 = 1;

/// An entry of `weft_changes_v1`: what was decided about connections of these addresses may not hold any more.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The epoch that began with it; its place is this modulo [`CHANGES`].
    pub epoch: u32,
    /// The first address.
    pub address: Address,
    /// The bits in which the others are like it.
    pub mask: Address,
}

/// How many changes are kept. Many more than are read, so that none is written over while somebody reads it.
pub const CHANGES: u32 = 256;
/// How many changes a connection looks at; one that has missed more is decided again.
pub const CHANGES_READ: u32 = 32;

/// A datagram of which fragments are on their way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentedKey {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Identification, as it is in the header.
    pub identification: u32,
    /// IP protocol number for IPv4 (RFC 791); 0 for IPv6, where it is no part of it (RFC 8200 section 4.5).
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// What the first fragment of a datagram said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragmented {
    /// When it was seen, in nanoseconds of the monotonic clock.
    pub seen_ns: u64,
    /// Source port.
    pub source_port_be: u16,
    /// Destination port.
    pub destination_port_be: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// What kind of packet the programs took it for.
    pub kind: u8,
    /// Zero.
    pub pad: u16,
}

/// A record of the ring buffer `weft_events_v1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Time, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// When the flow was opened; 0 where there is none.
    pub opened_ns: u64,
    /// The opener, or the sender of a dropped packet.
    pub source: Address,
    /// The other side.
    pub destination: Address,
    /// The service address asked for (translation events).
    pub service: Endpoint,
    /// Port of `source`.
    pub source_port_be: u16,
    /// Port of `destination`.
    pub destination_port_be: u16,
    /// `EVENT_*`.
    pub kind: u8,
    /// [`EGRESS`] or [`INGRESS`], seen from `workload`.
    pub direction: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags of the packet.
    pub tcp_flags: u8,
    /// Number of the `Reason`; 0 for none.
    pub reason: u16,
    /// Zero.
    pub pad: u16,
    /// Identity of `source`.
    pub source_identity: u32,
    /// Identity of `destination`.
    pub destination_identity: u32,
    /// Number of the local workload; 0 for none.
    pub workload: u32,
    /// Number of the service; 0 for none.
    pub service_id: u32,
    /// Equal drops since the last such event, which had no event of their own.
    pub suppressed: u32,
    /// Process that asked (translation events), else 0.
    pub process: u32,
    /// What the policy said; none where it was not asked.
    pub verdict: Verdict,
    /// Zero.
    pub pad2: u32,
    /// Packets of the opener.
    pub packets: u64,
    /// Bytes of the opener.
    pub bytes: u64,
    /// Packets of the other side.
    pub reply_packets: u64,
    /// Bytes of the other side.
    pub reply_bytes: u64,
}

/// A flow was allowed and stays in the kernel.
pub const EVENT_OPEN: u8 = 1;
/// A flow ended.
pub const EVENT_CLOSE: u8 = 2;
/// A packet was dropped.
pub const EVENT_DROP: u8 = 3;
/// A connection was handed to the proxy.
pub const EVENT_REDIRECT: u8 = 4;
/// A socket was given a backend.
pub const EVENT_TRANSLATE: u8 = 5;

/// What became of packets, by the index in `weft_metrics_v1`: a place for each reason of a drop and for each
/// other outcome, in both directions.
pub const METRICS: u32 = REASONS * 2 + 16;
/// The numbers of reasons are below.
const REASONS: u32 = 512;

/// The index of an outcome (`METRIC_*`), with its reason if it is a drop, and a direction.
#[inline(always)]
pub const fn metric_index(reason: u16, outcome: u8, direction: u8) -> u32 {
    let place = if outcome == METRIC_DROP { reason as u32 } else { REASONS + outcome as u32 };
    place * 2 + direction as u32
}

/// The reason (0 for none), outcome and direction of an index.
pub const fn metric_of(index: u32) -> (u16, u8, u8) {
    let (place, direction) = (index / 2, (index % 2) as u8);
    match place.checked_sub(REASONS) {
        Some(outcome) => (0, outcome as u8, direction),
        None => (place as u16, METRIC_DROP, direction),
    }
}

/// Passed in the kernel.
pub const METRIC_PASS: u8 = 0;
/// Handed to the proxy.
pub const METRIC_REDIRECT: u8 = 1;
/// Dropped.
pub const METRIC_DROP: u8 = 2;
/// Handed to a connection that the proxy has.
pub const METRIC_PROXIED: u8 = 3;
/// Came from the proxy.
pub const METRIC_FROM_PROXY: u8 = 4;

/// Passed in the kernel, straight to the pod.
pub const METRIC_SHORT: u8 = 6;
/// Made its connection be decided again; counted beside what became of it.
pub const METRIC_AGAIN: u8 = 5;

/// Packets and bytes, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Key of `weft_drops_v1`, which limits the rate of drop events.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DropKey {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Number of the `Reason`.
    pub reason: u16,
    /// Destination port.
    pub port_be: u16,
}

/// Value of `weft_drops_v1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropState {
    /// When the last event was sent, in nanoseconds of the monotonic clock.
    pub sent_ns: u64,
    /// Drops since then.
    pub suppressed: u64,
}

const _: () = {
    assert!(size_of::<Config>() == 56);
    assert!(size_of::<ServiceKey>() == 20);
    assert!(size_of::<Service>() == 16);
    assert!(size_of::<BackendKey>() == 8);
    assert!(size_of::<Endpoint>() == 20);
    assert!(size_of::<ReverseKey>() == 32);
    assert!(size_of::<ServiceCounters>() == 24);
    assert!(size_of::<Verdict>() == 12);
    assert!(size_of::<Workload>() == 44);
    assert!(size_of::<PolicyKey>() == 12);
    assert!(offset_of!(PolicyKey, port_be) * 8 == POLICY_PREFIX as usize);
    assert!(size_of::<FragmentedKey>() == 40);
    assert!(size_of::<Fragmented>() == 16);
    assert!(size_of::<Event>() == 152);
    assert!(offset_of!(Event, packets) == 120);
    assert!(metric_index(0, METRIC_SHORT, INGRESS) < METRICS);
    assert!(size_of::<Change>() == 36);
    assert!(size_of::<Metric>() == 16);
    assert!(size_of::<DropKey>() == 36);
    assert!(size_of::<DropState>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_a_metric_says_what_it_counts() {
        for reason in crate::Reason::ALL {
            let index = metric_index(*reason as u16, METRIC_DROP, INGRESS);
            assert_eq!(metric_of(index), (*reason as u16, METRIC_DROP, INGRESS));
            assert!(index < REASONS * 2);
        }
        for outcome in
            [METRIC_PASS, METRIC_REDIRECT, METRIC_PROXIED, METRIC_FROM_PROXY, METRIC_AGAIN, METRIC_SHORT]
        {
            assert_eq!(metric_of(metric_index(0, outcome, EGRESS)), (0, outcome, EGRESS));
        }
    }

    #[test]
    fn addresses_of_both_families_come_back() {
        for text in ["10.96.0.1", "fd00::1", "::", "0.0.0.0"] {
            let address: IpAddr = text.parse().expect("address");
            assert_eq!(Address::from(address).ip(), address);
            assert_eq!(Address::from(address).is_v4(), address.is_ipv4());
        }
    }
}
