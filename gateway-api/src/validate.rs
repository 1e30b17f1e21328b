// SPDX-License-Identifier: Apache-2.0
//! What the schema of the API server refuses, for objects that never saw one.
//!
//! The numbers and rules are those of the CRDs of Gateway API v1.6.

use weft_api::{
    decode::DecodeError,
    gateway::{Gateway, Listener},
    httproute::{
        HeaderModifier, HttpBackendRef, HttpPathMatch, HttpRoute, HttpRouteFilter, HttpRouteRule,
        PathMatchType,
    },
};
use weft_ir::{is_label_key, is_subdomain};
use weft_matching::hostname;

use crate::selector;

/// Checks what of a Gateway concerns all of it. What is wrong with a listener refuses that listener.
pub fn validate_gateway(gateway: &Gateway) -> Result<(), DecodeError> {
    let spec = &gateway.spec;
    require(!spec.gateway_class_name.is_empty(), "spec.gatewayClassName", "is required")?;
    require((1..=64).contains(&spec.listeners.len()), "spec.listeners", "needs 1 to 64 listeners")?;
    for (index, listener) in spec.listeners.iter().enumerate() {
        let path = format!("spec.listeners[{index}].name");
        require(is_subdomain(&listener.name), &path, "must be a DNS subdomain (RFC 1123)")?;
        let unique = spec.listeners[..index].iter().all(|earlier| earlier.name != listener.name);
        require(unique, &path, "another listener has this name")?;
    }
    Ok(())
}

/// Checks what of an HTTPRoute concerns all of it. What is wrong with a rule, a hostname or a parent
/// refuses that alone.
pub fn validate_route(route: &HttpRoute) -> Result<(), DecodeError> {
    let spec = &route.spec;
    require(spec.parent_refs.len() <= 32, "spec.parentRefs", "has more than 32 entries")?;
    require(spec.hostnames.len() <= 16, "spec.hostnames", "has more than 16 entries")?;
    let counted = spec.rules.as_ref().is_none_or(|rules| (1..=16).contains(&rules.len()));
    require(counted, "spec.rules", "needs 1 to 16 rules")
}

/// Checks a listener.
pub(crate) fn listener(path: &str, listener: &Listener) -> Result<(), DecodeError> {
    require(listener.port != 0, &format!("{path}.port"), "must be 1 to 65535")?;
    if let Some(name) = &listener.hostname {
        let fits = name.is_empty() || hostname::canonical(name).is_some();
        require(fits, &format!("{path}.hostname"), "is no hostname")?;
    }
    if let Some(wanted) = &listener.allowed_routes.namespaces.selector {
        let at = format!("{path}.allowedRoutes.namespaces.selector");
        selector::check(wanted, is_label_key).map_err(|message| DecodeError::new(at, message))?;
    }
    Ok(())
}

/// Checks a rule, its matches, filters and backends left out.
pub(crate) fn rule(path: &str, rule: &HttpRouteRule) -> Result<(), DecodeError> {
    require(rule.matches.len() <= 64, &format!("{path}.matches"), "has more than 64 entries")?;
    require(rule.backend_refs.len() <= 16, &format!("{path}.backendRefs"), "has more than 16 entries")?;
    validate_filters(&format!("{path}.filters"), &rule.filters, rule)?;
    for (index, one) in rule.backend_refs.iter().enumerate() {
        backend(&format!("{path}.backendRefs[{index}]"), one)?;
    }
    validate_times(path, rule)
}

/// Checks the filters of a backend.
pub(crate) fn backend_filters(
    path: &str,
    filters: &[HttpRouteFilter],
    rule: &HttpRouteRule,
) -> Result<(), DecodeError> {
    validate_filters(&format!("{path}.filters"), filters, rule)
}

/// Whether filters exclude each other (`HTTPRouteRule.filters`).
pub(crate) fn incompatible(filters: &[HttpRouteFilter]) -> bool {
    let has = |kind: &str| filters.iter().any(|filter| &*filter.kind == kind);
    has("RequestRedirect") && has("URLRewrite")
}

/// `HTTPPathMatch`: absolute, without empty, `.` or `..` elements, and without encoded slashes.
pub(crate) fn path_match(given: &HttpPathMatch) -> Result<(), String> {
    let value = &*given.value;
    let must = |holds: bool, message: &str| if holds { Ok(()) } else { Err(message.to_owned()) };
    must(value.len() <= 1024, "is longer than 1024 bytes")?;
    if given.kind == PathMatchType::RegularExpression {
        return Ok(());
    }
    must(value.starts_with('/'), "must start with `/`")?;
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        must(!value.contains(part), &format!("must not contain `{part}`"))?;
    }
    for end in ["/..", "/."] {
        must(!value.ends_with(end), &format!("must not end with `{end}`"))?;
    }
    must(is_path(value), "has a character that a path cannot have")
}

/// The name of a header or query parameter.
pub(crate) fn name(name: &str) -> Result<(), String> {
    if token(name) { Ok(()) } else { Err("is no name of a header or parameter".into()) }
}

