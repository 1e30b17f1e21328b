// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What one workload may take of what all share: entries of connections that nobody has answered, and events.
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
    let second = context::now() / SECOND_NS;
    if share.second != second {
        share.second = second;
        share.events = 0;
    }
    share.events += 1;
    share.events <= config.events_per_second
}
