// SPDX-License-Identifier: Apache-2.0
//! Where the cluster's files are, and which addresses its parts have.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The version of Kubernetes that is built; its staging modules have `v0.` in place of `v1.`.
pub(crate) const KUBERNETES: &str = "v1.36.3";

/// The port of the API server.
pub(super) const API_PORT: u16 = 6443;

/// The machines of the cluster, in the order in which they start.
pub(super) const MACHINES: [Machine; 3] = [
    Machine { name: "control", number: 1, is_node: false },
    Machine { name: "node1", number: 11, is_node: true },
    Machine { name: "node2", number: 12, is_node: true },
];

/// One machine: a set of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) name: &'static str,
    /// The last part of its addresses.
    number: u8,
    /// It runs pods.
    pub(super) is_node: bool,
}

impl Machine {
    /// Its IPv4 address.
    pub(super) fn ipv4(self) -> String {
        format!("10.200.0.{}", self.number)
    }

    /// Its IPv6 address.
    pub(super) fn ipv6(self) -> String {
        format!("fd10:200::{:x}", self.number)
    }

    /// The IPv4 prefix that its pods have addresses of.
    pub(super) fn pods_ipv4(self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// The IPv6 prefix that its pods have addresses of.
    pub(super) fn pods_ipv6(self) -> String {
        format!("fd10:244:0:{:x}::/64", self.number)
    }
}

/// The machine with the API server.
pub(super) fn control() -> Machine {
    MACHINES[0]
}

/// The machines that run pods.
pub(super) fn nodes() -> impl Iterator<Item = Machine> {
    MACHINES.into_iter().filter(|machine| machine.is_node)
}

/// Prefixes of Services, and single addresses in them.
pub(super) const SERVICES_IPV4: &str = "10.96.0.0/16";
pub(super) const SERVICES_IPV6: &str = "fd10:96::/112";
pub(super) const KUBERNETES_SERVICE: &str = "10.96.0.1";
pub(super) const DNS_SERVICE: &str = "10.96.0.10";

/// The folders of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    cache: PathBuf,
}

impl Layout {
    /// Below the user's cache folder, which is shared by all checkouts: one cluster to a machine.
    pub(crate) fn find() -> anyhow::Result<Layout> {
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set")?;
        Ok(Layout { cache: cache.join("weft/cluster") })
    }

    #[cfg(test)]
    pub(super) fn below(cache: &Path) -> Layout {
        Layout { cache: cache.to_owned() }
    }

    /// Where sources of what is built from Go modules are put together.
    pub(super) fn sources(&self) -> PathBuf {
        self.cache.join(KUBERNETES).join("src")
    }

    /// Programs that were built.
    pub(crate) fn bin(&self) -> PathBuf {
        self.cache.join(KUBERNETES).join("bin")
    }

    /// Images that every node has.
    pub(super) fn images(&self) -> PathBuf {
        self.cache.join(KUBERNETES).join("images")
    }

    /// Everything of the cluster that runs; `down` removes it.
    pub(super) fn state(&self) -> PathBuf {
        self.cache.join("run")
    }

    /// Keys and certificates, and the files with which clients reach the API server.
    pub(super) fn pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    /// The file with which whoever may do everything reaches the API server.
    pub(super) fn admin(&self) -> PathBuf {
        self.pki().join("admin.conf")
    }

    /// The folder of a machine.
    pub(super) fn machine(&self, machine: Machine) -> PathBuf {
        self.state().join(machine.name)
    }

    /// The process that holds a machine's namespaces.
    pub(super) fn pid(&self, machine: Machine) -> PathBuf {
        self.machine(machine).join("pid")
    }

    /// The script that a machine runs.
    pub(super) fn script(&self, machine: Machine) -> PathBuf {
        self.machine(machine).join("machine.sh")
    }

    /// How the cluster that runs was asked for.
    pub(super) fn settings(&self) -> PathBuf {
        self.state().join("settings")
    }
}

/// The text of a path, in which there is nothing that a shell or YAML would read differently.
pub(super) fn text(path: &Path) -> anyhow::Result<&str> {
    let plain = |text: &&str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    path.to_str()
        .filter(plain)
        .with_context(|| format!("{}: only letters, digits and . _ - / can be used here", path.display()))
}
