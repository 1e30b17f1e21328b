// SPDX-License-Identifier: Apache-2.0
//! One rule of an HTTPRoute.
//!
//! A rule that is refused answers what it would have matched with 500, and the other rules go on. It is
//! not left out: its requests would fall to a broader rule, without its filters or to another backend.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use weft_api::{
    core::L4Protocol,
    httproute::{HttpBackendRef, HttpRouteRule},
    status::reason::{RoutePartiallyInvalid, RouteResolvedRefs},
};
use weft_ir::{
    BackendService, ObjectName, RouteAction, RouteBackend, RouteFilter, RouteMatch, RouteRetry, RouteTimeouts,
};

use crate::{
    filters,
    matches::{self, Translated, match_everything},
    validate,
    world::{World, granted},
    wrong::{Wrong, is_within},
};

/// How often a request is tried again where the object does not say (its default in the API).
const DEFAULT_RETRY_ATTEMPTS: u32 = 1;

/// What is wrong with the rules of a route.
#[derive(Debug, Default)]
pub(crate) struct RuleProblems {
    /// Refused rules by index: reason, and what is wrong and what becomes of it.
    pub(crate) refused: BTreeMap<usize, (RoutePartiallyInvalid, String)>,
    /// What is refused and less than a rule, in one line each.
    pub(crate) parts: Vec<String>,
    /// References that could not be resolved: reason and message, in the order of the object.
    pub(crate) references: Vec<(RouteResolvedRefs, String)>,
}

impl RuleProblems {
    /// What is refused, in one line.
    pub(crate) fn text(&self) -> String {
        let rules = self.refused.values().map(|(_, message)| &**message);
        rules.chain(self.parts.iter().map(String::as_str)).collect::<Vec<_>>().join("; ")
    }

    /// The reason of the first refused rule.
    pub(crate) fn reason(&self) -> RoutePartiallyInvalid {
        self.refused.values().next().map_or(RoutePartiallyInvalid::UnsupportedValue, |(reason, _)| *reason)
    }
}

/// A rule and where it stands.
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a Arc<str>,
    pub(crate) index: usize,
    pub(crate) wrong: &'a Wrong<'a>,
}

/// Translates one rule.
pub(crate) fn translate(
    world: &impl World,
    place: &Place<'_>,
    rule: &HttpRouteRule,
    problems: &mut RuleProblems,
) -> (Vec<RouteMatch>, RouteAction) {
    let path = format!("spec.rules[{}]", place.index);
    let (matches, refused_match, untold) = translate_matches(&path, rule, place.wrong);
    let backends = translate_backends(world, place, &path, rule, problems);
    let action = translate_action(&path, rule, place.wrong, backends);
    let refusal = match (action, refused_match) {
        (Ok(action), None) => return (matches, action),
        (Err(refusal), _) => refusal,
        (Ok(_), Some(message)) => (RoutePartiallyInvalid::UnsupportedValue, message),
    };
    let so = match (matches.is_empty(), untold) {
        (false, false) => "requests that match it are answered with 500",
        (false, true) => {
            "requests that are known to match it are answered with 500, it cannot be told which others do"
        }
        (true, false) => "no request can match it",
        (true, true) => "it cannot be told which requests match it, and other rules get them",
    };
    let (reason, message) = refusal;
    problems.refused.insert(place.index, (reason, format!("{message}; {so}")));
    (matches, refused_action())
}

/// Every request is answered with 500.
pub(crate) fn refused_action() -> RouteAction {
    RouteAction {
        filters: vec![RouteFilter::Invalid],
        backends: Vec::new(),
        timeouts: RouteTimeouts::default(),
        retry: None,
    }
}

/// What the rule matches as far as that is understood, the first problem, and whether there is more that
/// cannot be told.
fn translate_matches(
    path: &str,
    rule: &HttpRouteRule,
    wrong: &Wrong<'_>,
) -> (Vec<RouteMatch>, Option<String>, bool) {
    let all = format!("{path}.matches");
    if let Some(message) = wrong.unread(|at| at == path || at == all) {
        return (Vec::new(), Some(message), true);
    }
    if rule.matches.is_empty() {
        return (vec![match_everything()], None, false);
    }
    let (mut understood, mut refused, mut untold) = (Vec::new(), None, false);
    for (at, wanted) in rule.matches.iter().enumerate() {
        let (matched, problem) = match matches::translate(&format!("{path}.matches[{at}]"), wanted, wrong) {
            Translated::Understood(matched) => (Some(matched), None),
            Translated::Closed(matched, problem) => (Some(matched), Some(problem)),
            Translated::Impossible(problem) => (None, Some(problem)),
            Translated::Untold(problem) => {
                untold = true;
                (None, Some(problem))
            }
        };
        understood.extend(matched);
        refused = refused.or(problem);
    }
    (understood, refused, untold)
}

