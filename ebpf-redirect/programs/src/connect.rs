// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! `connect` and `sendmsg` of sockets: a service's address becomes that of one of its backends.
//!
//! The cost is two lookups, however many services there are. An IPv6 socket that asks for a mapped
//! IPv4 address is the same case, since the maps hold all addresses in that form.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, bpf_sock_addr},
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
    service::{self, Counted},
};

/// Go on.
pub(crate) const PROCEED: i32 = 1;
/// The call fails with EPERM.
const REFUSE: i32 = 0;

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
        Choice::Refuse => REFUSE,
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
        Choice::Refuse => REFUSE,
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

#[inline(always)]
fn choose(ctx: &SockAddrContext, asked: &Endpoint, connect: bool) -> Choice {
    let protocol = word(field!(ctx.sock_addr, protocol)) as u8;
    let Some(service) = service::at(&asked.address, asked.port_be, protocol) else { return Choice::Leave };
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
        event::count(Reason::NoServiceBackend as u16, METRIC_DROP, EGRESS, 0);
        tell(ctx, asked, &Endpoint::default(), service, protocol, EVENT_DROP);
        return Choice::Refuse;
    };
    let cookie = context::cookie(ctx.sock_addr);
    let key = ReverseKey { cookie, backend: *backend, pad: 0 };
    let _full = REVERSE.insert(&key, asked, u64::from(BPF_ANY));
    service::count(service.id, Counted::Translated);
    if connect {
        tell(ctx, asked, backend, service, protocol, EVENT_TRANSLATE);
    }
    Choice::Take(*backend)
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

#[inline(always)]
fn tell(
    ctx: &SockAddrContext,
    asked: &Endpoint,
    backend: &Endpoint,
    service: &Service,
    protocol: u8,
    kind: u8,
) {
    let dropped = kind == EVENT_DROP;
    event::send(Event {
        time_ns: context::now(),
        opened_ns: 0,
        source: Address::default(),
        destination: if dropped { asked.address } else { backend.address },
        service: *asked,
        source_port_be: 0,
        destination_port_be: if dropped { asked.port_be } else { backend.port_be },
        kind,
        direction: EGRESS,
        protocol,
        tcp_flags: 0,
        reason: if dropped { Reason::NoServiceBackend as u16 } else { 0 },
        pad: 0,
        source_identity: 0,
        destination_identity: 0,
        workload: 0,
        service_id: service.id,
        suppressed: 0,
        process: ctx.tgid(),
        verdict: Verdict::NONE,
        pad2: 0,
        packets: 0,
        bytes: 0,
        reply_packets: 0,
        reply_bytes: 0,
    });
}
