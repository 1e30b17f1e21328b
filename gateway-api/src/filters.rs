// SPDX-License-Identifier: Apache-2.0
//! Filters of rules and of backends.

use std::sync::Arc;

use weft_api::httproute::{
    HeaderModifier, HttpHeader, HttpRouteFilter, PathModifier, RequestRedirect, UrlRewrite,
};
use weft_ir::{HeaderChanges, Hostname, PathChange, Redirect, RedirectStatus, Rewrite, RouteFilter, Scheme};
use weft_matching::hostname;

use crate::validate;

/// Headers that say how a message is framed or what the connection does (RFC 9110 section 7.6.1, RFC 9112
/// section 6): the proxy writes them for each connection itself, and so no filter changes them.
const OF_THE_CONNECTION: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Translates the filters of a rule; the error names the first that is not supported.
pub(crate) fn translate(path: &str, filters: &[HttpRouteFilter]) -> Result<Vec<RouteFilter>, String> {
    let one = |(at, filter): (usize, &HttpRouteFilter)| {
        translate_one(filter).map_err(|message| format!("{path}[{at}]: {message}"))
    };
    filters.iter().enumerate().map(one).collect()
}

/// Translates the filters of a backend, which can only change headers.
pub(crate) fn translate_for_backend(
    path: &str,
    filters: &[HttpRouteFilter],
) -> Result<Vec<RouteFilter>, String> {
    let translated = translate(path, filters)?;
    let other = |filter: &RouteFilter| matches!(filter, RouteFilter::Redirect(_) | RouteFilter::Rewrite(_));
    match translated.iter().position(other) {
        Some(at) => Err(format!("{path}[{at}]: {} is not supported at a backend", filters[at].kind)),
        None => Ok(translated),
    }
}

fn translate_one(filter: &HttpRouteFilter) -> Result<RouteFilter, String> {
    let missing = |field: &str| format!("a filter of type {} needs {field}", filter.kind);
    match &*filter.kind {
        "RequestHeaderModifier" => match &filter.request_header_modifier {
            Some(changes) => {
                check_names(changes)?;
                check_host(changes)?;
                Ok(RouteFilter::RequestHeaders(header_changes(changes)))
            }
            None => Err(missing("requestHeaderModifier")),
        },
        "ResponseHeaderModifier" => match &filter.response_header_modifier {
            Some(changes) => {
                check_names(changes)?;
                Ok(RouteFilter::ResponseHeaders(header_changes(changes)))
            }
            None => Err(missing("responseHeaderModifier")),
        },
        "RequestRedirect" => match &filter.request_redirect {
            Some(redirect) => translate_redirect(redirect).map(RouteFilter::Redirect),
            None => Err(missing("requestRedirect")),
        },
        "URLRewrite" => match &filter.url_rewrite {
            Some(rewrite) => translate_rewrite(rewrite).map(RouteFilter::Rewrite),
            None => Err(missing("urlRewrite")),
        },
        other => Err(format!("filters of type {other} are not supported")),
    }
}

fn check_names(changes: &HeaderModifier) -> Result<(), String> {
    let written = changes.set.iter().chain(&changes.add).map(|header| &header.name);
    let connection =
        |name: &&Arc<str>| OF_THE_CONNECTION.iter().any(|known| known.eq_ignore_ascii_case(name));
    match written.chain(&changes.remove).find(connection) {
        Some(name) => Err(format!("header {name} belongs to the connection and cannot be changed")),
        None => Ok(()),
    }
}

/// `Host` is where the request goes: it can be replaced by another, and nothing else.
fn check_host(changes: &HeaderModifier) -> Result<(), String> {
    let is_host = |name: &str| name.eq_ignore_ascii_case("host");
    if changes.add.iter().any(|header| is_host(&header.name))
        || changes.remove.iter().any(|name| is_host(name))
    {
        return Err("header host can only be set, not added or removed".into());
    }
    match changes.set.iter().find(|header| is_host(&header.name)) {
        Some(header) if !hostname::valid_authority(&header.value) => {
            Err(format!("`{}` is no value of header host: write a name, and `:port` after it", header.value))
        }
        _ => Ok(()),
    }
}

/// Of several entries with one name only the first counts (`HTTPHeaderFilter`).
fn header_changes(changes: &HeaderModifier) -> HeaderChanges {
    let pairs = |headers: &[HttpHeader]| {
        let mut found: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(headers.len());
        for header in headers {
            let name: Arc<str> = header.name.to_ascii_lowercase().into();
            if found.iter().all(|(earlier, _)| *earlier != name) {
                found.push((name, header.value.clone()));
            }
        }
        found
    };
    HeaderChanges {
        set: pairs(&changes.set),
        add: pairs(&changes.add),
        remove: changes.remove.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
    }
}

fn translate_redirect(redirect: &RequestRedirect) -> Result<Redirect, String> {
    let scheme = |text: &Arc<str>| Scheme::parse(text).ok_or(format!("scheme {text} is not supported"));
    let status = |code: u16| RedirectStatus::try_from(code).map_err(|wrong| format!("statusCode {wrong}"));
    Ok(Redirect {
        scheme: redirect.scheme.as_ref().map(scheme).transpose()?,
        hostname: redirect.hostname.as_ref().map(exact_hostname).transpose()?,
        path: redirect.path.as_ref().map(path_change).transpose()?,
        port: redirect.port,
        status: redirect.status_code.map_or(Ok(RedirectStatus::Found), status)?,
    })
}

fn translate_rewrite(rewrite: &UrlRewrite) -> Result<Rewrite, String> {
    Ok(Rewrite {
        hostname: rewrite.hostname.as_ref().map(exact_hostname).transpose()?,
        path: rewrite.path.as_ref().map(path_change).transpose()?,
    })
}

fn exact_hostname(text: &Arc<str>) -> Result<Hostname, String> {
    Hostname::new(text).ok_or(format!("`{text}` is no exact hostname"))
}

fn path_change(change: &PathModifier) -> Result<PathChange, String> {
    match (&*change.kind, &change.replace_full_path, &change.replace_prefix_match) {
        ("ReplaceFullPath", Some(path), None) => {
            check_path("replaceFullPath", path)?;
            Ok(PathChange::Full(path.clone()))
        }
        ("ReplacePrefixMatch", None, Some(path)) => {
            // Nothing in place of the prefix is among the examples of `HTTPPathModifier`.
            if !path.is_empty() {
                check_path("replacePrefixMatch", path)?;
            }
            Ok(PathChange::Prefix(path.clone()))
        }
        (kind, _, _) => Err(format!("path: type {kind} needs the field of its name, and no other")),
    }
}

/// The schema allows any text; what is no path could only be answered with an error, request by request.
fn check_path(field: &str, path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("path.{field}: must start with `/`"));
    }
    if !validate::is_path(path) {
        return Err(format!("path.{field}: `{path}` has a character that a path cannot have"));
    }
    Ok(())
}