/// Whether a text has only the characters of a path (RFC 3986 section 3.3).
pub(crate) fn is_path(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&byte))
}

fn backend(path: &str, backend: &HttpBackendRef) -> Result<(), DecodeError> {
    let is_service = backend.group.as_deref().unwrap_or_default().is_empty()
        && backend.kind.as_deref().unwrap_or("Service") == "Service";
    require(!is_service || backend.port.is_some(), &format!("{path}.port"), "is required for a Service")?;
    require(backend.port != Some(0), &format!("{path}.port"), "must be 1 to 65535")?;
    let weight = backend.weight.unwrap_or(1);
    require(weight <= 1_000_000, &format!("{path}.weight"), "must be at most 1000000")
}

fn validate_filters(
    path: &str,
    filters: &[HttpRouteFilter],
    rule: &HttpRouteRule,
) -> Result<(), DecodeError> {
    require(filters.len() <= 16, path, "has more than 16 entries")?;
    let of_kind = |kind: &str| filters.iter().filter(|filter| &*filter.kind == kind).count();
    for kind in ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite"] {
        require(of_kind(kind) <= 1, path, &format!("has more than one filter of type {kind}"))?;
    }
    let redirects = of_kind("RequestRedirect") > 0;
    require(!incompatible(filters), path, "cannot have both a redirect and a rewrite")?;
    require(!redirects || rule.backend_refs.is_empty(), path, "a redirect cannot have backends")?;
    for (index, filter) in filters.iter().enumerate() {
        validate_filter(&format!("{path}[{index}]"), filter, rule)?;
    }
    Ok(())
}

fn validate_filter(path: &str, filter: &HttpRouteFilter, rule: &HttpRouteRule) -> Result<(), DecodeError> {
    for changes in [&filter.request_header_modifier, &filter.response_header_modifier].into_iter().flatten() {
        validate_headers(path, changes)?;
    }
    let redirect = filter.request_redirect.as_ref();
    let rewrite = filter.url_rewrite.as_ref();
    if let Some(redirect) = redirect {
        let status = redirect.status_code.unwrap_or(302);
        let at = format!("{path}.requestRedirect.statusCode");
        require([301, 302, 303, 307, 308].contains(&status), &at, "must be 301, 302, 303, 307 or 308")?;
        let scheme = redirect.scheme.as_deref().unwrap_or("http");
        let at = format!("{path}.requestRedirect.scheme");
        require(matches!(scheme, "http" | "https"), &at, "must be http or https")?;
        require(redirect.port != Some(0), &format!("{path}.requestRedirect.port"), "must be 1 to 65535")?;
    }
    let hostnames = [redirect.and_then(|r| r.hostname.as_ref()), rewrite.and_then(|r| r.hostname.as_ref())];
    for name in hostnames.into_iter().flatten() {
        let exact = hostname::valid(name) && !name.starts_with('*');
        require(exact, path, &format!("`{name}` is no exact hostname"))?;
    }
    let changes = [redirect.and_then(|r| r.path.as_ref()), rewrite.and_then(|r| r.path.as_ref())];
    for change in changes.into_iter().flatten() {
        for text in [&change.replace_full_path, &change.replace_prefix_match].into_iter().flatten() {
            let printable = text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= 1024;
            require(printable, path, "the new path must be printable ASCII of at most 1024 bytes")?;
        }
        let one_prefix = match rule.matches.as_slice() {
            [] => true,
            [only] => only.path.clone().unwrap_or_default().kind == PathMatchType::PathPrefix,
            _ => false,
        };
        let fits = change.replace_prefix_match.is_none() || one_prefix;
        require(fits, path, "ReplacePrefixMatch needs exactly one match, of type PathPrefix")?;
    }
    Ok(())
}

fn validate_headers(path: &str, changes: &HeaderModifier) -> Result<(), DecodeError> {
    for header in changes.set.iter().chain(&changes.add) {
        require(token(&header.name), path, &format!("`{}` is no header name", header.name))?;
        let plain = header.value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        require(plain, path, &format!("the value of {} has control characters", header.name))?;
    }
    for name in &changes.remove {
        require(token(name), path, &format!("`{name}` is no header name"))?;
    }
    Ok(())
}

fn validate_times(path: &str, rule: &HttpRouteRule) -> Result<(), DecodeError> {
    if let Some(timeouts) = &rule.timeouts
        && let (Some(request), Some(backend)) = (timeouts.request, timeouts.backend_request)
    {
        let fits = request.0.is_zero() || backend <= request;
        require(fits, &format!("{path}.timeouts.backendRequest"), "is longer than timeouts.request")?;
    }
    if let Some(retry) = &rule.retry {
        let codes = retry.codes.iter().all(|code| (400..600).contains(code));
        require(codes, &format!("{path}.retry.codes"), "must be 400 to 599")?;
    }
    Ok(())
}

/// A token of RFC 9110 section 5.6.2.
fn token(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 256
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn require(holds: bool, path: &str, message: &str) -> Result<(), DecodeError> {
    if holds { Ok(()) } else { Err(DecodeError::new(path, message)) }
}
