// SPDX-License-Identifier: Apache-2.0
//! The instructions that were last noted (`benches/instructions.json`), and the comparison with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::process;
use crate::report::{Row, Table};
use crate::stats::Spread;

/// How much more than the noted instructions fails the check: a percent or two come and go with the order
/// of functions in the binary and the number of wake-ups.
const MAX_MORE: f64 = 0.03;

/// The table of a file: a scenario, and what an exchange of it takes.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Noted(BTreeMap<String, Entry>);

/// What was noted of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// User instructions per exchange.
    instructions: u64,
    /// The compiler that made the binary.
    compiler: String,
}

/// What was counted of one scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) scenario: &'static str,
    pub(crate) instructions: f64,
}

impl Noted {
    /// Reads the file.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
    }

    /// Replaces the file.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// A table of what was counted.
    pub(crate) fn of(counted: &[Counted], compiler: &str) -> Self {
        let entry = |one: &Counted| Entry {
            instructions: one.instructions.round() as u64,
            compiler: compiler.to_owned(),
        };
        Self(counted.iter().map(|one| (one.scenario.to_owned(), entry(one))).collect())
    }

    /// What was counted beside what was noted, and what is wrong with it.
    pub(crate) fn compare(&self, counted: &[Counted], compiler: &str) -> (Table, Vec<String>) {
        let (mut rows, mut notes, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for Counted { scenario, instructions } in counted {
            let Some(entry) = self.0.get(*scenario) else {
                failures.push(format!("{scenario}: {instructions:.0} instructions, and none are noted"));
                rows.push(row(scenario, [Some(*instructions), None, None]));
                continue;
            };
            let change = instructions / entry.instructions as f64 - 1.0;
            let noted = entry.instructions as f64;
            rows.push(row(scenario, [Some(*instructions), Some(noted), Some(change * 100.0)]));
            if *instructions > noted * (1.0 + MAX_MORE) {
                let percent = change * 100.0;
                failures.push(format!(
                    "{scenario}: {instructions:.0} instructions, {percent:.1} % more than the {noted} noted"
                ));
            } else if *instructions < noted * (1.0 - MAX_MORE) {
                let percent = change * -100.0;
                notes.push(format!(
                    "{scenario}: {percent:.1} % less than noted; note it, so that it stays: \
                     cargo xtask bench instructions --note"
                ));
            }
            if entry.compiler != compiler {
                notes.push(format!("{scenario} was noted with {}, this is {compiler}", entry.compiler));
            }
        }
        for scenario in self.0.keys().filter(|name| counted.iter().all(|one| one.scenario != name.as_str())) {
            failures.push(format!("{scenario} is noted, and nothing of that name is counted"));
        }
        let title = "user instructions per exchange of Weft, against those noted".to_owned();
        let columns = ["counted", "noted", "more, %"].map(str::to_owned).into();
        (Table { title, columns, rows, notes }, failures)
    }
}

fn row(scenario: &str, values: [Option<f64>; 3]) -> Row {
    let cell = |value: Option<f64>| value.map_or_else(Spread::default, Spread::single);
    Row { name: scenario.to_owned(), cells: values.map(cell).into() }
}

/// The compiler of this workspace, for example `rustc 1.95.0 (59807616e 2026-04-14)`.
pub(crate) fn compiler() -> anyhow::Result<String> {
    let output = process::output(Command::new("rustc").arg("--version"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || text.is_empty() {
        bail!("rustc does not tell its version");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPILER: &str = "rustc 1.95.0";

    fn noted(scenarios: &[(&'static str, f64)]) -> Noted {
        Noted::of(&counted(scenarios), COMPILER)
    }

    fn counted(scenarios: &[(&'static str, f64)]) -> Vec<Counted> {
        scenarios
            .iter()
            .map(|(scenario, instructions)| Counted { scenario, instructions: *instructions })
            .collect()
    }

    fn failures(before: f64, now: f64) -> Vec<String> {
        noted(&[("http1", before)]).compare(&counted(&[("http1", now)]), COMPILER).1
    }

    #[test]
    fn more_than_three_percent_above_the_noted_fails() {
        assert!(failures(10_000.0, 10_300.0).is_empty());
        assert!(failures(10_000.0, 9_000.0).is_empty());
        let over = failures(10_000.0, 10_310.0);
        assert_eq!(over, ["http1: 10310 instructions, 3.1 % more than the 10000 noted"]);
    }

    #[test]
    fn an_improvement_asks_to_be_noted() {
        let (table, _) = noted(&[("http1", 10_000.0)]).compare(&counted(&[("http1", 9_000.0)]), COMPILER);
        assert!(table.notes[0].contains("--note"), "{:?}", table.notes);
    }

    #[test]
    fn a_scenario_that_only_one_of_them_knows_fails() {
        let (_, failures) = noted(&[("http1", 1.0)]).compare(&counted(&[("http2", 1.0)]), COMPILER);
        assert_eq!(failures.len(), 2, "{failures:?}");
    }

    #[test]
    fn another_compiler_is_named() {
        let (table, failures) = noted(&[("http1", 1.0)]).compare(&counted(&[("http1", 1.0)]), "rustc 2");
        assert!(failures.is_empty());
        assert_eq!(table.notes, ["http1 was noted with rustc 1.95.0, this is rustc 2"]);
    }

    #[test]
    fn the_committed_table_is_understood() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
        let noted = Noted::read(&file).unwrap();
        assert!(noted.0.contains_key("http1") && noted.0.contains_key("http2"));
        let copy = tempfile::NamedTempFile::new().unwrap();
        noted.write(copy.path()).unwrap();
        assert_eq!(fs::read_to_string(copy.path()).unwrap(), fs::read_to_string(&file).unwrap());
    }
}
