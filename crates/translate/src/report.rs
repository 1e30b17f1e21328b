// SPDX-License-Identifier: Apache-2.0
//! Statuses as lines that people read.

use weft_api::{
    object::ObjectKey,
    status::{ConditionWords, ListenerStatus, Status, Truth},
};

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
                text.push_str(&format!("  {}: {} routes", listener.name, listener.attached_routes));
                let mut wrong = listener.conditions();
                wrong.retain(|one| !one.good && one.status != Truth::Unknown);
                conditions(&mut text, &wrong);
            }
        }
        Status::Route(status) => {
            for parent in &status.parents {
                if status.parents.len() > 1 {
                    let kind = parent.parent_ref.kind.as_deref().unwrap_or("Gateway");
                    text.push_str(&format!("  [{kind} {}]", parent.parent_ref.name));
                }
                conditions(&mut text, &parent.conditions());
            }
        }
    }
    text
}

/// Whether an object is refused by the translation: it is not accepted, or not valid.
pub fn is_rejected(status: &Status) -> bool {
    match status {
        Status::Class(status) => status.accepted.status == Truth::False,
        Status::Policy(status) => status.valid.status == Truth::False,
        Status::RateLimit(status) => status.accepted.status == Truth::False,
        Status::Gateway(status) => {
            let listener = |one: &ListenerStatus| one.accepted.status == Truth::False;
            status.accepted.status == Truth::False || status.listeners.iter().any(listener)
        }
        Status::Route(status) => status.parents.iter().any(|parent| parent.accepted.status == Truth::False),
    }
}

fn conditions(text: &mut String, conditions: &[ConditionWords<'_>]) {
    for condition in conditions {
        text.push_str(&format!("  {}={}", condition.kind, condition.status));
        if !condition.good {
            text.push_str(&format!(" {}: {}", condition.reason, condition.message));
        }
    }
}
