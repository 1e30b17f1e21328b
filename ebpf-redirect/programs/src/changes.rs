// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Whom the last changes concern. A change of an identity or of a workload's policy is written down with the
//! addresses that it is about, so that the other connections go on as they were decided.

use weft_ebpf_common::layout::{Address, CHANGES, CHANGES_READ, Change};

use crate::{maps, packet::Packet};

/// Whether nothing that changed after one epoch and up to another is about either end of a packet's connection.
/// Who has missed more changes than are looked at is taken to be concerned, and so is who reads an entry that is
/// not the one of its epoch.
#[inline(never)]
pub(crate) fn spare(packet: &Packet, from: u32, to: u32) -> bool {
    let missed = to.wrapping_sub(from);
    if missed > CHANGES_READ {
        return false;
    }
    let mut step = 1;
    while step <= CHANGES_READ {
        if step > missed {
            return true;
        }
        let epoch = from.wrapping_add(step);
        let Some(change) = maps::CHANGES.get(epoch % CHANGES) else { return false };
        if change.epoch != epoch || is_in(&packet.source, change) || is_in(&packet.destination, change) {
            return false;
        }
        step += 1;
    }
    true
}

/// Whether an address has the prefix that changed.
#[inline(always)]
fn is_in(address: &Address, change: &Change) -> bool {
    let (words, prefix, mask) = (&address.0, &change.address.0, &change.mask.0);
    ((words[0] ^ prefix[0]) & mask[0])
        | ((words[1] ^ prefix[1]) & mask[1])
        | ((words[2] ^ prefix[2]) & mask[2])
        | ((words[3] ^ prefix[3]) & mask[3])
        == 0
}
