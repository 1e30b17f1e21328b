// SPDX-License-Identifier: Apache-2.0
//! Routes and rate limits.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Hostname, ListenerParent, ObjectName, ResourceKey};

/// One rule of an HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The kind of the route object.
    pub kind: RouteKind,
    /// Namespace and name of the route object.
    pub origin: ObjectName,
    /// Index of the rule in its object.
    pub rule: u32,
    /// `metadata.creationTimestamp` in seconds since 1970: the older route wins a tie; 0 when unknown.
    pub created: i64,
    /// What the route is attached to, where it was accepted.
    pub parents: Vec<RouteParent>,
    /// Hostnames (exact or `*.suffix`); empty means any. Ignored for a parent Service.
    pub hostnames: Vec<Arc<str>>,
    /// Any of these must match; never empty (the default is the path prefix `/`).
    pub matches: Vec<RouteMatch>,
    /// What is done with a request that matches.
    pub action: RouteAction,
}

impl Route {
    /// The key under which the state holds it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::Route { kind: self.kind, origin: self.origin.clone(), rule: self.rule }
    }
}

/// The kind of a route object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RouteKind {
    /// `gateway.networking.k8s.io` HTTPRoute.
    HttpRoute,
    /// `gateway.networking.k8s.io` GRPCRoute.
    GrpcRoute,
}

impl RouteKind {
    /// Every kind.
    pub const ALL: [RouteKind; 2] = [RouteKind::HttpRoute, RouteKind::GrpcRoute];

    /// The kind with its API group, as `kubectl` writes it.
    pub fn resource_kind(self) -> &'static str {
        match self {
            RouteKind::HttpRoute => "httproute.gateway.networking.k8s.io",
            RouteKind::GrpcRoute => "grpcroute.gateway.networking.k8s.io",
        }
    }
}

/// What a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RouteParent {
    /// A listener of a Gateway or ListenerSet.
    Listener {
        /// The object that it is part of.
        parent: ListenerParent,
        /// Name of the listener.
        listener: Arc<str>,
    },
    /// A Service: requests to its address.
    Service {
        /// Namespace and name.
        service: ObjectName,
        /// One port, or every port.
        port: Option<u16>,
    },
}

/// Conditions that must all hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The method; any when absent.
    pub method: Option<Arc<str>>,
    /// Headers; names in lower case.
    pub headers: Vec<ValueMatch>,
    /// Query parameters; the first value of a name counts.
    pub query: Vec<ValueMatch>,
}

/// How the path must look. The query is not part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PathMatch {
    /// The whole path, byte for byte.
    Exact(Arc<str>),
    /// Whole path elements; a trailing `/` is ignored.
    Prefix(Arc<str>),
    /// A regular expression (RE2 syntax) over the whole path.
    Regex(Arc<str>),
}

/// A header or a query parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueMatch {
    /// Its name.
    pub name: Arc<str>,
    /// What its value must be.
    pub value: StringMatch,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StringMatch {
    /// Equal to this.
    Exact(Arc<str>),
    /// Matched as a whole by this regular expression (RE2 syntax).
    Regex(Arc<str>),
}

/// What is done with a request that matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteAction {
    /// Filters, in the order of the object.
    pub filters: Vec<RouteFilter>,
    /// Backends. Empty without a redirect means 500.
    pub backends: Vec<RouteBackend>,
    /// Timeouts.
    pub timeouts: RouteTimeouts,
    /// Retries.
    pub retry: Option<RouteRetry>,
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RouteFilter {
    /// Changes the request's headers.
    RequestHeaders(HeaderChanges),
    /// Changes the response's headers.
    ResponseHeaders(HeaderChanges),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Changes the host or the path.
    Rewrite(Rewrite),
    /// A filter that the controller refused: requests are answered with 500.
    Invalid,
}

/// Changes of headers, done in the order set, add, remove. Names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeaderChanges {
    /// Replace or add.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Add to what is there.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Remove.
    pub remove: Vec<Arc<str>>,
}

