// SPDX-License-Identifier: Apache-2.0
//! Running other programs: say what runs, and fail with its command line when it fails.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

/// Runs `command` with its output shown, and fails when it does.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    if succeeds(command)? { Ok(()) } else { bail!("failed: {}", display(command)) }
}

/// Runs `command` with its output shown, and says whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    let status = command.status().with_context(|| format!("cannot start: {}", display(command)))?;
    Ok(status.success())
}

/// Runs `command` and passes its exit status on.
pub(crate) fn pass_through(command: &mut Command) -> anyhow::Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot start: {}", display(command)))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Runs `command` in place of this process: signals and the exit status are its own. Returns only where it
/// could not be started.
pub(crate) fn replace_us(command: &mut Command) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start: {}", display(command)))
}

/// Runs `command` and returns what it printed to standard output; its errors are shown.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start: {}", display(command)))?;
    if !output.status.success() {
        bail!("failed: {}", display(command));
    }
    String::from_utf8(output.stdout).with_context(|| format!("not UTF-8: output of {}", display(command)))
}

/// Runs `command`, which must succeed, and returns its output. What it printed is shown only when it fails.
pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start: {}", display(command)))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        let said = text(&output.stdout) + &text(&output.stderr);
        bail!("failed: {}\n{}", display(command), said.trim());
    }
    Ok(text(&output.stdout))
}

/// The program's path, searched for in `PATH` and in the folders of system tools, which the `PATH` of
/// an ordinary user often lacks.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| is_executable(file))
}

/// Whether this process runs as root: kernel programs, namespaces and apt need it.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user of the process (proc(5)).
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|entry| entry.is_file() && entry.permissions().mode() & 0o111 != 0)
}

fn display(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
