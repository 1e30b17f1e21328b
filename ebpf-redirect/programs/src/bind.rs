// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Keeps others off our bits of the packet mark.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, bpf_sockopt},
    macros::cgroup_sockopt,
    programs::SockoptContext,
};

use weft_ebpf_common::layout::CLAIM;

use crate::{
    context::{field, word},
    maps::{OWNERS, config, get},
};

const PROCEED: i32 = 1;
/// The call fails with EPERM.
const REFUSE: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

#[inline(always)]
fn is_proxy(process: u32) -> bool {
    get(&OWNERS, &process).is_some()
}

/// Whether a process names the number that one of the proxy has just written, which only such a one can know: it
/// is entered by the number that this kernel has for it, whatever its own namespace calls it.
#[inline(always)]
fn claims(process: u32, mark: u32) -> bool {
    match get(&OWNERS, &CLAIM) {
        Some(number) if *number == mark => OWNERS.insert(&process, &mark, u64::from(BPF_ANY)).is_ok(),
        _ => false,
    }
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
    let process = ctx.tgid();
    if mark & config.mark_mask == 0 || is_proxy(process) || claims(process, mark) { PROCEED } else { REFUSE }
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
