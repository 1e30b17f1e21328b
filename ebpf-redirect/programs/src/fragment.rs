// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Fragments are decided like the datagram that they are part of: the first one says its ports, the
//! others find them by its identification. One that comes before the first is of an unknown datagram.

use aya_ebpf::bindings::BPF_ANY;
use weft_ebpf_common::layout::{Fragmented, FragmentedKey};

use crate::{
    context,
    maps::FRAGMENTED,
    packet::{FIRST, KIND_FLOW, KIND_FRAGMENT, KIND_OTHER, Packet, WHOLE},
};

/// How long the stack waits for the rest of a datagram (`ipfrag_time`; RFC 8200 section 4.5 says 60).
const PATIENCE_NS: u64 = 60_000_000_000;

/// Makes a fragment look like a packet of its datagram, where that is known.
#[inline(always)]
pub(crate) fn follow(packet: &mut Packet) {
    match packet.fragment {
        WHOLE => {}
        FIRST => note(packet),
        _ => recall(packet),
    }
}

#[inline(always)]
fn key(packet: &Packet) -> FragmentedKey {
    FragmentedKey {
        source: packet.sender,
        destination: packet.receiver,
        identification: packet.identification,
        protocol: if packet.sender.is_v4() { packet.protocol } else { 0 },
        pad: [0; 3],
    }
}

#[inline(never)]
fn note(packet: &mut Packet) {
    // Neighbour discovery is never fragmented (RFC 6980), and nobody needs an error that is.
    if packet.kind != KIND_FLOW && packet.kind != KIND_OTHER {
        packet.kind = KIND_FRAGMENT;
        return;
    }
    let said = Fragmented {
        seen_ns: context::now(),
        source_port_be: packet.source_port_be,
        destination_port_be: packet.destination_port_be,
        protocol: packet.protocol,
        kind: packet.kind,
        pad: 0,
    };
    let _full = FRAGMENTED.insert(&key(packet), &said, u64::from(BPF_ANY));
}

#[inline(never)]
fn recall(packet: &mut Packet) {
    // SAFETY: plain numbers; an entry that is evicted while it is read is one of some other datagram, which
    // is decided on then.
    let Some(said) = (unsafe { FRAGMENTED.get(&key(packet)) }) else { return };
    if context::now().wrapping_sub(said.seen_ns) > PATIENCE_NS {
        return;
    }
    packet.source_port_be = said.source_port_be;
    packet.destination_port_be = said.destination_port_be;
    packet.protocol = said.protocol;
    packet.kind = said.kind;
}
