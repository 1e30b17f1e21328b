// SPDX-License-Identifier: Apache-2.0
//! Statuses once the nodes have answered, and what of them is new.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use imbl::OrdMap;
use tokio::time::Instant;
use weft_api::{
    object::{Kind, ObjectKey},
    status::{
        Condition, Status, Truth,
        reason::{GatewayProgrammed, ListenerProgrammed, Reason},
    },
};
use weft_ir::{ResourceKey, publish::Change};
use weft_time::Timestamp;
use weft_translate::{Delta, Problem, report};

use crate::serve_ir::IrReport;

mod programmed;
mod rejected;

use programmed::{MAX_NAMED, Progress, Voters};
use rejected::Rejections;

/// Knows every status as it was said, so that every change is said once.
#[derive(Debug)]
pub(crate) struct StatusBook {
    /// How long a node may take to acknowledge.
    patience: Duration,
    /// The nodes that the source names.
    known: BTreeSet<Arc<str>>,
    /// The statuses of the translation, and how far the nodes are with the objects' resources.
    translated: BTreeMap<ObjectKey, (Arc<Status>, Progress)>,
    /// The same with what the nodes have answered.
    answered: OrdMap<ObjectKey, Arc<Status>>,
    rejections: Rejections,
    problems: Arc<Vec<Problem>>,
}

impl StatusBook {
    /// A book without statuses. A node that takes longer than this to acknowledge is not waited for.
    pub(crate) fn new(patience: Duration) -> StatusBook {
        StatusBook {
            patience,
            known: BTreeSet::new(),
            translated: BTreeMap::new(),
            answered: OrdMap::new(),
            rejections: Rejections::default(),
            problems: Arc::default(),
        }
    }

    /// Takes the nodes that the source names, from a change before it is published.
    pub(crate) fn nodes_changed(&mut self, change: &Change) {
        for key in &change.removes {
            if let ResourceKey::Node(node) = key {
                self.known.remove(node);
            }
        }
        for resource in &change.upserts {
            if let ResourceKey::Node(node) = resource.key() {
                self.known.insert(node);
            }
        }
    }

    /// Takes what is different of a translation that was published as this revision, and returns a line for
    /// each object whose status reads different now.
    pub(crate) fn translated(&mut self, delta: &Delta, revision: u64, nodes: &IrReport) -> Vec<String> {
        let mut touched = delta.renewed.clone();
        for (object, status) in &delta.statuses {
            touched.insert(object.clone());
            let progress = self
                .translated
                .get(object)
                .map_or_else(|| Progress::begin(revision), |(_, progress)| *progress);
            match status {
                Some(status) => drop(self.translated.insert(object.clone(), (status.clone(), progress))),
                None => drop(self.translated.remove(object)),
            }
        }
        for object in &delta.renewed {
            if let Some((_, progress)) = self.translated.get_mut(object)
                && progress.revision != revision
            {
                *progress = Progress::begin(revision);
            }
        }
        self.refresh(touched, nodes)
    }

    /// Takes what the nodes have answered, and returns a line for each object whose status reads different
    /// now.
    pub(crate) fn answered(&mut self, nodes: &IrReport) -> Vec<String> {
        let voters = Voters { report: nodes, known: &self.known, patience: self.patience };
        let now = Rejections::new(&voters);
        let before = std::mem::replace(&mut self.rejections, now);
        let mut touched: BTreeSet<ObjectKey> =
            before.objects().chain(self.rejections.objects()).cloned().collect();
        touched.extend(self.gateways().map(|(object, _)| object.clone()));
        self.refresh(touched, nodes)
    }

