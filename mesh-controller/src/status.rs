// SPDX-License-Identifier: Apache-2.0
//! Statuses once the nodes have answered, and what of them is new.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::OrdMap;
use weft_api::{
    object::{Kind, ObjectKey},
    status::{
        Condition, Status, Truth,
        reason::{GatewayProgrammed, ListenerProgrammed, Reason},
    },
};
use weft_translate::{Delta, Problem, report};

use crate::serve_ir::IrReport;

mod rejected;

/// The most nodes that one message names.
const MAX_NAMED: usize = 3;

use rejected::Rejections;

/// Knows every status as it was said, so that every change is said once.
#[derive(Debug, Default)]
pub struct StatusBook {
    /// The statuses of the translation, and the revision that brought the objects' resources.
    translated: BTreeMap<ObjectKey, (Arc<Status>, u64)>,
    /// The same with what the nodes have answered.
    answered: OrdMap<ObjectKey, Arc<Status>>,
    rejections: Rejections,
    problems: Arc<Vec<Problem>>,
}

impl StatusBook {
    /// Takes what is different of a translation that was published as this revision, and returns a line for
    /// each object whose status reads different now.
    pub fn translated(&mut self, delta: &Delta, revision: u64, nodes: &IrReport) -> Vec<String> {
        let mut touched = delta.renewed.clone();
        for (object, status) in &delta.statuses {
            touched.insert(object.clone());
            let since = self.translated.get(object).map_or(revision, |(_, since)| *since);
            match status {
                Some(status) => drop(self.translated.insert(object.clone(), (status.clone(), since))),
                None => drop(self.translated.remove(object)),
            }
        }
        for object in &delta.renewed {
            if let Some((_, since)) = self.translated.get_mut(object) {
                *since = revision;
            }
        }
        self.refresh(touched, nodes)
    }

    /// Takes what the nodes have answered, and returns a line for each object whose status reads different
    /// now.
    pub fn answered(&mut self, nodes: &IrReport) -> Vec<String> {
        let before = std::mem::replace(&mut self.rejections, Rejections::new(nodes));
        let mut touched: BTreeSet<ObjectKey> =
            before.objects().chain(self.rejections.objects()).cloned().collect();
        let first = ObjectKey { kind: Kind::Gateway, namespace: "".into(), name: "".into() };
        let gateways = self.translated.range(first..).map(|(object, _)| object);
        touched.extend(gateways.take_while(|object| object.kind == Kind::Gateway).cloned());
        self.refresh(touched, nodes)
    }

    /// The status of every object, with what the nodes have answered.
    pub fn statuses(&self) -> &OrdMap<ObjectKey, Arc<Status>> {
        &self.answered
    }

