// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Reads what the decisions need from a packet, wherever its IP header starts: devices without an
//! Ethernet header work the same.

use aya_ebpf::{bindings::__sk_buff, macros::map, maps::PerCpuArray};
use weft_ebpf_common::{Verdict, connection::ConnectionKey, layout::Address};

use crate::{
    context,
    header::{Header, ipv4, ipv6, load},
};

pub(crate) use crate::header::{FIRST, LATER, WHOLE};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
/// ICMPv6 types of routers (RFC 4861 section 4): an offer to be one, and a better next hop.
pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
pub(crate) const NEXT_HOP: u8 = 137;

/// The chunk of SCTP that opens an association (RFC 9260 section 3.3.2), and none.
const INIT: u8 = 1;
const NO_CHUNK: u8 = u8::MAX;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
const ETH_P_ARP: u32 = 0x0806_u16.to_be() as u32;
/// What a frame that is not IP says about who sends it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// ARP with this address of the sender (0: it asks whether an address is free, RFC 5227).
    Arp(Address),
    /// Something else.
    Other,
}

/// What a packet is about.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    /// Source of the outer header; `source` differs from it in ICMP errors only.
    pub(crate) sender: Address,
    /// Destination of the outer header.
    pub(crate) receiver: Address,
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) source_port_be: u16,
    pub(crate) destination_port_be: u16,
    /// Length as the device has it.
    pub(crate) length: u32,
    pub(crate) protocol: u8,
    pub(crate) tcp_flags: u8,
    pub(crate) kind: u8,
    /// ICMP type, for the kinds of ICMP.
    pub(crate) icmp: u8,
    /// [`WHOLE`], [`FIRST`] or [`LATER`].
    pub(crate) fragment: u8,
    /// How many routers it may still pass.
    pub(crate) hops: u8,
    /// IPv4: the checksum of its header.
    pub(crate) checksum_be: u16,
    /// Identification of the datagram of which it is a fragment.
    pub(crate) identification: u32,
    /// Where it ends, from its IP header.
    pub(crate) end: u32,
    /// TCP: number of the first byte.
    pub(crate) sequence: u32,
    /// TCP: number of the byte that the sender waits for.
    pub(crate) acknowledged: u32,
    /// TCP: how many bytes follow the header.
    pub(crate) payload: u32,
    /// SCTP: type of the first chunk.
    pub(crate) chunk: u8,
    /// When its connection was looked up.
    pub(crate) now: u64,
    /// The connection of the packet, see `name_connection`.
    pub(crate) connection: ConnectionKey,
    /// Which end of its connection sends it, see `sender_end`.
    pub(crate) from_high: u8,
    /// Whether it begins its connection, and whether it can open one: [`Packet::begins`], [`Packet::opens`].
    pub(crate) first: u8,
    pub(crate) opening: u8,
    /// What the policy knows as its ports, that of the sender first.
    pub(crate) policy_ports_be: [u16; 2],
    /// Number of the workload that is asked; 0 before it is known.
    pub(crate) workload: u32,
    /// The device by which it came to the node, where that is known; 0 where the node sends it.
    pub(crate) came_by: u32,
    /// The device of the pod to which it may go at once.
    pub(crate) near: u32,
    /// Whether a router would stand between its ends.
    pub(crate) routed: u8,
    /// Identity of the other end, once its policy was asked.
    pub(crate) peer: u32,
    /// The service that it is sent to; 0 for none.
    pub(crate) service: u32,
    /// Others lead its connection to a backend, see `foreign`.
    pub(crate) translated: u32,
    /// What the policy said about it; none before it was asked.
    pub(crate) verdict: Verdict,
}

/// TCP, UDP or SCTP with ports, or an ICMP echo with its identifier as both ports.
pub(crate) const KIND_FLOW: u8 = 0;
/// An ICMP error; the addresses and ports are those of the packet inside, the other way around, so
/// that they look like a packet of the same flow that comes from where the error comes from.
pub(crate) const KIND_ERROR: u8 = 1;
/// Neighbour discovery and multicast listener discovery: belongs to the link. In an advertisement
/// `destination` is the address that the sender says it has.
pub(crate) const KIND_LINK: u8 = 2;
/// A part of a datagram of which nothing more is known, see `fragment::follow`.
pub(crate) const KIND_FRAGMENT: u8 = 3;
/// Another protocol, or an ICMP message that is neither echo nor error.
pub(crate) const KIND_OTHER: u8 = 4;

/// The packet was read.
pub(crate) const IP: u32 = 0;
/// Not IP: ARP, VLAN, whatever the link does for itself.
pub(crate) const NOT_IP: u32 = 1;
/// Malformed or cut short.
pub(crate) const INVALID: u32 = 2;

