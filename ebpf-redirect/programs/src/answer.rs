// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Tells who asks for a service that nobody serves so at once, as a host does whose port is closed: a reset
//! (RFC 9293 section 3.10.7.1) or "port unreachable" (RFC 792, RFC 4443 section 3.1) in the service's name.
//!
//! The packet itself becomes the answer. Sockets hear of it at `connect` and `sendmsg` already; packets are
//! answered of who asks past these hooks, and of datagrams whose socket had chosen its peer before.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_csum_diff, bpf_redirect_peer, bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
};
use weft_ebpf_common::layout::Address;

use crate::{
    context,
    header::load,
    packet::{ACK, ICMP, ICMPV6, KIND_FLOW, Packet, RST, TCP, UDP, WHOLE},
    share,
};

/// Length of an Ethernet header: pods and our own device have one.
const LINK: u32 = 14;
const HOPS: u8 = 64;
/// IPv4 header of 20 bytes, and "do not fragment".
const PLAIN_V4: u8 = 0x45;
const WHOLE_V4: u16 = 0x4000_u16.to_be();
const VERSION_6: u32 = 0x6000_0000_u32.to_be();
/// TCP header of 20 bytes.
const TCP_LENGTH: u32 = 20;
const TCP_OFFSET: u8 = 5 << 4;
/// Type and code of "port unreachable".
const UNREACHABLE_V4: [u8; 2] = [3, 3];
const UNREACHABLE_V6: [u8; 2] = [1, 4];
const ICMP_LENGTH: u32 = 8;
const PACKET_HOST: u32 = 0;

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_length: u8,
    service: u8,
    length: u16,
    id: u16,
    fragment: u16,
    hops: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    version: u32,
    length: u16,
    next: u8,
    hops: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    source_port_be: u16,
    destination_port_be: u16,
    sequence: u32,
    acknowledged: u32,
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// "Port unreachable", with the head of the datagram: its IP header and 8 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Unreachable<const N: usize> {
    kind: [u8; 2],
    checksum: u16,
    unused: u32,
    about: [u8; N],
}

/// Makes the answer of a packet that asks for what nobody serves; false where it has none, or where its sender has
/// had enough of them.
#[inline(never)]
pub(crate) fn refuse(skb: *mut __sk_buff, packet: &Packet) -> bool {
    if packet.kind != KIND_FLOW || packet.fragment != WHOLE || !share::may_answer(packet.workload) {
        return false;
    }
    match packet.protocol {
        TCP if packet.first != 0 || packet.begins() => reset(skb, packet),
        UDP if packet.receiver.is_v4() => unreachable_v4(skb, packet),
        UDP => unreachable_v6(skb, packet),
        _ => false,
    }
}

/// Sends the answer into the pod behind this device. Past `to_pod`: it is no packet of a connection.
#[inline(always)]
pub(crate) fn to_pod(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect_peer(context::ifindex(skb), 0) as i32 }
}

#[inline(never)]
fn reset(skb: *mut __sk_buff, packet: &Packet) -> bool {
    let mut answer = Tcp {
        source_port_be: packet.destination_port_be,
        destination_port_be: packet.source_port_be,
        sequence: 0,
        acknowledged: packet.sequence.wrapping_add(packet.payload).wrapping_add(1).to_be(),
        offset: TCP_OFFSET,
        flags: RST | ACK,
        window: 0,
        checksum: 0,
        urgent: 0,
    };
    answer.checksum = fold(sum(&answer, pseudo(packet, TCP, TCP_LENGTH)));
    match head(skb, packet, TCP, TCP_LENGTH) {
        0 => false,
        at => store(skb, at, &answer),
    }
}

#[inline(never)]
fn unreachable_v4(skb: *mut __sk_buff, packet: &Packet) -> bool {
    let Some(about) = load::<[u8; 28]>(skb, 0) else { return false };
    // Options would push the ports out.
    if about[0] != PLAIN_V4 {
        return false;
    }
    let mut answer = Unreachable { kind: UNREACHABLE_V4, checksum: 0, unused: 0, about };
    answer.checksum = fold(sum(&answer, 0));
    match head(skb, packet, ICMP, ICMP_LENGTH + 28) {
        0 => false,
        at => store(skb, at, &answer),
    }
}

