// SPDX-License-Identifier: Apache-2.0
//! One HTTPRoute: its parents, its rules and its status.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_api::{
    gateway as api,
    httproute::{HttpRoute, HttpRouteRule, ParentReference},
    object::{Kind, ObjectKey},
    status::{Condition, RouteParentStatus, RouteStatus, Status, Truth},
};
use weft_ir::{
    ObjectName, Resource, Route, RouteAction, RouteFilter, RouteKind, RouteMatch, RouteParent, RouteTimeouts,
};

use crate::{
    CONTROLLER_NAME,
    gateway::GatewayState,
    input::{Input, Item, Output},
    parents::{Attachment, attach},
    rules::{self, RuleProblems},
};

/// Translates one route, counts it at its listeners and writes its status.
pub(crate) fn translate(
    input: &Input<'_>,
    gateways: &mut BTreeMap<ObjectName, GatewayState<'_>>,
    item: &Item<'_, HttpRoute>,
    output: &mut Output,
) {
    let metadata = &item.object.metadata;
    let origin = ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() };
    let key =
        ObjectKey { kind: Kind::HttpRoute, namespace: origin.namespace.clone(), name: origin.name.clone() };
    let refusal = of_the_route(item);
    let mut problems = RuleProblems::default();
    let actions = match &refusal {
        Some(_) => vec![refused_rule()],
        None => translate_rules(input, item, &mut problems),
    };

    let mut parents: Vec<RouteParent> = Vec::new();
    let mut listeners = BTreeSet::new();
    let mut statuses = Vec::new();
    for (index, parent) in item.object.spec.parent_refs.iter().enumerate() {
        let accepted = match attach(input, gateways, item.object, parent) {
            Attachment::NotOurs(note) => {
                if let Some(note) = note {
                    output.notes.push((key.clone(), format!("spec.parentRefs[{index}]: {note}").into()));
                }
                continue;
            }
            Attachment::Refused(reason, message) => {
                Condition::new("Accepted", false, item.generation, reason, &message)
            }
            Attachment::Accepted(attached) => {
                for parent in attached.parents {
                    if !parents.contains(&parent) {
                        parents.push(parent);
                    }
                }
                let accepted =
                    accepted_condition(item.generation, refusal.as_deref(), &problems, actions.len());
                if accepted.status == Truth::True {
                    listeners.extend(attached.listeners);
                }
                accepted
            }
        };
        statuses.push(parent_status(parent, accepted, item.generation, &problems, actions.len()));
    }

    count(gateways, listeners);
    if !parents.is_empty() {
        for (rule, (matches, action)) in actions.into_iter().enumerate() {
            output.resources.push(Resource::Route(Route {
                kind: RouteKind::HttpRoute,
                origin: origin.clone(),
                rule: u32::try_from(rule).unwrap_or(u32::MAX),
                created: metadata.created(),
                parents: parents.clone(),
                hostnames: item.object.spec.hostnames.clone(),
                matches,
                action,
            }));
        }
    }
    if !statuses.is_empty() {
        output.statuses.push((key, Status::Route(RouteStatus { parents: statuses })));
    }
}

/// Counts an accepted route at its listeners, once at each however many references name it
/// (`ListenerStatus.attachedRoutes`).
fn count(gateways: &mut BTreeMap<ObjectName, GatewayState<'_>>, listeners: BTreeSet<(ObjectName, usize)>) {
    for (gateway, index) in listeners {
        if let Some(listener) = gateways.get_mut(&gateway).and_then(|state| state.listeners.get_mut(index)) {
            listener.attached += 1;
        }
    }
}

/// Why the whole route is refused: it could not be read, or has a field outside of its rules that
/// is not known.
fn of_the_route(item: &Item<'_, HttpRoute>) -> Option<String> {
    if let Some(message) = item.refused {
        return Some(message.to_owned());
    }
    let field = item.unknown.iter().find(|field| !field.starts_with("spec.rules["))?;
    Some(format!("{field} is not supported"))
}

fn translate_rules(
    input: &Input<'_>,
    item: &Item<'_, HttpRoute>,
    problems: &mut RuleProblems,
) -> Vec<(Vec<RouteMatch>, RouteAction)> {
    let namespace = &item.object.metadata.namespace;
    let default_rule = [HttpRouteRule::default()];
    let rules = item.object.spec.rules.as_deref().unwrap_or(&default_rule);
    rules
        .iter()
        .enumerate()
        .map(|(index, rule)| rules::translate(input, namespace, index, rule, item.unknown, problems))
        .collect()
}

/// Everything is answered with 500.
fn refused_rule() -> (Vec<RouteMatch>, RouteAction) {
    let action = RouteAction {
        filters: vec![RouteFilter::Invalid],
        backends: Vec::new(),
        timeouts: RouteTimeouts::default(),
        retry: None,
    };
    (vec![rules::match_everything()], action)
}

/// A route of which every rule is refused is not accepted; of which some are, partly.
fn accepted_condition(
    generation: i64,
    refusal: Option<&str>,
    problems: &RuleProblems,
    rules: usize,
) -> Condition {
    let all_refused = !problems.refused.is_empty() && problems.refused.len() == rules;
    match refusal {
        Some(message) => {
            let message = format!("{message}; requests are answered with 500");
            Condition::new("Accepted", false, generation, "UnsupportedValue", &message)
        }
        None if all_refused => {
            let message = format!("{}; requests are answered with 500", problems.refused_text());
            Condition::new("Accepted", false, generation, "UnsupportedValue", &message)
        }
        None => Condition::new("Accepted", true, generation, "Accepted", "the route is attached"),
    }
}

fn parent_status(
    parent: &ParentReference,
    accepted: Condition,
    generation: i64,
    problems: &RuleProblems,
    rules: usize,
) -> RouteParentStatus {
    let resolved = match problems.references.first() {
        None => {
            Condition::new("ResolvedRefs", true, generation, "ResolvedRefs", "every reference is resolved")
        }
        Some((reason, _)) => {
            let messages: Vec<&str> = problems.references.iter().map(|(_, message)| &**message).collect();
            Condition::new("ResolvedRefs", false, generation, reason, &messages.join("; "))
        }
    };
    let partly = accepted.status == Truth::True && !problems.refused.is_empty();
    let mut conditions = vec![accepted, resolved];
    if partly && problems.refused.len() < rules {
        let message = format!(
            "Dropped Rule: {}; requests that match it are answered with 500",
            problems.refused_text()
        );
        conditions.push(Condition::new("PartiallyInvalid", true, generation, "UnsupportedValue", &message));
    }
    // As the API server would have it: clients compare group and kind.
    let parent_ref = ParentReference {
        group: Some(parent.group.clone().unwrap_or_else(|| api::GROUP.into())),
        kind: Some(parent.kind.clone().unwrap_or_else(|| "Gateway".into())),
        ..parent.clone()
    };
    RouteParentStatus { parent_ref, controller_name: Arc::from(CONTROLLER_NAME), conditions }
}