impl Packet {
    /// A packet of which nothing is known.
    #[inline(always)]
    pub(crate) const fn new() -> Packet {
        Packet {
            sender: Address([0; 4]),
            receiver: Address([0; 4]),
            source: Address([0; 4]),
            destination: Address([0; 4]),
            source_port_be: 0,
            destination_port_be: 0,
            length: 0,
            protocol: 0,
            tcp_flags: 0,
            kind: KIND_OTHER,
            icmp: 0,
            fragment: WHOLE,
            hops: 0,
            checksum_be: 0,
            identification: 0,
            end: 0,
            sequence: 0,
            acknowledged: 0,
            payload: 0,
            chunk: NO_CHUNK,
            now: 0,
            connection: ConnectionKey {
                addresses: [Address([0; 4]); 2],
                ports_be: [0; 2],
                protocol: 0,
                space: 0,
                pad: 0,
            },
            from_high: 0,
            first: 0,
            opening: 0,
            policy_ports_be: [0; 2],
            workload: 0,
            came_by: 0,
            near: 0,
            routed: 0,
            peer: 0,
            service: 0,
            translated: 0,
            verdict: Verdict::NONE,
        }
    }

    /// The first packet of a connection of a protocol that says so.
    #[inline(always)]
    pub(crate) fn begins(&self) -> bool {
        match self.protocol {
            TCP => self.tcp_flags & (SYN | ACK | RST) == SYN,
            SCTP => self.chunk == INIT,
            _ => false,
        }
    }

    /// Whether the packet can open a connection. Of datagrams each can.
    #[inline(always)]
    pub(crate) fn opens(&self) -> bool {
        match self.protocol {
            TCP | SCTP => self.begins(),
            UDP => true,
            _ => self.icmp == ECHO_REQUEST || self.icmp == ECHO_REQUEST_V6,
        }
    }

    /// A segment from the middle of a TCP connection, which a reset answers.
    #[inline(always)]
    pub(crate) fn can_be_reset(&self) -> bool {
        self.protocol == TCP && self.fragment == WHOLE && !self.begins() && self.tcp_flags & RST == 0
    }

    /// Which end of its connection sends it.
    #[inline(always)]
    pub(crate) fn sender_end(&self) -> usize {
        usize::from(self.from_high & 1)
    }
}

/// The packet in hand, see [`scratch`].
#[map(name = "weft_packet_v1")]
static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);

/// Where the packet in hand is read to. Not the stack: the verifier follows each value there, so that it
/// would look at all decisions again for every way through the headers. What a map holds it takes for
/// unknown. One per CPU: a hook is never entered while another runs on the same CPU.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Packet> {
    let packet = PACKET.get_ptr_mut(0)?;
    // SAFETY: this CPU's value, of which the hook that runs has the only reference.
    unsafe { packet.as_mut() }
}

/// Reads a packet: [`IP`], [`NOT_IP`] or [`INVALID`]. A function of its own, so that what it needs of
/// the stack is free again for the decision.
#[inline(never)]
pub(crate) fn parse(skb: *mut __sk_buff, packet: &mut Packet) -> u32 {
    *packet = Packet::new();
    let protocol = context::ethertype(skb);
    let v4 = protocol == ETH_P_IP;
    if !v4 && protocol != ETH_P_IPV6 {
        return NOT_IP;
    }
    match ip(skb, v4, packet) {
        Some(()) => IP,
        None => INVALID,
    }
}

#[inline(always)]
fn ip(skb: *mut __sk_buff, v4: bool, packet: &mut Packet) -> Option<()> {
    let header = if v4 { ipv4(skb, 0)? } else { ipv6(skb, 0)? };
    packet.sender = header.source;
    packet.receiver = header.destination;
    packet.source = header.source;
    packet.destination = header.destination;
    packet.length = context::length(skb);
    packet.protocol = header.protocol;
    packet.kind = KIND_OTHER;
    // A mapped address is never on the wire (RFC 4291 section 2.5.5.2); here it would pass for an IPv4 one.
    if !v4 && is_mapped(&header) {
        return None;
    }
    packet.fragment = header.fragment;
    (packet.hops, packet.checksum_be, packet.end) = (header.hops, header.checksum_be, header.end);
    packet.identification = header.identification;
    if header.fragment == LATER {
        packet.kind = KIND_FRAGMENT;
        return Some(());
    }
    match header.protocol {
        TCP | UDP | SCTP => {
            packet.kind = KIND_FLOW;
            let ports: [u16; 2] = load(skb, header.next)?;
            packet.source_port_be = ports[0];
            packet.destination_port_be = ports[1];
            if header.protocol == TCP {
                // The whole fixed header must be there (RFC 9293 section 3.1).
                let rest: TcpRest = load(skb, header.next + 4)?;
                packet.tcp_flags = rest.flags;
                packet.sequence = u32::from_be(rest.sequence);
                packet.acknowledged = u32::from_be(rest.acknowledged);
                let start = header.next + u32::from(rest.offset >> 4) * 4;
                packet.payload = header.end.saturating_sub(start);
            } else if header.protocol == SCTP
                && let Some(chunk) = load::<u8>(skb, header.next + 12)
            {
                packet.chunk = chunk;
            }
        }
        ICMP if v4 => icmp(skb, header.next, packet)?,
        ICMPV6 if !v4 => icmpv6(skb, header.next, packet)?,
        _ => {}
    }
    Some(())
}

