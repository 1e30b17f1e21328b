// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What TCP says about a connection. What ends it is believed only where the ends would believe it: who does
//! not see the packets cannot make the node forget a connection.

use weft_ebpf_common::connection::{CLOSING, Connection, HALF_OPEN};

use crate::packet::{ACK, FIN, Packet, RST, SYN, TCP};

/// The largest window without scaling (RFC 9293 section 3.1).
const LEAST_WINDOW: u32 = 65_535;
/// How far one segment may be ahead of what was seen: the largest receive buffer of Linux by default.
const MOST_AHEAD: u32 = 1 << 25;

/// Whether `a` comes after `b` (RFC 9293 section 3.4).
#[inline(always)]
fn after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// The number behind the last one that a segment takes.
#[inline(always)]
fn end_of(packet: &Packet) -> u32 {
    let flags = u32::from(packet.tcp_flags & SYN != 0) + u32::from(packet.tcp_flags & FIN != 0);
    packet.sequence.wrapping_add(packet.payload).wrapping_add(flags)
}

/// The first segment that is seen of a connection.
#[inline(always)]
pub(crate) fn begin(packet: &Packet, entry: &mut Connection) {
    if packet.protocol != TCP {
        return;
    }
    let sender = packet.sender_end();
    let (sequence, end) = (packet.sequence, end_of(packet));
    entry.ends[sender].sent = end;
    entry.ends[sender ^ 1].acknowledged = if packet.begins() { end } else { sequence };
    if packet.tcp_flags & ACK != 0 {
        entry.ends[sender].acknowledged = packet.acknowledged;
        entry.ends[sender ^ 1].sent = packet.acknowledged;
    }
}

/// Follows another segment: whether it closes the connection.
#[inline(always)]
pub(crate) fn follow(packet: &Packet, entry: &mut Connection) -> bool {
    let sender = packet.sender_end();
    let flags = packet.tcp_flags;
    let end = end_of(packet);
    if flags & SYN != 0 {
        entry.ends[sender].sent = end;
        entry.ends[sender ^ 1].acknowledged = end;
        if flags & ACK != 0 {
            entry.ends[sender].acknowledged = packet.acknowledged;
        }
        return false;
    }
    let (base, sent) = (entry.ends[sender ^ 1].acknowledged, entry.ends[sender].sent);
    let window = sent.wrapping_sub(base).max(LEAST_WINDOW);
    let mut over = false;
    if flags & RST != 0 {
        let unanswered = entry.state == HALF_OPEN && entry.answered == 0 && entry.opener != packet.from_high;
        over = if unanswered {
            flags & ACK != 0 && packet.acknowledged == entry.ends[sender ^ 1].sent
        } else {
            packet.sequence.wrapping_sub(base) <= window
        };
    } else if flags & FIN != 0 && end.wrapping_sub(1).wrapping_sub(base) <= window {
        entry.ends[sender].closed = 1;
        over = entry.ends[sender ^ 1].closed != 0;
    }
    if after(end, sent) && packet.sequence.wrapping_sub(sent).cast_signed() <= MOST_AHEAD.cast_signed() {
        entry.ends[sender].sent = end;
    }
    let acknowledged = packet.acknowledged;
    if flags & ACK != 0
        && after(acknowledged, entry.ends[sender].acknowledged)
        && !after(acknowledged, entry.ends[sender ^ 1].sent)
    {
        entry.ends[sender].acknowledged = acknowledged;
    }
    over && entry.state < CLOSING
}
