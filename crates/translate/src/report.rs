// SPDX-License-Identifier: Apache-2.0
//! Statuses as lines that people read.

use weft_api::{
    object::ObjectKey,
    status::{ConditionWords, ListenerStatus, RouteParentStatus, Status, Truth},
};

use crate::plain::Plain;

/// One line for one object: each condition, with reason and message where it does not hold as it
/// should.
pub fn line(object: &ObjectKey, status: &Status) -> String {
    let mut text = object.to_string();
    match status {
        Status::Class(status) => conditions(&mut text, &[status.accepted.words()]),
        Status::Policy(status) => conditions(&mut text, &[status.valid.words()]),
        Status::RateLimit(status) => conditions(&mut text, &[status.accepted.words()]),
        Status::Gateway(status) => {
            conditions(&mut text, &status.conditions());
            for listener in &status.listeners {
                let name = Plain(&listener.name);
                text.push_str(&format!("  {name}: {} routes", listener.attached_routes));
                let mut wrong = listener.conditions();
                wrong.retain(|one| !one.good && one.status != Truth::Unknown);
                conditions(&mut text, &wrong);
            }
        }
        Status::Route(status) => {
            for parent in &status.parents {
                if status.parents.len() > 1 {
                    let kind = parent.parent_ref.kind.as_deref().unwrap_or("Gateway");
                    text.push_str(&format!("  [{} {}]", Plain(kind), Plain(&parent.parent_ref.name)));
                }
                conditions(&mut text, &parent.conditions());
            }
        }
    }
    text
}

/// Whether an object is not served as it is written: all or a part of it is refused, or it names what is not
/// there. What only nodes can tell does not count.
pub(crate) fn is_rejected(status: &Status) -> bool {
    let wrong = |one: ConditionWords<'_>| !one.good && one.status != Truth::Unknown;
    match status {
        Status::Class(status) => wrong(status.accepted.words()),
        Status::Policy(status) => wrong(status.valid.words()),
        Status::RateLimit(status) => wrong(status.accepted.words()),
        Status::Gateway(status) => {
            let of_listeners = status.listeners.iter().flat_map(ListenerStatus::conditions);
            status.conditions().into_iter().chain(of_listeners).any(wrong)
        }
        Status::Route(status) => status.parents.iter().flat_map(RouteParentStatus::conditions).any(wrong),
    }
}

fn conditions(text: &mut String, conditions: &[ConditionWords<'_>]) {
    for condition in conditions {
        text.push_str(&format!("  {}={}", condition.kind, condition.status));
        if !condition.good {
            text.push_str(&format!(" {}: {}", condition.reason, Plain(condition.message)));
        }
    }
}
