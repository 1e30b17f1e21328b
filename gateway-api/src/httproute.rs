// SPDX-License-Identifier: Apache-2.0
//! One HTTPRoute: its parents, its rules and its status.

use std::{collections::BTreeSet, sync::Arc};

use weft_api::{
    gateway as api,
    httproute::{HttpRoute, HttpRouteRule, ParentReference},
    status::{
        Condition, RouteParentStatus, RouteStatus, Truth,
        reason::{RouteAccepted, RoutePartiallyInvalid, RouteResolvedRefs},
    },
};
use weft_ir::{
    ObjectName, Resource, Route, RouteAction, RouteFilter, RouteKind, RouteMatch, RouteParent, RouteTimeouts,
};

use crate::{
    CONTROLLER_NAME,
    parents::{Attachment, attach},
    rules::{self, RuleProblems},
    world::{Item, World},
};

/// What comes of one route.
#[derive(Debug, Default)]
pub struct RouteOutput {
    /// One for each rule, where any parent serves it.
    pub resources: Vec<Resource>,
    /// Nothing where no parent is ours.
    pub status: Option<RouteStatus>,
    /// The listeners that count it, each once however many references name it
    /// (`ListenerStatus.attachedRoutes`).
    pub attached: BTreeSet<(ObjectName, Arc<str>)>,
    /// What no status can say, by field.
    pub notes: Vec<Arc<str>>,
}

/// Translates one route.
pub fn translate_route(world: &impl World, item: Item<'_, HttpRoute>) -> RouteOutput {
    let refusal = of_the_route(&item);
    let mut problems = RuleProblems::default();
    let actions = match &refusal {
        Some(_) => vec![refused_rule()],
        None => translate_rules(world, &item, &mut problems),
    };
    let mut output = RouteOutput::default();
    let mut parents: Vec<RouteParent> = Vec::new();
    let mut statuses = Vec::new();
    for (index, parent) in item.object.spec.parent_refs.iter().enumerate() {
        let accepted = match attach(world, item.object, parent) {
            Attachment::NotOurs(note) => {
                let note = note.map(|note| format!("spec.parentRefs[{index}]: {note}").into());
                output.notes.extend(note);
                continue;
            }
            Attachment::Refused(reason, message) => Condition::new(false, item.generation, reason, message),
            Attachment::Accepted(attached) => {
                for parent in attached.parents {
                    if !parents.contains(&parent) {
                        parents.push(parent);
                    }
                }
                let accepted =
                    accepted_condition(item.generation, refusal.as_deref(), &problems, actions.len());
                if accepted.status == Truth::True {
                    output.attached.extend(attached.listeners);
                }
                accepted
            }
        };
        statuses.push(parent_status(parent, accepted, item.generation, &problems, actions.len()));
    }
    output.resources = resources(item.object, parents, actions);
    output.status = (!statuses.is_empty()).then_some(RouteStatus { parents: statuses });
    output
}

/// One resource for each rule; none where no parent serves the route.
fn resources(
    route: &HttpRoute,
    parents: Vec<RouteParent>,
    rules: Vec<(Vec<RouteMatch>, RouteAction)>,
) -> Vec<Resource> {
    if parents.is_empty() {
        return Vec::new();
    }
    let metadata = &route.metadata;
    let resource = |(rule, (matches, action)): (usize, (Vec<RouteMatch>, RouteAction))| {
        Resource::Route(Route {
            kind: RouteKind::HttpRoute,
            origin: ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() },
            rule: u32::try_from(rule).unwrap_or(u32::MAX),
            created: metadata.created(),
            parents: parents.clone(),
            hostnames: route.spec.hostnames.clone(),
            matches,
            action,
        })
    };
    rules.into_iter().enumerate().map(resource).collect()
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
    world: &impl World,
    item: &Item<'_, HttpRoute>,
    problems: &mut RuleProblems,
) -> Vec<(Vec<RouteMatch>, RouteAction)> {
    let namespace = &item.object.metadata.namespace;
    let default_rule = [HttpRouteRule::default()];
    let rules = item.object.spec.rules.as_deref().unwrap_or(&default_rule);
    rules
        .iter()
        .enumerate()
        .map(|(index, rule)| rules::translate(world, namespace, index, rule, item.unknown, problems))
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
) -> Condition<RouteAccepted> {
    let all_refused = !problems.refused.is_empty() && problems.refused.len() == rules;
    let refusal = refusal.map(str::to_owned).or_else(|| all_refused.then(|| problems.refused_text()));
    match refusal {
        Some(message) => {
            let message = format!("{message}; requests are answered with 500");
            Condition::new(false, generation, RouteAccepted::UnsupportedValue, message)
        }
        None => Condition::new(true, generation, RouteAccepted::Accepted, "the route is attached"),
    }
}

fn parent_status(
    parent: &ParentReference,
    accepted: Condition<RouteAccepted>,
    generation: i64,
    problems: &RuleProblems,
    rules: usize,
) -> RouteParentStatus {
    let resolved_refs = match problems.references.first() {
        None => {
            let message = "every reference is resolved";
            Condition::new(true, generation, RouteResolvedRefs::ResolvedRefs, message)
        }
        Some((reason, _)) => {
            let messages: Vec<&str> = problems.references.iter().map(|(_, message)| &**message).collect();
            Condition::new(false, generation, *reason, messages.join("; "))
        }
    };
    let partly = accepted.status == Truth::True && !problems.refused.is_empty();
    let partially_invalid = (partly && problems.refused.len() < rules).then(|| {
        let message = format!(
            "Dropped Rule: {}; requests that match it are answered with 500",
            problems.refused_text()
        );
        Condition::new(true, generation, RoutePartiallyInvalid::UnsupportedValue, message)
    });
    // As the API server would have it: clients compare group and kind.
    let parent_ref = ParentReference {
        group: Some(parent.group.clone().unwrap_or_else(|| api::GROUP.into())),
        kind: Some(parent.kind.clone().unwrap_or_else(|| "Gateway".into())),
        ..parent.clone()
    };
    RouteParentStatus {
        parent_ref,
        controller_name: Arc::from(CONTROLLER_NAME),
        accepted,
        resolved_refs,
        partially_invalid,
    }
}
