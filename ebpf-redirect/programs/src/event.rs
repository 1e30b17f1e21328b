// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Counts every decision, and tells user space of the ones that matter.

use aya_ebpf::bindings::BPF_ANY;
use weft_ebpf_common::layout::{
    DropKey, DropState, EVENT_CLOSE, EVENT_DROP, Endpoint, Event, Flow, FlowKey, INGRESS, METRIC_DROP,
    Metric, MetricKey,
};

use crate::{
    context,
    maps::{DROPS, EVENTS, LOST, METRICS, config},
    packet::Packet,
    policy,
};

/// Counts a packet.
#[inline(never)]
pub(crate) fn count(reason: u16, outcome: u8, direction: u8, bytes: u32) {
    let key = MetricKey { reason, outcome, direction };
    if let Some(metric) = METRICS.get_ptr_mut(&key) {
        // SAFETY: this CPU's value, which no other program has while this one runs.
        let metric = unsafe { &mut *metric };
        metric.packets += 1;
        metric.bytes += u64::from(bytes);
        return;
    }
    let first = Metric { packets: 1, bytes: u64::from(bytes) };
    let _full = METRICS.insert(&key, &first, u64::from(BPF_ANY));
}

/// Sends an event, or counts it as lost.
#[inline(always)]
pub(crate) fn send(event: Event) {
    if let Some(mut place) = EVENTS.reserve::<Event>(0) {
        place.write(event);
        place.submit(0);
    } else if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: this CPU's value, which no other program has while this one runs.
        unsafe { *lost += 1 }
    }
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
pub(crate) fn drop(packet: &Packet, reason: u16, direction: u8, workload: u32) {
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
    let mut event = about(packet, EVENT_DROP, direction, workload);
    event.reason = reason;
    event.suppressed = suppressed;
    event.source_identity = policy::identity(&packet.source);
    event.destination_identity = policy::identity(&packet.destination);
    send(event);
}

/// Tells that a flow has ended.
#[inline(never)]
pub(crate) fn closed(key: &FlowKey, flow: &Flow, reason: u16) {
    let (source_identity, destination_identity) =
        if key.direction == INGRESS { (flow.peer, 0) } else { (0, flow.peer) };
    send(Event {
        time_ns: flow.seen_ns,
        opened_ns: flow.opened_ns,
        source: key.source,
        destination: key.destination,
        service: Endpoint::default(),
        source_port_be: key.source_port_be,
        destination_port_be: key.destination_port_be,
        kind: EVENT_CLOSE,
        direction: key.direction,
        protocol: key.protocol,
        tcp_flags: 0,
        reason,
        pad: 0,
        source_identity,
        destination_identity,
        workload: flow.workload,
        service_id: 0,
        suppressed: 0,
        process: 0,
        verdict: flow.verdict,
        pad2: 0,
        packets: flow.packets,
        bytes: flow.bytes,
        reply_packets: flow.reply_packets,
        reply_bytes: flow.reply_bytes,
    });
}