/// What is done with the requests, or why the rule is refused.
fn translate_action(
    path: &str,
    rule: &HttpRouteRule,
    wrong: &Wrong<'_>,
    backends: Result<Vec<RouteBackend>, String>,
) -> Result<RouteAction, (RoutePartiallyInvalid, String)> {
    let unsupported = |message| (RoutePartiallyInvalid::UnsupportedValue, message);
    let (matches, backend_refs) = (format!("{path}.matches"), format!("{path}.backendRefs"));
    let own = |at: &str| is_within(at, path) && !is_within(at, &matches);
    let message = wrong.unread(own).or_else(|| wrong.unknown(|at| own(at) && !is_within(at, &backend_refs)));
    if let Some(message) = message {
        return Err(unsupported(message));
    }
    if validate::incompatible(&rule.filters) {
        let message = format!("{path}.filters: cannot have both a redirect and a rewrite");
        return Err((RoutePartiallyInvalid::IncompatibleFilters, message));
    }
    validate::rule(path, rule).map_err(|error| unsupported(error.to_string()))?;
    let filters = filters::translate(&format!("{path}.filters"), &rule.filters).map_err(unsupported)?;
    Ok(RouteAction {
        filters,
        backends: backends.map_err(unsupported)?,
        timeouts: translate_timeouts(rule),
        retry: rule.retry.as_ref().map(|retry| RouteRetry {
            codes: retry.codes.clone(),
            attempts: retry.attempts.unwrap_or(DEFAULT_RETRY_ATTEMPTS),
            backoff: retry.backoff.map(|duration| duration.0),
        }),
    })
}

/// The backends; the error is about a rule of which every backend is refused.
fn translate_backends(
    world: &impl World,
    place: &Place<'_>,
    path: &str,
    rule: &HttpRouteRule,
    problems: &mut RuleProblems,
) -> Result<Vec<RouteBackend>, String> {
    let (mut backends, mut refused) = (Vec::new(), Vec::new());
    for (at, backend) in rule.backend_refs.iter().enumerate() {
        let path = format!("{path}.backendRefs[{at}]");
        let service = match resolve(world, place.namespace, backend) {
            Ok(service) => Some(service),
            Err((reason, message)) => {
                problems.references.push((reason, format!("{path}: {message}")));
                None
            }
        };
        let filters = backend_filters(&path, backend, rule, place.wrong).unwrap_or_else(|message| {
            refused.push(message);
            vec![RouteFilter::Invalid]
        });
        backends.push(RouteBackend { service, weight: backend.weight.unwrap_or(1), filters });
    }
    match refused.first() {
        Some(first) if refused.len() == backends.len() => Err(first.clone()),
        _ => {
            let so = "requests for this backend are answered with 500";
            problems.parts.extend(refused.iter().map(|message| format!("{message}; {so}")));
            Ok(backends)
        }
    }
}

fn backend_filters(
    path: &str,
    backend: &HttpBackendRef,
    rule: &HttpRouteRule,
    wrong: &Wrong<'_>,
) -> Result<Vec<RouteFilter>, String> {
    if let Some(message) = wrong.within(path) {
        return Err(message);
    }
    validate::backend_filters(path, &backend.filters, rule).map_err(|error| error.to_string())?;
    filters::translate_for_backend(&format!("{path}.filters"), &backend.filters)
}

/// The port of a Service that a backend names, or reason and message.
fn resolve(
    world: &impl World,
    namespace: &Arc<str>,
    backend: &HttpBackendRef,
) -> Result<BackendService, (RouteResolvedRefs, String)> {
    let group = backend.group.as_deref().unwrap_or_default();
    let kind = backend.kind.as_deref().unwrap_or("Service");
    if !group.is_empty() || kind != "Service" {
        let message = format!("backends of kind {group}/{kind} are not supported");
        return Err((RouteResolvedRefs::InvalidKind, message));
    }
    let name = ObjectName {
        namespace: backend.namespace.as_ref().unwrap_or(namespace).clone(),
        name: backend.name.clone(),
    };
    if name.namespace != *namespace && !granted(world, namespace, &name) {
        let message = format!("no ReferenceGrant of namespace {} allows Service {name}", name.namespace);
        return Err((RouteResolvedRefs::RefNotPermitted, message));
    }
    let Some(service) = world.service(&name) else {
        return Err((RouteResolvedRefs::BackendNotFound, format!("Service {name} does not exist")));
    };
    let Some(port) = backend.port else {
        return Err((RouteResolvedRefs::BackendNotFound, "a Service needs a port".into()));
    };
    if &*service.spec.kind == "ExternalName" {
        return Err((RouteResolvedRefs::BackendNotFound, format!("Service {name} is of type ExternalName")));
    }
    let found = service
        .spec
        .ports
        .iter()
        .find(|candidate| candidate.port == port && candidate.protocol == L4Protocol::Tcp);
    let Some(found) = found else {
        return Err((RouteResolvedRefs::BackendNotFound, format!("Service {name} has no TCP port {port}")));
    };
    match found.app_protocol.as_deref() {
        Some(protocol @ ("https" | "tls" | "kubernetes.io/wss")) => {
            let message = format!("Service {name} port {port} wants {protocol}, which is not supported");
            Err((RouteResolvedRefs::UnsupportedProtocol, message))
        }
        _ => Ok(BackendService { name, port }),
    }
}

/// Zero means no timeout (`HTTPRouteTimeouts`), and so is left out.
fn translate_timeouts(rule: &HttpRouteRule) -> RouteTimeouts {
    let Some(timeouts) = &rule.timeouts else { return RouteTimeouts::default() };
    let some = |duration: Duration| (!duration.is_zero()).then_some(duration);
    RouteTimeouts {
        request: timeouts.request.and_then(|duration| some(duration.0)),
        backend_request: timeouts.backend_request.and_then(|duration| some(duration.0)),
    }
}
