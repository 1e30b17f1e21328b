// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Egress of a pod's host-side device: everything that anybody sends to the pod.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use weft_ebpf_common::{
    Action, Reason, identity,
    layout::{
        Config, EVENT_REDIRECT, INGRESS, METRIC_DROP, METRIC_FROM_PROXY, METRIC_PASS, METRIC_REDIRECT,
        WORKLOAD_INGRESS_OPEN, Workload,
    },
};

use crate::{
    context, event, flow, fragment,
    from_pod::unfollowed,
    icmp,
    maps::{self, config},
    packet::{self, KIND_ERROR, KIND_FLOW, KIND_FRAGMENT, KIND_LINK, Packet, TCP, WHOLE},
    policy, proxy,
};

/// The entry point.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    let (Some(config), Some(packet)) = (config(), packet::scratch()) else { return TC_ACT_SHOT };
    let skb = ctx.skb.skb;
    match packet::parse(skb, packet) {
        packet::IP => decide(skb, packet, config),
        packet::NOT_IP => TC_ACT_UNSPEC,
        _ => {
            event::count(Reason::InvalidPacket as u16, METRIC_DROP, INGRESS, context::length(skb));
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn drop(packet: &Packet, reason: Reason, workload: u32) -> i32 {
    drop_for(packet, reason as u16, workload)
}

/// The same with the number of the reason.
#[inline(always)]
fn drop_for(packet: &Packet, reason: u16, workload: u32) -> i32 {
    event::drop(packet, reason, INGRESS, workload);
    TC_ACT_SHOT
}

#[inline(always)]
fn pass(packet: &Packet) -> i32 {
    event::count(0, METRIC_PASS, INGRESS, packet.length);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn decide(skb: *mut __sk_buff, packet: &mut Packet, config: &Config) -> i32 {
    match maps::workload(&packet.receiver) {
        // A bridge floods what it has not learned to every port; only the right one decides.
        Some(workload) if workload.ifindex != context::ifindex(skb) => TC_ACT_SHOT,
        Some(workload) => decide_for(skb, packet, workload, config),
        None if packet.kind == KIND_LINK => pass(packet),
        None if proxy::sent(skb, packet, config) => from_proxy(packet),
        None => drop(packet, Reason::UnknownDestination, 0),
    }
}

#[inline(always)]
fn from_proxy(packet: &Packet) -> i32 {
    event::count(0, METRIC_FROM_PROXY, INGRESS, packet.length);
    TC_ACT_UNSPEC
}

/// Decides about a packet to a workload that is behind this device.
#[inline(always)]
pub(crate) fn decide_for(
    skb: *mut __sk_buff,
    packet: &mut Packet,
    workload: &Workload,
    config: &Config,
) -> i32 {
    if packet.kind == KIND_LINK {
        return pass(packet);
    }
    if proxy::sent(skb, packet, config) {
        return from_proxy(packet);
    }
    fragment::follow(packet);
    match packet.kind {
        KIND_FLOW => flow(skb, packet, workload, config),
        KIND_ERROR => error(skb, packet, workload, config),
        KIND_FRAGMENT if workload.flags & WORKLOAD_INGRESS_OPEN != 0 => pass(packet),
        KIND_FRAGMENT => drop(packet, Reason::FragmentUnsupported, workload.id),
        _ => other(skb, packet, workload),
    }
}

/// Who sends. The node itself is known by a socket of its own that sends: its address is also that of
/// traffic from outside which the node has translated.
#[inline(always)]
fn sender(skb: *mut __sk_buff, packet: &Packet) -> u32 {
    let peer = policy::identity(&packet.sender);
    if peer == identity::HOST && context::socket(skb).is_null() {
        return identity::WORLD;
    }
    peer
}

#[inline(always)]
fn flow(skb: *mut __sk_buff, packet: &mut Packet, workload: &Workload, config: &Config) -> i32 {
    let port = u16::from_be(packet.destination_port_be);
    let block = packet.protocol == TCP && port >= config.first_port && port <= config.last_port;
    if block && proxy::knows(skb, packet, config) {
        return around(skb, packet, workload, config);
    }
    match flow::known(packet, INGRESS, workload, config) {
        flow::NEW => {}
        flow::PASS => return pass(packet),
        code => return drop_for(packet, (code - flow::DROP) as u16, workload.id),
    }
    if packet.protocol == TCP && !block && proxy::knows(skb, packet, config) {
        return around(skb, packet, workload, config);
    }
    let peer = sender(skb, packet);
    let port = if packet::has_ports(packet.protocol) { packet.destination_port_be } else { 0 };
    match flow::decide(INGRESS, peer, packet.protocol, port, workload, &mut packet.verdict) {
        Action::Allow => allow(packet, workload, peer, config),
        Action::Redirect if packet.protocol == TCP => redirect(skb, packet, workload, peer, config),
        Action::Redirect => drop(packet, Reason::RedirectUnsupported, workload.id),
        Action::Deny => drop_for(packet, flow::denial(&packet.verdict), workload.id),
    }
}

#[inline(always)]
fn allow(packet: &Packet, workload: &Workload, peer: u32, config: &Config) -> i32 {
    if !flow::open(packet, INGRESS, workload, peer, config) {
        return drop(packet, Reason::ConntrackInsertFailed, workload.id);
    }
    pass(packet)
}

/// Sockets can be assigned at ingress only.
#[inline(always)]
fn redirect(skb: *mut __sk_buff, packet: &Packet, workload: &Workload, peer: u32, config: &Config) -> i32 {
    if config.listeners == 0 {
        return drop(packet, Reason::ProxyUnavailable, workload.id);
    }
    event::count(0, METRIC_REDIRECT, INGRESS, packet.length);
    if packet.opens() {
        let mut event = event::about(packet, EVENT_REDIRECT, INGRESS, workload.id);
        event.source_identity = peer;
        event.destination_identity = workload.identity;
        event::send(event);
    }
    around(skb, packet, workload, config)
}

/// To the proxy, by the way of our device.
#[inline(always)]
fn around(skb: *mut __sk_buff, packet: &Packet, workload: &Workload, config: &Config) -> i32 {
    // A socket is given whole segments only.
    if packet.fragment != WHOLE {
        return drop(packet, Reason::FragmentUnsupported, workload.id);
    }
    proxy::bounce(skb, config)
}

#[inline(always)]
fn error(skb: *mut __sk_buff, packet: &mut Packet, workload: &Workload, config: &Config) -> i32 {
    if !icmp::is_from_the_way(packet) {
        return drop(packet, Reason::UnrelatedError, workload.id);
    }
    if packet.protocol == TCP && proxy::knows(skb, packet, config) {
        return around(skb, packet, workload, config);
    }
    if !icmp::is_followed(packet) {
        return other(skb, packet, workload);
    }
    if flow::related(packet, config) {
        pass(packet)
    } else {
        drop(packet, Reason::UnrelatedError, workload.id)
    }
}

/// No ports and no replies to remember: each packet is decided on its own.
#[inline(always)]
fn other(skb: *mut __sk_buff, packet: &mut Packet, workload: &Workload) -> i32 {
    let peer = sender(skb, packet);
    match flow::decide(INGRESS, peer, packet.outer_protocol(), 0, workload, &mut packet.verdict) {
        Action::Allow => pass(packet),
        Action::Redirect => drop(packet, Reason::RedirectUnsupported, workload.id),
        Action::Deny => drop_for(packet, unfollowed(packet), workload.id),
    }
}
