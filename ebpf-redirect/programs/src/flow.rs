// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Flows that stay in the kernel: replies need no rule, and what was allowed goes on until a change
//! of the policy makes it be decided again.

use aya_ebpf::bindings::BPF_ANY;
use weft_ebpf_common::{
    Action, Reason, Verdict, identity,
    layout::{
        Config, EGRESS, EVENT_OPEN, FLOW_FIN, FLOW_REPLIED, FLOW_REPLY_FIN, FLOW_RESET, Flow, FlowKey,
        INGRESS, PolicyKey, Workload,
    },
};

use crate::{
    context, event,
    maps::FLOWS,
    packet::{FIN, Packet, RST, TCP},
    policy,
};

/// Nothing is known of the flow.
pub(crate) const NEW: u32 = 0;
/// It may pass.
pub(crate) const PASS: u32 = 1;
/// It is dropped; the reason is added to this.
pub(crate) const DROP: u32 = 0x1_0000;

/// How long a closed TCP flow is remembered for what is still on its way, in nanoseconds.
const CLOSED_NS: u64 = 10_000_000_000;

/// The key of a packet seen as one of the opener.
#[inline(always)]
pub(crate) fn forward(packet: &Packet, direction: u8) -> FlowKey {
    FlowKey {
        source: packet.source,
        destination: packet.destination,
        source_port_be: packet.source_port_be,
        destination_port_be: packet.destination_port_be,
        protocol: packet.protocol,
        direction,
        pad: 0,
    }
}

/// The key of a packet seen as one of the other side.
#[inline(always)]
pub(crate) fn backward(packet: &Packet, direction: u8) -> FlowKey {
    FlowKey {
        source: packet.destination,
        destination: packet.source,
        source_port_be: packet.destination_port_be,
        destination_port_be: packet.source_port_be,
        protocol: packet.protocol,
        direction,
        pad: 0,
    }
}

/// The entry of a flow that is still alive.
#[inline(always)]
fn live(key: &FlowKey, now: u64, config: &Config) -> Option<&'static mut Flow> {
    let flow = FLOWS.get_ptr_mut(key)?;
    // SAFETY: plain numbers that live as long as the program runs. Another CPU may write them too: then a
    // packet is not counted.
    let flow = unsafe { &mut *flow };
    let (flags, idle) = (flow.flags, now.wrapping_sub(flow.seen_ns));
    let most = if key.protocol != TCP {
        u64::from(config.datagram_idle_s) * 1_000_000_000
    } else if is_closed(flags) {
        CLOSED_NS
    } else {
        u64::from(config.stream_idle_s) * 1_000_000_000
    };
    if idle > most { None } else { Some(flow) }
}

#[inline(always)]
fn is_closed(flags: u32) -> bool {
    flags & FLOW_RESET != 0 || flags & (FLOW_FIN | FLOW_REPLY_FIN) == FLOW_FIN | FLOW_REPLY_FIN
}

/// Finds the flow of a packet that `workload` sends (egress) or receives (ingress) and counts it.
#[inline(never)]
pub(crate) fn known(packet: &mut Packet, direction: u8, workload: &Workload, config: &Config) -> u32 {
    // The first packet of a connection is never part of one that is known: the addresses of an old
    // connection must not open a way back, and a reused port is decided anew.
    if packet.opens() {
        return NEW;
    }
    let now = context::now();
    let other = if direction == EGRESS { INGRESS } else { EGRESS };
    let key = backward(packet, other);
    if let Some(flow) = live(&key, now, config) {
        return account(&key, flow, packet, true, workload, config, now);
    }
    let key = forward(packet, direction);
    if let Some(flow) = live(&key, now, config) {
        return account(&key, flow, packet, false, workload, config, now);
    }
    NEW
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "inlined at two places")]
fn account(
    key: &FlowKey,
    flow: &mut Flow,
    packet: &mut Packet,
    reply: bool,
    workload: &Workload,
    config: &Config,
    now: u64,
) -> u32 {
    if flow.epoch != config.epoch {
        let reason = recheck(key, flow.peer, workload, &mut packet.verdict);
        flow.verdict = packet.verdict;
        if reason != 0 {
            event::closed(key, flow, reason);
            let _gone = FLOWS.remove(key);
            return DROP + u32::from(reason);
        }
        flow.epoch = config.epoch;
    }
    flow.seen_ns = now;
    let bytes = u64::from(packet.length);
    let mut flags = flow.flags;
    if reply {
        flow.reply_packets += 1;
        flow.reply_bytes += bytes;
        flags |= FLOW_REPLIED;
    } else {
        flow.packets += 1;
        flow.bytes += bytes;
    }
    if packet.protocol == TCP {
        if packet.tcp_flags & FIN != 0 {
            flags |= if reply { FLOW_REPLY_FIN } else { FLOW_FIN };
        }
        if packet.tcp_flags & RST != 0 {
            flags |= FLOW_RESET;
        }
    }
    let before = flow.flags;
    flow.flags = flags;
    if is_closed(flags) && !is_closed(before) {
        event::closed(key, flow, 0);
    }
    PASS
}

