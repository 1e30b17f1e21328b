// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask kernels`: the kernel tests on the kernels of Debian's releases, each in a virtual machine.
//!
//! The machine sees this machine's own files, read-only below a layer in memory: the tests are those
//! that were just built here, and nothing they do stays. It has no network.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, bail};

use crate::cli::KernelsArgs;
use crate::{cargo, exec, suite, workspace};

mod image;
mod machine;
mod package;

use machine::{Machine, Row, Stage};

/// The package whose tests run there.
const PACKAGE: &str = "weft-ebpf-redirect";
/// The test program that attaches filters where there are links, too.
const FILTERS: &str = "redirect_clsact";

/// A release of Debian and the kernel that it ships.
struct Release {
    suite: &'static str,
    kernel: &'static str,
    /// It has tcx links, so that filters have to be asked for.
    tcx: bool,
}

/// From the oldest kernel on which Weft is tested: the minimum that README.md names is the first.
const RELEASES: [Release; 3] = [
    Release { suite: "bullseye", kernel: "5.10", tcx: false },
    Release { suite: "bookworm", kernel: "6.1", tcx: false },
    Release { suite: "trixie", kernel: "6.12", tcx: true },
];

/// Where kernels, images and logs are kept.
fn folder() -> PathBuf {
    workspace::target().join("kernels")
}

/// Boots each kernel, runs the tests, and prints the table.
pub(crate) fn run(args: &KernelsArgs) -> anyhow::Result<ExitCode> {
    let wanted: Vec<&Release> = RELEASES
        .iter()
        .filter(|release| args.only.as_deref().is_none_or(|only| only == release.kernel))
        .collect();
    if wanted.is_empty() {
        let known = RELEASES.map(|release| release.kernel).join(", ");
        bail!("no such kernel; there are {known}");
    }
    let stages = stages(args)?;
    let mut rows = Vec::new();
    for release in wanted {
        let start = Instant::now();
        println!("\n== Linux {} of Debian {}", release.kernel, release.suite);
        let done = one(release, args, &stages).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            vec![Row::failed("boot", format!("{error:#}"))]
        });
        rows.extend(done.into_iter().map(|row| (release.kernel, row)));
        println!("{:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(table(&rows))
}

fn one(release: &Release, args: &KernelsArgs, stages: &[Stage]) -> anyhow::Result<Vec<Row>> {
    let folder = folder().join(release.suite);
    let kernel = package::fetch(release.suite, &folder, args.update)?;
    let image = image::build(&kernel, &folder)?;
    let script = folder.join("stages.sh");
    // Where there are no tcx links, the tests of the redirect are those with filters already.
    let stages: Vec<&Stage> = stages.iter().filter(|stage| release.tcx || stage.name != FILTERS).collect();
    fs::write(&script, machine::script(&stages))
        .with_context(|| format!("cannot write {}", script.display()))?;
    let limit = Duration::from_secs(args.minutes * 60);
    Machine { kernel: &kernel, image: &image, script: &script, kvm: args.kvm }
        .run(limit, &folder.join("console.log"))
}

/// What runs in the machine: the check of the daemon, each test program, the demo if it is wanted.
fn stages(args: &KernelsArgs) -> anyhow::Result<Vec<Stage>> {
    if args.demo {
        cargo::build_binaries("dev")?;
    } else {
        exec::run(&mut cargo::command(&["build", "--package", "weft-node-proxy", "--bins"]))?;
    }
    let programs = cargo::build_tests_of(PACKAGE)?;
    let node = copied(&workspace::binary("weft-node", "dev"))?;
    let mut stages = vec![Stage::new("check", format!("{} --check", quoted(&node)))];
    let wanted =
        |program: &&cargo::TestProgram| args.test.as_deref().is_none_or(|test| test == program.target);
    for program in programs.iter().filter(wanted) {
        if !suite::needs_root(program)? {
            continue;
        }
        let (folder, file) = (quoted(&program.folder), quoted(&copied(&program.file)?));
        let run = format!(
            "cd {folder} && CARGO_MANIFEST_DIR={folder} {file} --ignored --test-threads=1 --color=never"
        );
        stages.push(Stage::new(&program.target, run));
    }
    if args.demo {
        for binary in ["weft", "weft-controller"] {
            copied(&workspace::binary(binary, "dev"))?;
        }
        let demo = quoted(&copied(&workspace::binary("weft-lab", "dev"))?);
        stages.push(Stage::new("demo", format!("cd {} && {demo} demo", quoted(&workspace::root()))));
    }
    Ok(stages)
}

/// A copy that stays as it is when something is built while the machines run.
fn copied(binary: &Path) -> anyhow::Result<PathBuf> {
    let folder = folder().join("bin");
    fs::create_dir_all(&folder)?;
    let copy = folder.join(binary.file_name().context("a binary without a name")?);
    fs::copy(binary, &copy).with_context(|| format!("cannot copy {}", binary.display()))?;
    Ok(copy)
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Prints the table; failure when any row failed.
fn table(rows: &[(&str, Row)]) -> ExitCode {
    println!("\n{:<8} {:<20} result", "kernel", "test");
    for (kernel, row) in rows {
        println!("{kernel:<8} {:<20} {}", row.stage, row.text);
    }
    if !rows.is_empty() && rows.iter().all(|(_, row)| row.passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// How many CPUs a machine gets.
fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(4)
}
