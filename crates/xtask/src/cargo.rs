// SPDX-License-Identifier: Apache-2.0
//! Calls of cargo, and the list of test programs that it built.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{exec, workspace};

/// A test program: one crate's unit tests, or one file of its `tests` folder.
pub(crate) struct TestProgram {
    /// The package, for example `weft-ir`.
    pub(crate) package: String,
    /// The target, for example `converge`.
    pub(crate) target: String,
    /// The folder of the package, which is where its tests run.
    pub(crate) folder: PathBuf,
    /// The program.
    pub(crate) file: PathBuf,
}

/// A cargo command in the root of the workspace, with the cargo that runs us.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(workspace::root());
    command
}

/// Builds every binary of the workspace with `profile`; cargo shows the progress.
pub(crate) fn build_binaries(profile: &str) -> anyhow::Result<()> {
    // xtask itself is running: leaving it out keeps its file as it is.
    exec::run(&mut command(&["build", "--workspace", "--exclude", "xtask", "--bins", "--profile", profile]))
}

/// Builds one binary for everyday use.
pub(crate) fn build_binary(package: &str, binary: &str) -> anyhow::Result<()> {
    exec::run(&mut command(&["build", "--quiet", "--package", package, "--bin", binary]))
}

/// Builds the tests of the workspace and returns the test programs, in cargo's order.
pub(crate) fn build_tests() -> anyhow::Result<Vec<TestProgram>> {
    test_programs(&["--workspace"])
}

/// The same for one package.
pub(crate) fn build_tests_of(package: &str) -> anyhow::Result<Vec<TestProgram>> {
    test_programs(&["--package", package])
}

fn test_programs(selection: &[&str]) -> anyhow::Result<Vec<TestProgram>> {
    let mut build = command(&["test", "--no-run", "--message-format=json-render-diagnostics"]);
    build.args(selection);
    let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests do not compile");
    }
    let text = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    let programs: Vec<TestProgram> = text.lines().filter_map(test_program).collect();
    if programs.is_empty() {
        bail!("cargo named no test program");
    }
    Ok(programs)
}

/// Reads one of cargo's messages, when it is about a finished test program.
fn test_program(line: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    Some(TestProgram {
        package: package_name(message["package_id"].as_str()?),
        target: message["target"]["name"].as_str()?.to_owned(),
        folder: manifest.parent()?.to_path_buf(),
        file: PathBuf::from(message["executable"].as_str()?),
    })
}

/// The name in a package id: `path+file:///w/crates/ir#weft-ir@0.1.0`, or `path+file:///w/weft-ir#0.1.0`
/// where the folder is named like the package.
fn package_name(id: &str) -> String {
    let (path, fragment) = id.rsplit_once('#').unwrap_or((id, id));
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ids_of_both_forms_are_read() {
        assert_eq!(package_name("path+file:///w/crates/ir#weft-ir@0.1.0"), "weft-ir");
        assert_eq!(package_name("path+file:///w/crates/xtask#0.1.0"), "xtask");
    }

    #[test]
    fn only_test_programs_are_listed() {
        let line = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/a#weft-a@0.1.0",
                "manifest_path":"/w/a/Cargo.toml","target":{{"name":"net"}},"profile":{{"test":{test}}},
                "executable":"/w/target/debug/deps/net-1"}}"#
            )
        };
        let program = test_program(&line(true)).unwrap();
        assert_eq!((program.package.as_str(), program.target.as_str()), ("weft-a", "net"));
        assert!(test_program(&line(false)).is_none());
        assert!(test_program(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}
