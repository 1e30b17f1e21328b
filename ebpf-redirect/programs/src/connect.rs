// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! `connect` and `sendmsg` of sockets: a service's address becomes that of one of its backends.
//!
//! The cost is two lookups, however many services there are. An IPv6 socket that asks for a mapped
//! IPv4 address is the same case, since the maps hold all addresses in that form.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, bpf_sock_addr},
    helpers::generated::bpf_set_retval,
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use weft_ebpf_common::{
    Reason, Verdict,
    layout::{
        Address, BackendKey, EGRESS, EVENT_DROP, EVENT_TRANSLATE, Endpoint, Event, METRIC_DROP, ReverseKey,
        SERVICE_KEPT, Service,
    },
};

use crate::{
    context::{self, field, set_word, word},
    event,
    maps::{BACKENDS, REVERSE, get},
    packet::{TCP, UDP},
    service::{self, Counted},
};

/// Go on.
pub(crate) const PROCEED: i32 = 1;
/// The call fails, with EPERM where nothing else was said.
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;
/// `connect` of UDP sockets that only asks which source address it would get: glibc takes the port that was
/// given or none, Go 9, musl 65535.
const PROBES: [u16; 3] = [0, 9, 65_535];

/// Whether the kernel lets these hooks choose the error (6.1). The loader sets it.
#[unsafe(no_mangle)]
static CHOOSES_ERROR: u32 = 1;

/// `connect` of IPv4 sockets.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    translate4(&ctx, true)
}

/// `sendmsg` with an address of IPv4 sockets.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    translate4(&ctx, false)
}

/// `connect` of IPv6 sockets.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    translate6(&ctx, true)
}

/// `sendmsg` with an address of IPv6 sockets.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    translate6(&ctx, false)
}

#[inline(always)]
fn translate4(ctx: &SockAddrContext, connect: bool) -> i32 {
    let asked = asked4(ctx.sock_addr);
    match choose(ctx, &asked, connect) {
        Choice::Leave => PROCEED,
        Choice::Refuse => refuse(),
        Choice::Take(backend) => {
            write4(ctx.sock_addr, &backend);
            PROCEED
        }
    }
}

#[inline(always)]
fn translate6(ctx: &SockAddrContext, connect: bool) -> i32 {
    let asked = asked6(ctx.sock_addr);
    match choose(ctx, &asked, connect) {
        Choice::Leave => PROCEED,
        Choice::Refuse => refuse(),
        Choice::Take(backend) => {
            write6(ctx.sock_addr, &backend);
            PROCEED
        }
    }
}

/// The address that an IPv4 call names. The verifier wants each word to be read on its own.
#[inline(always)]
pub(crate) fn asked4(sock_addr: *mut bpf_sock_addr) -> Endpoint {
    let (address, port) = (word(field!(sock_addr, user_ip4)), word(field!(sock_addr, user_port)));
    Endpoint { address: Address::v4(address), port_be: port as u16, pad: 0 }
}

/// The address that an IPv6 call names.
#[inline(always)]
pub(crate) fn asked6(sock_addr: *mut bpf_sock_addr) -> Endpoint {
    let first = field!(sock_addr, user_ip6).cast::<u32>();
    let words = [0, 1, 2, 3].map(|at| word(first.wrapping_add(at)));
    let port = word(field!(sock_addr, user_port));
    Endpoint { address: Address(words), port_be: port as u16, pad: 0 }
}

/// Replaces the address of an IPv4 call.
#[inline(always)]
pub(crate) fn write4(sock_addr: *mut bpf_sock_addr, to: &Endpoint) {
    set_word(field!(sock_addr, user_ip4), to.address.0[3]);
    set_word(field!(sock_addr, user_port), u32::from(to.port_be));
}

/// Replaces the address of an IPv6 call.
#[inline(always)]
pub(crate) fn write6(sock_addr: *mut bpf_sock_addr, to: &Endpoint) {
    let first = field!(sock_addr, user_ip6).cast::<u32>();
    set_word(first, to.address.0[0]);
    set_word(first.wrapping_add(1), to.address.0[1]);
    set_word(first.wrapping_add(2), to.address.0[2]);
    set_word(first.wrapping_add(3), to.address.0[3]);
    set_word(field!(sock_addr, user_port), u32::from(to.port_be));
}

