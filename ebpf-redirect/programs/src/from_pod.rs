// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Ingress of a pod's host-side device: everything that the pod sends.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use weft_ebpf_common::{
    Action, Reason,
    layout::{
        Address, Config, EGRESS, EVENT_REDIRECT, METRIC_DROP, METRIC_PASS, METRIC_REDIRECT, SERVICE_KEPT,
        WORKLOAD_BRIDGED, WORKLOAD_EGRESS_OPEN, Workload,
    },
};

use crate::{
    context, event, flow, fragment, icmp,
    maps::{self, config},
    packet::{
        self, KIND_ERROR, KIND_FLOW, KIND_FRAGMENT, KIND_LINK, Link, NEIGHBOUR_ADVERTISEMENT, NEXT_HOP,
        Packet, ROUTER_ADVERTISEMENT, TCP, WHOLE,
    },
    policy, proxy,
    service::{self, Counted},
};

/// The entry point.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    let (Some(config), Some(packet)) = (config(), packet::scratch()) else { return TC_ACT_SHOT };
    let skb = ctx.skb.skb;
    // What a pod claims about its packets is forgotten.
    context::set_mark(skb, config.mark_mask, 0);
    match packet::parse(skb, packet) {
        packet::IP => decide(skb, packet, config),
        packet::NOT_IP => frame(skb),
        _ => refuse(skb, Reason::InvalidPacket),
    }
}

/// Drops what has no addresses that a flow event could name.
#[inline(always)]
fn refuse(skb: *mut __sk_buff, reason: Reason) -> i32 {
    event::count(reason as u16, METRIC_DROP, EGRESS, context::length(skb));
    TC_ACT_SHOT
}

/// A pod may ask who has an address, and say that it has its own.
#[inline(always)]
fn frame(skb: *mut __sk_buff) -> i32 {
    match packet::link(skb) {
        Link::Arp(sender) if sender.0[3] == 0 || owns(skb, &sender) => TC_ACT_UNSPEC,
        Link::Arp(_) => refuse(skb, Reason::InvalidSourceIp),
        Link::Other => refuse(skb, Reason::UnsupportedL3),
    }
}

#[inline(always)]
fn owns(skb: *mut __sk_buff, address: &Address) -> bool {
    maps::workload(address).is_some_and(|workload| workload.ifindex == context::ifindex(skb))
}

/// Neighbour discovery. Pods are no routers, and have no addresses but their own.
#[inline(always)]
fn neighbour(skb: *mut __sk_buff, packet: &Packet) -> i32 {
    match packet.icmp {
        ROUTER_ADVERTISEMENT | NEXT_HOP => drop(packet, Reason::UnsupportedL3, 0),
        NEIGHBOUR_ADVERTISEMENT if !link_local(&packet.destination) && !owns(skb, &packet.destination) => {
            drop(packet, Reason::InvalidSourceIp, 0)
        }
        _ => pass(packet),
    }
}

#[inline(always)]
fn drop(packet: &Packet, reason: Reason, workload: u32) -> i32 {
    drop_for(packet, reason as u16, workload)
}

/// The same with the number of the reason.
#[inline(always)]
fn drop_for(packet: &Packet, reason: u16, workload: u32) -> i32 {
    event::drop(packet, reason, EGRESS, workload);
    TC_ACT_SHOT
}

#[inline(always)]
fn pass(packet: &Packet) -> i32 {
    event::count(0, METRIC_PASS, EGRESS, packet.length);
    TC_ACT_UNSPEC
}

/// `fe80::/10` or unspecified: what a pod uses on its link before and beside its address.
#[inline(always)]
fn link_local(address: &Address) -> bool {
    address.0[0] & 0xffc0_0000_u32.to_be() == 0xfe80_0000_u32.to_be() || address.0 == [0; 4]
}

#[inline(always)]
fn link_scope(address: &Address) -> bool {
    link_local(address) || address.0[0] & 0xff0f_0000_u32.to_be() == 0xff02_0000_u32.to_be()
}