/// A redirect, with what is not given taken from the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Redirect {
    /// The scheme.
    pub scheme: Option<Scheme>,
    /// The host.
    pub hostname: Option<Hostname>,
    /// The path.
    pub path: Option<PathChange>,
    /// The port.
    pub port: Option<u16>,
    /// The status code.
    pub status: RedirectStatus,
}

/// The scheme of a URI, as far as a redirect may name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// `http`, port 80.
    Http,
    /// `https`, port 443.
    Https,
}

impl Scheme {
    /// As it stands in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// Reads it as it stands in a URI.
    pub fn parse(text: &str) -> Option<Scheme> {
        [Scheme::Http, Scheme::Https].into_iter().find(|scheme| scheme.as_str() == text)
    }
}

/// The status code of a redirect (Gateway API v1.6, `HTTPRequestRedirectFilter.statusCode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub enum RedirectStatus {
    /// 301 Moved Permanently.
    MovedPermanently = 301,
    /// 302 Found, where an object names none.
    Found = 302,
    /// 303 See Other.
    SeeOther = 303,
    /// 307 Temporary Redirect.
    TemporaryRedirect = 307,
    /// 308 Permanent Redirect.
    PermanentRedirect = 308,
}

impl From<RedirectStatus> for u16 {
    fn from(status: RedirectStatus) -> u16 {
        status as u16
    }
}

impl TryFrom<u16> for RedirectStatus {
    type Error = &'static str;

    fn try_from(code: u16) -> Result<RedirectStatus, &'static str> {
        use RedirectStatus::{Found, MovedPermanently, PermanentRedirect, SeeOther, TemporaryRedirect};
        [MovedPermanently, Found, SeeOther, TemporaryRedirect, PermanentRedirect]
            .into_iter()
            .find(|status| u16::from(*status) == code)
            .ok_or("must be 301, 302, 303, 307 or 308")
    }
}

/// A rewrite of the request on its way to the backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The host.
    pub hostname: Option<Hostname>,
    /// The path.
    pub path: Option<PathChange>,
}

/// A change of the path; the query stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PathChange {
    /// The whole path.
    Full(Arc<str>),
    /// The part that the prefix match covers.
    Prefix(Arc<str>),
}

/// A backend and its weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteBackend {
    /// Where the requests go; nothing means that the reference is not valid: 500 for its share.
    pub service: Option<BackendService>,
    /// Its share of the sum of all weights; 0 means none.
    pub weight: u32,
    /// Filters for this backend only: header changes.
    pub filters: Vec<RouteFilter>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BackendService {
    /// Namespace and name.
    pub name: ObjectName,
    /// The service's port.
    pub port: u16,
}

/// Timeouts; absent or zero means none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteTimeouts {
    /// From the request's head to the end of the response, all tries together.
    pub request: Option<Duration>,
    /// One try.
    pub backend_request: Option<Duration>,
}

/// Retries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteRetry {
    /// Status codes that are tried again, besides failures to connect.
    pub codes: Vec<u16>,
    /// How many times at most, the first try not counted.
    pub attempts: u32,
    /// The base of the exponential pause between tries.
    pub backoff: Option<Duration>,
}

/// A local token bucket: each node counts on its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Namespace and name of the object.
    pub name: ObjectName,
    /// What it holds back.
    pub target: RateLimitTarget,
    /// Tokens per `interval`; 0 means that no request is let through: every one is answered with 429.
    pub requests: u32,
    /// The time in which `requests` tokens come back.
    pub interval: Duration,
    /// The size of the bucket; at least 1.
    pub burst: u32,
    /// Whether every client workload has a bucket of its own.
    pub per_client: bool,
}

impl RateLimit {
    /// The key under which the state holds it.
    pub fn key(&self) -> ResourceKey {
        ResourceKey::RateLimit(self.name.clone())
    }
}

/// What a rate limit holds back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RateLimitTarget {
    /// Requests that match a rule of this route, in its own namespace.
    Route {
        /// The kind of the route object.
        kind: RouteKind,
        /// Namespace and name of the route object.
        name: ObjectName,
    },
    /// Requests to this service.
    Service(ObjectName),
}
