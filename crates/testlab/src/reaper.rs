// SPDX-License-Identifier: Apache-2.0
//! Removing what labs leave behind.
//!
//! Each lab starts one process that waits for the end of its standard input, which is the end of the
//! lab's process, however it came: a panic, Ctrl-C, SIGKILL. It is in a process group of its own, so that
//! a terminal's signal does not reach it. A lab holds a lock on a file of its directory while it lives:
//! `weft-lab cleanup` removes the labs whose lock is free.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::{cgroup, netns, process};

/// Where the directories of labs are.
pub(crate) const LABS: &str = "/run/weft-lab";
/// What the namespaces of all labs begin with.
const PREFIX: &str = "wl-";
/// The file that a living lab has locked.
pub(crate) const LOCK: &str = "lock";

/// A command that the lab had started may make one more thing after the lab's process was killed, so
/// the reaper looks again.
const SWEEPS: u32 = 5;
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// What the namespaces of the lab `id` begin with.
pub(crate) fn namespace_prefix(id: &str) -> String {
    format!("{PREFIX}{id}-")
}

/// Starts the process that removes the lab `id` when ours ends.
pub(crate) fn start(id: &str) -> anyhow::Result<Child> {
    Command::new(process::program("weft-lab")?)
        .args(["reap", id])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("cannot start the process that removes the lab")
}

/// Waits for the end of standard input, then removes the lab `id`.
pub fn reap(id: &str) -> anyhow::Result<()> {
    let mut sink = Vec::new();
    io::stdin().lock().take(1).read_to_end(&mut sink)?;
    for _ in 0..SWEEPS {
        remove(id)?;
        thread::sleep(SWEEP_PAUSE);
    }
    remove(id)
}

/// Removes every lab whose process is gone, and returns their ids.
pub fn remove_dead() -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    // A lab makes its directory first: namespaces without one are what was left of a lab.
    let mut ids = with_namespaces()?;
    ids.retain(|id| !Path::new(LABS).join(id).exists());
    for id in known()? {
        if is_dead(&id) {
            ids.insert(id);
        }
    }
    for id in ids {
        remove(&id)?;
        removed.push(id);
    }
    Ok(removed)
}

/// Removes all that the lab `id` made: processes, namespaces, mounts, files. What is gone already is
/// no error.
pub fn remove(id: &str) -> anyhow::Result<()> {
    cgroup::destroy(&cgroup::v2_mount()?.join(format!("{}{id}", cgroup::PREFIX)))?;
    for name in namespaces(id)? {
        // Two that clean up at once find what the other has removed already.
        if let Err(error) = netns::run(Command::new("ip").args(["netns", "del", &name]))
            && Path::new(netns::NAMES).join(&name).exists()
        {
            return Err(error);
        }
    }
    let directory = Path::new(LABS).join(id);
    let bpf = directory.join("bpf");
    if is_mounted(&bpf)?
        && let Err(error) = netns::run(Command::new("umount").arg("-l").arg(&bpf))
        && is_mounted(&bpf)?
    {
        return Err(error);
    }
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn known() -> anyhow::Result<Vec<String>> {
    match fs::read_dir(LABS) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot list {LABS}")),
    }
}

/// A lab is dead when its lock is there and free; without a lock it is just being made or removed.
fn is_dead(id: &str) -> bool {
    let path: PathBuf = [LABS, id, LOCK].iter().collect();
    match File::open(path) {
        Ok(file) => !matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

fn namespaces(id: &str) -> anyhow::Result<Vec<String>> {
    let prefix = namespace_prefix(id);
    Ok(all_namespaces()?.into_iter().filter(|name| name.starts_with(&prefix)).collect())
}

fn with_namespaces() -> anyhow::Result<BTreeSet<String>> {
    let ids = |name: String| Some(name.strip_prefix(PREFIX)?.split_once('-')?.0.to_owned());
    Ok(all_namespaces()?.into_iter().filter_map(ids).collect())
}

fn all_namespaces() -> anyhow::Result<Vec<String>> {
    match fs::read_dir(netns::NAMES) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("cannot list the namespaces"),
    }
}

fn is_mounted(path: &Path) -> anyhow::Result<bool> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str()))
}
