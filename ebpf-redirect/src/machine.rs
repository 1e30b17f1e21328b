// SPDX-License-Identifier: Apache-2.0
//! What the process must be allowed to do, and see of the machine, before it can do anything: each is looked at
//! by itself, so that an error names what to set instead of the call that failed.

use std::{fmt, fs, io, path::Path};

use aya::util::KernelVersion;

use crate::{bpffs, cgroup::cgroup2_mount, network::WRITTEN_SYSCTLS};

/// Numbers of capabilities (`linux/capability.h`).
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const SYS_RESOURCE: u32 = 24;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// How the kubelet begins a container's `/etc/hosts` (`managedHostsHeader` of its `kubelet_pods.go`); behind it,
/// ` (host network)` or nothing.
const KUBELET_HOSTS: &str = "# Kubernetes-managed hosts file";
/// `PROC_CGROUP_INIT_INO` of `linux/proc_ns.h`: the cgroup namespace that the machine began with.
const FIRST_CGROUP_NAMESPACE: &str = "cgroup:[4026531835]";

/// Something that the datapath needs, and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// What.
    pub(crate) name: &'static str,
    /// What it is for, or what is wrong and what to set.
    pub(crate) found: Result<String, Lack>,
}

/// What is missing, and what to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is wrong.
    pub what: String,
    /// What to set on a machine, and in a pod's specification.
    pub fix: &'static str,
}

/// Everything that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacks(pub Vec<Lack>);

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.fix)
    }
}

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, lack) in self.0.iter().enumerate() {
            write!(f, "{}{lack}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Lacks {}

/// Looks at everything. A cgroup that is not the root of the mount was chosen by somebody who knows.
pub(crate) fn needs(chosen: Option<&Path>) -> Vec<Need> {
    let capabilities = effective_capabilities();
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let need = |name, found| Need { name, found };
    let old = !KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 11, 0));
    let mut needs = vec![
        need("CAP_NET_ADMIN", net_admin(capabilities)),
        need("CAP_BPF and CAP_PERFMON", programs(capabilities)),
    ];
    if old {
        needs.push(need("CAP_SYS_RESOURCE", memory(capabilities)));
    }
    needs.extend([
        need("node's network", network(&hosts)),
        need("cgroup v2", chosen.and_then(chosen_cgroup).unwrap_or_else(cgroup)),
        need("bpf file system", bpf_file_system(capabilities, hosts.starts_with(KUBELET_HOSTS))),
        need("/proc/sys", sysctls(Path::new("/proc/sys"))),
    ]);
    needs
}

/// Fails where something is missing.
///
/// # Errors
/// Names all of it.
pub(crate) fn check(cgroup: &Path) -> Result<(), Lacks> {
    let lacks: Vec<Lack> = needs(Some(cgroup)).into_iter().filter_map(|need| need.found.err()).collect();
    if lacks.is_empty() { Ok(()) } else { Err(Lacks(lacks)) }
}

fn lack(what: impl Into<String>, fix: &'static str) -> Lack {
    Lack { what: what.into(), fix }
}

/// The bits of `CapEff`; nothing where it cannot be read, which the calls will say better.
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(u64::MAX)
}

fn has(capabilities: u64, number: u32) -> bool {
    capabilities & 1 << number != 0
}

fn net_admin(capabilities: u64) -> Result<String, Lack> {
    if has(capabilities, NET_ADMIN) {
        return Ok("devices, routes, programs on devices and cgroups, transparent sockets".into());
    }
    Err(lack(
        "CAP_NET_ADMIN is missing",
        "run as root; in a pod, securityContext.capabilities.add: [NET_ADMIN], or securityContext.privileged: true",
    ))
}

fn programs(capabilities: u64) -> Result<String, Lack> {
    let missing: Vec<&str> = [(BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|(number, _)| !has(capabilities, *number) && !has(capabilities, SYS_ADMIN))
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        return Ok("programs and maps".into());
    }
    Err(lack(
        format!("{} is missing", missing.join(" and ")),
        "run as root; in a pod, securityContext.capabilities.add: [BPF, PERFMON], or securityContext.privileged: \
         true",
    ))
}

/// Before 5.11 maps count as locked memory, of which a process has 64 KiB.
fn memory(capabilities: u64) -> Result<String, Lack> {
    if has(capabilities, SYS_RESOURCE) {
        return Ok("room for maps before Linux 5.11".into());
    }
    Err(lack(
        "CAP_SYS_RESOURCE is missing, which maps need before Linux 5.11",
        "run as root; in a pod, securityContext.capabilities.add: [SYS_RESOURCE], or securityContext.privileged: \
         true",
    ))
}

/// The kubelet writes whose network a pod has into its `/etc/hosts`.
fn network(hosts: &str) -> Result<String, Lack> {
    let first = hosts.lines().next().unwrap_or_default();
    if first.starts_with(KUBELET_HOSTS) && !first.contains("host network") {
        return Err(lack("this pod has a network of its own, not the node's", "spec.hostNetwork: true"));
    }
    Ok("that of the calling process, whose pods are redirected".into())
}

