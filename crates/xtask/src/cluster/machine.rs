// SPDX-License-Identifier: Apache-2.0
//! Machines as sets of namespaces: nothing of them is in the host's own but processes, and a control group that
//! goes with them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, bail};

use crate::exec;

use super::layout::{Layout, Machine, control};

/// How long a machine may take to appear or to go: its first process mounts a dozen file systems, or is killed.
const SOON: Duration = Duration::from_secs(20);

/// Where the kernel's control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// One hierarchy of control groups of the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    folder: PathBuf,
    /// With what it is mounted; nothing for version 2.
    options: Option<String>,
}

/// The hierarchies of the host.
pub(super) fn hierarchies() -> anyhow::Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let found = hierarchies_of(&mounts);
    if found.is_empty() {
        bail!("no control groups below {GROUPS}: the kubelet needs them");
    }
    Ok(found)
}

fn hierarchies_of(mounts: &str) -> Vec<Hierarchy> {
    let of_line = |line: &str| {
        let [_, folder, kind, options] = line.split(' ').take(4).collect::<Vec<_>>().try_into().ok()?;
        let folder = PathBuf::from(folder).starts_with(GROUPS).then(|| PathBuf::from(folder))?;
        // What is not about mounts in general names the controllers.
        let general =
            ["rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "xattr", "clone_children"];
        let own = |option: &&str| !general.contains(option) && !option.starts_with("release_agent=");
        match kind {
            "cgroup2" => Some(Hierarchy { folder, options: None }),
            "cgroup" => {
                let mut own: Vec<&str> = options.split(',').filter(own).collect();
                // One that only has a name has no controller.
                if own.iter().all(|option| option.starts_with("name=")) {
                    own.insert(0, "none");
                }
                Some(Hierarchy { folder, options: Some(own.join(",")) })
            }
            _ => None,
        }
    };
    mounts.lines().filter_map(of_line).collect()
}

/// How a machine mounts the same hierarchies.
pub(super) fn described(hierarchies: &[Hierarchy]) -> String {
    let one = |one: &Hierarchy| {
        let name = one.folder.strip_prefix(GROUPS).ok()?.to_str().filter(|name| !name.is_empty())?;
        Some(format!("{name}:{}", one.options.as_deref().unwrap_or("v2")))
    };
    let names: Option<Vec<String>> = hierarchies.iter().map(one).collect();
    names.map_or_else(|| "unified".to_owned(), |names| names.join(" "))
}

/// Where the hierarchy of version 2 is, on the host and in every machine.
pub(super) fn cgroup2() -> anyhow::Result<String> {
    let found = hierarchies()?.into_iter().find(|hierarchy| hierarchy.options.is_none());
    Ok(found.context("no cgroup v2 is mounted")?.folder.display().to_string())
}

/// The machine's group in each hierarchy.
fn groups(machine: Machine) -> anyhow::Result<Vec<PathBuf>> {
    let name = format!("weft-cluster-{}", machine.name);
    Ok(hierarchies()?.into_iter().map(|hierarchy| hierarchy.folder.join(&name)).collect())
}

/// Starts a machine whose script is written.
pub(super) fn start(layout: &Layout, machine: Machine) -> anyhow::Result<()> {
    let folder = layout.machine(machine);
    fs::create_dir_all(folder.join("log"))?;
    let groups = groups(machine)?;
    for group in &groups {
        make_group(group).with_context(|| format!("cannot make the group {}", group.display()))?;
    }
    let log = File::create(folder.join("log/machine"))?;
    let enter = r#"script=$1; shift; for group; do echo $$ > "$group/cgroup.procs"; done
exec unshare --mount --net --cgroup --uts --ipc --fork --kill-child=KILL sh "$script""#;
    let mut command = Command::new("setsid");
    command.args(["sh", "-ec", enter, "sh"]).arg(layout.script(machine)).args(&groups);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    // Signals of a terminal are not the machine's. A leader of a group would be another process behind setsid.
    let child = command.spawn().context("cannot start setsid")?;
    fs::write(layout.pid(machine), child.id().to_string())?;
    until(SOON, || Ok(first_process(layout, machine).is_some()))
        .with_context(|| format!("{} did not start: see {}", machine.name, folder.join("log").display()))
}

fn make_group(group: &Path) -> io::Result<()> {
    fs::create_dir_all(group)?;
    // The processors and memory of a group of version 1 are none until somebody says which.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let parent = group.with_file_name(file);
        if parent.exists() && group.join(file).exists() && !group.join("cgroup.controllers").exists() {
            fs::write(group.join(file), fs::read_to_string(parent)?)?;
        }
    }
    Ok(())
}