enum Choice {
    Leave,
    Refuse,
    Take(Endpoint),
}

/// What a closed port says.
#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: a number of the object; volatile, since the loader has the last word.
    if unsafe { (&raw const CHOOSES_ERROR).read_volatile() } != 0 {
        // SAFETY: the helper takes a number.
        let _old = unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    REFUSE
}

#[inline(always)]
fn choose(ctx: &SockAddrContext, asked: &Endpoint, connect: bool) -> Choice {
    let protocol = word(field!(ctx.sock_addr, protocol)) as u8;
    let Some(service) = service::at(&asked.address, asked.port_be, protocol) else {
        return unknown(ctx, asked, protocol, connect);
    };
    // The hooks of packets hand it to the proxy.
    if service.flags & SERVICE_KEPT != 0 {
        return Choice::Leave;
    }
    let mut found = pick(service);
    if found.is_none() && service.backends != 0 {
        // The list was replaced between the two lookups; the new one is complete.
        found = service::at(&asked.address, asked.port_be, protocol).and_then(pick);
    }
    let Some(backend) = found else {
        service::count(service.id, Counted::Refused);
        tell_refused(ctx, asked, (protocol, service.id), Reason::NoServiceBackend);
        return Choice::Refuse;
    };
    let cookie = context::cookie(ctx.sock_addr);
    let key = ReverseKey { cookie, backend: *backend, pad: 0 };
    let _full = REVERSE.insert(&key, asked, u64::from(BPF_ANY));
    service::count(service.id, Counted::Translated);
    if connect {
        event::send(about(ctx, asked, (protocol, service.id), EVENT_TRANSLATE, backend));
    }
    Choice::Take(*backend)
}

/// What is not a service may be a port that one does not have. Left alone is a `connect` of a UDP socket that
/// may only ask for its source address, as resolvers do to order a list: to say no would change that order.
#[inline(always)]
fn unknown(ctx: &SockAddrContext, asked: &Endpoint, protocol: u8, connect: bool) -> Choice {
    if protocol != TCP && protocol != UDP || !service::is_address(&asked.address) {
        return Choice::Leave;
    }
    if protocol == UDP && connect {
        let port = u16::from_be(asked.port_be);
        let probe = PROBES.contains(&port) || service::at(&asked.address, asked.port_be, TCP).is_some();
        if probe {
            return Choice::Leave;
        }
    }
    tell_refused(ctx, asked, (protocol, 0), Reason::UnknownServicePort);
    Choice::Refuse
}

/// A backend at random.
#[inline(always)]
fn pick(service: &Service) -> Option<&'static Endpoint> {
    // Read once: user space may write the entry at any time.
    let (list, backends) = (service.list, service.backends);
    if backends == 0 {
        return None;
    }
    let slot = context::random() % backends;
    get(&BACKENDS, &BackendKey { list, slot })
}

/// Counts a refusal and tells of it.
#[inline(always)]
fn tell_refused(ctx: &SockAddrContext, asked: &Endpoint, what: (u8, u32), reason: Reason) {
    event::count(reason as u16, METRIC_DROP, EGRESS, 0);
    event::send(Event { reason: reason as u16, ..about(ctx, asked, what, EVENT_DROP, asked) });
}

/// An event about a call that asks for a service, by protocol and number, and is led to `destination`.
#[inline(always)]
fn about(
    ctx: &SockAddrContext,
    asked: &Endpoint,
    (protocol, service_id): (u8, u32),
    kind: u8,
    destination: &Endpoint,
) -> Event {
    Event {
        time_ns: context::now(),
        opened_ns: 0,
        source: Address::default(),
        destination: destination.address,
        service: *asked,
        source_port_be: 0,
        destination_port_be: destination.port_be,
        kind,
        direction: EGRESS,
        protocol,
        tcp_flags: 0,
        reason: 0,
        pad: 0,
        source_identity: 0,
        destination_identity: 0,
        workload: 0,
        service_id,
        suppressed: 0,
        process: ctx.tgid(),
        verdict: Verdict::NONE,
        pad2: 0,
        packets: 0,
        bytes: 0,
        reply_packets: 0,
        reply_bytes: 0,
    }
}
