// SPDX-License-Identifier: Apache-2.0
//! The tables of a run as a part of a Markdown page, so that nobody types figures.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::machine::Machine;
use crate::report::Table;
use crate::stats::Spread;

/// The lines between which the tables stand.
const START: &str = "<!-- results: written by `cargo xtask bench --page`, not by hand -->\n";
const END: &str = "<!-- end of results -->\n";

/// Writes the tables into the page in place of those that it has.
pub(crate) fn write(page: &Path, machine: &Machine, seconds: u64, tables: &[Table]) -> anyhow::Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let text = replaced(&text, &results(machine, seconds, tables))
        .with_context(|| format!("{} has no place for results", page.display()))?;
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

/// Fails where there is no place for results in the page, before hours are spent on them.
pub(crate) fn check(page: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    replaced(&text, "").map(drop).with_context(|| format!("{} has no place for results", page.display()))
}

fn replaced(text: &str, results: &str) -> anyhow::Result<String> {
    let Some((before, rest)) = text.split_once(START) else { bail!("no line {}", START.trim()) };
    let Some((_, after)) = rest.split_once(END) else { bail!("no line {}", END.trim()) };
    Ok(format!("{before}{START}\n{results}{END}{after}"))
}

fn results(machine: &Machine, seconds: u64, tables: &[Table]) -> String {
    let machine = machine.to_string().replace('\n', ". ");
    let minutes = seconds.div_ceil(60);
    let mut text = format!("{machine}. One run of {minutes} minutes.\n\n");
    for table in tables {
        text.push_str(&format!("### {}\n\n", capital(&table.title)));
        text.push_str(&rows(table));
        for note in &table.notes {
            text.push_str(&format!("- {note}\n"));
        }
        text.push('\n');
    }
    text
}

fn rows(table: &Table) -> String {
    if table.columns.is_empty() {
        return String::new();
    }
    let line = |cells: &mut dyn Iterator<Item = String>| {
        cells.fold(String::from("|"), |line, cell| format!("{line} {} |", cell.replace('|', "\\|"))) + "\n"
    };
    let mut text = line(&mut std::iter::once(String::new()).chain(table.columns.iter().cloned()));
    text.push_str(&format!("|{}\n", "---|".repeat(table.columns.len() + 1)));
    for row in &table.rows {
        let cells = row.cells.iter().map(Spread::to_string);
        text.push_str(&line(&mut std::iter::once(row.name.clone()).chain(cells)));
    }
    text.push('\n');
    text
}

/// With a capital letter, where it does not begin with a name that has one elsewhere.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let rest = letters.as_str();
    if rest.starts_with(char::is_uppercase) {
        return text.to_owned();
    }
    first.to_uppercase().chain(rest.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;

    #[test]
    fn results_take_the_place_of_older_ones_and_of_nothing_else() {
        let page = format!("before\n{START}old\n{END}after\n");
        let new = replaced(&page, "new\n").unwrap();
        assert_eq!(new, format!("before\n{START}\nnew\n{END}after\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert!(replaced("before\n", "new").is_err());
        assert!(replaced(START, "new").is_err());
    }

    #[test]
    fn a_table_has_a_line_for_each_proxy() {
        let cells = vec![Spread::single(1.0), Spread::default()];
        let table = Table {
            title: "memory".into(),
            columns: vec!["a|b".into(), "c".into()],
            rows: vec![Row { name: "Weft".into(), cells }],
            notes: vec![],
        };
        assert_eq!(rows(&table), "|  | a\\|b | c |\n|---|---|---|\n| Weft | 1.00 | - |\n\n");
        assert_eq!(
            (capital(&table.title).as_str(), capital("gRPC, there").as_str()),
            ("Memory", "gRPC, there")
        );
    }
}