/// The process that holds the machine's namespaces, if it runs: none other may have its number by now.
fn holder(layout: &Layout, machine: Machine) -> Option<u32> {
    let pid = fs::read_to_string(layout.pid(machine)).ok()?.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let script = layout.script(machine);
    let mut words = line.split(|byte| *byte == 0);
    words.any(|word| word == script.as_os_str().as_encoded_bytes()).then_some(pid)
}

/// The first process of a machine that runs.
pub(super) fn first_process(layout: &Layout, machine: Machine) -> Option<u32> {
    let holder = holder(layout, machine)?;
    let children = fs::read_to_string(format!("/proc/{holder}/task/{holder}/children")).ok()?;
    let child = children.split_whitespace().next()?.parse().ok()?;
    let line = fs::read(format!("/proc/{child}/cmdline")).ok()?;
    line.starts_with(b"sh\0").then_some(child)
}

/// Connects a node with the bridge of the control machine. The pair is made inside, so that the host sees none of it.
pub(super) fn connect(layout: &Layout, node: Machine) -> anyhow::Result<()> {
    let pid = first_process(layout, node).with_context(|| format!("{} does not run", node.name))?;
    let peer = ["peer", "name", "eth0", "netns"];
    exec::quiet(
        within(layout)?
            .args(["ip", "link", "add", node.name, "type", "veth"])
            .args(peer)
            .arg(pid.to_string()),
    )?;
    exec::quiet(within(layout)?.args(["ip", "link", "set", node.name, "master", "nodes", "up"])).map(drop)
}

/// A command in the network of the control machine, with the files of the host.
pub(super) fn within(layout: &Layout) -> anyhow::Result<Command> {
    let pid = first_process(layout, control()).context("the cluster does not run: cargo xtask cluster up")?;
    let mut command = Command::new("nsenter");
    command.arg("--target").arg(pid.to_string()).args(["--net", "--"]);
    Ok(command)
}

/// A command in all that is a machine's own.
pub(super) fn inside(layout: &Layout, machine: Machine) -> anyhow::Result<Command> {
    let pid = first_process(layout, machine).with_context(|| format!("{} does not run", machine.name))?;
    let mut command = Command::new("nsenter");
    command.arg("--target").arg(pid.to_string()).args(["--all", "--"]);
    Ok(command)
}

/// Ends a machine with all its processes; the kernel then drops its mounts, devices and namespaces. They are those
/// of its groups: it has no process namespace, since kernel programs see the numbers of the first one.
pub(super) fn stop(layout: &Layout, machine: Machine) -> anyhow::Result<()> {
    if let Some(pid) = holder(layout, machine) {
        exec::quiet(Command::new("kill").args(["-KILL", &pid.to_string()]))?;
        until(SOON, || Ok(holder(layout, machine).is_none()))
            .with_context(|| format!("{}: process {pid} does not end", machine.name))?;
    }
    for group in groups(machine)? {
        until(SOON, || remove_group(&group))
            .with_context(|| format!("cannot remove the group {}: who is in it?", group.display()))?;
    }
    Ok(())
}

/// Whether the group is gone. Who is in it belongs to the machine, whoever started it, and is killed; it takes a
/// moment to go.
fn remove_group(group: &Path) -> anyhow::Result<bool> {
    if !group.exists() {
        return Ok(true);
    }
    for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
        // It may have ended since.
        Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status()?;
    }
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !remove_group(&entry.path())? {
            return Ok(false);
        }
    }
    Ok(fs::remove_dir(group).is_ok())
}

/// Asks again and again until it holds.
pub(super) fn until(limit: Duration, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    while !holds()? {
        if Instant::now() > end {
            bail!("not within {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_mount_the_groups_of_the_host() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,release_agent=/x,name=systemd 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
                      cgroup2 /elsewhere cgroup2 rw 0 0\nproc /proc proc rw 0 0\n";
        let found = hierarchies_of(hybrid);
        assert_eq!(described(&found), "cpu,cpuacct:cpu,cpuacct systemd:none,name=systemd unified:v2");
        let unified = hierarchies_of("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n");
        assert_eq!((unified.len(), &*described(&unified)), (1, "unified"));
        assert_eq!(hierarchies_of("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"), []);
    }
}
