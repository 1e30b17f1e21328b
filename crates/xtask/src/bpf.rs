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

/// What came of building the kernel programs again.
pub(crate) enum Compared {
    /// The bytes are those of the committed object.
    Same,
    /// They were not compared, for this reason.
    Not(String),
}

/// Builds the kernel programs and replaces the committed object, or with `--check` only compares.
pub(crate) fn build(args: &BpfArgs) -> anyhow::Result<()> {
    let toolchain = toolchain()?;
    let version = exec::output(Command::new(&toolchain.rustc).arg("-V"))?;
    eprintln!("kernel programs with {}", version.trim());
    exec::run(script(&toolchain)?.args(args.check.then_some("--check")))
}

/// Compares the committed object with what its sources give.
///
/// # Errors
/// When the sources changed since, or give other bytes.
pub(crate) fn compare() -> anyhow::Result<Compared> {
    let text = exec::output(script(&toolchain()?)?.arg("--check"))?;
    print!("{text}");
    let last = text.lines().last().unwrap_or_default();
    Ok(if last.ends_with("is what its sources give") {
        Compared::Same
    } else {
        Compared::Not(last.to_owned())
    })
}

/// The build script with this toolchain.
fn script(toolchain: &Toolchain) -> anyhow::Result<Command> {
    let mut build = Command::new(workspace::root().join("ebpf-redirect/programs/build.sh"));
    // Variables of the cargo that runs us would select its compiler, not the one found here.
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        build.env_remove(variable);
    }
    build.env("CARGO", &toolchain.cargo).env("RUSTC", &toolchain.rustc).env("PATH", path_with_linker()?);
    Ok(build)
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
