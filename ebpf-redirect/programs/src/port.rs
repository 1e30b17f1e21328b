// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Both directions of the ports of a bridge behind which pods are, as long as it is not known whose
//! port it is: a pod that has not spoken yet is held to its policy all the same.
//!
//! SECURITY: a bridge learns who is behind a port from what the port sends. So the first packets of a
//! pod, and the first to it, come before anybody can say which port is its own. Until then its entry
//! has no device, and each port without an owner decides for it.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use weft_ebpf_common::{
    Reason,
    layout::{Address, Config, EGRESS, INGRESS, METRIC_DROP, Workload},
};

use crate::{
    context, event, from_netdev, from_pod,
    maps::{self, config},
    packet::{self, KIND_LINK, Link, NEIGHBOUR_ADVERTISEMENT, Packet},
    to_pod,
};

/// Whose an address is, seen from one port.
enum Owner<'a> {
    /// A workload that is behind this port, or may be.
    Here(&'a Workload),
    /// A workload behind another device.
    Elsewhere,
    /// No workload of this node.
    Nobody,
}

#[inline(always)]
fn owner<'a>(skb: *mut __sk_buff, address: &Address) -> Owner<'a> {
    match maps::workload(address) {
        None => Owner::Nobody,
        Some(workload) if workload.ifindex == 0 || workload.ifindex == context::ifindex(skb) => {
            Owner::Here(workload)
        }
        Some(_) => Owner::Elsewhere,
    }
}

#[inline(always)]
fn refuse(skb: *mut __sk_buff, reason: Reason, direction: u8) -> i32 {
    event::count(reason as u16, METRIC_DROP, direction, context::length(skb));
    TC_ACT_SHOT
}

/// The entry point for what a port sends.
#[classifier]
pub fn from_port(ctx: TcContext) -> i32 {
    let (Some(config), Some(packet)) = (config(), packet::scratch()) else { return TC_ACT_SHOT };
    let skb = ctx.skb.skb;
    context::set_mark(skb, config.mark_mask, 0);
    match packet::parse(skb, packet) {
        packet::IP => sent(skb, packet, config),
        packet::NOT_IP => frame(skb),
        _ => invalid(skb, &packet.sender, EGRESS),
    }
}

#[inline(always)]
fn sent(skb: *mut __sk_buff, packet: &mut Packet, config: &Config) -> i32 {
    if packet.kind == KIND_LINK && packet.icmp == NEIGHBOUR_ADVERTISEMENT {
        return claim(skb, &packet.destination);
    }
    match owner(skb, &packet.sender) {
        Owner::Here(workload) => {
            let decided = from_pod::decide_for(skb, packet, workload, config);
            event::settle(packet, decided, EGRESS)
        }
        Owner::Elsewhere => refuse(skb, Reason::InvalidSourceIp, EGRESS),
        Owner::Nobody => from_netdev::hand_over(skb, packet, config),
    }
}

#[inline(always)]
fn frame(skb: *mut __sk_buff) -> i32 {
    match packet::link(skb) {
        Link::Arp(sender) => claim(skb, &sender),
        Link::Other => TC_ACT_UNSPEC,
    }
}

/// A sender says that it has an address.
#[inline(always)]
fn claim(skb: *mut __sk_buff, address: &Address) -> i32 {
    match owner(skb, address) {
        Owner::Elsewhere => refuse(skb, Reason::InvalidSourceIp, EGRESS),
        _ => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
fn invalid(skb: *mut __sk_buff, address: &Address, direction: u8) -> i32 {
    match owner(skb, address) {
        Owner::Nobody => TC_ACT_UNSPEC,
        _ => refuse(skb, Reason::InvalidPacket, direction),
    }
}

/// The entry point for what is sent to a port.
#[classifier]
pub fn to_port(ctx: TcContext) -> i32 {
    let (Some(config), Some(packet)) = (config(), packet::scratch()) else { return TC_ACT_SHOT };
    let skb = ctx.skb.skb;
    match packet::parse(skb, packet) {
        packet::IP => match owner(skb, &packet.receiver) {
            Owner::Here(workload) => {
                let decided = to_pod::decide_for(skb, packet, workload, config);
                event::settle(packet, decided, INGRESS)
            }
            // The bridge sends to every port what it has not learned; the right one decides.
            Owner::Elsewhere => TC_ACT_SHOT,
            Owner::Nobody => TC_ACT_UNSPEC,
        },
        packet::NOT_IP => TC_ACT_UNSPEC,
        _ => invalid(skb, &packet.receiver, INGRESS),
    }
}
