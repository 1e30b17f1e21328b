// SPDX-License-Identifier: Apache-2.0
//! One rule of an HTTPRoute.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use weft_api::{
    core::L4Protocol,
    httproute::{
        HttpBackendRef, HttpRouteMatch, HttpRouteRule, HttpValueMatch, PathMatchType, ValueMatchType,
    },
    status::reason::RouteResolvedRefs,
};
use weft_ir::{
    BackendService, ObjectName, PathMatch, RouteAction, RouteBackend, RouteFilter, RouteMatch, RouteRetry,
    RouteTimeouts, StringMatch, ValueMatch,
};

use crate::{
    filters,
    world::{World, granted},
};

/// How often a request is tried again where the object does not say (GEP-1731 leaves it open).
const DEFAULT_RETRY_ATTEMPTS: u32 = 1;

/// What is wrong with the rules of a route.
#[derive(Debug, Default)]
pub(crate) struct RuleProblems {
    /// Refused rules by index, with the first reason of each.
    pub(crate) refused: BTreeMap<usize, String>,
    /// References that could not be resolved: reason and message, in the order of the object.
    pub(crate) references: Vec<(RouteResolvedRefs, String)>,
}

impl RuleProblems {
    /// The reasons for which rules are refused, in one line.
    pub(crate) fn refused_text(&self) -> String {
        self.refused.values().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

/// Translates one rule. A rule that is refused keeps what can be understood of its matches, and
/// answers with 500.
pub(crate) fn translate(
    world: &impl World,
    namespace: &Arc<str>,
    index: usize,
    rule: &HttpRouteRule,
    unknown: &[Arc<str>],
    problems: &mut RuleProblems,
) -> (Vec<RouteMatch>, RouteAction) {
    let path = format!("spec.rules[{index}]");
    let mut refuse = |message: String| {
        problems.refused.entry(index).or_insert(message);
    };
    let inside = |field: &&Arc<str>| field.strip_prefix(&*path).is_some_and(|rest| rest.starts_with('.'));
    if let Some(field) = unknown.iter().find(inside) {
        refuse(format!("{field} is not supported"));
    }
    let mut matches: Vec<RouteMatch> = rule
        .matches
        .iter()
        .enumerate()
        .map(|(at, wanted)| translate_match(&format!("{path}.matches[{at}]"), wanted, &mut refuse))
        .collect();
    if matches.is_empty() {
        matches.push(match_everything());
    }
    let mut translated = filters::translate(&format!("{path}.filters"), &rule.filters, &mut refuse);
    let backends = rule
        .backend_refs
        .iter()
        .enumerate()
        .map(|(at, backend)| {
            translate_backend(
                world,
                namespace,
                &format!("{path}.backendRefs[{at}]"),
                backend,
                problems,
                index,
            )
        })
        .collect();
    if problems.refused.contains_key(&index) && !translated.contains(&RouteFilter::Invalid) {
        translated.insert(0, RouteFilter::Invalid);
    }
    let action = RouteAction {
        filters: translated,
        backends,
        timeouts: translate_timeouts(rule),
        retry: rule.retry.as_ref().map(|retry| RouteRetry {
            codes: retry.codes.clone(),
            attempts: retry.attempts.unwrap_or(DEFAULT_RETRY_ATTEMPTS),
            backoff: retry.backoff.map(|duration| duration.0),
        }),
    };
    (matches, action)
}

/// The match of a rule that has none.
pub(crate) fn match_everything() -> RouteMatch {
    RouteMatch { path: PathMatch::Prefix("/".into()), method: None, headers: Vec::new(), query: Vec::new() }
}

fn translate_match(path: &str, wanted: &HttpRouteMatch, refuse: &mut impl FnMut(String)) -> RouteMatch {
    let given = wanted.path.clone().unwrap_or_default();
    let path_match = match given.kind {
        PathMatchType::Exact => PathMatch::Exact(given.value),
        PathMatchType::PathPrefix => PathMatch::Prefix(given.value),
        PathMatchType::RegularExpression => match weft_matching::check(&given.value) {
            Ok(()) => PathMatch::Regex(given.value),
            Err(error) => {
                refuse(format!("{path}.path.value: {error}"));
                PathMatch::Prefix("/".into())
            }
        },
    };
    RouteMatch {
        path: path_match,
        method: wanted.method.map(|method| method.as_str().into()),
        headers: values(&format!("{path}.headers"), &wanted.headers, true, refuse),
        query: values(&format!("{path}.queryParams"), &wanted.query_params, false, refuse),
    }
}

/// Conditions on headers or query parameters. Of several with one name only the first counts
/// (`HTTPHeaderMatch.name`, `HTTPQueryParamMatch.name`).
fn values(
    path: &str,
    wanted: &[HttpValueMatch],
    lower_case: bool,
    refuse: &mut impl FnMut(String),
) -> Vec<ValueMatch> {
    let mut found: Vec<ValueMatch> = Vec::with_capacity(wanted.len());
    for (at, one) in wanted.iter().enumerate() {
        let name: Arc<str> = if lower_case { one.name.to_ascii_lowercase().into() } else { one.name.clone() };
        if found.iter().any(|earlier| earlier.name == name) {
            continue;
        }
        let value = match one.kind {
            ValueMatchType::Exact => StringMatch::Exact(one.value.clone()),
            ValueMatchType::RegularExpression => match weft_matching::check(&one.value) {
                Ok(()) => StringMatch::Regex(one.value.clone()),
                Err(error) => {
                    refuse(format!("{path}[{at}].value: {error}"));
                    continue;
                }
            },
        };
        found.push(ValueMatch { name, value });
    }
    found
}

fn translate_backend(
    world: &impl World,
    namespace: &Arc<str>,
    path: &str,
    backend: &HttpBackendRef,
    problems: &mut RuleProblems,
    index: usize,
) -> RouteBackend {
    let service = match resolve(world, namespace, backend) {
        Ok(service) => Some(service),
        Err((reason, message)) => {
            problems.references.push((reason, format!("{path}: {message}")));
            None
        }
    };
    let mut refuse = |message: String| {
        problems.refused.entry(index).or_insert(message);
    };
    let filters = filters::translate_for_backend(&format!("{path}.filters"), &backend.filters, &mut refuse);
    RouteBackend { service, weight: backend.weight.unwrap_or(1), filters }
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
