// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The connections of the node: one entry for both ends, found by one look-up from either direction.
//!
//! Each end that is a workload of this node decides once, at the packet that opens the connection, whether
//! it was the opener or the other side, and is asked again when the policy changes. A packet that opens
//! nothing makes nobody an opener: of a connection that is not known it passes only where the end's
//! policy allows both ways, so that it does not matter who began.

use core::arch::asm;

use aya_ebpf::bindings::BPF_ANY;
use weft_ebpf_common::{
    Action, Reason, Verdict,
    connection::{CLOSING, Connection, ConnectionKey, EITHER, ENDED, ESTABLISHED, End, HALF_OPEN},
    identity,
    layout::{Config, EGRESS, INGRESS, METRIC_AGAIN, PolicyKey, WORKLOAD_BRIDGED, Workload},
};

use crate::{
    changes, context, event, foreign,
    maps::{CONNECTIONS, ENTRY, SHORT_DEVICES, get, workload},
    packet::{self, LATER, Packet, RST, SYN, TCP, WHOLE},
    policy, share, tcp,
};

/// Nothing is known of the connection at this end.
pub(crate) const NEW: u32 = 0;
/// It may pass.
pub(crate) const PASS: u32 = 1;
/// The proxy has it.
pub(crate) const PROXIED: u32 = 2;
/// It may go to the other end at once, see `short`.
pub(crate) const SHORT: u32 = 3;
/// It is dropped; the reason is added to this.
pub(crate) const DROP: u32 = 0x1_0000;

const SECOND_NS: u64 = 1_000_000_000;

/// Changes the state of a connection, and with it how long it may be idle.
#[inline(always)]
pub(crate) fn change(entry: &mut Connection, state: u8, protocol: u8, config: &Config) {
    entry.state = state;
    entry.idle_s = match state {
        HALF_OPEN => config.half_open_s,
        ESTABLISHED if protocol == TCP => config.stream_idle_s,
        CLOSING => config.closed_s,
        _ => config.datagram_idle_s,
    };
}

/// The entry of a packet's connection, if it is still alive.
#[inline(always)]
pub(crate) fn find(packet: &mut Packet) -> Option<&'static mut Connection> {
    packet.now = context::now();
    alive(packet)
}

/// The same, as of when it was looked up last.
#[inline(always)]
fn alive(packet: &Packet) -> Option<&'static mut Connection> {
    let entry = CONNECTIONS.get_ptr_mut(&packet.connection)?;
    // SAFETY: plain numbers that live as long as the program runs. Other CPUs write them too: each field is
    // read and written whole, and the counters are added to as one.
    let entry = unsafe { &mut *entry };
    // Another CPU may have seen a packet after this one's clock was read.
    let idle = packet.now.wrapping_sub(entry.seen_ns).cast_signed();
    if idle > (u64::from(entry.idle_s) * SECOND_NS).cast_signed() { None } else { Some(entry) }
}

/// The end whose workload sends (egress) or receives (ingress) the packet.
#[inline(always)]
fn end_at(packet: &Packet, at: u8) -> usize {
    usize::from((packet.from_high ^ at) & 1)
}

/// Whether a packet begins the connection anew: what is known of one of the same addresses does not hold.
#[inline(always)]
fn is_renewed(packet: &Packet, entry: &Connection) -> bool {
    let repeated = entry.state == HALF_OPEN && entry.opener == packet.from_high && entry.proxied == 0;
    packet.first != 0 && !repeated
}

/// What the connection that was found says of a packet that `workload` sends (egress) or receives (ingress); counts
/// it there.
#[inline(never)]
pub(crate) fn known(
    packet: &mut Packet,
    found: Option<&mut Connection>,
    at: u8,
    workload: &Workload,
    config: &Config,
) -> u32 {
    let Some(entry) = found else { return NEW };
    if is_renewed(packet, entry) {
        return NEW;
    }
    if entry.proxied != 0 {
        entry.seen_ns = packet.now;
        return PROXIED;
    }
    let this = end_at(packet, at);
    if entry.ends[this].verdict.precedence == 0 {
        return NEW;
    }
    entry.seen_ns = packet.now;
    if entry.ends[this].epoch != config.epoch {
        decide_again(packet, entry, at, workload, config);
    }
    let reason = refusal(&entry.ends[this].verdict);
    if reason != 0 {
        packet.verdict = entry.ends[this].verdict;
        return DROP + u32::from(reason);
    }
    if at == EGRESS {
        return leaving(packet, entry, config);
    }
    note_device(packet, entry);
    // What a workload here has sent was counted as it left.
    if entry.ends[packet.sender_end()].workload == 0 {
        account(packet, entry, config);
    }
    PASS
}