#[inline(always)]
fn decide(skb: *mut __sk_buff, packet: &mut Packet, config: &Config) -> i32 {
    if link_local(&packet.sender) && link_scope(&packet.receiver) && packet.kind == KIND_LINK {
        return neighbour(skb, packet);
    }
    let Some(workload) = maps::workload(&packet.sender) else {
        return drop(packet, Reason::InvalidSourceIp, 0);
    };
    if workload.ifindex != context::ifindex(skb) {
        return drop(packet, Reason::InvalidSourceIp, 0);
    }
    decide_for(skb, packet, workload, config)
}

/// Decides about a packet of a workload that is behind this device.
#[inline(always)]
pub(crate) fn decide_for(
    skb: *mut __sk_buff,
    packet: &mut Packet,
    workload: &Workload,
    config: &Config,
) -> i32 {
    fragment::follow(packet);
    match packet.kind {
        KIND_LINK => neighbour(skb, packet),
        KIND_FLOW => flow(skb, packet, workload, config),
        KIND_ERROR => error(skb, packet, workload, config),
        KIND_FRAGMENT => unknown_datagram(packet, workload),
        _ => other(packet, workload),
    }
}

#[inline(always)]
fn flow(skb: *mut __sk_buff, packet: &mut Packet, workload: &Workload, config: &Config) -> i32 {
    let port = u16::from_be(packet.destination_port_be);
    let block = packet.protocol == TCP && port >= config.first_port && port <= config.last_port;
    if block && to_connection(skb, packet, workload, config) {
        return delivered(skb, packet, workload, config);
    }
    match flow::known(packet, EGRESS, workload, config) {
        flow::NEW => {}
        // The ingress side of a pod of this node may have sent the first packet to the proxy. The rest goes
        // there at once: on the way round, connection tracking would find it invalid.
        flow::PASS if packet.protocol == TCP && to_neighbour_in_proxy(skb, packet, workload, config) => {
            return delivered(skb, packet, workload, config);
        }
        flow::PASS => return pass(packet),
        code => return drop_for(packet, (code - flow::DROP) as u16, workload.id),
    }
    if packet.protocol == TCP && !block && to_connection(skb, packet, workload, config) {
        return delivered(skb, packet, workload, config);
    }
    if let Some(service) = service::at(&packet.destination, packet.destination_port_be, packet.protocol) {
        if service.flags & SERVICE_KEPT == 0 {
            return drop(packet, Reason::ServiceNotTranslated, workload.id);
        }
        return redirect(skb, packet, workload, config, service.id);
    }
    if service::is_address(&packet.destination) {
        return drop(packet, Reason::ServiceNotTranslated, workload.id);
    }
    let peer = policy::identity(&packet.destination);
    let port = if packet::has_ports(packet.protocol) { packet.destination_port_be } else { 0 };
    match flow::decide(EGRESS, peer, packet.protocol, port, workload, &mut packet.verdict) {
        Action::Allow => {
            if !flow::open(packet, EGRESS, workload, peer, config) {
                return drop(packet, Reason::ConntrackInsertFailed, workload.id);
            }
            pass(packet)
        }
        Action::Redirect if packet.protocol == TCP => redirect(skb, packet, workload, config, 0),
        Action::Redirect => drop(packet, Reason::RedirectUnsupported, workload.id),
        Action::Deny => drop_for(packet, flow::denial(&packet.verdict), workload.id),
    }
}

/// Why a packet is dropped that belongs to no flow which could be followed.
#[inline(always)]
pub(crate) fn unfollowed(packet: &Packet) -> u16 {
    let reason = flow::denial(&packet.verdict);
    if reason == Reason::PolicyDenied as u16 { Reason::UnknownL4 as u16 } else { reason }
}