#[inline(always)]
fn is_mapped(header: &Header) -> bool {
    header.source.is_v4() || header.destination.is_v4()
}

#[inline(always)]
fn icmp(skb: *mut __sk_buff, at: u32, packet: &mut Packet) -> Option<()> {
    let message: [u8; 8] = load(skb, at)?;
    packet.icmp = message[0];
    match message[0] {
        0 | ECHO_REQUEST => echo(&message, packet),
        // Unreachable, time exceeded, parameter problem (RFC 792).
        3 | 11 | 12 => {
            let inner = ipv4(skb, at + 8)?;
            error(skb, &inner, packet)?;
        }
        _ => {}
    }
    Some(())
}

#[inline(always)]
fn icmpv6(skb: *mut __sk_buff, at: u32, packet: &mut Packet) -> Option<()> {
    let message: [u8; 8] = load(skb, at)?;
    packet.icmp = message[0];
    match message[0] {
        ECHO_REQUEST_V6 | 129 => echo(&message, packet),
        // Unreachable, too big, time exceeded, parameter problem (RFC 4443).
        1..=4 => {
            let inner = ipv6(skb, at + 8)?;
            if is_mapped(&inner) {
                return None;
            }
            error(skb, &inner, packet)?;
        }
        // Multicast listener discovery (RFC 2710, RFC 3810) and neighbour discovery (RFC 4861).
        130..=137 | 143 => {
            packet.kind = KIND_LINK;
            if message[0] == NEIGHBOUR_ADVERTISEMENT {
                packet.destination = Address(load(skb, at + 8)?);
            }
        }
        _ => {}
    }
    Some(())
}

#[inline(always)]
fn echo(message: &[u8; 8], packet: &mut Packet) {
    packet.kind = KIND_FLOW;
    (packet.source_port_be, packet.destination_port_be) = echo_ports(message);
}

/// The identifier is the port of who asks.
#[inline(always)]
fn echo_ports(message: &[u8; 8]) -> (u16, u16) {
    let identifier = u16::from_ne_bytes([message[4], message[5]]);
    if message[0] == ECHO_REQUEST || message[0] == ECHO_REQUEST_V6 {
        (identifier, 0)
    } else {
        (0, identifier)
    }
}

#[inline(always)]
fn error(skb: *mut __sk_buff, inner: &Header, packet: &mut Packet) -> Option<()> {
    packet.kind = KIND_ERROR;
    // The fields are those of the flow from here on: what the error is about, turned around.
    packet.protocol = inner.protocol;
    packet.source = inner.destination;
    packet.destination = inner.source;
    if inner.fragment == LATER {
        return Some(());
    }
    match inner.protocol {
        TCP | UDP | SCTP => {
            let ports: [u16; 2] = load(skb, inner.next)?;
            packet.source_port_be = ports[1];
            packet.destination_port_be = ports[0];
        }
        ICMP | ICMPV6 => {
            let message: [u8; 8] = load(skb, inner.next)?;
            (packet.destination_port_be, packet.source_port_be) = echo_ports(&message);
        }
        _ => {}
    }
    Some(())
}

/// A TCP header behind its ports.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpRest {
    sequence: u32,
    acknowledged: u32,
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[repr(C)]
#[derive(Clone, Copy)]
struct Arp {
    hardware: u16,
    protocol: u16,
    lengths: [u8; 2],
    operation: u16,
    sender_mac: [u8; 6],
    sender: [u8; 4],
}

/// Reads a frame for which [`parse`] gave [`NOT_IP`].
#[inline(always)]
pub(crate) fn link(skb: *mut __sk_buff) -> Link {
    if context::ethertype(skb) != ETH_P_ARP {
        return Link::Other;
    }
    match load::<Arp>(skb, 0) {
        Some(arp) if arp.protocol == ETH_P_IP as u16 && arp.lengths == [6, 4] => {
            Link::Arp(Address::v4(u32::from_ne_bytes(arp.sender)))
        }
        _ => Link::Other,
    }
}

/// Whether the policy knows ports of this protocol.
#[inline(always)]
pub(crate) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

impl Packet {
    /// The protocol of the outer header.
    #[inline(always)]
    pub(crate) fn outer_protocol(&self) -> u8 {
        match self.kind {
            KIND_ERROR if self.receiver.is_v4() => ICMP,
            KIND_ERROR => ICMPV6,
            _ => self.protocol,
        }
    }
}
