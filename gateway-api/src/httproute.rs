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
use weft_ir::{ObjectName, Resource, Route, RouteAction, RouteKind, RouteMatch, RouteParent};

use crate::{
    CONTROLLER_NAME,
    hostnames::Hostnames,
    matches::match_everything,
    parents::{Attached, Attachment, attach},
    rules::{self, Place, RuleProblems, refused_action},
    world::{Item, World},
    wrong::{Wrong, is_within},
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
    let wrong = Wrong::new(item.unknown, &item.object.unread);
    let hostnames = Hostnames::new(&item.object.spec.hostnames, &wrong);
    let mut problems = RuleProblems::default();
    let rules = match of_the_route(&item, &wrong) {
        Some(message) => {
            let message = format!("{message}; requests are answered with 500");
            problems.refused.insert(0, (RoutePartiallyInvalid::UnsupportedValue, message));
            vec![(vec![match_everything()], refused_action())]
        }
        None => translate_rules(world, &item, &wrong, &mut problems),
    };
    let mut output = RouteOutput::default();
    let mut attached = Attachments::default();
    let mut statuses = Vec::new();
    for (index, parent) in item.object.spec.parent_refs.iter().enumerate() {
        let path = format!("spec.parentRefs[{index}]");
        if let Some(message) = wrong.unread(|at| is_within(at, &path)) {
            output.notes.push(message.into());
            continue;
        }
        let (of_parent, refused) = match attach(world, item.object, &hostnames, parent) {
            Attachment::NotOurs(note) => {
                output.notes.extend(note.map(|note| format!("{path}: {note}").into()));
                continue;
            }
            Attachment::Ours { attached, refused } => (attached, refused),
        };
        let unknown = wrong.within(&path);
        let refused = unknown.clone().map(of_parent_ref).or(refused);
        let problems = Problems { rules: &problems, count: rules.len(), hostnames: &hostnames };
        let status = problems.status(parent, refused, item.generation);
        if status.accepted.status == Truth::True {
            output.attached.extend(of_parent.listeners.iter().cloned());
        }
        attached.add(of_parent, unknown.is_some());
        statuses.push(status);
    }
    output.notes.extend(of_parents(item.object, &wrong));
    output.resources = resources(item.object, &hostnames, attached, rules);
    output.status = (!statuses.is_empty()).then_some(RouteStatus { parents: statuses });
    output
}

/// What is wrong with the parents as a whole: no status has a place for a route without any.
fn of_parents(route: &HttpRoute, wrong: &Wrong<'_>) -> Option<Arc<str>> {
    let none = "spec.parentRefs: names nothing, so the route takes effect nowhere";
    let unread = wrong.unread(|at| at == "spec.parentRefs").map(Arc::from);
    unread.or_else(|| route.spec.parent_refs.is_empty().then(|| none.into()))
}

/// A parent reference that is not understood serves nothing.
fn of_parent_ref(message: String) -> (RouteAccepted, String) {
    (RouteAccepted::UnsupportedValue, format!("{message}; requests are answered with 500"))
}

/// Where the parents of a route are, without doubles.
#[derive(Default)]
struct Attachments {
    /// They serve it.
    parents: Vec<RouteParent>,
    /// They close the hostnames that cannot be used.
    hostnames: Vec<RouteParent>,
    /// They close all of it, since their reference is not understood.
    closed: Vec<RouteParent>,
}

impl Attachments {
    fn add(&mut self, attached: Attached, close: bool) {
        let parents = if close { &mut self.closed } else { &mut self.parents };
        for (list, new) in [(parents, attached.parents), (&mut self.hostnames, attached.closed)] {
            for parent in new {
                if !list.contains(&parent) {
                    list.push(parent);
                }
            }
        }
    }
}

/// One resource for each rule, and two more for what is closed besides: the hostnames and the parent
/// references that are not understood.
fn resources(
    route: &HttpRoute,
    hostnames: &Hostnames,
    attached: Attachments,
    rules: Vec<(Vec<RouteMatch>, RouteAction)>,
) -> Vec<Resource> {
    let metadata = &route.metadata;
    let resource = |rule: usize, parents: &[RouteParent], hosts: &[Arc<str>], (matches, action)| {
        Resource::Route(Route {
            kind: RouteKind::HttpRoute,
            origin: ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() },
            rule: u32::try_from(rule).unwrap_or(u32::MAX),
            created: metadata.created(),
            parents: parents.to_vec(),
            hostnames: hosts.to_vec(),
            matches,
            action,
        })
    };
    let Attachments { parents, hostnames: of_hostnames, mut closed } = attached;
    closed.retain(|parent| !parents.contains(parent));
    let closing = || (vec![match_everything()], refused_action());
    let count = rules.len();
    let mut resources = Vec::new();
    if !parents.is_empty() {
        let served = rules.into_iter().enumerate();
        resources.extend(served.map(|(index, rule)| resource(index, &parents, &hostnames.served, rule)));
    }
    if !of_hostnames.is_empty() {
        resources.push(resource(count, &of_hostnames, &hostnames.closed, closing()));
    }
    if !closed.is_empty() {
        resources.push(resource(count + 1, &closed, &hostnames.served, closing()));
    }
    resources
}

