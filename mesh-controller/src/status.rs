// SPDX-License-Identifier: Apache-2.0
//! Statuses once the nodes have answered, and what of them is new.

use std::collections::{BTreeMap, BTreeSet};

use weft_api::{
    object::ObjectKey,
    status::{Condition, GatewayStatus, Status, Truth},
};
use weft_translate::{ObjectStatus, Problem, report};

use crate::serve_ir::IrReport;

mod rejected;

use rejected::Rejections;

/// Remembers what was said, so that every change is said once.
#[derive(Debug, Default)]
pub struct StatusBook {
    /// The statuses of the last translation, and since which revision each is as it is.
    statuses: BTreeMap<ObjectKey, (Status, u64)>,
    said: BTreeMap<ObjectKey, String>,
    problems: BTreeSet<Problem>,
}

impl StatusBook {
    /// Takes the statuses of a translation that was published as this revision.
    pub fn translated(&mut self, statuses: Vec<ObjectStatus>, revision: u64) {
        let mut before = std::mem::take(&mut self.statuses);
        for ObjectStatus { object, status } in statuses {
            let since = match before.remove(&object) {
                Some((same, since)) if same == status => since,
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
    pub fn news(&mut self, nodes: &IrReport) -> Vec<String> {
        let mut lines = Vec::new();
        let mut said = BTreeMap::new();
        for status in self.statuses(nodes) {
            let line = report::line(&status);
            if self.said.get(&status.object) != Some(&line) {
                lines.push(line.clone());
            }
            said.insert(status.object, line);
        }
        for object in self.said.keys().filter(|object| !said.contains_key(*object)) {
            lines.push(format!("{object}  removed"));
        }
        self.said = said;
        lines
    }

    /// The problems that were not there before.
    pub fn new_problems(&mut self, problems: Vec<Problem>) -> Vec<Problem> {
        let now: BTreeSet<Problem> = problems.into_iter().collect();
        let new = now.difference(&self.problems).cloned().collect();
        self.problems = now;
        new
    }
}

/// A status with `Programmed` decided: true once every connected node, and at least one, has applied
/// the revision.
fn answered(status: &Status, nodes: &IrReport, since: u64) -> Status {
    let Status::Gateway(gateway) = status else { return status.clone() };
    let connected = nodes.nodes.values().filter(|node| node.connected).count();
    let behind: Vec<&str> = nodes.behind(since).map(AsRef::as_ref).collect();
    let (truth, reason, message) = if connected == 0 {
        (Truth::Unknown, "Pending", "no node is connected".to_owned())
    } else if behind.is_empty() {
        (Truth::True, "Programmed", "every connected node serves it".to_owned())
    } else {
        (Truth::Unknown, "Pending", format!("waiting for {}", behind.join(", ")))
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
        IrReport { revision: 7, nodes: nodes.collect() }
    }

    #[test]
    fn a_gateway_is_programmed_once_every_connected_node_has_it() {
        let mut book = StatusBook::default();
        book.translated(vec![gateway()], 7);
        assert_eq!(book.news(&nodes(&[])), ["Gateway a/b  Programmed=Unknown Pending: no node is connected"]);
        assert_eq!(
            book.news(&nodes(&[Some(7), Some(6), None])),
            ["Gateway a/b  Programmed=Unknown Pending: waiting for n1, n2"]
        );
        assert_eq!(book.news(&nodes(&[Some(7), Some(8)])), ["Gateway a/b  Programmed=True"]);
        book.translated(vec![gateway()], 9);
        assert!(book.news(&nodes(&[Some(7)])).is_empty(), "what did not change stays programmed");
        book.translated(Vec::new(), 10);
        assert_eq!(book.news(&nodes(&[])), ["Gateway a/b  removed"]);
    }
}
