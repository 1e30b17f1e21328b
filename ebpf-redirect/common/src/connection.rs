// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The connection table: keys and values of `weft_connections_v1` and of what bounds it.

use core::mem::size_of;

use crate::{
    Verdict,
    layout::{Address, EGRESS},
};

/// The two ends of a connection in an order that does not depend on who sends, so that both directions have
/// one entry. Of an ICMP echo, the identifier is the port of who asks, and the other side's is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// Their addresses, the lower one first; where both are equal, the one with the lower port.
    pub addresses: [Address; 2],
    /// Their ports, in the same order.
    pub ports_be: [u16; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Whose addresses they are: 0, those that pods see. A translation keeps what it makes of them apart.
    pub space: u8,
    /// Zero.
    pub pad: u16,
}

impl ConnectionKey {
    /// The key of what goes from one address and port to another, and whether the sender is the higher one.
    #[inline(always)]
    pub const fn of(
        source: (Address, u16),
        destination: (Address, u16),
        protocol: u8,
    ) -> (ConnectionKey, bool) {
        let ((source, source_port_be), (destination, destination_port_be)) = (source, destination);
        let from_high = match source.order(&destination) {
            0 => source_port_be > destination_port_be,
            order => order > 0,
        };
        let (addresses, ports_be) = if from_high {
            ([destination, source], [destination_port_be, source_port_be])
        } else {
            ([source, destination], [source_port_be, destination_port_be])
        };
        (ConnectionKey { addresses, ports_be, protocol, space: 0, pad: 0 }, from_high)
    }
}

/// One end of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Packets that it sent.
    pub packets: u64,
    /// Bytes that it sent, IP headers included.
    pub bytes: u64,
    /// What its policy said; none where it has not decided: no workload of this node, or not yet.
    pub verdict: Verdict,
    /// The configuration's epoch when it decided.
    pub epoch: u32,
    /// Its identity.
    pub identity: u32,
    /// Its number, if it is a workload of this node and has decided.
    pub workload: u32,
    /// TCP: the number behind the last one that it sent.
    pub sent: u32,
    /// TCP: the number up to which it has what the other end sent.
    pub acknowledged: u32,
    /// The device by which its packets come to the node.
    pub device: u32,
    /// What it decided as: opener ([`EGRESS`]), other side ([`INGRESS`]), or [`EITHER`].
    pub way: u8,
    /// TCP: it has sent a FIN that was believed.
    pub closed: u8,
    /// Its device is one of `weft_short_devices_v1`.
    pub short: u8,
    /// It is behind a port of a bridge.
    pub bridged: u8,
}

impl End {
    /// Nothing is known of it.
    pub const NONE: End = End {
        packets: 0,
        bytes: 0,
        verdict: Verdict::NONE,
        epoch: 0,
        identity: 0,
        workload: 0,
        sent: 0,
        acknowledged: 0,
        device: 0,
        way: EGRESS,
        closed: 0,
        short: 0,
        bridged: 0,
    };
}

/// Who opened the connection is not known: it passes where both would be allowed.
pub const EITHER: u8 = 2;

/// What is known of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// When it was opened, in nanoseconds of the monotonic clock.
    pub opened_ns: u64,
    /// The last packet.
    pub seen_ns: u64,
    /// Both ends, in the order of the key.
    pub ends: [End; 2],
    /// 1 where others translate it, see `weft_foreign_v1`; 0 for none.
    pub nat: u32,
    /// How long it may be idle, in seconds; follows from its state.
    pub idle_s: u32,
    /// The worker of the proxy that has it.
    pub slot: u16,
    /// [`CONNECTION_VERSION`].
    pub version: u8,
    /// Which end sent the first packet, in the order of the key.
    pub opener: u8,
    /// [`HALF_OPEN`], [`ESTABLISHED`], [`CLOSING`] or [`ENDED`].
    pub state: u8,
    /// The other side has answered.
    pub answered: u8,
    /// The proxy has it.
    pub proxied: u8,
    /// Zero.
    pub pad: u8,
}

impl Connection {
    /// One of which nothing is known.
    pub const NEW: Connection = Connection {
        opened_ns: 0,
        seen_ns: 0,
        ends: [End::NONE; 2],
        nat: 0,
        idle_s: 0,
        slot: 0,
        version: CONNECTION_VERSION,
        opener: 0,
        state: HALF_OPEN,
        answered: 0,
        proxied: 0,
        pad: 0,
    };
}

/// What the fields of a [`Connection`] mean; a pinned table of another one is made anew.
pub const CONNECTION_VERSION: u8 = 2;

/// Not answered, or, with TCP, not confirmed by its opener.
pub const HALF_OPEN: u8 = 0;
/// Both ends have spoken.
pub const ESTABLISHED: u8 = 1;
/// Both ends have said that it is over, or one has reset it.
pub const CLOSING: u8 = 2;
/// An end's policy allows it no more; kept as long as anybody speaks on it.
pub const ENDED: u8 = 3;

/// A place of a workload for a connection that is half-open.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceKey {
    /// Number of the workload.
    pub workload: u32,
    /// The CPU that uses it.
    pub cpu: u32,
    /// Index, from 0.
    pub place: u32,
}

/// What a workload has used of its share, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The second in which the last event was sent.
    pub second: u64,
    /// Events in it.
    pub events: u32,
    /// The next place for a half-open connection.
    pub next: u32,
}

const _: () = {
    assert!(size_of::<ConnectionKey>() == 40);
    assert!(size_of::<End>() == 56);
    assert!(size_of::<Connection>() == 144);
    assert!(size_of::<PlaceKey>() == 12);
    assert!(size_of::<Share>() == 16);
};

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn both_directions_have_one_key() {
        let ends = ["10.0.0.1", "10.0.0.2", "255.0.0.1", "fd00::1", "fd00:0:0:1::1"].map(|text| {
            let address: IpAddr = text.parse().expect("address");
            Address::from(address)
        });
        for one in ends {
            for other in ends {
                for ports in [(80, 40_000), (40_000, 80)] {
                    let (key, from_high) = ConnectionKey::of((one, ports.0), (other, ports.1), 6);
                    let (back, back_from_high) = ConnectionKey::of((other, ports.1), (one, ports.0), 6);
                    assert_eq!((key, from_high), (back, !back_from_high));
                    assert_ne!(ConnectionKey::of((one, ports.0), (other, ports.1), 17).0, key);
                }
            }
        }
    }
}