/// By which device the packets of an end come that is not here.
#[inline(always)]
fn note_device(packet: &Packet, entry: &mut Connection) {
    let end = &mut entry.ends[packet.sender_end()];
    if end.workload == 0 && end.device != packet.came_by {
        end.device = packet.came_by;
        end.short = is_short(packet.came_by);
    }
}

/// Whether nothing of others is at a device, and the short way is wanted.
#[inline(always)]
fn is_short(device: u32) -> u8 {
    u8::from(device != 0 && get(&SHORT_DEVICES, &device).is_some())
}

/// Whether the packet may go to the end that receives it at once: what tells the stack and others on the way
/// that a connection begins has gone the long way, and nothing has to be said about the packet.
#[inline(always)]
fn is_near(packet: &Packet, entry: &Connection) -> bool {
    let (from, to) = (packet.sender_end(), packet.sender_end() ^ 1);
    let settled = packet.protocol != TCP || entry.state == ESTABLISHED || entry.state == CLOSING;
    entry.ends[from].short & entry.ends[to].short != 0
        && entry.ends[to].workload != 0
        && settled
        && entry.nat == 0
        && packet.fragment == WHOLE
        && packet.hops > 1
}

/// What becomes of a packet that a workload here may send.
#[inline(always)]
fn leaving(packet: &mut Packet, entry: &mut Connection, config: &Config) -> u32 {
    let to = packet.sender_end() ^ 1;
    // Before it is followed: the segment that confirms a connection is one that others want to see.
    let near = is_near(packet, entry);
    account(packet, entry, config);
    if !near {
        return PASS;
    }
    if entry.ends[to].epoch != config.epoch {
        let Some(workload) = workload(&packet.destination) else { return PASS };
        decide_again(packet, entry, INGRESS, workload, config);
    }
    // What it does not let in any more is told to both ends by its own hook.
    if entry.ends[to].short == 0 || refusal(&entry.ends[to].verdict) != 0 {
        return PASS;
    }
    packet.near = entry.ends[to].device;
    packet.routed = u8::from(entry.ends[0].bridged & entry.ends[1].bridged == 0);
    SHORT
}

/// Whether a packet from a workload here goes straight to another one, by what both have decided under this
/// configuration and where they were then: nothing else has to be looked at.
#[inline(never)]
pub(crate) fn leaves(packet: &mut Packet, entry: &mut Connection, config: &Config) -> bool {
    let (from, to) = (packet.sender_end(), packet.sender_end() ^ 1);
    if is_renewed(packet, entry)
        || entry.proxied != 0
        || entry.ends[from].device != packet.came_by
        || entry.ends[from].workload == 0
        || entry.ends[from].epoch != config.epoch
        || entry.ends[to].epoch != config.epoch
        || !is_near(packet, entry)
        || refusal(&entry.ends[from].verdict) != 0
        || refusal(&entry.ends[to].verdict) != 0
    {
        return false;
    }
    entry.seen_ns = packet.now;
    account(packet, entry, config);
    packet.near = entry.ends[to].device;
    packet.routed = u8::from(entry.ends[0].bridged & entry.ends[1].bridged == 0);
    true
}

/// What becomes of a packet that has come for a workload here, before the stack has it: [`SHORT`], [`PASS`] where
/// the connection is known and the proxy has nothing to do with it, or [`NEW`].
#[inline(never)]
pub(crate) fn arrived(packet: &mut Packet, workload: &Workload, config: &Config) -> u32 {
    let Some(entry) = find(packet) else { return NEW };
    let (from, to) = (packet.sender_end(), packet.sender_end() ^ 1);
    if is_renewed(packet, entry) || entry.proxied != 0 || entry.ends[to].verdict.precedence == 0 {
        return NEW;
    }
    if entry.ends[from].device != packet.came_by || entry.ends[from].workload != 0 || !is_near(packet, entry)
    {
        return PASS;
    }
    if entry.ends[to].epoch != config.epoch {
        decide_again(packet, entry, INGRESS, workload, config);
    }
    if entry.ends[to].short == 0 || refusal(&entry.ends[to].verdict) != 0 {
        return PASS;
    }
    entry.seen_ns = packet.now;
    account(packet, entry, config);
    packet.near = entry.ends[to].device;
    packet.routed = 1;
    SHORT
}

/// What an established connection may not do any more: 0, or the number of the reason.
#[inline(always)]
fn refusal(verdict: &Verdict) -> u16 {
    match verdict.action() {
        Action::Allow => 0,
        Action::Redirect => Reason::PolicyTightened as u16,
        Action::Deny => denial(verdict),
    }
}

/// The number of the reason of a denial; a verdict without one was never written.
#[inline(always)]
pub(crate) fn denial(verdict: &Verdict) -> u16 {
    if verdict.reason == 0 { Reason::NoPolicyConfig as u16 } else { verdict.reason }
}

