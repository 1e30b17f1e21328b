// SPDX-License-Identifier: Apache-2.0
//! When conditions became what they are.

use weft_time::Timestamp;

use super::{Condition, Status, Truth, reason::Reason};

/// One condition of a status: where it stands, what it is, and its time.
struct Transition<'a> {
    /// The listener or parent, where it is of one.
    part: String,
    kind: &'static str,
    status: Truth,
    time: &'a mut Option<Timestamp>,
}

impl<R: Reason> Condition<R> {
    fn transition(&mut self, part: &str) -> Transition<'_> {
        let (part, kind) = (part.to_owned(), R::CONDITION);
        Transition { part, kind, status: self.status, time: &mut self.last_transition_time }
    }
}

impl Status {
    /// Sets the time of every condition: as it was before where the condition still says the same, else now.
    pub fn set_transitions(&mut self, before: Option<&Status>, now: Timestamp) {
        let mut before = before.cloned();
        let old: Vec<Transition<'_>> = before.as_mut().map(Status::transitions).unwrap_or_default();
        for new in self.transitions() {
            let same = |old: &&Transition<'_>| {
                old.part == new.part && old.kind == new.kind && old.status == new.status
            };
            *new.time = old.iter().find(same).and_then(|old| *old.time).or(Some(now));
        }
    }

    fn transitions(&mut self) -> Vec<Transition<'_>> {
        match self {
            Status::Class(status) => vec![status.accepted.transition("")],
            Status::Policy(status) => vec![status.valid.transition("")],
            Status::RateLimit(status) => vec![status.accepted.transition("")],
            Status::Gateway(status) => {
                let mut all = vec![status.accepted.transition(""), status.programmed.transition("")];
                for listener in &mut status.listeners {
                    all.push(listener.accepted.transition(&listener.name));
                    all.push(listener.resolved_refs.transition(&listener.name));
                    all.push(listener.programmed.transition(&listener.name));
                    all.push(listener.conflicted.transition(&listener.name));
                }
                all
            }
            Status::Route(status) => {
                let mut all = Vec::new();
                for parent in &mut status.parents {
                    let part = format!("{:?}", parent.parent_ref);
                    all.push(parent.accepted.transition(&part));
                    all.push(parent.resolved_refs.transition(&part));
                    all.extend(parent.partially_invalid.iter_mut().map(|one| one.transition(&part)));
                }
                all
            }
        }
    }
}
