// SPDX-License-Identifier: Apache-2.0
//! The cgroup file system, to whose root the hooks of sockets are attached.

use std::{fs, io};

/// Finds the mount point of the cgroup v2 hierarchy.
///
/// # Errors
/// Where there is none, or `/proc/mounts` cannot be read.
pub fn cgroup2_mount() -> io::Result<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find_map(|fields| (fields.get(2) == Some(&"cgroup2")).then(|| fields.get(1).copied()).flatten())
        .map(Into::into)
        .ok_or_else(|| io::Error::other("no cgroup v2 is mounted"))
}
