// SPDX-License-Identifier: Apache-2.0
//! What the kernel says about links.

use std::{io, os::fd::BorrowedFd};

use super::{Attributes, OBJ_INFO};

/// The device that a tcx link is attached to; 0 where it is gone, also if another one has its index now.
///
/// # Errors
/// Those of the system call.
pub(crate) fn device(link: BorrowedFd<'_>) -> io::Result<u32> {
    // `struct bpf_link_info`: type, number and program, and from 16 on what the type has, here `tcx.ifindex`.
    let mut details = [0_u32; 16];
    let mut attributes = Attributes::new()
        .fd(0, link)
        .u32(4, size_of_val(&details) as u32)
        .u64(8, details.as_mut_ptr() as u64);
    // SAFETY: the buffer is as long as is said.
    unsafe { attributes.call(OBJ_INFO) }?;
    Ok(details[4])
}
