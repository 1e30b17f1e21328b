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
        Config, INGRESS, METRIC_DROP, METRIC_FROM_PROXY, METRIC_PASS, METRIC_REDIRECT, WORKLOAD_INGRESS_OPEN,
        Workload,
    },
};

use crate::{
    connection, context, event, foreign, fragment,
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
        packet::IP => {
            let decided = decide(skb, packet, config);
            event::settle(packet, decided, INGRESS)
        }
        packet::NOT_IP => TC_ACT_UNSPEC,
        _ => {
            event::count(Reason::InvalidPacket as u16, METRIC_DROP, INGRESS, context::length(skb));
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn drop(reason: Reason) -> i32 {
    event::dropped(reason as u16)
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
        None => drop(Reason::UnknownDestination),
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
    packet.workload = workload.id;
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
        KIND_FRAGMENT => drop(Reason::FragmentUnsupported),
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
    let tcp = packet.protocol == TCP;
    let block = tcp && port >= config.first_port && port <= config.last_port;
    // The proxy's own ports come first: an entry may be one of before it had them.
    if block && proxy::knows(skb, packet, config) {
        return around(skb, packet, config);
    }
    packet.name_connection();
    packet.came_by = context::ingress_ifindex(skb);
    let found = connection::find(packet);
    let mut code = connection::known(packet, found, INGRESS, workload, config);
    if code == connection::PASS {
        return pass(packet);
    }
    if code == connection::PROXIED || code == connection::NEW && tcp && proxy::knows(skb, packet, config) {
        return around(skb, packet, config);
    }
    if code == connection::NEW {
        packet.peer = sender(skb, packet);
        code = new(packet, workload, config);
    }
    match code {
        connection::PASS => pass(packet),
        connection::PROXIED => redirect(skb, packet, workload, config),
        code => end(skb, packet, config, (code - connection::DROP) as u16),
    }
}

/// Decides about what the pod's end knows nothing of.
#[inline(never)]
fn new(packet: &mut Packet, workload: &Workload, config: &Config) -> u32 {
    let mut peers = (policy::identity(&packet.sender), packet.peer);
    let mut backend = packet.sender;
    if foreign::backend(packet, INGRESS, &mut backend) {
        packet.peer = policy::identity(&backend);
        peers = (packet.peer, packet.peer);
    }
    connection::new(packet, INGRESS, peers, workload, config)
}

/// Drops a packet. Where it is from the middle of a connection, who sent it is told that this is over: the
/// stack resets what comes to a listener and belongs to nothing.
#[inline(never)]
fn end(skb: *mut __sk_buff, packet: &Packet, config: &Config, reason: u16) -> i32 {
    if !packet.can_be_reset() || config.listeners == 0 {
        return event::dropped(reason);
    }
    event::drop(packet, reason, INGRESS);
    proxy::bounce(skb, config)
}

/// Sockets can be assigned at ingress only.
#[inline(never)]
fn redirect(skb: *mut __sk_buff, packet: &Packet, workload: &Workload, config: &Config) -> i32 {
    if config.listeners == 0 {
        return drop(Reason::ProxyUnavailable);
    }
    event::count(0, METRIC_REDIRECT, INGRESS, packet.length);
    connection::give_to_proxy(packet);
    if packet.first != 0 {
        event::redirected(packet, INGRESS, (packet.peer, workload.identity), (workload.id, 0));
    }
    around(skb, packet, config)
}

/// To the proxy, by the way of our device.
#[inline(always)]
fn around(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> i32 {
    // A socket is given whole segments only.
    if packet.fragment != WHOLE {
        return drop(Reason::FragmentUnsupported);
    }
    proxy::bounce(skb, config)
}

#[inline(never)]
fn error(skb: *mut __sk_buff, packet: &mut Packet, workload: &Workload, config: &Config) -> i32 {
    if !icmp::is_from_the_way(packet) {
        return drop(Reason::UnrelatedError);
    }
    if packet.protocol == TCP && proxy::knows(skb, packet, config) {
        return around(skb, packet, config);
    }
    if !icmp::is_followed(packet) {
        return other(skb, packet, workload);
    }
    packet.name_connection();
    if connection::related(packet, INGRESS) { pass(packet) } else { drop(Reason::UnrelatedError) }
}

/// No ports and no replies to remember: each packet is decided on its own.
#[inline(always)]
fn other(skb: *mut __sk_buff, packet: &mut Packet, workload: &Workload) -> i32 {
    let peer = sender(skb, packet);
    match connection::decide(INGRESS, peer, packet.outer_protocol(), 0, workload, &mut packet.verdict) {
        Action::Allow => pass(packet),
        Action::Redirect => drop(Reason::RedirectUnsupported),
        Action::Deny => event::dropped(unfollowed(packet)),
    }
}
