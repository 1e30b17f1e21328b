// SPDX-License-Identifier: Apache-2.0
//! What a process lacks is named with what to set, each by a process that lacks it. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::process::{Command, Stdio};

use weft_ebpf_redirect::{Datapath, DatapathConfig, cgroup2_mount, probe::Found};

const INSIDE: &str = "WEFT_TEST_INSIDE";

/// What a process that lacks something prints: the lines of the check that are missing, and why the datapath
/// cannot be attached. It has a network of its own, so that nothing of the machine's is touched.
fn inside() {
    for feature in Datapath::check().features {
        if feature.found == Found::No {
            println!("@missing:{}|{}", feature.name, feature.detail);
        }
    }
    let name = format!("weft-machine-{}", std::process::id());
    let state = tempfile::tempdir().unwrap();
    let cgroup = cgroup2_mount().unwrap_or_else(|_none| "/nowhere".into());
    let config =
        DatapathConfig::new("one", cgroup, format!("/sys/fs/bpf/{name}").into(), state.path().to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let attached = runtime.block_on(Datapath::attach(config.clone()));
    println!("@attached:{}", attached.map_or_else(|error| error.to_string(), |_| "yes".into()));
    let _nothing_was_made = runtime.block_on(Datapath::cleanup(&config));
}

/// The missing features and the error of a process that begins with these commands, behind which it is started
/// by another.
fn without(prepare: &str, starter: &str) -> (Vec<String>, String) {
    let program = std::env::current_exe().unwrap();
    let line = format!(
        "ip link set lo up\n{prepare}\nexec {starter} {} --exact what_is_missing_is_named_with_what_to_set --ignored --nocapture",
        program.display()
    );
    let output = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-ec", &line])
        .env(INSIDE, "1")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |mark: &'static str| {
        text.lines().filter_map(move |line| line.split_once(mark).map(|(_, rest)| rest.to_owned()))
    };
    let error = after("@attached:").next().unwrap_or_else(|| panic!("no answer in {text}"));
    (after("@missing:").collect(), error)
}

/// Writes a line at the top of `/etc/hosts` as this process sees it.
fn hosts(line: &str) -> String {
    format!(
        "echo \"{line}\" >/tmp/.weft-hosts-$$; mount --bind /tmp/.weft-hosts-$$ /etc/hosts; rm /tmp/.weft-hosts-$$"
    )
}

fn drop_capabilities(names: &[&str]) -> String {
    let list: Vec<String> = names.iter().map(|name| format!("-{name}")).collect();
    format!("setpriv --bounding-set {0} --inh-caps {0}", list.join(","))
}

#[test]
#[ignore = "needs root"]
fn what_is_missing_is_named_with_what_to_set() {
    if std::env::var(INSIDE).is_ok() {
        return inside();
    }
    let (missing, error) = without("", "");
    assert_eq!((missing, error.as_str()), (vec![], "yes"), "this machine has everything");
    // What the pod of a mesh is given that is not privileged.
    let few = "setpriv --bounding-set -all,+net_admin,+bpf,+perfmon --inh-caps -all";
    let (missing, error) = without("", few);
    assert_eq!((missing, error.as_str()), (vec![], "yes"), "three capabilities are enough");
    let own_network = hosts("# Kubernetes-managed hosts file.");
    let pod = hosts("# Kubernetes-managed hosts file (host network).");
    let cgroups = "awk '$3 == \"cgroup2\" {print $2}' /proc/mounts | while read at; do umount -l $at; done";
    let point = tempfile::tempdir().unwrap();
    let own_cgroup =
        format!("unshare --cgroup sh -ec 'mount -t cgroup2 none {}; exec \"$@\"' sh", point.path().display());
    for (prepare, starter, name, fix) in [
        ("", &*drop_capabilities(&["net_admin"]), "CAP_NET_ADMIN", "capabilities.add: [NET_ADMIN]"),
        (
            "",
            &drop_capabilities(&["bpf", "sys_admin"]),
            "CAP_BPF is missing",
            "capabilities.add: [BPF, PERFMON]",
        ),
        (
            "",
            &drop_capabilities(&["perfmon", "sys_admin"]),
            "CAP_PERFMON is missing",
            "capabilities.add: [BPF, PERFMON]",
        ),
        (&own_network, "", "a network of its own", "spec.hostNetwork: true"),
        (cgroups, "", "no cgroup v2 is mounted", "hostPath volume of the node's /sys/fs/cgroup"),
        (cgroups, &own_cgroup, "the container's own cgroup", "hostPath volume of the node's /sys/fs/cgroup"),
        (
            &format!("{pod}; umount -l /sys/fs/bpf"),
            "",
            "no bpf file system",
            "mountPropagation: HostToContainer",
        ),
        (
            "umount -l /sys/fs/bpf",
            &drop_capabilities(&["sys_admin"]),
            "no bpf file system",
            "mountPropagation: HostToContainer",
        ),
        (
            "mount -o bind,ro /proc/sys /proc/sys",
            "",
            "/proc/sys/net/ipv4",
            "hostPath volume of /proc/sys/net",
        ),
    ] {
        let (missing, error) = without(prepare, starter);
        let lines: Vec<_> = missing.iter().filter(|line| !line.starts_with("kernel programs|")).collect();
        assert_eq!(lines.len(), 1, "without {name}: {missing:?}");
        for text in [lines[0], &error] {
            assert!(text.contains(name) && text.contains(fix), "without {name}: {text}");
        }
    }
}
