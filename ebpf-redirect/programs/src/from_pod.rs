// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Ingress of a pod's host-side device: everything that the pod sends.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use weft_ebpf_common::{
    Action, Reason,
    connection::Connection,
    identity,
    layout::{
        Address, Config, EGRESS, METRIC_DROP, METRIC_PASS, METRIC_REDIRECT, SERVICE_KEPT, WORKLOAD_BRIDGED,
        WORKLOAD_EGRESS_OPEN, Workload,
    },
};

use crate::{
    answer, connection, context, event, foreign, fragment, icmp,
    maps::{self, config},
    packet::{
        self, KIND_ERROR, KIND_FLOW, KIND_FRAGMENT, KIND_LINK, Link, NEIGHBOUR_ADVERTISEMENT, NEXT_HOP,
        Packet, ROUTER_ADVERTISEMENT, TCP, WHOLE,
    },
    policy, proxy,
    service::{self, Counted},
    short,
};

/// The entry point.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    let (Some(config), Some(packet)) = (config(), packet::scratch()) else { return TC_ACT_SHOT };
    let skb = ctx.skb.skb;
    // What a pod claims about its packets is forgotten.
    context::set_mark(skb, config.mark_mask, 0);
    match packet::parse(skb, packet) {
        packet::IP => {
            let decided = decide(skb, packet, config);
            event::settle(packet, decided, EGRESS)
        }
        packet::NOT_IP => frame(skb),
        _ => refuse(skb, Reason::InvalidPacket),
    }
}

/// Drops what has no addresses that a flow event could name.
#[inline(always)]
pub(crate) fn refuse(skb: *mut __sk_buff, reason: Reason) -> i32 {
    event::count(reason as u16, METRIC_DROP, EGRESS, context::length(skb));
    TC_ACT_SHOT
}

