// SPDX-License-Identifier: Apache-2.0
//! Routes and rate limits.

use std::sync::Arc;

use super::{
    WireError,
    fields::{
        all, checked, duration, object_name, parse_duration, parse_object_name, parse_optional_duration,
        parse_service_name, port, required, share, shared, small, string, strings,
    },
    generated::{self as pb, path_change, path_match, rate_limit, route_filter, route_parent, value_match},
    service::{listener_parent, parse_listener_parent},
};
use crate::{
    BackendService, HeaderChanges, Hostname, PathChange, PathMatch, RateLimit, RateLimitTarget, Redirect,
    RedirectStatus, Rewrite, Route, RouteAction, RouteBackend, RouteFilter, RouteKind, RouteMatch,
    RouteParent, RouteRetry, RouteTimeouts, Scheme, StringMatch, ValueMatch, is_subdomain,
};

pub(super) fn route_to_wire(from: &Route) -> pb::Route {
    pb::Route {
        kind: route_kind(from.kind),
        origin: object_name(&from.origin),
        rule: from.rule,
        created: from.created,
        parents: from.parents.iter().map(parent).collect(),
        hostnames: strings(&from.hostnames),
        matches: from.matches.iter().map(route_match).collect(),
        action: Some(action(&from.action)),
    }
}

pub(super) fn parse_route(from: pb::Route) -> Result<Route, WireError> {
    Ok(Route {
        kind: parse_route_kind(from.kind, "route.kind")?,
        origin: parse_object_name(from.origin, "route.origin")?,
        rule: from.rule,
        created: from.created,
        parents: all(from.parents, parse_parent)?,
        hostnames: shared(from.hostnames),
        matches: all(from.matches, parse_route_match)?,
        action: parse_action(required(from.action, "route.action")?)?,
    })
}

fn route_kind(from: RouteKind) -> i32 {
    match from {
        RouteKind::HttpRoute => pb::RouteKind::HttpRoute,
        RouteKind::GrpcRoute => pb::RouteKind::GrpcRoute,
    }
    .into()
}

fn parse_route_kind(from: i32, field: &'static str) -> Result<RouteKind, WireError> {
    match pb::RouteKind::try_from(from) {
        Ok(pb::RouteKind::HttpRoute) => Ok(RouteKind::HttpRoute),
        Ok(pb::RouteKind::GrpcRoute) => Ok(RouteKind::GrpcRoute),
        Ok(pb::RouteKind::Unspecified) | Err(_) => Err(WireError::UnknownEnum { field, value: from }),
    }
}

pub(super) fn rate_limit_to_wire(from: &RateLimit) -> pb::RateLimit {
    let target = match &from.target {
        RateLimitTarget::Route { kind, name } => {
            rate_limit::Target::Route(pb::TargetRoute { kind: route_kind(*kind), name: object_name(name) })
        }
        RateLimitTarget::Service(service) => {
            rate_limit::Target::Service(object_name(service).unwrap_or_default())
        }
    };
    pb::RateLimit {
        name: object_name(&from.name),
        target: Some(target),
        requests: from.requests,
        interval: duration(&Some(from.interval)),
        burst: from.burst,
        per_client: from.per_client,
    }
}

pub(super) fn parse_rate_limit(from: pb::RateLimit) -> Result<RateLimit, WireError> {
    let target = match required(from.target, "rate_limit.target")? {
        rate_limit::Target::Route(route) => RateLimitTarget::Route {
            kind: parse_route_kind(route.kind, "target_route.kind")?,
            name: parse_object_name(route.name, "target_route.name")?,
        },
        rate_limit::Target::Service(service) => {
            RateLimitTarget::Service(parse_service_name(Some(service), "rate_limit.service")?)
        }
    };
    Ok(RateLimit {
        name: parse_object_name(from.name, "rate_limit.name")?,
        target,
        requests: from.requests,
        interval: parse_duration(required(from.interval, "rate_limit.interval")?, "rate_limit.interval")?,
        burst: from.burst,
        per_client: from.per_client,
    })
}

fn parent(from: &RouteParent) -> pb::RouteParent {
    let parent = match from {
        RouteParent::Listener { parent, listener } => route_parent::Parent::Listener(pb::ParentListener {
            parent: Some(listener_parent(parent)),
            listener: listener.to_string(),
        }),
        RouteParent::Service { service, port } => route_parent::Parent::Service(pb::ParentService {
            service: object_name(service),
            port: port.map(u32::from),
        }),
    };
    pb::RouteParent { parent: Some(parent) }
}

