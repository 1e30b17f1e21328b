// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What one workload may take of what all share: entries of connections that nobody has answered, events, and
//! answers.
//!
//! Each workload has so many places for what is half-open, on each CPU, so that nobody waits for another.
//! The newest takes the place of its oldest: a flood displaces the flood.

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_get_smp_processor_id};
use weft_ebpf_common::{
    connection::{HALF_OPEN, PlaceKey, Share},
    layout::{Config, Workload},
};

use crate::{
    context,
    maps::{CONNECTIONS, HALF_OPENS, SHARES, config},
    packet::Packet,
};

const SECOND_NS: u64 = 1_000_000_000;
/// What a workload has used of answers, beside its share of the rest.
const ANSWERS: u32 = 1 << 31;
/// Answers per second on each CPU. A host gives a thousand ICMP errors in all (`icmp_msgs_per_sec`).
const ANSWERS_PER_SECOND: u32 = 100;

/// The share of a workload on this CPU.
#[inline(always)]
fn share(workload: u32) -> Option<&'static mut Share> {
    let known = SHARES.get_ptr_mut(&workload);
    let share = if known.is_some() {
        known?
    } else {
        let _full = SHARES.insert(&workload, &Share::default(), u64::from(BPF_ANY));
        SHARES.get_ptr_mut(&workload)?
    };
    // SAFETY: this CPU's value, of which the hook that runs has the only reference.
    Some(unsafe { &mut *share })
}

/// Gives the connection of a packet a place, and with it that of the workload's oldest one that was not
/// answered.
#[inline(never)]
pub(crate) fn charge(packet: &Packet, workload: &Workload, config: &Config) {
    let Some(share) = share(workload.id) else { return };
    let place = share.next;
    share.next = if place + 1 >= config.half_open_places { 0 } else { place + 1 };
    // SAFETY: the helper takes nothing and writes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let key = PlaceKey { workload: workload.id, cpu, place };
    let Some(place) = HALF_OPENS.get_ptr_mut(&key) else {
        let _full = HALF_OPENS.insert(&key, &packet.connection, u64::from(BPF_ANY));
        return;
    };
    // SAFETY: the place is this CPU's, of which the hook that runs has the only reference.
    let place = unsafe { &mut *place };
    // SAFETY: the value lives as long as the program runs, and is plain numbers.
    let half_open = unsafe { CONNECTIONS.get(&*place) }.is_some_and(|entry| entry.state == HALF_OPEN);
    if half_open {
        let _gone = CONNECTIONS.remove(&*place);
    }
    // In its place: an update would take memory for a new one, and give back the old.
    *place = packet.connection;
}

/// Whether a workload has told of fewer events in this second than it may.
#[inline(always)]
pub(crate) fn may_tell(workload: u32) -> bool {
    let (Some(config), Some(share)) = (config(), share(workload)) else { return true };
    take(share) <= config.events_per_second
}

/// Whether a workload, or with 0 all who are none, may be answered once more in this second.
///
/// SECURITY: from outside, the sender's address can be anybody's, who would get the answers.
#[inline(always)]
pub(crate) fn may_answer(workload: u32) -> bool {
    let Some(share) = share(workload | ANSWERS) else { return false };
    take(share) <= ANSWERS_PER_SECOND
}

/// How much of a share was taken in this second, with this.
#[inline(always)]
fn take(share: &mut Share) -> u32 {
    let second = context::now() / SECOND_NS;
    if share.second != second {
        share.second = second;
        share.events = 0;
    }
    share.events += 1;
    share.events
}
