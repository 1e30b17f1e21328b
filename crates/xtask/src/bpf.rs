// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bpf`: finds a toolchain for the kernel programs and hands it to their build script.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::cli::BpfArgs;
use crate::setup::fetched;
use crate::{exec, workspace};

/// A compiler and a cargo that can build `core` for a BPF target.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
}

/// Builds the kernel programs and replaces the committed object, or with `--check` only compares.
pub(crate) fn build(args: &BpfArgs) -> anyhow::Result<()> {
    let toolchain = toolchain()?;
    let version = exec::output(Command::new(&toolchain.rustc).arg("-V"))?;
    eprintln!("kernel programs with {}", version.trim());
    let script = workspace::root().join("ebpf-redirect/programs/build.sh");
    let mut build = Command::new(&script);
    // Variables of the cargo that runs us would select its compiler, not the one found here.
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        build.env_remove(variable);
    }
    build.env("CARGO", &toolchain.cargo).env("RUSTC", &toolchain.rustc).env("PATH", path_with_linker()?);
    build.args(args.check.then_some("--check"));
    exec::run(&mut build)
}

/// Debian's compiler first: the committed object is made with it, and the same compiler gives the same
/// bytes.
fn toolchain() -> anyhow::Result<Toolchain> {
    if fetched::debian_bpf_rust() {
        return Ok(Toolchain { cargo: "/usr/bin/cargo".into(), rustc: "/usr/bin/rustc".into() });
    }
    match fetched::nightly_with_source() {
        Some(folder) => Ok(Toolchain { cargo: folder.join("bin/cargo"), rustc: folder.join("bin/rustc") }),
        None => bail!("no compiler for BPF: install rustc-web and rust-web-src, or a nightly with rust-src"),
    }
}

/// The PATH with the folder of our own bpf-linker in front.
fn path_with_linker() -> anyhow::Result<std::ffi::OsString> {
    let own = fetched::bpf_linker_path();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = own.parent().map(PathBuf::from).into_iter().chain(env::split_paths(&path));
    env::join_paths(folders).context("a folder in PATH has a colon in its name")
}
