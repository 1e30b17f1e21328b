// SPDX-License-Identifier: Apache-2.0
//! The cgroup v2 directories of a lab: one for each node, with its pods and its daemon below.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::wait;

/// What the directories of all labs begin with.
pub const PREFIX: &str = "weft-lab-";

/// How long the kernel may take to end the processes of a cgroup.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// Where the cgroup v2 hierarchy is mounted; it is not always /sys/fs/cgroup.
pub fn v2_mount() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    mount.context("no cgroup v2 hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

/// Makes the directory `path`, and those above it.
pub fn create(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the cgroup {}", path.display()))
}

/// Moves the calling process into the cgroup `path`.
pub fn join(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), "0")
}

/// Ends every process in the cgroup `path` and below, then removes the directories. One that is not
/// there is no error.
pub(crate) fn destroy(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    if fs::write(path.join("cgroup.kill"), "1").is_err() {
        kill_each(path)?;
    }
    wait::eventually(KILL_DEADLINE, || {
        // Somebody else may be removing the same lab: all that counts is that it goes.
        if !path.exists() {
            return Ok(());
        }
        remove(path).with_context(|| format!("cannot remove the cgroup {}", path.display()))
    })
}

/// Kernels before 5.14 have no `cgroup.kill`.
fn kill_each(path: &Path) -> anyhow::Result<()> {
    for child in children(path)? {
        kill_each(&child)?;
    }
    for pid in fs::read_to_string(path.join("cgroup.procs"))?.lines() {
        // A process that ended in between makes `kill` fail, which is as good.
        crate::netns::run(std::process::Command::new("kill").args(["-KILL", pid])).ok();
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    for child in children(path)? {
        remove(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
