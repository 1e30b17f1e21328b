// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! `recvmsg` and `getpeername`: a socket that asked for a service sees the service's address.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use weft_ebpf_common::layout::{Endpoint, ReverseKey};

use crate::{
    connect::{PROCEED, asked4, asked6, write4, write6},
    context,
    maps::REVERSE,
};

/// `recvmsg` of IPv4 sockets.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    back4(&ctx)
}

/// `getpeername` of IPv4 sockets.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    back4(&ctx)
}

/// `recvmsg` of IPv6 sockets.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    back6(&ctx)
}

/// `getpeername` of IPv6 sockets.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    back6(&ctx)
}

#[inline(always)]
fn back4(ctx: &SockAddrContext) -> i32 {
    if let Some(service) = asked_for(ctx, asked4(ctx.sock_addr)) {
        write4(ctx.sock_addr, service);
    }
    PROCEED
}

#[inline(always)]
fn back6(ctx: &SockAddrContext) -> i32 {
    if let Some(service) = asked_for(ctx, asked6(ctx.sock_addr)) {
        write6(ctx.sock_addr, service);
    }
    PROCEED
}

#[inline(always)]
fn asked_for(ctx: &SockAddrContext, backend: Endpoint) -> Option<&'static Endpoint> {
    let cookie = context::cookie(ctx.sock_addr);
    // SAFETY: plain numbers. An entry that is evicted while it is read may be somebody else's: the socket
    // would see a service that another one asked for, in `getpeername` or `recvmsg` only.
    unsafe { REVERSE.get(&ReverseKey { cookie, backend, pad: 0 }) }
}
