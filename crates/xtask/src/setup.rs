// SPDX-License-Identifier: Apache-2.0
//! What has to be on the machine, and how it gets there.
//!
//! Every subcommand calls [`ensure`] first. When nothing is missing this only looks at files and takes
//! milliseconds. Debian and Ubuntu packages are installed through apt when we are root; anywhere else
//! the error names exactly what to install.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::exec;
use crate::workspace;

pub(crate) mod fetched;
mod tools;

use tools::{Source, Tool};

/// Why something has to be installed; subcommands name what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Compile the workspace.
    Build,
    /// Run the daemons in network namespaces: the demo and the lab.
    Run,
    /// Lints, and the foreign programs that tests talk to.
    Test,
    /// Peers and load generators of the benchmarks.
    Bench,
    /// Compile the kernel programs from source.
    Bpf,
    /// Boot other kernels.
    Kernels,
    /// Build and run a Kubernetes cluster.
    Cluster,
    /// Check licences and sources of the dependencies.
    Deny,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Run => "demo and lab",
            Self::Test => "test",
            Self::Bench => "bench",
            Self::Bpf => "bpf",
            Self::Kernels => "kernels",
            Self::Cluster => "cluster",
            Self::Deny => "lint --deny",
        }
    }
}

/// The purposes in words.
pub(crate) fn names(needs: &[Purpose]) -> String {
    needs.iter().map(|purpose| purpose.name()).collect::<Vec<_>>().join(", ")
}

/// Installs what is missing for `needs`.
///
/// # Errors
/// When something is missing and cannot be installed here; the message says what to install.
pub(crate) fn ensure(needs: &[Purpose]) -> anyhow::Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        eprintln!("missing: {} ({}), needed for {}", tool.name, tool.source, tool.needed_for);
    }
    let packages: Vec<&str> = missing.iter().flat_map(|tool| tool.source.packages()).collect();
    if !packages.is_empty() {
        install_packages(&packages)?;
    }
    for tool in &missing {
        if let Source::Fetched(fetch) = tool.source {
            fetch().with_context(|| format!("cannot install {}", tool.name))?;
        }
    }
    let still: Vec<&str> = self::missing(needs).iter().map(|tool| tool.name).collect();
    if !still.is_empty() {
        bail!("still missing after the installation: {}", still.join(", "));
    }
    Ok(())
}

/// Whether nothing is missing for `needs`. Installs nothing.
pub(crate) fn is_complete(needs: &[Purpose]) -> bool {
    missing(needs).is_empty()
}

fn missing(needs: &[Purpose]) -> Vec<&'static Tool> {
    tools::ALL.iter().filter(|tool| needs.contains(&tool.purpose) && !tool.is_there()).collect()
}

fn install_packages(packages: &[&str]) -> anyhow::Result<()> {
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages.dedup();
    let list = packages.join(" ");
    let Some(apt) = exec::find("apt-get") else {
        bail!("this system has no apt-get; install what these Debian packages contain: {list}");
    };
    if !exec::is_root() {
        bail!("not root; please run: sudo apt-get install --no-install-recommends {list}");
    }
    // Fresh machines have no package lists, old ones have stale lists: one update covers both.
    exec::run(apt_get(&apt).args(["update", "-q"]))?;
    exec::run(apt_get(&apt).args(["install", "-y", "-q", "--no-install-recommends"]).args(&packages))
}

fn apt_get(apt: &PathBuf) -> Command {
    let mut command = Command::new(apt);
    command.env("DEBIAN_FRONTEND", "noninteractive").current_dir(workspace::root());
    // A machine that has just started often updates itself; apt waits for the others, in seconds.
    command.args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_has_tools() {
        for purpose in [
            Purpose::Build,
            Purpose::Run,
            Purpose::Test,
            Purpose::Bench,
            Purpose::Bpf,
            Purpose::Kernels,
            Purpose::Cluster,
            Purpose::Deny,
        ] {
            assert!(tools::ALL.iter().any(|tool| tool.purpose == purpose), "{}", purpose.name());
        }
    }

    #[test]
    fn tools_are_listed_once_for_each_purpose() {
        for (index, tool) in tools::ALL.iter().enumerate() {
            let again = tools::ALL[index + 1..]
                .iter()
                .any(|other| other.name == tool.name && other.purpose == tool.purpose);
            assert!(!again, "{} is listed twice", tool.name);
        }
    }
}
