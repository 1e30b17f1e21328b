// SPDX-License-Identifier: Apache-2.0
//! HTTPRoute of `gateway.networking.k8s.io`, with `retry` of the experimental channel (GEP-1731).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{decode::DecodeError, duration::ApiDuration, meta::Metadata};

/// HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpRoute {
    /// Its name and age.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: HttpRouteSpec,
    /// What could not be read and was left out, where it is and why. Each closes what it belongs to.
    #[serde(skip)]
    pub unread: Vec<DecodeError>,
}

/// `spec` of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// What it attaches to.
    pub parent_refs: Vec<ParentReference>,
    /// Hostnames; any when empty.
    pub hostnames: Vec<Arc<str>>,
    /// Its rules; absent means one rule that matches everything and has no backend.
    pub rules: Option<Vec<HttpRouteRule>>,
}

/// What a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// The group; the Gateway API's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Arc<str>>,
    /// The kind; `Gateway` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Arc<str>>,
    /// The namespace; the route's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// The name.
    pub name: Arc<str>,
    /// One listener, or one port of a Service by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<Arc<str>>,
    /// Listeners with this port, or one port of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteRule {
    /// Its name.
    pub name: Option<Arc<str>>,
    /// Any of these; everything when absent.
    pub matches: Vec<HttpRouteMatch>,
    /// What is done with the request and the response.
    pub filters: Vec<HttpRouteFilter>,
    /// Where requests go.
    pub backend_refs: Vec<HttpBackendRef>,
    /// Timeouts.
    pub timeouts: Option<HttpRouteTimeouts>,
    /// Retries.
    pub retry: Option<HttpRouteRetry>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// The path.
    pub path: Option<HttpPathMatch>,
    /// Headers.
    pub headers: Vec<HttpValueMatch>,
    /// Query parameters.
    pub query_params: Vec<HttpValueMatch>,
    /// The method.
    pub method: Option<HttpMethod>,
}

/// How the path must look.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpPathMatch {
    /// `Exact`, `PathPrefix` (the default) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: PathMatchType,
    /// The value; `/` when absent.
    pub value: Arc<str>,
}

impl Default for HttpPathMatch {
    fn default() -> HttpPathMatch {
        HttpPathMatch { kind: PathMatchType::default(), value: "/".into() }
    }
}

/// The type of a path match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PathMatchType {
    /// Equal.
    Exact,
    /// Whole path elements from the start.
    #[default]
    PathPrefix,
    /// A regular expression.
    RegularExpression,
}

/// A header or query parameter and its value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct HttpValueMatch {
    /// `Exact` (the default) or `RegularExpression`.
    #[serde(default, rename = "type")]
    pub kind: ValueMatchType,
    /// The name.
    pub name: Arc<str>,
    /// The value.
    pub value: Arc<str>,
}

/// The type of a value match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ValueMatchType {
    /// Equal.
    #[default]
    Exact,
    /// A regular expression.
    RegularExpression,
}

/// The methods that the API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names are those of the methods")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl HttpMethod {
    /// The method as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Head => "HEAD",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Delete => "DELETE",
            HttpMethod::Connect => "CONNECT",
            HttpMethod::Options => "OPTIONS",
            HttpMethod::Trace => "TRACE",
            HttpMethod::Patch => "PATCH",
        }
    }
}

/// A filter: the field that `type` names must be there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteFilter {
    /// Which filter it is.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// For `RequestHeaderModifier`.
    pub request_header_modifier: Option<HeaderModifier>,
    /// For `ResponseHeaderModifier`.
    pub response_header_modifier: Option<HeaderModifier>,
    /// For `RequestRedirect`.
    pub request_redirect: Option<RequestRedirect>,
    /// For `URLRewrite`.
    pub url_rewrite: Option<UrlRewrite>,
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HeaderModifier {
    /// Replace or add.
    pub set: Vec<HttpHeader>,
    /// Add to what is there.
    pub add: Vec<HttpHeader>,
    /// Remove.
    pub remove: Vec<Arc<str>>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct HttpHeader {
    /// Its name.
    pub name: Arc<str>,
    /// Its value.
    pub value: Arc<str>,
}

/// A redirect.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestRedirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// The host.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<u16>,
    /// 301, 302 (the default), 303, 307 or 308.
    pub status_code: Option<u16>,
}

/// A rewrite.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct UrlRewrite {
    /// The host.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// A change of the path.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// The whole path.
    pub replace_full_path: Option<Arc<str>>,
    /// The part that the prefix match covers.
    pub replace_prefix_match: Option<Arc<str>>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct HttpBackendRef {
    /// The group; empty, the group of Service, when absent.
    #[serde(default)]
    pub group: Option<Arc<str>>,
    /// The kind; `Service` when absent.
    #[serde(default)]
    pub kind: Option<Arc<str>>,
    /// The namespace; the route's when absent.
    #[serde(default)]
    pub namespace: Option<Arc<str>>,
    /// The name.
    pub name: Arc<str>,
    /// The port; required for a Service.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its share; 1 when absent.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Filters for this backend only.
    #[serde(default)]
    pub filters: Vec<HttpRouteFilter>,
}

/// Timeouts of a rule; 0 means none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteTimeouts {
    /// The whole request, all tries together.
    pub request: Option<ApiDuration>,
    /// One try.
    pub backend_request: Option<ApiDuration>,
}

/// Retries of a rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpRouteRetry {
    /// Status codes, 400 to 599.
    pub codes: Vec<u16>,
    /// How many times at most, the first try not counted; the implementation's choice when absent.
    pub attempts: Option<u32>,
    /// The least pause between tries.
    pub backoff: Option<ApiDuration>,
}
