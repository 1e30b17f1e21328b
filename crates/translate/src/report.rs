// SPDX-License-Identifier: Apache-2.0
//! Statuses as lines that people read.

use weft_api::{
    object::ObjectKey,
    status::{Condition, Status, Truth},
};

/// One line for one object: each condition, with reason and message where it does not hold as it
/// should.
pub fn line(object: &ObjectKey, status: &Status) -> String {
    let mut text = object.to_string();
    match status {
        Status::Conditions(status) => conditions(&mut text, &status.conditions),
        Status::Gateway(status) => {
            conditions(&mut text, &status.conditions);
            for listener in &status.listeners {
                let wrong: Vec<Condition> = listener
                    .conditions
                    .iter()
                    .filter(|one| !is_good(one) && one.status != Truth::Unknown)
                    .cloned()
                    .collect();
                text.push_str(&format!("  {}: {} routes", listener.name, listener.attached_routes));
                conditions(&mut text, &wrong);
            }
        }
        Status::Route(status) => {
            for parent in &status.parents {
                if status.parents.len() > 1 {
                    let kind = parent.parent_ref.kind.as_deref().unwrap_or("Gateway");
                    text.push_str(&format!("  [{kind} {}]", parent.parent_ref.name));
                }
                conditions(&mut text, &parent.conditions);
            }
        }
    }
    text
}

/// Whether an object is refused by the translation: it is not accepted, or not valid.
pub fn is_rejected(status: &Status) -> bool {
    let mut all: Vec<&Condition> = Vec::new();
    match status {
        Status::Conditions(status) => all.extend(&status.conditions),
        Status::Gateway(status) => {
            all.extend(&status.conditions);
            all.extend(status.listeners.iter().flat_map(|listener| &listener.conditions));
        }
        Status::Route(status) => all.extend(status.parents.iter().flat_map(|parent| &parent.conditions)),
    }
    all.iter().any(|one| matches!(&*one.kind, "Accepted" | "Valid") && one.status == Truth::False)
}

fn conditions(text: &mut String, conditions: &[Condition]) {
    for condition in conditions {
        if &*condition.kind == "Conflicted" && is_good(condition) {
            continue;
        }
        text.push_str(&format!("  {}={}", condition.kind, condition.status));
        if !is_good(condition) {
            text.push_str(&format!(" {}: {}", condition.reason, condition.message));
        }
    }
}

/// `Conflicted` and `PartiallyInvalid` are good when false, all others when true.
fn is_good(condition: &Condition) -> bool {
    let negative = matches!(&*condition.kind, "Conflicted" | "PartiallyInvalid");
    condition.status == Truth::from(!negative)
}
