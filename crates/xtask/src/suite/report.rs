// SPDX-License-Identifier: Apache-2.0
//! The stages of a test run: a headline before each, the sum at the end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::outcome::Outcome;

/// What became of each stage.
#[derive(Default)]
pub(super) struct Report {
    stages: Vec<Stage>,
}

struct Stage {
    name: String,
    verdict: Verdict,
    took: Duration,
}

enum Verdict {
    Passed { tests: usize },
    Failed { tests: usize, failed: usize, why: String },
    NotRun { why: String },
}

impl Report {
    /// Runs a stage that has no tests to count; says whether it passed.
    pub(super) fn step(&mut self, name: &str, stage: impl FnOnce() -> anyhow::Result<()>) -> bool {
        self.value(name, stage).is_some()
    }

    /// Runs a stage that yields a value that later stages need.
    pub(super) fn value<T>(&mut self, name: &str, stage: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        let start = headline(name);
        let (value, verdict) = match stage() {
            Ok(value) => (Some(value), Verdict::Passed { tests: 0 }),
            Err(error) => (None, failure(&error)),
        };
        self.add(name, verdict, start);
        value
    }

    /// Runs a stage of tests.
    pub(super) fn tests(&mut self, name: &str, stage: impl FnOnce() -> anyhow::Result<Outcome>) {
        let start = headline(name);
        let verdict = match stage() {
            Ok(outcome) if outcome.failures.is_empty() => Verdict::Passed { tests: outcome.passed },
            Ok(outcome) => Verdict::Failed {
                tests: outcome.passed,
                failed: outcome.failed(),
                why: outcome.failures.join(", "),
            },
            Err(error) => failure(&error),
        };
        self.add(name, verdict, start);
    }

    /// Runs a stage that may find that it cannot run here, and then returns why.
    pub(super) fn where_possible(
        &mut self,
        name: &str,
        stage: impl FnOnce() -> anyhow::Result<Option<String>>,
    ) {
        let start = headline(name);
        let verdict = match stage() {
            Ok(None) => Verdict::Passed { tests: 0 },
            Ok(Some(why)) => Verdict::NotRun { why },
            Err(error) => failure(&error),
        };
        self.add(name, verdict, start);
    }

    /// Records a failure without running anything.
    pub(super) fn fail(&mut self, name: &str, why: &str) {
        let verdict = Verdict::Failed { tests: 0, failed: 1, why: why.to_owned() };
        self.add(name, verdict, Instant::now());
    }

    /// Records that a stage was left out on request.
    pub(super) fn not_run(&mut self, name: &str, why: &str) {
        self.add(name, Verdict::NotRun { why: why.to_owned() }, Instant::now());
    }

    /// Prints the sum and returns the exit status: failure when any stage failed.
    pub(super) fn finish(&self) -> ExitCode {
        println!("\n== summary");
        let (mut passed, mut failed) = (0, 0);
        for stage in &self.stages {
            let (word, text) = match &stage.verdict {
                Verdict::Passed { tests: 0 } => ("ok", String::new()),
                Verdict::Passed { tests } => {
                    passed += tests;
                    ("ok", format!("{tests} tests"))
                }
                Verdict::Failed { tests, failed: count, why } => {
                    passed += tests;
                    failed += count;
                    ("FAILED", why.clone())
                }
                Verdict::NotRun { why } => ("NOT RUN", why.clone()),
            };
            println!("{word:>8} {:>7.1} s  {}  {text}", stage.took.as_secs_f64(), stage.name);
        }
        println!("{passed} passed, {failed} failed");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn add(&mut self, name: &str, verdict: Verdict, start: Instant) {
        if let Verdict::Failed { why, .. } = &verdict {
            eprintln!("{name}: {why}");
        }
        self.stages.push(Stage { name: name.to_owned(), verdict, took: start.elapsed() });
    }
}

fn headline(name: &str) -> Instant {
    println!("\n== {name}");
    Instant::now()
}

fn failure(error: &anyhow::Error) -> Verdict {
    Verdict::Failed { tests: 0, failed: 1, why: format!("{error:#}") }
}
