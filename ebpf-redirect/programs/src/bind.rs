// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Keeps others off the proxy's block of ports and off our bits of the packet mark.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sockopt,
    macros::{cgroup_sock, cgroup_sockopt},
    programs::{SockContext, SockoptContext},
};

use crate::maps::{OWNERS, config};

const PROCEED: i32 = 1;
/// The call fails with EPERM.
const REFUSE: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

/// After the address of an IPv4 socket was bound.
#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    bound(&ctx)
}

/// After the address of an IPv6 socket was bound.
#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    bound(&ctx)
}

#[inline(always)]
fn bound(ctx: &SockContext) -> i32 {
    let Some(config) = config() else { return PROCEED };
    let port = unsafe { (&raw const (*ctx.sock).src_port).read_volatile() } as u16;
    if port < config.first_port || port > config.last_port || is_proxy(ctx.tgid()) { PROCEED } else { REFUSE }
}

#[inline(always)]
fn is_proxy(process: u32) -> bool {
    unsafe { OWNERS.get(&process) }.is_some()
}

/// `setsockopt` of any socket.
#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    let (level, name) = unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname) };
    if level != SOL_SOCKET || name != SO_MARK {
        return PROCEED;
    }
    let (Some(config), Some(mark)) = (config(), value(ctx.sockopt)) else { return PROCEED };
    if mark & config.mark_mask == 0 || is_proxy(ctx.tgid()) { PROCEED } else { REFUSE }
}

/// The option's value, where there is one.
#[inline(always)]
fn value(sockopt: *mut bpf_sockopt) -> Option<u32> {
    let (start, end) = unsafe {
        ((*sockopt).__bindgen_anon_2.optval as usize, (*sockopt).__bindgen_anon_3.optval_end as usize)
    };
    if start + 4 > end { None } else { Some(unsafe { (start as *const u32).read_unaligned() }) }
}