/// Hands over to a connection of the proxy here, or finds that it must be done at our device.
#[inline(always)]
fn to_connection(skb: *mut __sk_buff, packet: &Packet, workload: &Workload, config: &Config) -> bool {
    if workload.flags & WORKLOAD_BRIDGED != 0 {
        proxy::knows(skb, packet, config)
    } else {
        proxy::assign_known(skb, packet, config)
    }
}

/// The same for a packet to another pod of this node; packets to others are spared the lookup.
#[inline(always)]
fn to_neighbour_in_proxy(skb: *mut __sk_buff, packet: &Packet, workload: &Workload, config: &Config) -> bool {
    maps::workload(&packet.destination).is_some() && to_connection(skb, packet, workload, config)
}

/// A bridge forwards by MAC address, past the route lookup that delivers: our device instead.
#[inline(always)]
fn delivered(skb: *mut __sk_buff, packet: &Packet, workload: &Workload, config: &Config) -> i32 {
    // A socket is given whole segments only.
    if packet.fragment != WHOLE {
        return drop(packet, Reason::FragmentUnsupported, workload.id);
    }
    if workload.flags & WORKLOAD_BRIDGED != 0 { proxy::bounce(skb, config) } else { proxy::DELIVER }
}

#[inline(always)]
fn redirect(
    skb: *mut __sk_buff,
    packet: &Packet,
    workload: &Workload,
    config: &Config,
    service_id: u32,
) -> i32 {
    if packet.fragment != WHOLE {
        return drop(packet, Reason::FragmentUnsupported, workload.id);
    }
    if config.listeners == 0 {
        return drop(packet, Reason::ProxyUnavailable, workload.id);
    }
    if workload.flags & WORKLOAD_BRIDGED == 0 {
        match proxy::assign_listener(skb, packet, config) {
            0 => {}
            reason => return drop_for(packet, reason, workload.id),
        }
    }
    event::count(0, METRIC_REDIRECT, EGRESS, packet.length);
    if packet.opens() {
        if service_id != 0 {
            service::count(service_id, Counted::Redirected);
        }
        let mut event = event::about(packet, EVENT_REDIRECT, EGRESS, workload.id);
        event.source_identity = workload.identity;
        event.service_id = service_id;
        event::send(event);
    }
    delivered(skb, packet, workload, config)
}

#[inline(always)]
fn error(skb: *mut __sk_buff, packet: &mut Packet, workload: &Workload, config: &Config) -> i32 {
    if !icmp::is_from_receiver(packet) {
        return drop(packet, Reason::UnrelatedError, workload.id);
    }
    if packet.protocol == TCP && proxy::knows(skb, packet, config) {
        context::set_mark(skb, config.mark_mask, config.to_proxy);
        return delivered(skb, packet, workload, config);
    }
    if !icmp::is_followed(packet) {
        return other(packet, workload);
    }
    if flow::related(packet, config) {
        pass(packet)
    } else {
        drop(packet, Reason::UnrelatedError, workload.id)
    }
}

#[inline(always)]
fn unknown_datagram(packet: &Packet, workload: &Workload) -> i32 {
    if workload.flags & WORKLOAD_EGRESS_OPEN != 0 && !service::is_address(&packet.receiver) {
        return pass(packet);
    }
    drop(packet, Reason::FragmentUnsupported, workload.id)
}

/// No ports and no replies to remember: each packet is decided on its own.
#[inline(always)]
fn other(packet: &mut Packet, workload: &Workload) -> i32 {
    if service::is_address(&packet.receiver) {
        return drop(packet, Reason::ServiceNotTranslated, workload.id);
    }
    let peer = policy::identity(&packet.receiver);
    match flow::decide(EGRESS, peer, packet.outer_protocol(), 0, workload, &mut packet.verdict) {
        Action::Allow => pass(packet),
        Action::Redirect => drop(packet, Reason::RedirectUnsupported, workload.id),
        Action::Deny => drop_for(packet, unfollowed(packet), workload.id),
    }
}
