// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Finds the proxy's sockets and hands packets to them.
//!
//! SECURITY: a socket is the proxy's when the socket itself has our mark. Setting it needs
//! CAP_NET_ADMIN in the node's network namespace, and the `setsockopt` hook refuses it to everybody
//! else in the node's cgroup. The mark of a packet alone proves nothing.

use core::mem;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_OK, TC_ACT_SHOT, bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_redirect, bpf_skc_lookup_tcp},
};
use weft_ebpf_common::{
    Reason, identity,
    layout::{Address, Config, METRIC_PROXIED},
};

use crate::{
    context, event,
    maps::LISTENERS,
    packet::{Packet, RST, TCP},
    policy,
};

const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;
const NEW_SYN_RECV: u32 = 12;
const SOCK_RAW: u32 = 3;
/// `BPF_F_CURRENT_NETNS`.
const HERE: u64 = u32::MAX as u64;

/// Looks up the TCP socket of the node that takes packets from `source` to `destination`.
#[inline(always)]
fn lookup(
    skb: *mut __sk_buff,
    source: &Address,
    destination: &Address,
    source_port_be: u16,
    destination_port_be: u16,
) -> *mut bpf_sock {
    // SAFETY: zeroes are valid for a union of plain numbers.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    let size = if destination.is_v4() {
        tuple.__bindgen_anon_1.ipv4.saddr = source.0[3];
        tuple.__bindgen_anon_1.ipv4.daddr = destination.0[3];
        tuple.__bindgen_anon_1.ipv4.sport = source_port_be;
        tuple.__bindgen_anon_1.ipv4.dport = destination_port_be;
        12
    } else {
        tuple.__bindgen_anon_1.ipv6.saddr = source.0;
        tuple.__bindgen_anon_1.ipv6.daddr = destination.0;
        tuple.__bindgen_anon_1.ipv6.sport = source_port_be;
        tuple.__bindgen_anon_1.ipv6.dport = destination_port_be;
        36
    };
    // The size must be known to the verifier, so one call for each.
    if size == 12 {
        // SAFETY: the context, and a tuple of at least this size.
        unsafe { bpf_skc_lookup_tcp(skb.cast(), &mut tuple, 12, HERE, 0) }
    } else {
        // SAFETY: the context, and a tuple of this size.
        unsafe { bpf_skc_lookup_tcp(skb.cast(), &mut tuple, 36, HERE, 0) }
    }
}

/// Whether a connected socket that was looked up for packets to `local` is the proxy's.
#[inline(always)]
fn ours(sk: *mut bpf_sock, local: &Address, config: &Config) -> bool {
    let full = context::full(sk);
    if !full.is_null() {
        let (state, mark) = (context::state(full), context::socket_mark(full));
        return state != LISTEN && mark & config.mark_mask == config.from_proxy;
    }
    match context::state(sk) {
        NEW_SYN_RECV => {
            let listener = context::listener(sk);
            !listener.is_null() && context::socket_mark(listener) & config.mark_mask == config.from_proxy
        }
        // It has no mark that could be read. Only transparent sockets live at addresses of others.
        TIME_WAIT => policy::identity(local) != identity::HOST,
        _ => false,
    }
}