#[inline(never)]
fn unreachable_v6(skb: *mut __sk_buff, packet: &Packet) -> bool {
    let Some(about) = load::<[u8; 48]>(skb, 0) else { return false };
    // Extension headers would push the ports out.
    if about[6] != UDP {
        return false;
    }
    let mut answer = Unreachable { kind: UNREACHABLE_V6, checksum: 0, unused: 0, about };
    answer.checksum = fold(sum(&answer, pseudo(packet, ICMPV6, ICMP_LENGTH + 48)));
    match head(skb, packet, ICMPV6, ICMP_LENGTH + 48) {
        0 => false,
        at => store(skb, at, &answer),
    }
}

/// Writes the headers of an answer that carries `length` bytes of a protocol: where these go, or 0.
#[inline(never)]
fn head(skb: *mut __sk_buff, packet: &Packet, protocol: u8, length: u32) -> u32 {
    let v4 = packet.receiver.is_v4();
    let start = LINK + if v4 { size_of::<Ipv4>() } else { size_of::<Ipv6>() } as u32;
    // SAFETY: the context and numbers.
    if unsafe { bpf_skb_change_tail(skb, start + length, 0) } != 0 || !turn_link(skb) {
        return 0;
    }
    let done =
        if v4 { head_v4(skb, packet, protocol, length) } else { head_v6(skb, packet, protocol, length) };
    // A bridge's port was sent it for somebody else; without this the pod's stack drops it.
    // SAFETY: the context and a number.
    if done && unsafe { bpf_skb_change_type(skb, PACKET_HOST) } == 0 { start } else { 0 }
}

#[inline(always)]
fn head_v4(skb: *mut __sk_buff, packet: &Packet, protocol: u8, length: u32) -> bool {
    let mut header = Ipv4 {
        version_length: PLAIN_V4,
        service: 0,
        length: (size_of::<Ipv4>() as u16 + length as u16).to_be(),
        id: 0,
        fragment: WHOLE_V4,
        hops: HOPS,
        protocol,
        checksum: 0,
        source: packet.receiver.0[3],
        destination: packet.sender.0[3],
    };
    header.checksum = fold(sum(&header, 0));
    store(skb, LINK, &header)
}

#[inline(always)]
fn head_v6(skb: *mut __sk_buff, packet: &Packet, protocol: u8, length: u32) -> bool {
    let header = Ipv6 {
        version: VERSION_6,
        length: (length as u16).to_be(),
        next: protocol,
        hops: HOPS,
        source: packet.receiver.0,
        destination: packet.sender.0,
    };
    store(skb, LINK, &header)
}

/// Back to the MAC address that the frame comes from.
#[inline(always)]
fn turn_link(skb: *mut __sk_buff) -> bool {
    let mut addresses = [[0_u8; 6]; 2];
    // SAFETY: the value is as long as the helper is told to write.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, addresses.as_mut_ptr().cast(), 12) } != 0 {
        return false;
    }
    store(skb, 0, &[addresses[1], addresses[0]])
}

#[inline(always)]
fn store<T: Copy>(skb: *mut __sk_buff, at: u32, value: &T) -> bool {
    // SAFETY: the value is as long as the helper is told to read, without gaps.
    unsafe { bpf_skb_store_bytes(skb, at, (&raw const *value).cast(), size_of::<T>() as u32, 0) == 0 }
}

/// Sum of a value of a multiple of 4 bytes for the checksum of the internet (RFC 1071).
#[inline(always)]
fn sum<T: Copy>(value: &T, seed: u32) -> u32 {
    // SAFETY: the value is as long as the helper is told to read, without gaps.
    unsafe {
        bpf_csum_diff(
            core::ptr::null_mut(),
            0,
            (&raw const *value).cast_mut().cast(),
            size_of::<T>() as u32,
            seed,
        ) as u32
    }
}

/// Sum of what a checksum takes from the IP header of the answer.
#[inline(always)]
fn pseudo(packet: &Packet, protocol: u8, length: u32) -> u32 {
    let rest = [length.to_be(), u32::from(protocol).to_be()];
    let addresses = added(own(&packet.receiver), own(&packet.sender));
    sum(&rest, addresses)
}

/// Sum of an address; of an IPv4 one, of its own four bytes.
#[inline(always)]
fn own(address: &Address) -> u32 {
    if address.is_v4() { address.0[3] } else { sum(address, 0) }
}

/// Sum of two sums, with the carry.
#[inline(always)]
fn added(one: u32, other: u32) -> u32 {
    let both = u64::from(one) + u64::from(other);
    (both as u32).wrapping_add((both >> 32) as u32)
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    !((once & 0xffff) + (once >> 16)) as u16
}