/// An end whose policy may have changed decides again. What it ends is kept as long as anybody speaks on it,
/// so that nobody opens it again from the other side.
#[inline(never)]
fn decide_again(packet: &mut Packet, entry: &mut Connection, at: u8, workload: &Workload, config: &Config) {
    let this = end_at(packet, at);
    // Where others translate it, the address that was decided by is not the packet's.
    if entry.nat == 0 && changes::spare(packet, entry.ends[this].epoch, config.epoch) {
        entry.ends[this].epoch = config.epoch;
        return;
    }
    event::count(0, METRIC_AGAIN, at, packet.length);
    let mut other = if at == EGRESS { packet.destination } else { packet.source };
    // It may have been let in when nobody here knew that others translate it.
    entry.nat = u32::from(foreign::backend(packet, at, &mut other));
    let peer = policy::identity(&other);
    // The node itself was let in by its socket, which the entry remembers and the address does not.
    let known = entry.ends[this ^ 1].identity;
    let opener = if known == identity::HOST || peer != identity::HOST { peer } else { known };
    judge(packet, u32::from(at) | u32::from(entry.ends[this].way) << 8, peer, opener, workload);
    entry.ends[this].verdict = packet.verdict;
    entry.ends[this].epoch = config.epoch;
    place(&mut entry.ends[this], workload);
    let ended = refusal(&packet.verdict);
    if ended == 0 {
        if entry.state == ENDED {
            change(entry, ESTABLISHED, packet.protocol, config);
        }
    } else if entry.state != ENDED {
        change(entry, ENDED, packet.protocol, config);
        event::closed(&packet.connection, entry, ended);
    }
}

/// Asks the policy of a workload that sends (egress) or receives (ingress) a packet about its connection, of
/// which it is the opener, the other side, or, where that is not known, either. `peer` is who the other end is
/// to an opener, `opener` who it is as one. The first verdict that is no allow, or the last, goes to the
/// packet's; whether it allows is returned.
#[inline(never)]
fn judge(packet: &mut Packet, at_way: u32, peer: u32, opener: u32, workload: &Workload) -> bool {
    let (at, way) = (at_way as u8, (at_way >> 8) as u8);
    let (own, other) = (usize::from(at & 1), usize::from(at & 1 ^ 1));
    let protocol = packet.protocol;
    if way != INGRESS {
        let port = packet.policy_ports_be[other];
        decide(EGRESS, peer, protocol, port, workload, &mut packet.verdict);
        if way == EGRESS || packet.verdict.action() != Action::Allow {
            return packet.verdict.action() == Action::Allow;
        }
    }
    let port = packet.policy_ports_be[own];
    decide(INGRESS, opener, protocol, port, workload, &mut packet.verdict) == Action::Allow
}

/// As what an end decides that knows nothing of a connection: what opens nothing is allowed only both ways.
#[inline(always)]
fn way(packet: &Packet, at: u8) -> u8 {
    if packet.opening != 0 { at } else { EITHER }
}

/// Decides about what an end knows nothing of, and enters what it allows. `peer` is the identity of the other
/// end as one that is connected to, `opener` as one that connects; that of the packet is remembered.
#[inline(always)]
pub(crate) fn new(
    packet: &mut Packet,
    at: u8,
    (peer, opener): (u32, u32),
    workload: &Workload,
    config: &Config,
) -> u32 {
    if judge(packet, u32::from(at) | u32::from(way(packet, at)) << 8, peer, opener, workload) {
        if !enter(packet, at, workload, config) {
            return DROP + Reason::ConntrackInsertFailed as u32;
        }
        event::opened(packet, at, workload);
        return PASS;
    }
    if packet.opening == 0 {
        return DROP + Reason::UnknownConnection as u32;
    }
    match packet.verdict.action() {
        Action::Redirect if packet.protocol == TCP => PROXIED,
        Action::Redirect => DROP + Reason::RedirectUnsupported as u32,
        _ => DROP + u32::from(denial(&packet.verdict)),
    }
}

/// Decides about a packet of a workload; what is said goes to `found`.
#[inline(always)]
pub(crate) fn decide(
    way: u8,
    peer: u32,
    protocol: u8,
    port_be: u16,
    workload: &Workload,
    found: &mut Verdict,
) -> Action {
    *found = if way == EGRESS { workload.egress } else { workload.ingress };
    policy::verdict(
        &PolicyKey { set: workload.policy, identity: peer, direction: way, protocol, port_be },
        found,
    );
    found.action()
}

