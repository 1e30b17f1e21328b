// SPDX-License-Identifier: Apache-2.0
//! Format and lints.

use std::process::{Command, ExitCode};

use crate::cli::LintArgs;
use crate::setup::fetched;
use crate::{cargo, exec, workspace};

/// Checks format and lints of the workspace and of the kernel programs; changes nothing.
pub(crate) fn check(args: &LintArgs) -> anyhow::Result<ExitCode> {
    format_check()?;
    clippy()?;
    if args.deny {
        deny()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Formats every crate of the workspace, and the kernel programs.
pub(crate) fn format() -> anyhow::Result<()> {
    exec::run(&mut cargo::command(&["fmt", "--all"]))?;
    exec::run(&mut programs(&["fmt"]))
}

/// Fails when a file is not formatted.
pub(crate) fn format_check() -> anyhow::Result<()> {
    exec::run(&mut cargo::command(&["fmt", "--all", "--check"]))?;
    exec::run(&mut programs(&["fmt", "--check"]))
}

/// Fails on any warning of rustc or clippy.
pub(crate) fn clippy() -> anyhow::Result<()> {
    exec::run(&mut cargo::command(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    clippy_of_programs()
}

/// The kernel programs, as code of this machine: the compiler for BPF has no clippy, and nothing in them
/// depends on the target but aya's types, which are told which machine's kernel is meant, and a barrier in the
/// machine language of BPF, whose feature the stable compiler has to be allowed.
fn clippy_of_programs() -> anyhow::Result<()> {
    let mut clippy = programs(&["clippy", "--locked", "--", "-D", "warnings"]);
    clippy
        .env("CARGO_TARGET_DIR", workspace::root().join("target/programs-lint"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"");
    exec::run(&mut clippy)
}

/// A cargo command in the workspace of the kernel programs.
fn programs(arguments: &[&str]) -> Command {
    let mut command = cargo::command(arguments);
    command.current_dir(workspace::root().join("ebpf-redirect/programs"));
    command
}

/// Checks licences, duplicate and banned crates, and where crates come from (`deny.toml`). Advisories
/// are left to a job of their own: they change without a change of ours.
fn deny() -> anyhow::Result<()> {
    let program = fetched::cargo_deny_path().unwrap_or_else(|| "cargo-deny".into());
    let mut command = Command::new(program);
    exec::run(
        command
            .args(["--all-features", "check", "bans", "licenses", "sources"])
            .current_dir(workspace::root()),
    )
}