    /// When [`StatusBook::answered`] is to be asked again although no node has said anything.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waited = self.gateways().filter_map(|(_, (_, progress))| progress.due(self.patience));
        waited.chain(self.rejections.due()).min()
    }

    fn gateways(&self) -> impl Iterator<Item = (&ObjectKey, &(Arc<Status>, Progress))> {
        let first = ObjectKey { kind: Kind::Gateway, namespace: "".into(), name: "".into() };
        self.translated.range(first..).take_while(|(object, _)| object.kind == Kind::Gateway)
    }

    /// The status of every object, with what the nodes have answered.
    pub(crate) fn statuses(&self) -> &OrdMap<ObjectKey, Arc<Status>> {
        &self.answered
    }

    fn refresh(&mut self, touched: BTreeSet<ObjectKey>, nodes: &IrReport) -> Vec<String> {
        let voters = Voters { report: nodes, known: &self.known, patience: self.patience };
        let now = Timestamp::from(SystemTime::now()).whole_seconds();
        let mut lines = Vec::new();
        for object in touched {
            let before = self.answered.get(&object);
            let Some((status, progress)) = self.translated.get_mut(&object) else {
                if self.answered.remove(&object).is_some() {
                    lines.push(format!("{object}  removed"));
                }
                continue;
            };
            let mut status = answered(status, progress, &voters);
            self.rejections.write(&object, &mut status);
            status.set_transitions(before.map(|before| &**before), now);
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
    pub(crate) fn problem_news(&mut self, problems: &Arc<Vec<Problem>>) -> ProblemNews {
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
pub(crate) struct ProblemNews {
    /// They were not there before.
    pub(crate) new: Vec<Problem>,
    /// They are there no more.
    pub(crate) gone: Vec<Problem>,
}

impl ProblemNews {
    /// A line for each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let new = self.new.iter().map(|problem| format!("Problem  {problem}"));
        new.chain(self.gone.iter().map(|problem| format!("Solved  {problem}")))
    }
}

/// A status with `Programmed` decided.
fn answered(status: &Status, progress: &mut Progress, voters: &Voters<'_>) -> Status {
    let Status::Gateway(gateway) = status else { return status.clone() };
    let (truth, message) = progress.decide(voters);
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
        *condition = Condition::new(status, condition.observed_generation, reason, message.clone());
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

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Whether the Gateway is programmed, why not, and since when it is so or not.
    fn stands(book: &StatusBook) -> (Truth, String, Option<Timestamp>) {
        let Some(Status::Gateway(gateway)) = book.statuses().get(&key()).map(|status| &**status) else {
            panic!("it has a status")
        };
        let programmed = &gateway.programmed;
        (programmed.status, programmed.message.to_string(), programmed.last_transition_time)
    }

    fn attached(routes: i32) -> Delta {
        let mut status = gateway_status(Truth::Unknown, &["a"]);
        for listener in &mut status.listeners {
            listener.attached_routes = routes;
        }
        let statuses = vec![(key(), Some(Arc::new(Status::Gateway(status))))];
        Delta { statuses, ..Delta::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_gateway_does_not_depend_on_does_not_change_it() {
        let mut book = StatusBook::new(PATIENCE);
        book.translated(&gateway(true), 7, &nodes(&[Some(6)]));
        book.answered(&nodes(&[Some(7)]));
        let programmed = stands(&book);
        assert_eq!(programmed.0, Truth::True);
        // A route comes, which is another revision; nodes come, lag and go.
        book.translated(&attached(1), 8, &nodes(&[Some(7)]));
        for sequence in [&nodes(&[Some(7), None]), &nodes(&[Some(8), Some(3)]), &nodes(&[]), &nodes(&[None])]
        {
            book.answered(sequence);
            assert_eq!(stands(&book), programmed);
        }
        // Its listeners are others.
        book.translated(&gateway(true), 9, &nodes(&[Some(8)]));
        assert_eq!(stands(&book).0, Truth::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_never_acknowledges_is_waited_for_only_so_long_and_then_named() {
        let mut book = StatusBook::new(PATIENCE);
        book.translated(&gateway(true), 7, &nodes(&[Some(7), Some(6)]));
        assert_eq!(stands(&book).1, "waiting for n1");
        let due = book.due().expect("to look again");
        // It comes again and again, each time as if it were new.
        tokio::time::sleep_until(due).await;
        let mut late = nodes(&[Some(7), None]);
        book.answered(&late);
        assert_eq!((stands(&book).0, book.due()), (Truth::True, None));
        let waiting = crate::serve_ir::Waiting { revision: 7, since: due, overdue: true };
        late.waiting.insert("n1".into(), waiting);
        book.answered(&late);
        let (truth, message, _) = stands(&book);
        assert_eq!((truth, &*message), (Truth::True, "served, but not acknowledged by n1"));
        // Where nobody has acknowledged, nothing is served.
        let mut book = StatusBook::new(PATIENCE);
        book.translated(&gateway(true), 7, &nodes(&[None]));
        tokio::time::advance(PATIENCE).await;
        book.answered(&nodes(&[None]));
        assert_eq!(stands(&book).0, Truth::Unknown);
    }

    #[test]
    fn where_the_source_names_nodes_only_these_decide() {
        let mut book = StatusBook::new(PATIENCE);
        let node = weft_ir::Node {
            name: "n0".into(),
            addresses: vec![],
            ingress_addresses: vec![],
            pod_cidrs: vec![],
        };
        let source = Change { upserts: vec![weft_ir::Resource::Node(node)], ..Change::default() };
        book.nodes_changed(&source);
        let mut invented = nodes(&[None, None, None]);
        invented.nodes.remove("n0");
        book.translated(&gateway(true), 7, &invented);
        assert_eq!(stands(&book).1, "no node of the source is connected, only n1, n2, which it has not");
        book.answered(&nodes(&[Some(7), None, None]));
        assert_eq!(stands(&book).0, Truth::True);
        book.nodes_changed(&Change { removes: vec![ResourceKey::Node("n0".into())], ..Change::default() });
        assert!(book.known.is_empty());
    }

    #[test]
    fn a_gateway_is_programmed_once_every_connected_node_has_it() {
        let mut book = StatusBook::new(PATIENCE);
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
        let mut book = StatusBook::new(PATIENCE);
        let mut nodes = nodes(&[Some(6); 9]);
        let since = Instant::now();
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
        let mut book = StatusBook::new(PATIENCE);
        let problems = Arc::new(vec![Problem::unread("a.yaml", 3, "wrong")]);
        let lines = |news: ProblemNews| news.lines().collect::<Vec<_>>();
        assert_eq!(lines(book.problem_news(&problems)), ["Problem  a.yaml:3: wrong"]);
        assert!(lines(book.problem_news(&Arc::new(problems.to_vec()))).is_empty());
        assert_eq!(lines(book.problem_news(&Arc::default())), ["Solved  a.yaml:3: wrong"]);
    }
}
