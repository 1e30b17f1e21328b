// SPDX-License-Identifier: Apache-2.0
//! What `cargo xtask test`, `lab` and `demo` run.
//!
//! Test programs are built once, for the whole workspace, and then run here one after the other: tests
//! that need root carry `#[ignore = "needs root"]`, and are a stage of their own. A stage that finds no
//! test fails: nothing passes by being skipped.

use std::process::{Command, ExitCode};

use anyhow::bail;

use crate::cli::{LabArgs, TestArgs};
use crate::outcome::Outcome;
use crate::setup::{self, Purpose};
use crate::{bpf, cargo, doc_commands, exec, lint, workspace};

mod programs;
mod report;

use programs::Selection;
pub(crate) use programs::{count, needs_root};
use report::Report;

/// The package whose ignored tests push packets through the kernel programs.
const KERNEL_PACKAGE: &str = "weft-ebpf-redirect";
/// The package whose ignored tests are the lab.
const LAB_PACKAGE: &str = "weft-testlab";

/// Builds the binaries and starts the demo with `args`.
pub(crate) fn demo(args: &[String]) -> anyhow::Result<ExitCode> {
    cargo::build_binaries("dev")?;
    let demo = workspace::binary("weft-lab", "dev");
    exec::pass_through(Command::new(demo).arg("demo").args(args).current_dir(workspace::root()))
}

/// Runs every stage, also after a failure, and sums up.
pub(crate) fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    if !exec::is_root() && !args.no_root_tests {
        eprintln!(
            "not root: this ends as a failure, without the kernel and lab tests (--no-root-tests accepts it)"
        );
    }
    if !args.no_lint {
        report.step("format", lint::format_check);
        report.step("clippy", lint::clippy);
    }
    let built = report.step("build", || cargo::build_binaries("dev"));
    let Some(programs) = report.value("build of the tests", cargo::build_tests) else {
        return Ok(report.finish());
    };
    report.tests("unit and in-process tests", || programs::run_all(&programs, &Selection::ordinary()));
    report.tests("documentation tests", programs::run_doc_tests);
    if built {
        report.tests("examples and documented commands", doc_commands::check);
    }
    same_object_from_sources(&mut report);
    root_stages(args, built, &programs, &mut report);
    Ok(report.finish())
}

/// Builds the kernel programs again and compares, where the toolchain that made the object is here.
fn same_object_from_sources(report: &mut Report) {
    report.where_possible("kernel object from its sources", || {
        if !setup::is_complete(&[Purpose::Bpf]) {
            let why = "no toolchain for kernel programs here; cargo xtask setup --bpf installs it";
            return Ok(Some(why.to_owned()));
        }
        Ok(match bpf::compare()? {
            bpf::Compared::Same => None,
            bpf::Compared::Not(why) => Some(why),
        })
    });
}

/// The kernel and the lab tests, or the plain statement that they were not run.
fn root_stages(args: &TestArgs, built: bool, programs: &[cargo::TestProgram], report: &mut Report) {
    if !exec::is_root() {
        let stages = "kernel tests and lab tests (they need root: programs are loaded, namespaces made)";
        if args.no_root_tests {
            report.not_run(stages, "left out by --no-root-tests");
        } else {
            report.fail(stages, "not root; run as root, or accept the gap with --no-root-tests");
        }
        return;
    }
    if !built {
        report.fail("kernel and lab tests", "the daemons were not built");
        return;
    }
    report.tests("kernel tests", || {
        required(programs::run_package(programs, KERNEL_PACKAGE, &Selection::needs_root()))
    });
    report.tests("lab tests", || {
        required(programs::run_package(programs, LAB_PACKAGE, &Selection::needs_root()))
    });
    report.tests("other tests that need root", || {
        programs::run_except(programs, &[KERNEL_PACKAGE, LAB_PACKAGE], &Selection::needs_root())
    });
}

/// Runs, or lists, the kernel and lab tests that match the filter.
pub(crate) fn lab(args: &LabArgs) -> anyhow::Result<ExitCode> {
    if !exec::is_root() && !args.list {
        bail!("the kernel and lab tests need root: they load programs and make network namespaces");
    }
    cargo::build_binaries("dev")?;
    let programs = cargo::build_tests()?;
    let selection = Selection::needs_root().filtered(args.filter.as_deref());
    if args.list {
        programs::list(&programs, &selection)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::default();
    report.tests("kernel and lab tests", || required(programs::run_all(&programs, &selection)));
    Ok(report.finish())
}

/// A stage that must run at least one test.
fn required(outcome: anyhow::Result<Outcome>) -> anyhow::Result<Outcome> {
    let outcome = outcome?;
    if outcome.passed + outcome.failed() == 0 {
        bail!("no test was run");
    }
    Ok(outcome)
}