    fn refresh(&mut self, touched: BTreeSet<ObjectKey>, nodes: &IrReport) -> Vec<String> {
        let mut lines = Vec::new();
        for object in touched {
            let before = self.answered.get(&object);
            let Some((status, since)) = self.translated.get(&object) else {
                if self.answered.remove(&object).is_some() {
                    lines.push(format!("{object}  removed"));
                }
                continue;
            };
            let mut status = answered(status, nodes, *since);
            self.rejections.write(&object, &mut status);
            if before.is_some_and(|before| **before == status) {
                continue;
            }
            let said = before.map(|before| report::line(&object, before));
            let line = report::line(&object, &status);
            if said.as_ref() != Some(&line) {
                lines.push(line);
            }
            self.answered.insert(object, Arc::new(status));
        }
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
    let (truth, message) = if connected == 0 {
        (Truth::Unknown, "no node is connected".to_owned())
    } else if behind.is_empty() {
        (Truth::True, "every connected node serves it".to_owned())
    } else {
        (Truth::Unknown, waiting(nodes, &behind))
    };
    let message: Arc<str> = message.into();
    let served = truth == Truth::True;
    let mut gateway = gateway.clone();
    let reason = if served { GatewayProgrammed::Programmed } else { GatewayProgrammed::Pending };
    decide(&mut gateway.programmed, truth, reason, &message);
    for listener in &mut gateway.listeners {
        let reason = if served { ListenerProgrammed::Programmed } else { ListenerProgrammed::Pending };
        decide(&mut listener.programmed, truth, reason, &message);
    }
    Status::Gateway(gateway)
}

/// Only what the translation has left open.
fn decide<R: Reason>(condition: &mut Condition<R>, status: Truth, reason: R, message: &Arc<str>) {
    if condition.status == Truth::Unknown {
        let observed_generation = condition.observed_generation;
        *condition = Condition { status, observed_generation, reason, message: message.clone() };
    }
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
pub(super) mod tests {
    use weft_api::status::{
        GatewayStatus, ListenerStatus,
        reason::{GatewayAccepted, ListenerAccepted, ListenerConflicted, ListenerResolvedRefs},
    };
    use weft_ir::publish::NodeReport;

    use super::*;

    /// The status of a Gateway with these listeners that is accepted and programmed or not.
    pub(super) fn gateway_status(programmed: Truth, listeners: &[&str]) -> GatewayStatus {
        let listener = |name: &&str| ListenerStatus {
            name: (*name).into(),
            supported_kinds: Vec::new(),
            attached_routes: 0,
            accepted: Condition::new(true, 1, ListenerAccepted::Accepted, ""),
            resolved_refs: Condition::new(true, 1, ListenerResolvedRefs::ResolvedRefs, ""),
            programmed: Condition::new(programmed, 1, ListenerProgrammed::Pending, ""),
            conflicted: Condition::new(false, 1, ListenerConflicted::NoConflicts, ""),
        };
        GatewayStatus {
            addresses: Vec::new(),
            accepted: Condition::new(true, 1, GatewayAccepted::Accepted, ""),
            programmed: Condition::new(programmed, 1, GatewayProgrammed::Pending, ""),
            listeners: listeners.iter().map(listener).collect(),
        }
    }

    fn key() -> ObjectKey {
        ObjectKey { kind: Kind::Gateway, namespace: "a".into(), name: "b".into() }
    }

    /// The gateway is there, with or without other listeners than before.
    fn gateway(renewed: bool) -> Delta {
        let status = gateway_status(Truth::Unknown, &[]);
        let renewed = renewed.then(key).into_iter().collect();
        let statuses = vec![(key(), Some(Arc::new(Status::Gateway(status))))];
        Delta { statuses, renewed, ..Delta::default() }
    }

    fn nodes(applied: &[Option<u64>]) -> IrReport {
        let report = |applied: &Option<u64>| NodeReport {
            connected: true,
            applied: *applied,
            ..NodeReport::default()
        };
        let nodes = applied.iter().enumerate().map(|(at, one)| (format!("n{at}").into(), report(one)));
        IrReport { revision: 7, nodes: nodes.collect(), ..IrReport::default() }
    }

    #[test]
    fn a_gateway_is_programmed_once_every_connected_node_has_it() {
        let mut book = StatusBook::default();
        assert_eq!(
            book.translated(&gateway(true), 7, &nodes(&[])),
            ["Gateway a/b  Accepted=True  Programmed=Unknown Pending: no node is connected"]
        );
        assert_eq!(
            book.answered(&nodes(&[Some(7), Some(6), None])),
            ["Gateway a/b  Accepted=True  Programmed=Unknown Pending: waiting for n1, n2"]
        );
        assert_eq!(
            book.answered(&nodes(&[Some(7), Some(8)])),
            ["Gateway a/b  Accepted=True  Programmed=True"]
        );
        let same = book.translated(&gateway(false), 9, &nodes(&[Some(7)]));
        assert!(same.is_empty(), "what did not change stays programmed");
        assert_eq!(
            book.translated(&gateway(true), 10, &nodes(&[Some(9)])),
            ["Gateway a/b  Accepted=True  Programmed=Unknown Pending: waiting for n0"]
        );
        let gone = Delta { statuses: vec![(key(), None)], ..Delta::default() };
        assert_eq!(book.translated(&gone, 11, &nodes(&[])), ["Gateway a/b  removed"]);
        assert!(book.statuses().is_empty() && book.answered(&nodes(&[])).is_empty());
    }

    #[test]
    fn a_gateway_names_a_few_of_the_nodes_that_it_waits_for_and_the_overdue_first() {
        let mut book = StatusBook::default();
        let mut nodes = nodes(&[Some(6); 9]);
        let since = tokio::time::Instant::now();
        nodes.waiting.insert("n7".into(), crate::serve_ir::Waiting { revision: 7, since, overdue: true });
        assert_eq!(
            book.translated(&gateway(true), 7, &nodes),
            [
                "Gateway a/b  Accepted=True  Programmed=Unknown Pending: waiting for n7 (overdue), n0, n1 and 6 more"
            ]
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
