// SPDX-License-Identifier: Apache-2.0
//! A table of results, for people and for programs.

use std::fmt;
use std::iter;

use serde::Serialize;

use crate::stats::Spread;

/// The result of one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    /// What was measured.
    pub(crate) title: String,
    /// Names of the columns.
    pub(crate) columns: Vec<String>,
    /// One row for each proxy.
    pub(crate) rows: Vec<Row>,
    /// What a reader has to know about the numbers.
    pub(crate) notes: Vec<String>,
}

/// One proxy's measurements.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Name of the proxy.
    pub(crate) name: String,
    /// One cell for each column.
    pub(crate) cells: Vec<Spread>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines =
            vec![iter::once(String::new()).chain(self.columns.iter().cloned()).collect::<Vec<String>>()];
        for row in &self.rows {
            lines.push(iter::once(row.name.clone()).chain(row.cells.iter().map(Spread::to_string)).collect());
        }
        let widths: Vec<usize> = (0..=self.columns.len())
            .map(|column| lines.iter().map(|line| line.get(column).map_or(0, String::len)).max().unwrap_or(0))
            .collect();
        for line in &lines {
            for (cell, width) in line.iter().zip(&widths) {
                write!(f, "{cell:<width$}  ")?;
            }
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}
