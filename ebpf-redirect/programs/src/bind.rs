// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Keeps others off the proxy's block of ports and off our bits of the packet mark.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sockopt,
    macros::{cgroup_sock, cgroup_sockopt},
    programs::{SockContext, SockoptContext},
};

use crate::{
    context::{field, word},
    maps::{OWNERS, config, get},
};

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
    let port = word(field!(ctx.sock, src_port)) as u16;
    if port < config.first_port || port > config.last_port || is_proxy(ctx.tgid()) { PROCEED } else { REFUSE }
}

#[inline(always)]
fn is_proxy(process: u32) -> bool {
    get(&OWNERS, &process).is_some()
}

/// `setsockopt` of any socket.
#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    let level = word(field!(ctx.sockopt, level).cast()).cast_signed();
    let name = word(field!(ctx.sockopt, optname).cast()).cast_signed();
    if level != SOL_SOCKET || name != SO_MARK {
        return PROCEED;
    }
    let (Some(config), Some(mark)) = (config(), value(ctx.sockopt)) else { return PROCEED };
    if mark & config.mark_mask == 0 || is_proxy(ctx.tgid()) { PROCEED } else { REFUSE }
}

/// The option's value, where there is one.
#[inline(always)]
fn value(sockopt: *mut bpf_sockopt) -> Option<u32> {
    let (start, end) =
        (field!(sockopt, __bindgen_anon_2.optval), field!(sockopt, __bindgen_anon_3.optval_end));
    // SAFETY: the address is that of a field of the program's context.
    let start = unsafe { start.read() } as usize;
    // SAFETY: as above.
    let end = unsafe { end.read() } as usize;
    if start + 4 > end {
        return None;
    }
    // SAFETY: the four bytes lie in front of the end of the value, as the verifier checks too.
    Some(unsafe { (start as *const u32).read_unaligned() })
}
