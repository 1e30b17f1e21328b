// SPDX-License-Identifier: Apache-2.0
//! Format and lints.

use std::process::{Command, ExitCode};

use crate::cli::LintArgs;
use crate::setup::fetched;
use crate::{cargo, exec, workspace};

/// Checks format and lints of the workspace; changes nothing.
pub(crate) fn check(args: &LintArgs) -> anyhow::Result<ExitCode> {
    format_check()?;
    clippy()?;
    if args.deny {
        deny()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Formats every crate of the workspace.
pub(crate) fn format() -> anyhow::Result<()> {
    exec::run(&mut cargo::command(&["fmt", "--all"]))
}

/// Fails when a file is not formatted.
pub(crate) fn format_check() -> anyhow::Result<()> {
    exec::run(&mut cargo::command(&["fmt", "--all", "--check"]))
}

/// Fails on any warning of rustc or clippy.
pub(crate) fn clippy() -> anyhow::Result<()> {
    exec::run(&mut cargo::command(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
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
