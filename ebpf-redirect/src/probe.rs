// SPDX-License-Identifier: Apache-2.0
//! What this kernel and machine have of what the datapath wants: found, or replaced by what, and what
//! is then missing.

use std::{fmt, path::Path, process::Command};

use aya::util::KernelVersion;
use serde::Serialize;

use crate::{
    hook::OPTIONAL_HOOKS,
    load::{Programs, unpin_all},
    machine,
};

/// What the directory of a check's pins begins with; the process follows.
const PINS: &str = "weft-check-";

/// What was found of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It is there.
    Yes,
    /// It is not, and something else is used.
    Replaced,
    /// It is not, and nothing can replace it.
    No,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// The feature.
    pub name: &'static str,
    /// What was found.
    pub found: Found,
    /// What it is for; where it is replaced or missing, by what and what is lost.
    pub detail: String,
}

/// The table that `weft-node --check` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// Every feature.
    pub features: Vec<Feature>,
}

impl Report {
    /// Whether the datapath can run: nothing is missing that cannot be replaced.
    pub fn usable(&self) -> bool {
        self.features.iter().all(|feature| feature.found != Found::No)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {}", self.kernel)?;
        for feature in &self.features {
            let found = match feature.found {
                Found::Yes => "found",
                Found::Replaced => "replaced",
                Found::No => "MISSING",
            };
            writeln!(f, "{:<28} {found:<9} {}", feature.name, feature.detail)?;
        }
        Ok(())
    }
}

/// Looks at the kernel and the machine.
pub(crate) fn probe() -> Report {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut features = vec![version()];
    let needs = machine::needs(None);
    let able = needs.iter().all(|need| need.found.is_ok());
    features.extend(needs.into_iter().map(need));
    if able {
        features.extend(programs());
    } else {
        features.push(feature(
            "kernel programs",
            false,
            "cannot be tried before what is missing above is there",
        ));
    }
    features.push(nft());
    features.extend(settings(Path::new("/proc/sys")));
    features.push(file("IPv6", "/proc/sys/net/ipv6", "redirect and services of IPv6 pods"));
    Report { kernel, features }
}

fn feature(name: &'static str, found: bool, detail: &str) -> Feature {
    Feature { name, found: if found { Found::Yes } else { Found::No }, detail: detail.to_owned() }
}

fn version() -> Feature {
    let found = KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 10, 0));
    feature("kernel 5.10 or later", found, "tested on 6.18, and on Debian's 5.10, 6.1 and 6.12 in QEMU")
}

fn need(need: machine::Need) -> Feature {
    match need.found {
        Ok(detail) => feature(need.name, true, &detail),
        Err(lack) => feature(need.name, false, &lack.to_string()),
    }
}

fn file(name: &'static str, path: &str, what: &str) -> Feature {
    feature(name, Path::new(path).exists(), what)
}

/// Settings of the kernel that matter, the value at which they do, and what becomes of it.
const SETTINGS: [(&str, &str, &str, &str); 7] = [
    ("early demultiplexing", "net/ipv4/ip_early_demux", "1", "by 0, as long as weft-node has the node"),
    (
        "mark in reverse paths",
        "net/ipv4/conf/all/src_valid_mark",
        "1",
        "by a rule that leads such lookups past ours",
    ),
    ("strict reverse paths", "net/ipv4/conf/all/rp_filter", "1", "by 2 for weft0; other devices keep it"),
    (
        "filters of bridges",
        "net/bridge/bridge-nf-call-iptables",
        "1",
        "by nothing needed: the redirect holds",
    ),
    (
        "forwarding of IPv4",
        "net/ipv4/ip_forward",
        "0",
        "by nothing: pods reach nothing past the proxy until it is 1",
    ),
    (
        "forwarding of IPv6",
        "net/ipv6/conf/all/forwarding",
        "0",
        "by nothing: pods reach nothing past the proxy until it is 1",
    ),
    ("IPv6 of devices", "net/ipv6/conf/all/disable_ipv6", "1", "by IPv4 alone until it is 0"),
];