/// Whether the proxy has a connection that this packet belongs to.
#[inline(never)]
pub(crate) fn knows(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> bool {
    let sk =
        lookup(skb, &packet.source, &packet.destination, packet.source_port_be, packet.destination_port_be);
    if sk.is_null() {
        return false;
    }
    let found = ours(sk, &packet.destination, config);
    context::release(sk);
    found
}

/// Whether the proxy has the connection that a packet would open, in the name of who sends it.
#[inline(never)]
pub(crate) fn has(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> bool {
    let sk =
        lookup(skb, &packet.destination, &packet.source, packet.destination_port_be, packet.source_port_be);
    if sk.is_null() {
        return false;
    }
    let found = ours(sk, &packet.source, config);
    context::release(sk);
    found
}

/// Hands a packet to the proxy's connection, if it has one that the packet belongs to.
/// A SYN that finds a socket in TIME_WAIT goes to it: a new connection of the same addresses could
/// not be entered beside it.
#[inline(never)]
pub(crate) fn assign_known(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> bool {
    let sk =
        lookup(skb, &packet.source, &packet.destination, packet.source_port_be, packet.destination_port_be);
    if sk.is_null() {
        return false;
    }
    let done = ours(sk, &packet.destination, config) && context::assign(skb, sk);
    context::release(sk);
    if done {
        context::set_mark(skb, config.mark_mask, config.to_proxy);
        event::count(0, METRIC_PROXIED, 0, packet.length);
    }
    done
}

/// Hands a packet to one of the proxy's listeners: 0, or the number of a reason.
#[inline(never)]
pub(crate) fn assign_listener(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> u16 {
    let workers = config.listeners;
    if workers == 0 {
        return Reason::ProxyUnavailable as u16;
    }
    let local = if packet.destination.is_v4() {
        Address::v4(u32::from_ne_bytes([127, 0, 0, 1]))
    } else {
        Address([0, 0, 0, 1_u32.to_be()])
    };
    let Some(port) = LISTENERS.get(spread(packet) % workers) else { return Reason::ProxyUnavailable as u16 };
    let port_be = (*port as u16).to_be();
    let any = if packet.destination.is_v4() { Address::v4(0) } else { Address([0; 4]) };
    let sk = lookup(skb, &any, &local, 0, port_be);
    if sk.is_null() {
        return Reason::ProxyUnavailable as u16;
    }
    let full = context::full(sk);
    let mut reason = Reason::ProxyUnavailable as u16;
    if !full.is_null() {
        let (state, socket_mark) = (context::state(full), context::socket_mark(full));
        if state == LISTEN && socket_mark & config.mark_mask == config.from_proxy {
            reason = if context::assign(skb, sk) { 0 } else { Reason::ProxyAssignFailed as u16 };
        }
    }
    context::release(sk);
    if reason == 0 {
        context::set_mark(skb, config.mark_mask, config.to_proxy);
    }
    reason
}

/// The same number for every packet of a flow, so that a repeated SYN finds the same worker.
#[inline(always)]
fn spread(packet: &Packet) -> u32 {
    let mut hash = 0x9e37_79b9_u32;
    let ports = u32::from(packet.source_port_be) << 16 | u32::from(packet.destination_port_be);
    let words =
        [packet.source.0[2], packet.source.0[3], packet.destination.0[2], packet.destination.0[3], ports];
    let mut index = 0;
    while index < 5 {
        hash = (hash ^ words[index]).wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 13;
        index += 1;
    }
    hash
}

/// Whether a packet that leaves this node's stack comes from a socket of the proxy.
#[inline(never)]
pub(crate) fn sent(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> bool {
    if context::mark(skb) & config.mark_mask != config.from_proxy {
        return false;
    }
    let sk = context::socket(skb);
    // An RST for a connection that is gone has no socket of its own, and carries nothing.
    let reset = packet.protocol == TCP && packet.tcp_flags & RST != 0;
    if sk.is_null() {
        return reset;
    }
    let full = context::full(sk);
    if full.is_null() {
        let state = context::state(sk);
        if state == NEW_SYN_RECV {
            let listener = context::listener(sk);
            return !listener.is_null()
                && context::socket_mark(listener) & config.mark_mask == config.from_proxy;
        }
        return state == TIME_WAIT && packet.protocol == TCP;
    }
    let (kind, socket_mark) = (context::socket_type(full), context::socket_mark(full));
    socket_mark & config.mark_mask == config.from_proxy || kind == SOCK_RAW && reset
}

/// Sends a packet around to the ingress of our device, where a socket can be assigned.
#[inline(always)]
pub(crate) fn bounce(skb: *mut __sk_buff, config: &Config) -> i32 {
    if config.device == 0 {
        return TC_ACT_SHOT;
    }
    context::set_mark(skb, config.mark_mask, config.to_proxy);
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect(config.device, u64::from(BPF_F_INGRESS)) as i32 }
}

/// The stack takes it from here.
pub(crate) const DELIVER: i32 = TC_ACT_OK;