/// Why the whole route is refused: it could not be read, or something outside of its rules, hostnames and
/// parents is not known.
fn of_the_route(item: &Item<'_, HttpRoute>, wrong: &Wrong<'_>) -> Option<String> {
    if let Some(message) = item.refused {
        return Some(message.to_owned());
    }
    let parts = ["spec.rules[", "spec.hostnames", "spec.parentRefs"];
    let elsewhere = |at: &str| !parts.iter().any(|part| at.starts_with(part));
    wrong.unread(elsewhere).or_else(|| wrong.unknown(elsewhere))
}

fn translate_rules(
    world: &impl World,
    item: &Item<'_, HttpRoute>,
    wrong: &Wrong<'_>,
    problems: &mut RuleProblems,
) -> Vec<(Vec<RouteMatch>, RouteAction)> {
    let namespace = &item.object.metadata.namespace;
    let default_rule = [HttpRouteRule::default()];
    let rules = item.object.spec.rules.as_deref().unwrap_or(&default_rule).iter().enumerate();
    rules
        .map(|(index, rule)| rules::translate(world, &Place { namespace, index, wrong }, rule, problems))
        .collect()
}

/// What is wrong with a route, for its statuses.
struct Problems<'a> {
    rules: &'a RuleProblems,
    /// How many rules there are.
    count: usize,
    hostnames: &'a Hostnames,
}

impl Problems<'_> {
    /// The status at one parent, which may refuse it: reason and message.
    fn status(
        &self,
        parent: &ParentReference,
        refused: Option<(RouteAccepted, String)>,
        generation: i64,
    ) -> RouteParentStatus {
        let accepted = match refused.or_else(|| self.refused()) {
            Some((reason, message)) => Condition::new(false, generation, reason, message),
            None => Condition::new(true, generation, RouteAccepted::Accepted, "the route is attached"),
        };
        let resolved_refs = match self.rules.references.first() {
            None => {
                let message = "every reference is resolved";
                Condition::new(true, generation, RouteResolvedRefs::ResolvedRefs, message)
            }
            Some((reason, _)) => {
                let messages: Vec<&str> =
                    self.rules.references.iter().map(|(_, message)| &**message).collect();
                Condition::new(false, generation, *reason, messages.join("; "))
            }
        };
        // As the API server would have it: clients compare group and kind.
        let parent_ref = ParentReference {
            group: Some(parent.group.clone().unwrap_or_else(|| api::GROUP.into())),
            kind: Some(parent.kind.clone().unwrap_or_else(|| "Gateway".into())),
            ..parent.clone()
        };
        let partially_invalid = (accepted.status == Truth::True)
            .then(|| self.parts(&parent_ref))
            .flatten()
            .map(|message| Condition::new(true, generation, self.rules.reason(), message));
        RouteParentStatus {
            parent_ref,
            controller_name: Arc::from(CONTROLLER_NAME),
            accepted,
            resolved_refs,
            partially_invalid,
        }
    }

    /// A route of which every rule is refused is not accepted.
    fn refused(&self) -> Option<(RouteAccepted, String)> {
        let reason = match self.rules.reason() {
            RoutePartiallyInvalid::UnsupportedValue => RouteAccepted::UnsupportedValue,
            RoutePartiallyInvalid::IncompatibleFilters => RouteAccepted::IncompatibleFilters,
        };
        let all = self.count > 0 && self.rules.refused.len() == self.count;
        all.then(|| (reason, self.rules.text()))
    }

    /// What of an accepted route is refused. A Service does not look at hostnames.
    fn parts(&self, parent: &ParentReference) -> Option<String> {
        let mut parts = Vec::new();
        if !self.rules.refused.is_empty() || !self.rules.parts.is_empty() {
            parts.push(self.rules.text());
        }
        if !self.hostnames.problems.is_empty() && parent.kind.as_deref() == Some("Gateway") {
            let so = "requests that name such a host are answered with 500";
            parts.push(format!("{}; {so}", self.hostnames.problems.join("; ")));
        }
        // The words that the API wants in front (`RouteConditionPartiallyInvalid`).
        (!parts.is_empty()).then(|| format!("Dropped Rule: {}", parts.join("; ")))
    }
}
