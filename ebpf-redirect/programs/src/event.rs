// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Counts every decision, and tells user space of the ones that matter.

use aya_ebpf::bindings::{BPF_ANY, TC_ACT_SHOT};
use weft_ebpf_common::{
    connection::{Connection, ConnectionKey},
    layout::{
        DropKey, DropState, EGRESS, EVENT_CLOSE, EVENT_DROP, EVENT_OPEN, EVENT_REDIRECT, Endpoint, Event,
        INGRESS, METRIC_DROP, Workload, metric_index,
    },
};

use crate::{
    context,
    maps::{DROPS, EVENTS, LOST, METRICS, config},
    packet::Packet,
    policy, share,
};

/// Counts a packet.
#[inline(always)]
pub(crate) fn count(reason: u16, outcome: u8, direction: u8, bytes: u32) {
    if let Some(metric) = METRICS.get_ptr_mut(metric_index(reason, outcome, direction)) {
        // SAFETY: this CPU's value, which no other program has while this one runs.
        let metric = unsafe { &mut *metric };
        metric.packets += 1;
        metric.bytes += u64::from(bytes);
    }
}

/// A packet that is decided about is dropped: the number of the reason is added to this, which is behind all
/// verdicts of tc.
const DROPPED: i32 = 0x1_0000;

/// The decision to drop a packet.
#[inline(always)]
pub(crate) fn dropped(reason: u16) -> i32 {
    DROPPED + i32::from(reason)
}

/// The verdict of tc for what was decided. A drop is counted and told here, once for all ways to it.
#[inline(always)]
pub(crate) fn settle(packet: &Packet, decided: i32, direction: u8) -> i32 {
    if decided < DROPPED {
        return decided;
    }
    drop(packet, (decided - DROPPED) as u16, direction);
    TC_ACT_SHOT
}

/// Sends an event, or counts it as lost.
#[inline(always)]
pub(crate) fn send(event: Event) {
    if let Some(mut place) = EVENTS.reserve::<Event>(0) {
        place.write(event);
        place.submit(0);
    } else {
        lose();
    }
}

#[inline(always)]
fn lose() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: this CPU's value, which no other program has while this one runs.
        unsafe { *lost += 1 }
    }
}

/// Tells of a connection that a workload opens (egress) or that is opened to it (ingress).
#[inline(never)]
pub(crate) fn opened(packet: &Packet, at: u8, workload: &Workload) {
    if !share::may_tell(workload.id) {
        return lose();
    }
    let mut event = about(packet, EVENT_OPEN, at, workload.id);
    event.opened_ns = event.time_ns;
    (event.source_identity, event.destination_identity) =
        if at == EGRESS { (workload.identity, packet.peer) } else { (packet.peer, workload.identity) };
    send(event);
}

/// An event about a packet.
#[inline(always)]
pub(crate) fn about(packet: &Packet, kind: u8, direction: u8, workload: u32) -> Event {
    Event {
        time_ns: context::now(),
        opened_ns: 0,
        source: packet.source,
        destination: packet.destination,
        service: Endpoint::default(),
        source_port_be: packet.source_port_be,
        destination_port_be: packet.destination_port_be,
        kind,
        direction,
        protocol: packet.protocol,
        tcp_flags: packet.tcp_flags,
        reason: 0,
        pad: 0,
        source_identity: 0,
        destination_identity: 0,
        workload,
        service_id: 0,
        suppressed: 0,
        process: 0,
        verdict: packet.verdict,
        pad2: 0,
        packets: 0,
        bytes: 0,
        reply_packets: 0,
        reply_bytes: 0,
    }
}

/// Counts a drop and tells of it, but not more often than the configuration allows.
#[inline(never)]
pub(crate) fn drop(packet: &Packet, reason: u16, direction: u8) {
    count(reason, METRIC_DROP, direction, packet.length);
    let now = context::now();
    let key = DropKey {
        source: packet.source,
        destination: packet.destination,
        reason,
        port_be: packet.destination_port_be,
    };
    let mut suppressed = 0;
    if let Some(state) = DROPS.get_ptr_mut(&key) {
        let interval = config().map_or(1000, |config| config.drop_interval_ms);
        // SAFETY: plain numbers that live as long as the program runs. Another CPU may write them too: then
        // one event more is sent, or one fewer is counted.
        let state = unsafe { &mut *state };
        if now - state.sent_ns < u64::from(interval) * 1_000_000 {
            state.suppressed += 1;
            return;
        }
        suppressed = state.suppressed as u32;
        state.sent_ns = now;
        state.suppressed = 0;
    } else {
        let _full = DROPS.insert(&key, &DropState { sent_ns: now, suppressed: 0 }, u64::from(BPF_ANY));
    }
    if !share::may_tell(packet.workload) {
        return lose();
    }
    let mut event = about(packet, EVENT_DROP, direction, packet.workload);
    event.reason = reason;
    event.suppressed = suppressed;
    event.source_identity = policy::identity(&packet.source);
    event.destination_identity = policy::identity(&packet.destination);
    send(event);
}

/// Tells that a connection was handed to the proxy: identities of its ends, numbers of workload and service.
#[inline(always)]
pub(crate) fn redirected(packet: &Packet, at: u8, identities: (u32, u32), numbers: (u32, u32)) {
    let (workload, service) = numbers;
    send_redirected(packet, u32::from(at) | workload << 8, service, identities.0, identities.1);
}

#[inline(never)]
fn send_redirected(packet: &Packet, at_workload: u32, service: u32, source: u32, destination: u32) {
    let mut event = about(packet, EVENT_REDIRECT, at_workload as u8, at_workload >> 8);
    event.source_identity = source;
    event.destination_identity = destination;
    event.service_id = service;
    send(event);
}

/// Tells that a connection has ended, as its opener sees it or, where only the other end is here, as that one.
#[inline(never)]
pub(crate) fn closed(key: &ConnectionKey, entry: &Connection, reason: u16) {
    // Indices rather than branches: the verifier follows each.
    let (first, second) = (usize::from(entry.opener & 1), usize::from(entry.opener & 1 ^ 1));
    let (opener, other) = (&entry.ends[first], &entry.ends[second]);
    let here = opener.workload != 0;
    send(Event {
        time_ns: entry.seen_ns,
        opened_ns: entry.opened_ns,
        source: key.addresses[first],
        destination: key.addresses[second],
        service: Endpoint::default(),
        source_port_be: key.ports_be[first],
        destination_port_be: key.ports_be[second],
        kind: EVENT_CLOSE,
        direction: if here { EGRESS } else { INGRESS },
        protocol: key.protocol,
        tcp_flags: 0,
        reason,
        pad: 0,
        source_identity: opener.identity,
        destination_identity: other.identity,
        workload: if here { opener.workload } else { other.workload },
        service_id: 0,
        suppressed: 0,
        process: 0,
        verdict: if here { opener.verdict } else { other.verdict },
        pad2: 0,
        packets: opener.packets,
        bytes: opener.bytes,
        reply_packets: other.packets,
        reply_bytes: other.bytes,
    });
}
