// SPDX-License-Identifier: Apache-2.0
//! Running test programs and counting what they report.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::cargo::{self, TestProgram};
use crate::outcome::Outcome;

/// Which tests of a program to run.
pub(super) struct Selection {
    ignored: bool,
    filter: Option<String>,
}

impl Selection {
    /// Tests that run anywhere.
    pub(super) fn ordinary() -> Self {
        Self { ignored: false, filter: None }
    }

    /// Tests marked `#[ignore = "needs root"]`, one at a time: they share the machine's network state.
    pub(super) fn needs_root() -> Self {
        Self { ignored: true, filter: None }
    }

    /// Only tests whose name contains `filter`.
    pub(super) fn filtered(self, filter: Option<&str>) -> Self {
        Self { filter: filter.map(str::to_owned), ..self }
    }

    fn arguments(&self) -> Vec<&str> {
        let mut arguments: Vec<&str> = self.filter.as_deref().into_iter().collect();
        if self.ignored {
            arguments.extend(["--ignored", "--test-threads=1"]);
        }
        arguments
    }
}

/// Runs the selected tests of every program.
pub(super) fn run_all(programs: &[TestProgram], selection: &Selection) -> anyhow::Result<Outcome> {
    run_where(programs, selection, |_| true)
}

/// Runs the selected tests of one package.
pub(super) fn run_package(
    programs: &[TestProgram],
    package: &str,
    selection: &Selection,
) -> anyhow::Result<Outcome> {
    run_where(programs, selection, |program| program.package == package)
}

/// Runs the selected tests of all packages but these.
pub(super) fn run_except(
    programs: &[TestProgram],
    packages: &[&str],
    selection: &Selection,
) -> anyhow::Result<Outcome> {
    run_where(programs, selection, |program| !packages.contains(&program.package.as_str()))
}

/// Whether a program has tests that need root.
pub(crate) fn needs_root(program: &TestProgram) -> anyhow::Result<bool> {
    Ok(!names(program, &Selection::needs_root())?.is_empty())
}

/// Prints the names of the selected tests.
pub(super) fn list(programs: &[TestProgram], selection: &Selection) -> anyhow::Result<()> {
    for program in programs {
        for name in names(program, selection)? {
            println!("{} {} {name}", program.package, program.target);
        }
    }
    Ok(())
}

/// Runs the documentation tests of the workspace.
pub(super) fn run_doc_tests() -> anyhow::Result<Outcome> {
    let mut command = cargo::command(&["test", "--workspace", "--doc", "--quiet", "--no-fail-fast"]);
    run_counted(&mut command, "documentation tests")
}

fn run_where(
    programs: &[TestProgram],
    selection: &Selection,
    wanted: impl Fn(&TestProgram) -> bool,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    for program in programs.iter().filter(|program| wanted(program)) {
        if names(program, selection)?.is_empty() {
            continue;
        }
        println!("\n-- {} {}", program.package, program.target);
        let mut command = command(program);
        command.args(selection.arguments());
        outcome.add(run_counted(&mut command, &program.target)?);
    }
    Ok(outcome)
}

/// The tests that the selection would run; a test that is ignored is not among the ordinary ones.
fn names(program: &TestProgram, selection: &Selection) -> anyhow::Result<Vec<String>> {
    let listed = |ignored: bool| -> anyhow::Result<Vec<String>> {
        let mut command = command(program);
        command.args(selection.filter.as_deref()).args(["--list", "--format=terse"]);
        command.args(ignored.then_some("--ignored"));
        let output = command.output().with_context(|| format!("cannot start {}", program.file.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    };
    let ignored = listed(true)?;
    if selection.ignored {
        return Ok(ignored);
    }
    Ok(listed(false)?.into_iter().filter(|name| !ignored.contains(name)).collect())
}

fn command(program: &TestProgram) -> Command {
    let mut command = Command::new(&program.file);
    command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
    command
}

/// Runs a test program, shows what it prints, and counts its results.
fn run_counted(command: &mut Command, name: &str) -> anyhow::Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
    let Some(stdout) = child.stdout.take() else { bail!("{name} has no output") };
    let mut outcome = Outcome::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.with_context(|| format!("cannot read what {name} prints"))?;
        println!("{line}");
        count(&line, &mut outcome);
    }
    let status = child.wait()?;
    if !status.success() && outcome.failures.is_empty() {
        outcome.failures.push(format!("{name} ended with {status}"));
    }
    Ok(outcome)
}

/// Reads one line of the test harness: a failed test, or the sum of a program.
pub(crate) fn count(line: &str, outcome: &mut Outcome) {
    if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
        outcome.failures.push(name.to_owned());
    } else if let Some(sum) = line.strip_prefix("test result: ") {
        let passed = sum.split_once(" passed").and_then(|(before, _)| before.rsplit(' ').next());
        outcome.passed += passed.and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_the_harness_are_counted() {
        let mut outcome = Outcome::default();
        for line in [
            "running 3 tests",
            "test allow_wins ... ok",
            "test deny_wins ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        ] {
            count(line, &mut outcome);
        }
        assert_eq!(outcome, Outcome { passed: 7, failures: vec!["deny_wins".into()] });
    }

    #[test]
    fn a_program_that_dies_without_a_result_is_a_failure() {
        let outcome = run_counted(Command::new("sh").args(["-c", "exit 3"]), "dying").unwrap();
        assert_eq!(outcome.failed(), 1);
    }
}