/// A pod may ask who has an address, and say that it has its own.
#[inline(always)]
pub(crate) fn frame(skb: *mut __sk_buff) -> i32 {
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
pub(crate) fn neighbour(skb: *mut __sk_buff, packet: &Packet) -> i32 {
    match packet.icmp {
        ROUTER_ADVERTISEMENT | NEXT_HOP => drop(Reason::UnsupportedL3),
        NEIGHBOUR_ADVERTISEMENT if !link_local(&packet.destination) && !owns(skb, &packet.destination) => {
            drop(Reason::InvalidSourceIp)
        }
        _ => pass(packet),
    }
}

#[inline(always)]
fn drop(reason: Reason) -> i32 {
    event::dropped(reason as u16)
}

#[inline(always)]
fn pass(packet: &Packet) -> i32 {
    event::count(0, METRIC_PASS, EGRESS, packet.length);
    TC_ACT_UNSPEC
}

/// `fe80::/10` or unspecified: what a pod uses on its link before and beside its address.
#[inline(always)]
pub(crate) fn link_local(address: &Address) -> bool {
    address.0[0] & 0xffc0_0000_u32.to_be() == 0xfe80_0000_u32.to_be() || address.0 == [0; 4]
}

#[inline(always)]
fn link_scope(address: &Address) -> bool {
    link_local(address) || address.0[0] & 0xff0f_0000_u32.to_be() == 0xff02_0000_u32.to_be()
}

/// What a pod says to its link only, from no address that a policy could know.
#[inline(always)]
pub(crate) fn is_on_link(packet: &Packet) -> bool {
    link_local(&packet.sender) && link_scope(&packet.receiver) && packet.kind == KIND_LINK
}

#[inline(always)]
fn decide(skb: *mut __sk_buff, packet: &mut Packet, config: &Config) -> i32 {
    if is_on_link(packet) {
        return neighbour(skb, packet);
    }
    let mut found = None;
    if packet.kind == KIND_FLOW && packet.fragment == WHOLE {
        packet.name_connection();
        packet.came_by = context::ifindex(skb);
        found = connection::find(packet);
        if let Some(entry) = &mut found
            && !is_block(packet, config)
            && short::is_frame_of(skb, entry.ends[packet.sender_end()].bridged)
            && connection::leaves(packet, entry, config)
        {
            return short::send(skb, packet);
        }
    }
    let Some(workload) = maps::workload(&packet.sender) else {
        return drop(Reason::InvalidSourceIp);
    };
    if workload.ifindex != context::ifindex(skb) {
        return drop(Reason::InvalidSourceIp);
    }
    decide_for(skb, packet, found, workload, config)
}

/// Whether it goes to a port of the proxy's own. These come first: an entry may be one of before it had them.
#[inline(always)]
fn is_block(packet: &Packet, config: &Config) -> bool {
    let port = u16::from_be(packet.destination_port_be);
    packet.protocol == TCP && port >= config.first_port && port <= config.last_port
}

/// Decides about a packet of a workload that is behind this device.
#[inline(always)]
fn decide_for(
    skb: *mut __sk_buff,
    packet: &mut Packet,
    found: Option<&mut Connection>,
    workload: &Workload,
    config: &Config,
) -> i32 {
    packet.workload = workload.id;
    fragment::follow(packet);
    match packet.kind {
        KIND_LINK => neighbour(skb, packet),
        KIND_FLOW => flow(skb, packet, found, workload, config),
        KIND_ERROR => error(skb, packet, workload, config),
        KIND_FRAGMENT => unknown_datagram(packet, workload),
        _ => other(packet, workload),
    }
}

#[inline(always)]
fn flow(
    skb: *mut __sk_buff,
    packet: &mut Packet,
    found: Option<&mut Connection>,
    workload: &Workload,
    config: &Config,
) -> i32 {
    if is_block(packet, config) && to_connection(skb, packet, workload, config) {
        return delivered(skb, packet, workload, config);
    }
    let found = if packet.fragment == WHOLE {
        found
    } else {
        packet.name_connection();
        connection::find(packet)
    };
    let mut code = connection::known(packet, found, EGRESS, workload, config);
    if code == connection::SHORT && short::is_frame_of(skb, u8::from(workload.flags & WORKLOAD_BRIDGED != 0))
    {
        return short::send(skb, packet);
    }
    if code == connection::PASS || code == connection::SHORT {
        return pass(packet);
    }
    // What the other end's policy gave to the proxy goes there at once: on the way round, connection tracking
    // would find it invalid.
    if code < connection::DROP && packet.protocol == TCP && to_connection(skb, packet, workload, config) {
        return delivered(skb, packet, workload, config);
    }
    if code == connection::NEW {
        code = if is_taken(skb, packet, config) {
            connection::DROP + Reason::PortInUse as u32
        } else {
            new(packet, workload, config)
        };
    }
    match code {
        connection::PASS => pass(packet),
        // Of a connection that the proxy does not know any more, its listener resets the rest.
        connection::PROXIED => redirect(skb, packet, workload, config),
        code => end(skb, packet, workload, config, (code - connection::DROP) as u16),
    }
}

/// Whether a pod opens what the proxy has in its name already: only where its own range of ports reaches into the
/// proxy's, and only with the same other end.
#[inline(always)]
fn is_taken(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> bool {
    let port = u16::from_be(packet.source_port_be);
    let block = packet.protocol == TCP && port >= config.first_port && port <= config.last_port;
    block && packet.first != 0 && proxy::has(skb, packet, config)
}

/// Decides about what the pod's end knows nothing of.
#[inline(never)]
fn new(packet: &mut Packet, workload: &Workload, config: &Config) -> u32 {
    const NOT_TRANSLATED: u32 = connection::DROP + Reason::ServiceNotTranslated as u32;
    let mut other = packet.destination;
    if let Some(service) = service::at(&packet.destination, packet.destination_port_be, packet.protocol) {
        packet.service = service.id;
        if service.flags & SERVICE_KEPT != 0 {
            return connection::PROXIED;
        }
        if !foreign::backend(packet, EGRESS, &mut other) {
            let unserved = service.backends == 0;
            return if unserved {
                connection::DROP + Reason::NoServiceBackend as u32
            } else {
                NOT_TRANSLATED
            };
        }
    } else if service::is_address(&packet.destination) && !foreign::backend(packet, EGRESS, &mut other) {
        let has_ports = packet::has_ports(packet.protocol);
        return if has_ports { connection::DROP + Reason::UnknownServicePort as u32 } else { NOT_TRANSLATED };
    }
    let peer = policy::identity(&other);
    // The node's own address is also that of traffic from outside which the node has translated.
    let opener = if peer == identity::HOST { identity::WORLD } else { peer };
    packet.peer = peer;
    connection::new(packet, EGRESS, (peer, opener), workload, config)
}

/// Drops a packet. Who asks for a service that nobody serves is refused, and who has chosen a port that is taken. Where the packet is from the middle of
/// a connection, the pod is told that this is over: the stack resets what comes to a listener and belongs to
/// nothing.
#[inline(never)]
fn end(skb: *mut __sk_buff, packet: &Packet, workload: &Workload, config: &Config, reason: u16) -> i32 {
    let refused = reason == Reason::NoServiceBackend as u16
        || reason == Reason::UnknownServicePort as u16
        || reason == Reason::PortInUse as u16;
    if refused && answer::refuse(skb, packet) {
        event::drop(packet, reason, EGRESS);
        return answer::to_pod(skb);
    }
    if !packet.can_be_reset() || config.listeners == 0 {
        return event::dropped(reason);
    }
    let bridged = workload.flags & WORKLOAD_BRIDGED != 0;
    if !bridged && proxy::assign_listener(skb, packet, config) != 0 {
        return event::dropped(reason);
    }
    event::drop(packet, reason, EGRESS);
    delivered(skb, packet, workload, config)
}

/// Why a packet is dropped that belongs to no flow which could be followed.
#[inline(always)]
pub(crate) fn unfollowed(packet: &Packet) -> u16 {
    let reason = connection::denial(&packet.verdict);
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

/// A bridge forwards by MAC address, past the route lookup that delivers: our device instead.
#[inline(always)]
fn delivered(skb: *mut __sk_buff, packet: &Packet, workload: &Workload, config: &Config) -> i32 {
    // A socket is given whole segments only.
    if packet.fragment != WHOLE {
        return drop(Reason::FragmentUnsupported);
    }
    if workload.flags & WORKLOAD_BRIDGED != 0 { proxy::bounce(skb, config) } else { proxy::DELIVER }
}

#[inline(never)]
fn redirect(skb: *mut __sk_buff, packet: &Packet, workload: &Workload, config: &Config) -> i32 {
    if packet.fragment != WHOLE {
        return drop(Reason::FragmentUnsupported);
    }
    if config.listeners == 0 {
        return drop(Reason::ProxyUnavailable);
    }
    if workload.flags & WORKLOAD_BRIDGED == 0 {
        match proxy::assign_listener(skb, packet, config) {
            0 => {}
            reason => return event::dropped(reason),
        }
    }
    event::count(0, METRIC_REDIRECT, EGRESS, packet.length);
    if packet.first != 0 {
        if packet.service != 0 {
            service::count(packet.service, Counted::Redirected);
        }
        event::redirected(packet, EGRESS, (workload.identity, 0), (workload.id, packet.service));
    }
    delivered(skb, packet, workload, config)
}

#[inline(never)]
fn error(skb: *mut __sk_buff, packet: &mut Packet, workload: &Workload, config: &Config) -> i32 {
    if !icmp::is_from_receiver(packet) {
        return drop(Reason::UnrelatedError);
    }
    if packet.protocol == TCP && proxy::knows(skb, packet, config) {
        context::set_mark(skb, config.mark_mask, config.to_proxy);
        return delivered(skb, packet, workload, config);
    }
    if !icmp::is_followed(packet) {
        return other(packet, workload);
    }
    packet.name_connection();
    if connection::related(packet, EGRESS) { pass(packet) } else { drop(Reason::UnrelatedError) }
}

#[inline(always)]
fn unknown_datagram(packet: &Packet, workload: &Workload) -> i32 {
    if workload.flags & WORKLOAD_EGRESS_OPEN != 0 && !service::is_address(&packet.receiver) {
        return pass(packet);
    }
    drop(Reason::FragmentUnsupported)
}

/// No ports and no replies to remember: each packet is decided on its own.
#[inline(always)]
fn other(packet: &mut Packet, workload: &Workload) -> i32 {
    if service::is_address(&packet.receiver) {
        return drop(Reason::ServiceNotTranslated);
    }
    let peer = policy::identity(&packet.receiver);
    match connection::decide(EGRESS, peer, packet.outer_protocol(), 0, workload, &mut packet.verdict) {
        Action::Allow => pass(packet),
        Action::Redirect => drop(Reason::RedirectUnsupported),
        Action::Deny => event::dropped(unfollowed(packet)),
    }
}