/// Nothing where it is the mount itself, which may be the container's own, or where nothing is mounted.
fn chosen_cgroup(chosen: &Path) -> Option<Result<String, Lack>> {
    if cgroup2_mount().ok()? == chosen {
        return None;
    }
    if chosen.join("cgroup.procs").exists() {
        return Some(Ok(format!("service load balancing, at {}", chosen.display())));
    }
    const FIX: &str = "--cgroup with a folder of the node's cgroup v2, or without it for all of that";
    Some(Err(lack(format!("{} is no cgroup", chosen.display()), FIX)))
}

fn cgroup() -> Result<String, Lack> {
    const FIX: &str = "mount -t cgroup2 none /sys/fs/cgroup; in a pod, a hostPath volume of the node's /sys/fs/cgroup \
                       at /sys/fs/cgroup, or --cgroup";
    let mount = cgroup2_mount().map_err(|error| lack(error.to_string(), FIX))?;
    let namespace = fs::read_link("/proc/self/ns/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if namespace != Path::new(FIRST_CGROUP_NAMESPACE) && is_own_view(&mounts, &mount) {
        let what = format!("{} shows the container's own cgroup, not the pods'", mount.display());
        return Err(lack(what, FIX));
    }
    Ok(format!("service load balancing, at {}", mount.display()))
}

/// Whether the root of a cgroup mount is that of this process's namespace; one that was mounted outside has a root
/// above it.
fn is_own_view(mountinfo: &str, mount: &Path) -> bool {
    mountinfo.lines().any(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields.get(4).is_some_and(|point| Path::new(point) == mount) && fields.get(3) == Some(&"/")
    })
}

/// Outside of a pod it is mounted where it is missing. In a pod such a mount would end with the pod, and with it
/// every program of the node.
fn bpf_file_system(capabilities: u64, pod: bool) -> Result<String, Lack> {
    const ROOT: &str = "/sys/fs/bpf";
    if bpffs::is_bpffs(Path::new(ROOT)).unwrap_or(false) {
        return Ok("keeps maps and links over restarts".into());
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|line| line.trim_end().ends_with("\tbpf")) {
        return Err(lack("the kernel has no bpf file system", "a kernel with CONFIG_BPF_SYSCALL"));
    }
    if !pod && has(capabilities, SYS_ADMIN) {
        return Ok("mounted when it is needed".into());
    }
    Err(lack(
        "no bpf file system is mounted at /sys/fs/bpf",
        "mount -t bpf bpf /sys/fs/bpf on the node; in a pod, a hostPath volume of it with mountPropagation: \
         HostToContainer",
    ))
}

fn sysctls(root: &Path) -> Result<String, Lack> {
    let writable = |name: &&str| match fs::OpenOptions::new().write(true).open(root.join(name)) {
        Ok(_) => None,
        // What a kernel does not have is told by who needs it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some((root.join(name), error)),
    };
    match WRITTEN_SYSCTLS.iter().find_map(writable) {
        None => Ok("the settings that the redirect needs can be written".into()),
        Some((path, error)) => Err(cannot_write(&path, &error)),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Lack {
    lack(
        format!("{} cannot be written ({error})", path.display()),
        "run as root; in a pod, a hostPath volume of /proc/sys/net at /proc/sys/net, or securityContext.privileged: \
         true",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_is_chosen_is_not_doubted() {
        let folder = tempfile::tempdir().unwrap();
        let said = |place: &Path| chosen_cgroup(place).unwrap().map_err(|lack| lack.to_string());
        assert!(said(folder.path()).unwrap_err().contains("is no cgroup: --cgroup"));
        fs::write(folder.path().join("cgroup.procs"), "").unwrap();
        assert!(said(folder.path()).unwrap().contains("service load balancing, at"));
    }

    #[test]
    fn a_pod_says_whose_network_it_has() {
        assert!(network("127.0.0.1 localhost\n").is_ok());
        assert!(network("# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n").is_ok());
        let lack = network("# Kubernetes-managed hosts file.\n127.0.0.1 localhost\n").expect_err("its own");
        assert_eq!(lack.fix, "spec.hostNetwork: true");
    }

    #[test]
    fn each_missing_capability_is_named_and_old_wide_ones_count() {
        assert!(programs(1 << SYS_ADMIN).is_ok());
        assert!(programs(1 << BPF | 1 << PERFMON).is_ok());
        let lack = programs(1 << BPF).expect_err("one is missing");
        assert_eq!(lack.what, "CAP_PERFMON is missing");
        assert!(memory(0).expect_err("none").fix.contains("SYS_RESOURCE"));
        assert!(net_admin(1 << NET_ADMIN).is_ok() && net_admin(!(1 << NET_ADMIN)).is_err());
    }

    #[test]
    fn a_mount_of_the_node_has_a_root_above_the_containers() {
        let own = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
        let nodes = "41 31 0:38 /../../.. /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
        assert!(is_own_view(own, Path::new("/sys/fs/cgroup")));
        assert!(!is_own_view(nodes, Path::new("/sys/fs/cgroup")));
    }
}