/// Adds to a counter of which other CPUs lose nothing by it. The compiler has no atomic addition for this
/// target that every kernel knows; this is the oldest form of the instruction.
#[inline(always)]
fn add(counter: &mut u64, number: u64) {
    // SAFETY: the address is that of a number in the table, and nothing else is written.
    unsafe {
        asm!("lock *(u64 *)({at} + 0) += {number}", at = in(reg) counter, number = in(reg) number, options(nostack));
    }
}

#[inline(never)]
fn account(packet: &Packet, entry: &mut Connection, config: &Config) {
    let sender = packet.sender_end();
    add(&mut entry.ends[sender].packets, 1);
    add(&mut entry.ends[sender].bytes, u64::from(packet.length));
    if entry.state == HALF_OPEN {
        let by_opener = entry.opener == packet.from_high;
        if !by_opener && packet.tcp_flags & RST == 0 {
            entry.answered = 1;
        }
        if entry.answered != 0 && (packet.protocol != TCP || by_opener && packet.tcp_flags & SYN == 0) {
            change(entry, ESTABLISHED, packet.protocol, config);
        }
    }
    if packet.protocol == TCP && packet.fragment != LATER && tcp::follow(packet, entry) {
        change(entry, CLOSING, TCP, config);
        event::closed(&packet.connection, entry, 0);
    }
}

/// Notes that an end has allowed a connection, with the verdict of the packet.
#[inline(never)]
fn enter(packet: &Packet, at: u8, workload: &Workload, config: &Config) -> bool {
    let this = end_at(packet, at);
    let way = way(packet, at);
    if let Some(entry) = alive(packet) {
        if !is_renewed(packet, entry) {
            entry.nat = packet.translated;
            write(&mut entry.ends[this], packet, way, workload, config);
            if entry.ends[this ^ 1].workload == 0 {
                entry.ends[this ^ 1].identity = packet.peer;
            }
            return true;
        }
        if entry.state == ESTABLISHED {
            event::closed(&packet.connection, entry, 0);
        }
    }
    share::charge(packet, workload, config);
    let Some(entry) = scratch() else { return false };
    *entry = Connection {
        opened_ns: packet.now,
        seen_ns: packet.now,
        opener: packet.from_high,
        nat: packet.translated,
        ..Connection::NEW
    };
    let sender = packet.sender_end();
    write(&mut entry.ends[this], packet, way, workload, config);
    entry.ends[this ^ 1].identity = packet.peer;
    entry.ends[sender].packets = 1;
    entry.ends[sender].bytes = u64::from(packet.length);
    tcp::begin(packet, entry);
    change(entry, HALF_OPEN, packet.protocol, config);
    CONNECTIONS.insert(&packet.connection, &*entry, u64::from(BPF_ANY)).is_ok()
}

/// Where a new entry is made: it would take a third of the stack.
#[inline(always)]
fn scratch() -> Option<&'static mut Connection> {
    let entry = ENTRY.get_ptr_mut(0)?;
    // SAFETY: this CPU's value, of which the hook that runs has the only reference.
    unsafe { entry.as_mut() }
}

#[inline(always)]
fn write(end: &mut End, packet: &Packet, way: u8, workload: &Workload, config: &Config) {
    end.way = way;
    end.identity = workload.identity;
    end.workload = workload.id;
    end.epoch = config.epoch;
    end.verdict = packet.verdict;
    place(end, workload);
}

/// Notes where a workload is.
#[inline(always)]
fn place(end: &mut End, workload: &Workload) {
    end.device = workload.ifindex;
    end.short = is_short(workload.ifindex);
    end.bridged = u8::from(workload.flags & WORKLOAD_BRIDGED != 0);
}

/// Notes that the other end's policy gave a connection to the proxy: its packets go there at once.
#[inline(never)]
pub(crate) fn give_to_proxy(packet: &Packet) {
    if let Some(entry) = alive(packet) {
        entry.proxied = 1;
    }
}

/// Whether an ICMP error is about a connection of the end that sends (egress) or receives (ingress) it.
#[inline(never)]
pub(crate) fn related(packet: &mut Packet, at: u8) -> bool {
    let Some(entry) = find(packet) else { return false };
    entry.ends[end_at(packet, at)].verdict.action() == Action::Allow
}

impl Packet {
    /// Names the connection of the packet and says what it is to it, once its ports are known. In the packet
    /// rather than in registers: the verifier follows what it knows of these.
    #[inline(never)]
    pub(crate) fn name_connection(&mut self) {
        let (key, from_high) = ConnectionKey::of(
            (self.source, self.source_port_be),
            (self.destination, self.destination_port_be),
            self.protocol,
        );
        self.connection = key;
        self.first = u8::from(self.begins());
        self.opening = u8::from(self.opens());
        if packet::has_ports(self.protocol) {
            self.policy_ports_be = [self.source_port_be, self.destination_port_be];
        }
        self.from_high = u8::from(from_high);
    }
}
