// SPDX-License-Identifier: Apache-2.0
//! Whether the nodes serve a Gateway.
//!
//! It depends on the revision that brought the Gateway's own listeners, and on nothing that comes later: it
//! becomes true once every node that counts has applied that revision or has had its time to, and stays true
//! until the listeners are others. Nodes that come, go and lag do not take it back.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use weft_api::status::Truth;
use weft_ir::publish::NodeReport;

use crate::serve_ir::IrReport;

/// The most nodes that one message names.
pub(super) const MAX_NAMED: usize = 3;

/// The nodes that decide: those of the source, if it names any, else everyone who has joined. So whoever
/// invents names where nodes have names of their own decides nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voters<'a> {
    pub(super) report: &'a IrReport,
    pub(super) known: &'a BTreeSet<Arc<str>>,
    /// How long a node may take to acknowledge, and to come back.
    pub(super) patience: Duration,
}

/// How far the nodes are with one Gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// The revision that brought its listeners.
    pub(super) revision: u64,
    since: Instant,
    programmed: bool,
}

impl<'a> Voters<'a> {
    pub(super) fn counts(&self, node: &str) -> bool {
        self.known.is_empty() || self.known.contains(node)
    }

    fn connected(&self) -> impl Iterator<Item = (&'a Arc<str>, &'a NodeReport)> {
        let (this, nodes) = (*self, &self.report.nodes);
        nodes.iter().filter(move |(node, report)| report.connected && this.counts(node))
    }
}

impl Progress {
    /// Of a revision that was published now.
    pub(super) fn begin(revision: u64) -> Progress {
        Progress { revision, since: Instant::now(), programmed: false }
    }

    /// When nodes that have not answered are waited for no more; nothing where nobody is waited for.
    pub(super) fn due(&self, patience: Duration) -> Option<Instant> {
        let due = self.since + patience;
        (!self.programmed && due > Instant::now()).then_some(due)
    }

    /// Whether the nodes serve it, and who of them does not.
    pub(super) fn decide(&mut self, voters: &Voters<'_>) -> (Truth, String) {
        let (mut applied, mut behind) = (0, Vec::new());
        for (node, report) in voters.connected() {
            match report.applied.unwrap_or(0) < self.revision {
                true => behind.push(node),
                false => applied += 1,
            }
        }
        let waited = Instant::now() >= self.since + voters.patience;
        self.programmed |= applied > 0 && (behind.is_empty() || waited);
        let late: Vec<_> = behind.iter().copied().filter(|node| voters.report.is_overdue(node)).collect();
        if self.programmed {
            return match late.is_empty() {
                true => (Truth::True, "the connected nodes serve it".to_owned()),
                false => (Truth::True, format!("served, but not acknowledged by {}", named(&late, "", &[]))),
            };
        }
        if applied == 0 && behind.is_empty() {
            return (Truth::Unknown, nobody(voters));
        }
        let others: Vec<_> = behind.into_iter().filter(|node| !late.contains(node)).collect();
        (Truth::Unknown, format!("waiting for {}", named(&late, " (overdue)", &others)))
    }
}

/// Nobody who counts is connected.
fn nobody(voters: &Voters<'_>) -> String {
    let strangers: Vec<_> =
        voters.report.nodes.iter().filter(|(_, report)| report.connected).map(|(node, _)| node).collect();
    match strangers.is_empty() {
        true => "no node is connected".to_owned(),
        false => {
            format!(
                "no node of the source is connected, only {}, which it has not",
                named(&strangers, "", &[])
            )
        }
    }
}

/// A few of the nodes, those first that should have answered long ago.
fn named(first: &[&Arc<str>], mark: &str, others: &[&Arc<str>]) -> String {
    let first_names = first.iter().map(|node| format!("{node}{mark}"));
    let names: Vec<String> =
        first_names.chain(others.iter().map(ToString::to_string)).take(MAX_NAMED).collect();
    match first.len() + others.len() - names.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
