// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Ingress of our own device: what the other hooks sent around, and what processes of the node, or machines
//! outside, send to a service whose address is kept, which a route leads here.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    macros::classifier,
    programs::TcContext,
};
use weft_ebpf_common::{
    Reason, identity,
    layout::{Config, EGRESS, METRIC_REDIRECT, SERVICE_KEPT},
};

use crate::{
    answer, context, event,
    maps::config,
    packet::{self, KIND_ERROR, KIND_FLOW, Packet, TCP, WHOLE},
    policy, proxy,
    service::{self, Counted},
};

/// The entry point.
#[classifier]
pub fn bounced(ctx: TcContext) -> i32 {
    let (Some(config), Some(packet)) = (config(), packet::scratch()) else { return TC_ACT_SHOT };
    let skb = ctx.skb.skb;
    // What the devices say to each other (neighbour discovery) has no reader here.
    if packet::parse(skb, packet) != packet::IP {
        return TC_ACT_SHOT;
    }
    // The frame is addressed to a pod; without this the stack drops it as somebody else's.
    if !context::set_for_host(skb) {
        return drop(packet, Reason::ProxyAssignFailed);
    }
    hand_over(skb, packet, config)
}

#[inline(always)]
fn drop(packet: &Packet, reason: Reason) -> i32 {
    event::drop(packet, reason as u16, EGRESS);
    TC_ACT_SHOT
}

#[inline(always)]
fn hand_over(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> i32 {
    let mark = context::mark(skb) & config.mark_mask;
    if packet.protocol != TCP {
        // Link-local chatter of the device itself is nobody's loss.
        return if service::is_address(&packet.receiver) { not_translated(skb, packet) } else { TC_ACT_SHOT };
    }
    match packet.kind {
        KIND_FLOW if packet.fragment == WHOLE => {}
        KIND_ERROR if proxy::knows(skb, packet, config) => {
            context::set_mark(skb, config.mark_mask, config.to_proxy);
            return proxy::DELIVER;
        }
        KIND_ERROR => return TC_ACT_SHOT,
        _ => return drop(packet, Reason::FragmentUnsupported),
    }
    if proxy::assign_known(skb, packet, config) {
        return proxy::DELIVER;
    }
    // Decided by the hook that sent it here, or sent to a kept address by who passes none.
    if mark != config.to_proxy {
        let kept = service::at(&packet.destination, packet.destination_port_be, packet.protocol);
        match kept {
            Some(service) if service.flags & SERVICE_KEPT != 0 && mark != config.from_proxy => {
                client(skb, packet, service.id);
            }
            _ => return not_translated(skb, packet),
        }
    }
    match proxy::assign_listener(skb, packet, config) {
        0 => proxy::DELIVER,
        reason => {
            event::drop(packet, reason, EGRESS);
            TC_ACT_SHOT
        }
    }
}

/// A process of the node asks for a service past the hooks of sockets. Where nobody serves it, it is told so;
/// its own stack takes the answer.
#[inline(never)]
fn not_translated(skb: *mut __sk_buff, packet: &Packet) -> i32 {
    let reason = match service::at(&packet.destination, packet.destination_port_be, packet.protocol) {
        None if service::is_address(&packet.destination) => Reason::UnknownServicePort,
        Some(service) if service.backends == 0 && service.flags & SERVICE_KEPT == 0 => {
            Reason::NoServiceBackend
        }
        _ => return drop(packet, Reason::ServiceNotTranslated),
    };
    if answer::refuse(skb, packet) {
        event::drop(packet, reason as u16, EGRESS);
        return proxy::DELIVER;
    }
    drop(packet, reason)
}

/// Tells of a client that no hook has seen. The node itself is known by a socket of its own that sends: its
/// address is also that of traffic from outside which the node has translated.
#[inline(always)]
fn client(skb: *mut __sk_buff, packet: &Packet, service_id: u32) {
    if !packet.begins() {
        return;
    }
    event::count(0, METRIC_REDIRECT, EGRESS, packet.length);
    service::count(service_id, Counted::Redirected);
    let known = policy::identity(&packet.source);
    let outside = known == identity::HOST && context::socket(skb).is_null();
    let client = if outside { identity::WORLD } else { known };
    event::redirected(packet, EGRESS, (client, 0), (0, service_id));
}
