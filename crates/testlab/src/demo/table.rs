// SPDX-License-Identifier: Apache-2.0
//! Progress and the table of claims.

use std::io::IsTerminal;
use std::time::Instant;

const GREEN: &str = "32";
const RED: &str = "31";
const DIM: &str = "2";

/// What was claimed, and whether it held.
pub(super) struct Table {
    start: Instant,
    color: bool,
    rows: Vec<Row>,
    notes: Vec<String>,
}

struct Row {
    what: String,
    asked: String,
    seen: String,
    holds: bool,
}

impl Table {
    pub(super) fn new(no_color: bool) -> Self {
        let color = !no_color && std::io::stdout().is_terminal();
        Self { start: Instant::now(), color, rows: Vec::new(), notes: Vec::new() }
    }

    /// Says what happens now.
    pub(super) fn progress(&self, text: &str) {
        let time = self.paint(DIM, &format!("{:5.1}s", self.start.elapsed().as_secs_f64()));
        println!("{time}  {text}");
    }

    /// Adds a claim.
    pub(super) fn claim(&mut self, what: &str, asked: &str, seen: &str, holds: bool) {
        self.rows.push(Row { what: what.to_owned(), asked: asked.to_owned(), seen: seen.to_owned(), holds });
    }

    /// Adds a line below the table, and prints it now.
    pub(super) fn note(&mut self, text: &str) {
        self.progress(text);
    }

    /// Adds a line below the table.
    pub(super) fn below(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Whether there are claims and all of them hold.
    pub(super) fn holds(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.holds)
    }

    pub(super) fn print(&self) {
        let width = |column: fn(&Row) -> &str| {
            self.rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
        };
        let (what, asked, seen) =
            (width(|row| &row.what).max(4), width(|row| &row.asked).max(5), width(|row| &row.seen).max(4));
        println!("\n  {:<what$}  {:<asked$}  {:<seen$}", "what", "asked", "seen");
        println!("  {}  {}  {}", "-".repeat(what), "-".repeat(asked), "-".repeat(seen));
        for row in &self.rows {
            let verdict = if row.holds { self.paint(GREEN, "ok") } else { self.paint(RED, "NOT SO") };
            println!("  {:<what$}  {:<asked$}  {:<seen$}  {verdict}", row.what, row.asked, row.seen);
        }
        if !self.notes.is_empty() {
            println!();
        }
        for note in &self.notes {
            println!("  {note}");
        }
        let failed = self.rows.iter().filter(|row| !row.holds).count();
        let time = self.start.elapsed().as_secs_f64();
        let sum = match failed {
            0 => self.paint(GREEN, &format!("all {} as asked", self.rows.len())),
            count => self.paint(RED, &format!("{count} of {} not as asked", self.rows.len())),
        };
        println!("\n  {sum}, {time:.1} s");
    }

    fn paint(&self, color: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{color}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_claims_does_not_hold() {
        assert!(!Table::new(true).holds());
    }

    #[test]
    fn one_claim_that_does_not_hold_is_enough() {
        let mut table = Table::new(true);
        table.claim("a", "b", "c", true);
        assert!(table.holds());
        table.claim("a", "b", "c", false);
        assert!(!table.holds());
    }
}
