// SPDX-License-Identifier: Apache-2.0
//! Which processes may use our mark: this one, and the one before it, which may still end its connections.
//!
//! The kernel knows a process by a number that a PID namespace hides from it. So it is asked: a process that can
//! write the map writes a number that nobody else knows, and names that in a `setsockopt`.

use std::{io, os::fd::AsRawFd};

use weft_ebpf_common::layout::CLAIM;

use crate::{config::Mark, maps::Maps};

/// Enters this process, and removes those before the last one.
///
/// # Errors
/// Where the map cannot be read or written, or the kernel has no random numbers.
pub(crate) fn claim(maps: &Maps, mark: Mark) -> io::Result<()> {
    let number = random()? & !mark.mask | mark.from_proxy;
    maps.owners.update(&CLAIM, &number)?;
    let named = name(number);
    maps.owners.remove(&CLAIM)?;
    let mut others = Vec::new();
    let mut own = None;
    for process in maps.owners.keys()? {
        match maps.owners.lookup(&process)? {
            Some(found) if found == number => own = Some(process),
            Some(turn) => others.push((turn, process)),
            None => {}
        }
    }
    // Where no hook has looked, none will: before 6.1, and outside of the node's cgroup.
    let own = own.unwrap_or_else(std::process::id);
    others.retain(|(_, process)| *process != own);
    others.sort_unstable();
    let turn = others.last().map_or(1, |(turn, _)| turn.wrapping_add(1));
    maps.owners.update(&own, &turn)?;
    for (_, process) in others.iter().rev().skip(1) {
        maps.owners.remove(process)?;
    }
    named
}

fn random() -> io::Result<u32> {
    let mut bytes = [0_u8; 4];
    #[allow(unsafe_code, reason = "the standard library has no random numbers")]
    // SAFETY: the buffer is as long as is said.
    let done = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if done == 4 { Ok(u32::from_ne_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}

/// Names a number as the mark of a socket that is used for nothing else.
fn name(number: u32) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    #[allow(unsafe_code, reason = "the standard library sets no marks")]
    // SAFETY: the option is a number that outlives the call, and as long as is said.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw const number).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
