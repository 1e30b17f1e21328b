// SPDX-License-Identifier: Apache-2.0
//! Statuses once the nodes have answered, and what of them is new.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_api::{
    object::ObjectKey,
    status::{Condition, GatewayStatus, Status, Truth},
};
use weft_translate::{ObjectStatus, Problem, report};

use crate::serve_ir::IrReport;

mod rejected;

/// The most nodes that one message names.
const MAX_NAMED: usize = 3;

use rejected::Rejections;

/// Remembers what was said, so that every change is said once.
#[derive(Debug, Default)]
pub struct StatusBook {
    /// The statuses of the last translation, and since which revision each is as it is.
    statuses: BTreeMap<ObjectKey, (Status, u64)>,
    said: BTreeMap<ObjectKey, String>,
    problems: Arc<Vec<Problem>>,
}

impl StatusBook {
    /// Takes the statuses of a translation that was published as this revision, and the objects that
    /// changed with it: an object may change while its status reads the same.
    pub fn translated(&mut self, statuses: Vec<ObjectStatus>, changed: &BTreeSet<ObjectKey>, revision: u64) {
        let mut before = std::mem::take(&mut self.statuses);
        for ObjectStatus { object, status } in statuses {
            let since = match before.remove(&object) {
                Some((same, since)) if same == status && !changed.contains(&object) => since,
                Some(_) | None => revision,
            };
            self.statuses.insert(object, (status, since));
        }
    }

    /// The status of every object, with what the nodes have answered.
    pub fn statuses(&self, nodes: &IrReport) -> Vec<ObjectStatus> {
        let rejections = Rejections::new(nodes);
        let statuses = self.statuses.iter().map(|(object, (status, since))| {
            let mut status = answered(status, nodes, *since);
            rejections.write(object, &mut status);
            ObjectStatus { object: object.clone(), status }
        });
        statuses.collect()
    }

    /// The lines of all objects whose status is different from what was said before.
    pub fn news(&mut self, statuses: &[ObjectStatus]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut said = BTreeMap::new();
        for status in statuses {
            let line = report::line(status);
            if self.said.get(&status.object) != Some(&line) {
                lines.push(line.clone());
            }
            said.insert(status.object.clone(), line);
        }
        for object in self.said.keys().filter(|object| !said.contains_key(*object)) {
            lines.push(format!("{object}  removed"));
        }
        self.said = said;
        lines
    }

    /// The problems that were not there before, and those that are no more.
    pub fn problem_news(&mut self, problems: &Arc<Vec<Problem>>) -> ProblemNews {
        let before = std::mem::replace(&mut self.problems, problems.clone());
        if Arc::ptr_eq(&before, problems) {
            return ProblemNews::default();
        }
        let (old, now): (BTreeSet<&Problem>, BTreeSet<&Problem>) =
            (before.iter().collect(), problems.iter().collect());
        ProblemNews {
            new: now.difference(&old).map(|problem| (*problem).clone()).collect(),
            gone: old.difference(&now).map(|problem| (*problem).clone()).collect(),
        }
    }
}

/// How the problems are different from before.
#[derive(Debug, Default)]
pub struct ProblemNews {
    /// They were not there before.
    pub new: Vec<Problem>,
    /// They are there no more.
    pub gone: Vec<Problem>,
}

impl ProblemNews {
    /// A line for each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let new = self.new.iter().map(|problem| format!("Problem  {problem}"));
        new.chain(self.gone.iter().map(|problem| format!("Solved  {problem}")))
    }
}

/// A status with `Programmed` decided: true once every connected node, and at least one, has applied
/// the revision.
fn answered(status: &Status, nodes: &IrReport, since: u64) -> Status {
    let Status::Gateway(gateway) = status else { return status.clone() };
    let connected = nodes.nodes.values().filter(|node| node.connected).count();
    let behind: Vec<&Arc<str>> = nodes.behind(since).collect();
    let (truth, reason, message) = if connected == 0 {
        (Truth::Unknown, "Pending", "no node is connected".to_owned())
    } else if behind.is_empty() {
        (Truth::True, "Programmed", "every connected node serves it".to_owned())
    } else {
        (Truth::Unknown, "Pending", waiting(nodes, &behind))
    };
    let decide = |condition: &Condition| {
        if &*condition.kind != "Programmed" || condition.status != Truth::Unknown {
            return condition.clone();
        }
        let (reason, message) = (reason.into(), message.clone().into());
        Condition { status: truth, reason, message, ..condition.clone() }
    };
    let mut gateway: GatewayStatus = gateway.clone();
    gateway.conditions = gateway.conditions.iter().map(decide).collect();
    for listener in &mut gateway.listeners {
        listener.conditions = listener.conditions.iter().map(decide).collect();
    }
    Status::Gateway(gateway)
}

