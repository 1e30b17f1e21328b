// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Reads what the decisions need from a packet, wherever its IP header starts: devices without an
//! Ethernet header work the same.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes_relative, macros::map, maps::PerCpuArray,
};
use weft_ebpf_common::{Verdict, layout::Address};

use crate::context;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// ICMPv6 types of routers (RFC 4861 section 4): an offer to be one, and a better next hop.
pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
pub(crate) const NEXT_HOP: u8 = 137;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
const ETH_P_ARP: u32 = 0x0806_u16.to_be() as u32;
/// `BPF_HDR_START_NET` of `bpf_skb_load_bytes_relative`.
const FROM_IP_HEADER: u32 = 1;
/// `IP_OFFSET`: all but the "may be fragmented" bit and the reserved one (RFC 791).
const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// Extension headers that are walked; more are an invalid packet.
const MAX_EXTENSIONS: u32 = 6;

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
    /// Identification of the datagram of which it is a fragment.
    pub(crate) identification: u32,
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

/// No fragment.
pub(crate) const WHOLE: u8 = 0;
/// The first fragment of a datagram, with its ports.
pub(crate) const FIRST: u8 = 1;
/// Another fragment.
pub(crate) const LATER: u8 = 2;

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
            identification: 0,
            verdict: Verdict::NONE,
        }
    }

    /// The first packet of a TCP connection.
    #[inline(always)]
    pub(crate) fn opens(&self) -> bool {
        self.protocol == TCP && self.tcp_flags & (SYN | ACK | RST) == SYN
    }
}

#[inline(always)]
fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the value is as long as the helper is told to write.
    let done = unsafe {
        bpf_skb_load_bytes_relative(
            skb.cast(),
            offset,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            FROM_IP_HEADER,
        )
    };
    if done != 0 {
        return None;
    }
    // SAFETY: the helper has written all of it, and only types that any bytes are valid for are loaded.
    Some(unsafe { value.assume_init() })
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_length: u8,
    service: u8,
    length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    version_flow: u32,
    length: u16,
    next: u8,
    hops: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// An IP header at some offset: the outer one, or the one inside of an ICMP error.
struct Header {
    source: Address,
    destination: Address,
    protocol: u8,
    /// [`WHOLE`], [`FIRST`] or [`LATER`].
    fragment: u8,
    identification: u32,
    /// Where the next header starts.
    next: u32,
}

#[inline(always)]
fn ipv4(skb: *mut __sk_buff, at: u32) -> Option<Header> {
    let header: Ipv4 = load(skb, at)?;
    let length = u32::from(header.version_length & 15) * 4;
    if header.version_length >> 4 != 4 || length < 20 {
        return None;
    }
    let fragment = u16::from_be(header.fragment);
    Some(Header {
        source: Address::v4(header.source),
        destination: Address::v4(header.destination),
        protocol: header.protocol,
        fragment: match fragment {
            _ if fragment & FRAGMENT_OFFSET != 0 => LATER,
            _ if fragment & FRAGMENT != 0 => FIRST,
            _ => WHOLE,
        },
        identification: u32::from(header.id),
        next: at + length,
    })
}

#[inline(always)]
fn ipv6(skb: *mut __sk_buff, at: u32) -> Option<Header> {
    let header: Ipv6 = load(skb, at)?;
    if u32::from_be(header.version_flow) >> 28 != 6 {
        return None;
    }
    let mut found = Header {
        source: Address(header.source),
        destination: Address(header.destination),
        protocol: header.next,
        fragment: WHOLE,
        identification: 0,
        next: at + 40,
    };
    for _ in 0..MAX_EXTENSIONS {
        // Hop-by-hop, routing, fragment, authentication and destination options (RFC 8200 section 4).
        match found.protocol {
            0 | 43 | 60 => {
                let extension: [u8; 2] = load(skb, found.next)?;
                found.protocol = extension[0];
                found.next += (u32::from(extension[1]) + 1) * 8;
            }
            44 => {
                let extension: [u8; 8] = load(skb, found.next)?;
                let field = u16::from_be_bytes([extension[2], extension[3]]);
                found.protocol = extension[0];
                found.next += 8;
                found.identification =
                    u32::from_ne_bytes([extension[4], extension[5], extension[6], extension[7]]);
                if field & 0xfff8 != 0 {
                    found.fragment = LATER;
                    return Some(found);
                }
                // Offset zero and no more to come is a whole datagram (RFC 6946).
                if field & 1 != 0 {
                    found.fragment = FIRST;
                }
            }
            51 => {
                let extension: [u8; 2] = load(skb, found.next)?;
                found.protocol = extension[0];
                found.next += (u32::from(extension[1]) + 2) * 4;
            }
            _ => return Some(found),
        }
    }
    None
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
                let rest: [u8; 16] = load(skb, header.next + 4)?;
                packet.tcp_flags = rest[9];
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
        0 | 8 => echo(&message, packet),
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
        128 | 129 => echo(&message, packet),
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
    let identifier = u16::from_ne_bytes([message[4], message[5]]);
    packet.kind = KIND_FLOW;
    packet.source_port_be = identifier;
    packet.destination_port_be = identifier;
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
            let identifier = u16::from_ne_bytes([message[4], message[5]]);
            packet.source_port_be = identifier;
            packet.destination_port_be = identifier;
        }
        _ => {}
    }
    Some(())
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
