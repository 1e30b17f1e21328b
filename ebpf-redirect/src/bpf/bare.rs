// SPDX-License-Identifier: Apache-2.0
//! Programs of a few instructions that stand for those of others, for tests and benchmarks.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::{Attach, Attributes, PROG_LOAD, link_create, owned};

/// `BPF_PROG_TYPE_SCHED_CLS`.
const CLASSIFIER: u32 = 3;
/// `r0 = value; exit`, as include/uapi/linux/bpf.h encodes instructions.
const fn answer(value: u32) -> [u64; 2] {
    [(value as u64) << 32 | 0xb4, 0x95]
}

/// A program that does nothing, attached to the ingress or egress of a device; it ends with what is returned.
///
/// # Errors
/// Where there are no tcx links, or without the privilege.
pub fn attach_idle(ifindex: u32, egress: bool) -> io::Result<OwnedFd> {
    // TCX_NEXT.
    let program = load(&answer(u32::MAX))?;
    link_create(program.as_fd(), ifindex, if egress { Attach::TcxEgress } else { Attach::TcxIngress })
}

/// A program that hands what comes from one device to the pod behind another, attached to the former's ingress;
/// it ends with what is returned.
///
/// # Errors
/// Where there are no tcx links, or without the privilege.
pub fn attach_redirect_peer(from: u32, to: u32) -> io::Result<OwnedFd> {
    // r1 = to; r2 = 0; call bpf_redirect_peer; exit
    let program = load(&[u64::from(to) << 32 | 0x1b4, 0x2b4, 155 << 32 | 0x85, 0x95])?;
    link_create(program.as_fd(), from, Attach::TcxIngress)
}

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new()
        .u32(0, CLASSIFIER)
        .u32(4, instructions.len() as u32)
        .u64(8, instructions.as_ptr() as u64)
        .u64(16, c"Dual MIT/GPL".as_ptr() as u64);
    // SAFETY: the instructions and the text live until the call returns, and are as long as is said.
    unsafe { attributes.call(PROG_LOAD) }.map(owned)
}