/// Names a few of the nodes that are waited for, those first that should have answered long ago.
fn waiting(nodes: &IrReport, behind: &[&Arc<str>]) -> String {
    let (late, others): (Vec<_>, Vec<_>) = behind.iter().partition(|node| nodes.is_overdue(node));
    let name = |node: &&&Arc<str>| match nodes.is_overdue(node) {
        true => format!("{node} (overdue)"),
        false => node.to_string(),
    };
    let named: Vec<String> = late.iter().chain(&others).take(MAX_NAMED).map(name).collect();
    match behind.len() - named.len() {
        0 => format!("waiting for {}", named.join(", ")),
        more => format!("waiting for {} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use weft_api::object::Kind;
    use weft_ir::publish::NodeReport;

    use super::*;

    fn gateway() -> ObjectStatus {
        let pending =
            Condition { status: Truth::Unknown, ..Condition::new("Programmed", false, 1, "Pending", "") };
        let status = GatewayStatus { conditions: vec![pending], ..GatewayStatus::default() };
        let object = ObjectKey { kind: Kind::Gateway, namespace: "a".into(), name: "b".into() };
        ObjectStatus { object, status: Status::Gateway(status) }
    }

    fn nodes(applied: &[Option<u64>]) -> IrReport {
        let report = |applied: &Option<u64>| NodeReport {
            connected: true,
            applied: *applied,
            rejected: Vec::new(),
            omitted: 0,
        };
        let nodes = applied.iter().enumerate().map(|(at, one)| (format!("n{at}").into(), report(one)));
        IrReport { revision: 7, nodes: nodes.collect(), ..IrReport::default() }
    }

    fn news(book: &mut StatusBook, nodes: &IrReport) -> Vec<String> {
        let statuses = book.statuses(nodes);
        book.news(&statuses)
    }

    #[test]
    fn a_gateway_is_programmed_once_every_connected_node_has_it() {
        let mut book = StatusBook::default();
        book.translated(vec![gateway()], &BTreeSet::new(), 7);
        assert_eq!(
            news(&mut book, &nodes(&[])),
            ["Gateway a/b  Programmed=Unknown Pending: no node is connected"]
        );
        assert_eq!(
            news(&mut book, &nodes(&[Some(7), Some(6), None])),
            ["Gateway a/b  Programmed=Unknown Pending: waiting for n1, n2"]
        );
        assert_eq!(news(&mut book, &nodes(&[Some(7), Some(8)])), ["Gateway a/b  Programmed=True"]);
        book.translated(vec![gateway()], &BTreeSet::new(), 9);
        assert!(news(&mut book, &nodes(&[Some(7)])).is_empty(), "what did not change stays programmed");
        book.translated(vec![gateway()], &BTreeSet::from([gateway().object]), 10);
        assert_eq!(
            news(&mut book, &nodes(&[Some(9)])),
            ["Gateway a/b  Programmed=Unknown Pending: waiting for n0"]
        );
        book.translated(Vec::new(), &BTreeSet::new(), 11);
        assert_eq!(news(&mut book, &nodes(&[])), ["Gateway a/b  removed"]);
    }

    #[test]
    fn a_gateway_names_a_few_of_the_nodes_that_it_waits_for_and_the_overdue_first() {
        let mut book = StatusBook::default();
        book.translated(vec![gateway()], &BTreeSet::new(), 7);
        let mut nodes = nodes(&[Some(6); 9]);
        let since = tokio::time::Instant::now();
        nodes.waiting.insert("n7".into(), crate::serve_ir::Waiting { revision: 7, since, overdue: true });
        assert_eq!(
            news(&mut book, &nodes),
            ["Gateway a/b  Programmed=Unknown Pending: waiting for n7 (overdue), n0, n1 and 6 more"]
        );
    }

    #[test]
    fn a_problem_is_said_when_it_comes_and_when_it_goes() {
        let mut book = StatusBook::default();
        let problems = Arc::new(vec![Problem::unread("a.yaml", 3, "wrong")]);
        let lines = |news: ProblemNews| news.lines().collect::<Vec<_>>();
        assert_eq!(lines(book.problem_news(&problems)), ["Problem  a.yaml:3: wrong"]);
        assert!(lines(book.problem_news(&Arc::new(problems.to_vec()))).is_empty());
        assert_eq!(lines(book.problem_news(&Arc::default())), ["Solved  a.yaml:3: wrong"]);
    }
}