/// A line for each setting that somebody has set so.
fn settings(root: &Path) -> Vec<Feature> {
    let is = |name: &str, value: &str| {
        std::fs::read_to_string(root.join(name)).is_ok_and(|found| found.trim() == value)
    };
    let set = SETTINGS.iter().filter(|(_, name, value, _)| is(name, value));
    set.map(|(what, name, value, by)| Feature {
        name: what,
        found: Found::Replaced,
        detail: format!("{name} is {value}, replaced {by}"),
    })
    .collect()
}

fn nft() -> Feature {
    let runs = Command::new("nft").arg("--version").output().is_ok_and(|output| output.status.success());
    feature("nft", runs, "keeps connection tracking off the proxy's connections (install nftables)")
}

/// Loads every program without attaching it.
fn programs() -> Vec<Feature> {
    // The loader pins the maps; they go with the directory, which no node has.
    let bpffs = Path::new("/sys/fs/bpf");
    remove_abandoned(bpffs);
    let pins = bpffs.join(format!("{PINS}{}", std::process::id()));
    let loaded = Programs::load(&pins);
    let features = match &loaded {
        Ok(programs) => {
            let mut features = vec![feature("kernel programs", true, "every hook passes the verifier")];
            features.push(tcx(programs));
            features.push(refusal(programs.chooses_error()));
            features.extend(OPTIONAL_HOOKS.map(|hook| mark_guard(!programs.left_out().contains(hook))));
            features
        }
        Err(error) => vec![feature("kernel programs", false, &error.to_string())],
    };
    drop(loaded);
    if let Err(error) = unpin_all(&pins) {
        tracing::warn!(%error, "maps of the check stay pinned");
    }
    features
}

/// Removes the pins of checks that were interrupted.
fn remove_abandoned(bpffs: &Path) {
    let Ok(entries) = std::fs::read_dir(bpffs) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PINS)?.parse::<u32>().ok());
        let is_gone = |process: u32| !Path::new("/proc").join(process.to_string()).exists();
        if process.is_some_and(is_gone)
            && let Err(error) = unpin_all(&entry.path())
        {
            tracing::warn!(%error, "maps of an earlier check stay pinned");
        }
    }
}

fn tcx(programs: &Programs) -> Feature {
    let (found, detail) = if programs.knows_tcx() {
        (Found::Yes, "links on devices, replaced in place")
    } else {
        (
            Found::Replaced,
            "by filters on clsact (tc); anybody with CAP_NET_ADMIN can remove them, links need 6.6",
        )
    };
    Feature { name: "tcx links", found, detail: detail.to_owned() }
}

fn refusal(found: bool) -> Feature {
    let (found, detail) = if found {
        (Found::Yes, "a service without endpoints, or without the port, answers ECONNREFUSED")
    } else {
        (Found::Replaced, "by EPERM (operation not permitted); needs 6.1")
    };
    Feature { name: "refusal at connect", found, detail: detail.to_owned() }
}

fn mark_guard(found: bool) -> Feature {
    let (found, detail) = if found {
        (Found::Yes, "no process of the node's cgroup but ours can set the proxy's mark")
    } else {
        (
            Found::Replaced,
            "by nothing: who has CAP_NET_ADMIN in the node's network can set the mark; needs 6.1",
        )
    };
    Feature { name: "guard of the mark", found, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_interrupted_checks_are_removed_and_no_others() {
        let bpffs = tempfile::tempdir().unwrap();
        // Linux gives no process a number as large (PID_MAX_LIMIT in linux/threads.h).
        let abandoned = bpffs.path().join(format!("{PINS}4194305"));
        let own = bpffs.path().join(format!("{PINS}{}", std::process::id()));
        let others = [own, bpffs.path().join("weft"), bpffs.path().join(format!("{PINS}x"))];
        for pins in others.iter().chain([&abandoned]) {
            std::fs::create_dir_all(pins.join("maps")).unwrap();
        }
        remove_abandoned(bpffs.path());
        assert!(!abandoned.exists());
        assert!(others.iter().all(|pins| pins.join("maps").exists()));
    }
}