fn parse_parent(from: pb::RouteParent) -> Result<RouteParent, WireError> {
    Ok(match required(from.parent, "route_parent.parent")? {
        route_parent::Parent::Listener(from) => RouteParent::Listener {
            parent: parse_listener_parent(from.parent)?,
            listener: checked(from.listener, is_subdomain, "parent_listener.listener")?,
        },
        route_parent::Parent::Service(from) => RouteParent::Service {
            service: parse_service_name(from.service, "parent_service.service")?,
            port: from.port.map(|number| port(number, "parent_service.port")).transpose()?,
        },
    })
}

fn route_match(from: &RouteMatch) -> pb::RouteMatch {
    let path = match &from.path {
        PathMatch::Exact(path) => path_match::Path::Exact(path.to_string()),
        PathMatch::Prefix(path) => path_match::Path::Prefix(path.to_string()),
        PathMatch::Regex(path) => path_match::Path::Regex(path.to_string()),
    };
    pb::RouteMatch {
        path: Some(pb::PathMatch { path: Some(path) }),
        method: string(&from.method),
        headers: from.headers.iter().map(value).collect(),
        query: from.query.iter().map(value).collect(),
    }
}

fn parse_route_match(from: pb::RouteMatch) -> Result<RouteMatch, WireError> {
    let path = match required(from.path.and_then(|path| path.path), "route_match.path")? {
        path_match::Path::Exact(path) => PathMatch::Exact(path.into()),
        path_match::Path::Prefix(path) => PathMatch::Prefix(path.into()),
        path_match::Path::Regex(path) => PathMatch::Regex(path.into()),
    };
    Ok(RouteMatch {
        path,
        method: share(from.method),
        headers: all(from.headers, parse_value)?,
        query: all(from.query, parse_value)?,
    })
}

fn value(from: &ValueMatch) -> pb::ValueMatch {
    let value = match &from.value {
        StringMatch::Exact(value) => value_match::Value::Exact(value.to_string()),
        StringMatch::Regex(value) => value_match::Value::Regex(value.to_string()),
    };
    pb::ValueMatch { name: from.name.to_string(), value: Some(value) }
}

fn parse_value(from: pb::ValueMatch) -> Result<ValueMatch, WireError> {
    let value = match required(from.value, "value_match.value")? {
        value_match::Value::Exact(value) => StringMatch::Exact(value.into()),
        value_match::Value::Regex(value) => StringMatch::Regex(value.into()),
    };
    Ok(ValueMatch { name: from.name.into(), value })
}

fn action(from: &RouteAction) -> pb::RouteAction {
    pb::RouteAction {
        filters: from.filters.iter().map(filter).collect(),
        backends: from.backends.iter().map(backend).collect(),
        request_timeout: duration(&from.timeouts.request),
        backend_request_timeout: duration(&from.timeouts.backend_request),
        retry: from.retry.as_ref().map(|retry| pb::RouteRetry {
            codes: retry.codes.iter().copied().map(u32::from).collect(),
            attempts: retry.attempts,
            backoff: duration(&retry.backoff),
        }),
    }
}

fn parse_action(from: pb::RouteAction) -> Result<RouteAction, WireError> {
    Ok(RouteAction {
        filters: all(from.filters, parse_filter)?,
        backends: all(from.backends, parse_backend)?,
        timeouts: RouteTimeouts {
            request: parse_optional_duration(from.request_timeout, "route_action.request_timeout")?,
            backend_request: parse_optional_duration(
                from.backend_request_timeout,
                "route_action.backend_request_timeout",
            )?,
        },
        retry: from.retry.map(parse_retry).transpose()?,
    })
}

fn parse_retry(from: pb::RouteRetry) -> Result<RouteRetry, WireError> {
    Ok(RouteRetry {
        codes: all(from.codes, |code| small(code, "route_retry.codes"))?,
        attempts: from.attempts,
        backoff: parse_optional_duration(from.backoff, "route_retry.backoff")?,
    })
}

fn backend(from: &RouteBackend) -> pb::RouteBackend {
    pb::RouteBackend {
        service: from.service.as_ref().map(|service| pb::BackendService {
            name: object_name(&service.name),
            port: service.port.into(),
        }),
        weight: from.weight,
        filters: from.filters.iter().map(filter).collect(),
    }
}

fn parse_backend(from: pb::RouteBackend) -> Result<RouteBackend, WireError> {
    let service = |from: pb::BackendService| -> Result<BackendService, WireError> {
        Ok(BackendService {
            name: parse_service_name(from.name, "backend_service.name")?,
            port: port(from.port, "backend_service.port")?,
        })
    };
    Ok(RouteBackend {
        service: from.service.map(service).transpose()?,
        weight: from.weight,
        filters: all(from.filters, parse_filter)?,
    })
}

