// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Both directions of a pod's device of which it is not known whose it is.
//!
//! SECURITY: what such a device says about itself is what any pod may say. So nothing passes in anybody's
//! name, and nothing arrives, until the node knows the owner from who made the pod.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use weft_ebpf_common::{
    Reason,
    layout::{Address, EGRESS, INGRESS},
};

use crate::{
    context, event, from_pod, maps,
    packet::{self, KIND_FLOW, KIND_LINK, Packet, UDP},
};

/// Ports of DHCP (RFC 2131 section 4.1) and DHCPv6 (RFC 8415 section 7.2): server and client.
const LEASE: [u16; 2] = [67, 68];
const LEASE_V6: [u16; 2] = [547, 546];

/// The entry point for what such a device sends.
#[classifier]
pub fn from_unowned(ctx: TcContext) -> i32 {
    let Some(packet) = packet::scratch() else { return TC_ACT_SHOT };
    let skb = ctx.skb.skb;
    match packet::parse(skb, packet) {
        packet::IP => {
            let decided = sent(skb, packet);
            event::settle(packet, decided, EGRESS)
        }
        packet::NOT_IP => from_pod::frame(skb),
        _ => from_pod::refuse(skb, Reason::InvalidPacket),
    }
}

/// A pod asks for its address and who is on its link before it has a name.
#[inline(always)]
fn sent(skb: *mut __sk_buff, packet: &mut Packet) -> i32 {
    if from_pod::is_on_link(packet) {
        return from_pod::neighbour(skb, packet);
    }
    let nobody = from_pod::link_local(&packet.sender) || packet.sender == Address::v4(0);
    if nobody && is_lease(packet, packet.destination_port_be, packet.source_port_be) {
        return TC_ACT_UNSPEC;
    }
    event::dropped(reason(skb, &packet.sender))
}

/// Whose name it was.
#[inline(always)]
fn reason(skb: *mut __sk_buff, address: &Address) -> u16 {
    if is_elsewhere(skb, address) { Reason::InvalidSourceIp as u16 } else { Reason::UnknownOwner as u16 }
}

#[inline(always)]
fn is_lease(packet: &Packet, server_be: u16, client_be: u16) -> bool {
    let ports = if packet.sender.is_v4() { LEASE } else { LEASE_V6 };
    packet.kind == KIND_FLOW
        && packet.protocol == UDP
        && server_be == ports[0].to_be()
        && client_be == ports[1].to_be()
}

/// The entry point for what is sent to such a device.
#[classifier]
pub fn to_unowned(ctx: TcContext) -> i32 {
    let Some(packet) = packet::scratch() else { return TC_ACT_SHOT };
    let skb = ctx.skb.skb;
    match packet::parse(skb, packet) {
        packet::IP if packet.kind == KIND_LINK => TC_ACT_UNSPEC,
        packet::IP if is_lease(packet, packet.source_port_be, packet.destination_port_be) => TC_ACT_UNSPEC,
        packet::IP if is_elsewhere(skb, &packet.receiver) => TC_ACT_SHOT,
        packet::IP => event::settle(packet, event::dropped(Reason::UnknownOwner as u16), INGRESS),
        packet::NOT_IP => TC_ACT_UNSPEC,
        _ => TC_ACT_SHOT,
    }
}

/// Whether it is the address of a workload that is known to be behind another device. A bridge sends to every
/// port what it has not learned; the right one decides.
#[inline(always)]
fn is_elsewhere(skb: *mut __sk_buff, address: &Address) -> bool {
    maps::workload(address)
        .is_some_and(|workload| workload.ifindex != 0 && workload.ifindex != context::ifindex(skb))
}
