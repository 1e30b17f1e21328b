// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Ingress of devices that are neither pods' nor ours, and behind which pods may be all the same: bridges, and
//! what leads from one part of the node to another.
//!
//! Policy is decided where the pod is. Here the packets of connections that the proxy has are handed
//! over, before the stack's early demultiplexing finds the transparent socket: `ip_forward` drops a
//! packet that carries one.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use weft_ebpf_common::layout::Config;

use crate::{
    context,
    maps::{self, config},
    packet::{self, KIND_ERROR, KIND_FLOW, Packet, TCP, WHOLE},
    proxy, service,
};

/// The entry point.
#[classifier]
pub fn from_netdev(ctx: TcContext) -> i32 {
    let (Some(config), Some(packet)) = (config(), packet::scratch()) else { return TC_ACT_UNSPEC };
    let skb = ctx.skb.skb;
    // Marks are of this node; a packet that carries one of ours here was handed over already.
    if context::mark(skb) & config.mark_mask == config.to_proxy {
        return TC_ACT_UNSPEC;
    }
    match packet::parse(skb, packet) {
        packet::IP => hand_over(skb, packet, config),
        _ => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
pub(crate) fn hand_over(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> i32 {
    if packet.protocol != TCP {
        return TC_ACT_UNSPEC;
    }
    // The proxy's sockets towards others have the address of a workload here or of a service, or, for
    // processes of the node, the node's own and a port of the block: connection tracking has not seen
    // such a connection begin, and a firewall would drop the answer as invalid.
    let local = &packet.destination;
    let port = u16::from_be(packet.destination_port_be);
    let block = port >= config.first_port && port <= config.last_port;
    if !block && maps::workload(local).is_none() && !service::is_address(local) {
        return TC_ACT_UNSPEC;
    }
    match packet.kind {
        KIND_FLOW if packet.fragment == WHOLE && proxy::assign_known(skb, packet, config) => proxy::DELIVER,
        KIND_ERROR if proxy::knows(skb, packet, config) => {
            context::set_mark(skb, config.mark_mask, config.to_proxy);
            proxy::DELIVER
        }
        _ => TC_ACT_UNSPEC,
    }
}