fn filter(from: &RouteFilter) -> pb::RouteFilter {
    let filter = match from {
        RouteFilter::RequestHeaders(changes) => route_filter::Filter::RequestHeaders(header_changes(changes)),
        RouteFilter::ResponseHeaders(changes) => {
            route_filter::Filter::ResponseHeaders(header_changes(changes))
        }
        RouteFilter::Redirect(from) => route_filter::Filter::Redirect(pb::Redirect {
            scheme: from.scheme.map(|scheme| scheme.as_str().to_owned()),
            hostname: from.hostname.as_ref().map(|name| name.as_str().to_owned()),
            path: from.path.as_ref().map(path_change),
            port: from.port.map(u32::from),
            status: u16::from(from.status).into(),
        }),
        RouteFilter::Rewrite(from) => route_filter::Filter::Rewrite(pb::Rewrite {
            hostname: from.hostname.as_ref().map(|name| name.as_str().to_owned()),
            path: from.path.as_ref().map(path_change),
        }),
        RouteFilter::Invalid => route_filter::Filter::Invalid(pb::InvalidFilter {}),
    };
    pb::RouteFilter { filter: Some(filter) }
}

fn parse_filter(from: pb::RouteFilter) -> Result<RouteFilter, WireError> {
    Ok(match required(from.filter, "route_filter.filter")? {
        route_filter::Filter::RequestHeaders(from) => RouteFilter::RequestHeaders(parse_header_changes(from)),
        route_filter::Filter::ResponseHeaders(from) => {
            RouteFilter::ResponseHeaders(parse_header_changes(from))
        }
        route_filter::Filter::Redirect(from) => RouteFilter::Redirect(Redirect {
            scheme: from.scheme.map(|text| parse_scheme(&text)).transpose()?,
            hostname: parse_hostname(from.hostname, "redirect.hostname")?,
            path: from.path.map(parse_path_change).transpose()?,
            port: from.port.map(|number| port(number, "redirect.port")).transpose()?,
            status: parse_status(from.status)?,
        }),
        route_filter::Filter::Rewrite(from) => RouteFilter::Rewrite(Rewrite {
            hostname: parse_hostname(from.hostname, "rewrite.hostname")?,
            path: from.path.map(parse_path_change).transpose()?,
        }),
        route_filter::Filter::Invalid(pb::InvalidFilter {}) => RouteFilter::Invalid,
    })
}

fn parse_scheme(text: &str) -> Result<Scheme, WireError> {
    Scheme::parse(text).ok_or(WireError::Name { field: "redirect.scheme" })
}

fn parse_hostname(text: Option<String>, field: &'static str) -> Result<Option<Hostname>, WireError> {
    text.map(|text| Hostname::new(&text).ok_or(WireError::Name { field })).transpose()
}

fn parse_status(code: u32) -> Result<RedirectStatus, WireError> {
    let field = "redirect.status";
    let known = small(code, field)?.try_into();
    known.or(Err(WireError::OutOfRange { field, value: code.into() }))
}

fn path_change(from: &PathChange) -> pb::PathChange {
    let change = match from {
        PathChange::Full(path) => path_change::Change::Full(path.to_string()),
        PathChange::Prefix(path) => path_change::Change::Prefix(path.to_string()),
    };
    pb::PathChange { change: Some(change) }
}

fn parse_path_change(from: pb::PathChange) -> Result<PathChange, WireError> {
    Ok(match required(from.change, "path_change.change")? {
        path_change::Change::Full(path) => PathChange::Full(path.into()),
        path_change::Change::Prefix(path) => PathChange::Prefix(path.into()),
    })
}

fn header_changes(from: &HeaderChanges) -> pb::HeaderChanges {
    pb::HeaderChanges { set: headers(&from.set), add: headers(&from.add), remove: strings(&from.remove) }
}

fn parse_header_changes(from: pb::HeaderChanges) -> HeaderChanges {
    HeaderChanges { set: parse_headers(from.set), add: parse_headers(from.add), remove: shared(from.remove) }
}

fn headers(from: &[(Arc<str>, Arc<str>)]) -> Vec<pb::Header> {
    from.iter().map(|(name, value)| pb::Header { name: name.to_string(), value: value.to_string() }).collect()
}

fn parse_headers(from: Vec<pb::Header>) -> Vec<(Arc<str>, Arc<str>)> {
    from.into_iter().map(|header| (header.name.into(), header.value.into())).collect()
}