/// Decides an established flow again: 0, or the number of the reason that ends it.
#[inline(always)]
fn recheck(key: &FlowKey, peer: u32, workload: &Workload, found: &mut Verdict) -> u16 {
    let address = if key.direction == EGRESS { &key.destination } else { &key.source };
    let now = policy::identity(address);
    // The node itself was let in by its socket, which the entry remembers and the address does not.
    let peer = if peer == identity::HOST || now != identity::HOST { now } else { peer };
    let port = if crate::packet::has_ports(key.protocol) { key.destination_port_be } else { 0 };
    match decide(key.direction, peer, key.protocol, port, workload, found) {
        Action::Allow => 0,
        Action::Redirect => Reason::PolicyTightened as u16,
        Action::Deny => denial(found),
    }
}

/// Decides about a new flow of a workload; what is said goes to `found`.
#[inline(always)]
pub(crate) fn decide(
    direction: u8,
    peer: u32,
    protocol: u8,
    port_be: u16,
    workload: &Workload,
    found: &mut Verdict,
) -> Action {
    *found = if direction == EGRESS { workload.egress } else { workload.ingress };
    policy::verdict(&PolicyKey { set: workload.policy, identity: peer, direction, protocol, port_be }, found);
    found.action()
}

/// The number of the reason of a denial; a verdict without one was never written.
#[inline(always)]
pub(crate) fn denial(verdict: &Verdict) -> u16 {
    if verdict.reason == 0 { Reason::NoPolicyConfig as u16 } else { verdict.reason }
}

/// Enters a flow that was allowed, and tells of it.
#[inline(never)]
pub(crate) fn open(packet: &Packet, direction: u8, workload: &Workload, peer: u32, config: &Config) -> bool {
    let now = context::now();
    let flow = Flow {
        opened_ns: now,
        seen_ns: now,
        packets: 1,
        bytes: u64::from(packet.length),
        reply_packets: 0,
        reply_bytes: 0,
        epoch: config.epoch,
        flags: 0,
        peer,
        workload: workload.id,
        verdict: packet.verdict,
        pad: 0,
    };
    let key = forward(packet, direction);
    if FLOWS.insert(&key, &flow, u64::from(BPF_ANY)).is_err() {
        return false;
    }
    let mut event = event::about(packet, EVENT_OPEN, direction, workload.id);
    event.opened_ns = now;
    if direction == EGRESS {
        event.source_identity = workload.identity;
        event.destination_identity = peer;
    } else {
        event.source_identity = peer;
        event.destination_identity = workload.identity;
    }
    event::send(event);
    true
}

/// Whether an ICMP error is about a flow that is known.
#[inline(never)]
pub(crate) fn related(packet: &Packet, config: &Config) -> bool {
    let now = context::now();
    // The fields are those of the flow, turned around: the error goes to whoever sent the packet.
    let mut key = forward(packet, EGRESS);
    if live(&key, now, config).is_some() {
        return true;
    }
    key.direction = INGRESS;
    if live(&key, now, config).is_some() {
        return true;
    }
    let mut key = backward(packet, EGRESS);
    if live(&key, now, config).is_some() {
        return true;
    }
    key.direction = INGRESS;
    live(&key, now, config).is_some()
}
