// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The short way: a packet of an established connection to a pod of this node goes from the device by which it
//! came straight to the pod, past the node's stack.
//!
//! Nothing is decided here that the long way has not decided: both ends have let the connection in, its
//! first packets have gone through the stack in both hooks, and neither device has anything of others.

use aya_ebpf::bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT};
use weft_ebpf_common::layout::{EGRESS, INGRESS, METRIC_PASS, METRIC_SHORT};

use crate::{context, event, packet::Packet};

/// Length of an Ethernet header.
const LINK_HEADER: u32 = 14;
/// Where the fields that a router changes are in the IP headers: hops, protocol and checksum; hops.
const V4_HOPS: u32 = 8;
const V6_HOPS: u32 = 7;

/// Whether a frame is one that this node would route to a pod, with an Ethernet header in front: not one that
/// another device than this takes for its own.
#[inline(always)]
pub(crate) fn is_routed_frame(skb: *mut __sk_buff, packet: &Packet) -> bool {
    context::packet_type(skb) == context::PACKET_HOST
        && context::vlan_present(skb) == 0
        && packet.length >= packet.end + LINK_HEADER
}

/// Whether a frame of a pod is one that its device, or the bridge behind that, would forward: without a VLAN tag, and
/// for this machine. On a port of a bridge it is for another port or for the bridge, and not for all: which of them
/// has the address, the bridge knows.
#[inline(always)]
pub(crate) fn is_frame_of(skb: *mut __sk_buff, bridged: u8) -> bool {
    let kind = context::packet_type(skb);
    let whose = kind == context::PACKET_HOST || kind == context::PACKET_OTHERHOST && bridged != 0;
    whose && context::vlan_present(skb) == 0
}

/// Hands the packet to the pod behind `packet.near`.
#[inline(always)]
pub(crate) fn deliver(skb: *mut __sk_buff, packet: &Packet) -> i32 {
    // A frame that goes from port to port of a bridge has the other pod's address, which is not this device's.
    let ready = if packet.routed == 0 { context::set_for_host(skb) } else { hop(skb, packet) };
    if !ready {
        return TC_ACT_SHOT;
    }
    event::count(0, METRIC_SHORT, INGRESS, packet.length);
    context::redirect_peer(packet.near)
}

/// The same for what a pod of this node has sent.
#[inline(always)]
pub(crate) fn send(skb: *mut __sk_buff, packet: &Packet) -> i32 {
    event::count(0, METRIC_PASS, EGRESS, packet.length);
    deliver(skb, packet)
}

/// Takes one off the packet's hops, as a router does (RFC 1812 section 5.3.1, RFC 8200 section 3).
#[inline(always)]
fn hop(skb: *mut __sk_buff, packet: &Packet) -> bool {
    let hops = packet.hops - 1;
    if packet.receiver.is_v4() {
        // The checksum has the hops in the upper half of a word (RFC 1624).
        let (sum, over) = u16::from_be(packet.checksum_be).overflowing_add(0x0100);
        let sum = (sum + u16::from(over)).to_be_bytes();
        return context::store(skb, LINK_HEADER + V4_HOPS, &[hops, packet.protocol, sum[0], sum[1]], 0);
    }
    context::store(skb, LINK_HEADER + V6_HOPS, &hops, u64::from(BPF_F_RECOMPUTE_CSUM))
}
