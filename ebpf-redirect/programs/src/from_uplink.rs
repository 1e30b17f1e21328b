// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Ingress of devices behind which nothing of this node is: network cards, tunnels, other machines' ends.
//!
//! SECURITY: a workload here is known by its address. What comes from outside with such an address would be
//! taken for the workload's own by every policy that lets it in.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use weft_ebpf_common::{
    Reason,
    layout::{Config, INGRESS},
};

use crate::{
    connection, context, event, from_netdev,
    maps::{self, config},
    packet::{self, KIND_FLOW, Packet, TCP},
    short,
};

/// The entry point.
#[classifier]
pub fn from_uplink(ctx: TcContext) -> i32 {
    let (Some(config), Some(packet)) = (config(), packet::scratch()) else { return TC_ACT_UNSPEC };
    let skb = ctx.skb.skb;
    match packet::parse(skb, packet) {
        packet::IP => {
            let decided = decide(skb, packet, config);
            event::settle(packet, decided, INGRESS)
        }
        _ => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
fn decide(skb: *mut __sk_buff, packet: &mut Packet, config: &Config) -> i32 {
    if maps::workload(&packet.sender).is_some() {
        return event::dropped(Reason::InvalidSourceIp as u16);
    }
    // Marks are of this node; a packet that carries one of ours here was handed over already.
    if context::mark(skb) & config.mark_mask == config.to_proxy {
        return TC_ACT_UNSPEC;
    }
    let found = if packet.kind == KIND_FLOW { known(skb, packet, config) } else { connection::NEW };
    match found {
        connection::SHORT => short::deliver(skb, packet),
        connection::PASS => TC_ACT_UNSPEC,
        _ => from_netdev::hand_over(skb, packet, config),
    }
}

/// What is known of the connection of a packet to a pod here.
#[inline(always)]
fn known(skb: *mut __sk_buff, packet: &mut Packet, config: &Config) -> u32 {
    let port = u16::from_be(packet.destination_port_be);
    let block = packet.protocol == TCP && port >= config.first_port && port <= config.last_port;
    let Some(workload) = maps::workload(&packet.receiver) else { return connection::NEW };
    // The proxy's own ports come first: an entry may be one of before it had them.
    if block || !short::is_routed_frame(skb, packet) {
        return connection::NEW;
    }
    packet.name_connection();
    packet.came_by = context::ifindex(skb);
    connection::arrived(packet, workload, config)
}
