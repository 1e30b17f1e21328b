// SPDX-License-Identifier: Apache-2.0
//! Which rule serves a request, with the precedence of the Gateway API.
//!
//! Among all rules whose hostname, path, method, headers and query match, the winner is the one with
//! the most specific hostname, then the best path (Exact, then RegularExpression, then the longest
//! PathPrefix), then the one that names a method, has most headers, most query parameters, is oldest,
//! and comes first by namespace, name and index (HTTPRouteRule documentation of Gateway API v1.6).
//!
//! Read [`RouteTable::find`] first, and [`seen`] for when it need not be asked; [`path`] holds the index that makes it independent of the number
//! of routes, [`conditions`] what is left to check for each candidate.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

mod closed;
mod conditions;
pub(crate) mod filter;
mod path;
pub(crate) mod ratelimit;
pub(crate) mod rule;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod seen;
pub(crate) mod slots;
#[cfg(test)]
mod tests;

pub(crate) use conditions::BadMatch;

use conditions::Conditions;
use path::PathIndex;
use weft_http::head::Head;
use weft_ir::{PathMatch, Route, RouteMatch};
use weft_matching::{Expression, HostMap};

use crate::route::{rule::Rule, seen::Looked};

/// The rules of one listener, or of one port of a Service, by hostname. A clone shares everything with the
/// original, and a changed route costs what the routes of its hostnames cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteTable {
    hosts: HostMap<Arc<HostTable>>,
}

/// The rules of one hostname.
#[derive(Debug, Default)]
struct HostTable {
    entries: Vec<Entry>,
    paths: PathIndex,
    looks_at: LooksAt,
}

/// What some condition of a hostname's rules looks at, besides the path.
#[derive(Debug, Default)]
struct LooksAt {
    method: bool,
    query: bool,
    headers: Box<[Arc<str>]>,
}

/// One match of one rule.
#[derive(Debug)]
struct Entry {
    rule: Arc<Rule>,
    conditions: Conditions,
    /// Length of the path prefix without its trailing slash; `None` for other kinds of path matches.
    prefix: Option<usize>,
}

/// The rule that won.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matched<'a> {
    /// The rule.
    pub(crate) rule: &'a Arc<Rule>,
    /// How much of the path a PathPrefix match covered, its trailing slash left out.
    pub(crate) prefix: Option<usize>,
}

/// The route as it is to be served, and what is wrong with it: as it is where all of it can be used, and
/// otherwise one that answers with an error what it would have matched.
pub(crate) fn usable(route: &Route) -> (Cow<'_, Route>, Option<BadMatch>) {
    match check(route) {
        Ok(()) => (Cow::Borrowed(route), None),
        Err(error) => (Cow::Owned(closed::closed(route)), Some(error)),
    }
}

fn check(route: &Route) -> Result<(), BadMatch> {
    for wanted in &route.matches {
        Conditions::compile(wanted)?;
        if let PathMatch::Regex(text) = &wanted.path {
            Expression::parse(text)?.compile()?;
        }
    }
    Ok(())
}

/// The hostnames of a route in lower case: exact, `*.suffix`, or empty for any.
pub(crate) fn hostnames_of(route: &Route) -> BTreeSet<Arc<str>> {
    if route.hostnames.is_empty() {
        return BTreeSet::from(["".into()]);
    }
    route.hostnames.iter().map(|hostname| hostname.to_ascii_lowercase().into()).collect()
}

/// The longest name of DNS (RFC 1035, section 2.3.4); longer hosts match no hostname.
pub(crate) const MAX_HOST: usize = 255;

/// The host of a request in lower case, without port; empty where it is missing or too long.
pub(crate) fn lower_case_host<'a>(head: &Head, buffer: &'a mut [u8; MAX_HOST]) -> &'a [u8] {
    let host = head.host();
    // A name may end with the dot of the root (RFC 1034, section 3.1).
    let host = host.strip_suffix(b".").unwrap_or(host);
    match buffer.get_mut(..host.len()) {
        Some(lower) => {
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            lower
        }
        None => &[],
    }
}

impl RouteTable {
    /// Replaces the rules of a hostname, as [`hostnames_of`] writes it, by those of routes that were found
    /// [`usable`].
    pub(crate) fn set_host(&mut self, host: &str, routes: &[(&Route, Arc<Rule>)]) {
        self.hosts.set(host, (!routes.is_empty()).then(|| Arc::new(HostTable::build(routes))));
    }

    /// The rule for a request to `host`, which is in lower case and has no port. Adds to `looked` what else
    /// than that host and the path was looked at.
    pub(crate) fn find<'a>(
        &'a self,
        host: &[u8],
        request: &Head,
        looked: &mut Looked<'a>,
    ) -> Option<Matched<'a>> {
        let path = request.path();
        self.hosts.covering(host).find_map(|table| {
            looked.add(table.looks_at.method, table.looks_at.query, &table.looks_at.headers);
            table.find(path, request)
        })
    }
}

impl HostTable {
    fn build(routes: &[(&Route, Arc<Rule>)]) -> HostTable {
        let mut candidates = Vec::new();
        let mut used = Vec::new();
        for (route, rule) in routes {
            for (index, wanted) in route.matches.iter().enumerate() {
                let Ok(conditions) = Conditions::compile(wanted) else { continue };
                used.push(wanted);
                candidates.push(Candidate { route, rule, index, path: &wanted.path, conditions });
            }
        }
        // Positions in `entries` follow the precedence, so that an index only keeps numbers in order.
        candidates.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut entries = Vec::with_capacity(candidates.len());
        let mut paths = path::Builder::default();
        for Candidate { rule, path, conditions, .. } in candidates {
            paths.add(path, entries.len() as u32);
            let prefix = match path {
                PathMatch::Prefix(prefix) => Some(prefix.trim_end_matches('/').len()),
                PathMatch::Exact(_) | PathMatch::Regex(_) => None,
            };
            entries.push(Entry { rule: Arc::clone(rule), conditions, prefix });
        }
        HostTable { entries, paths: paths.finish(), looks_at: LooksAt::of(&used) }
    }

    fn find(&self, path: &[u8], request: &Head) -> Option<Matched<'_>> {
        let accepts = |number: u32| {
            self.entries.get(number as usize).is_some_and(|entry| entry.conditions.hold(request))
        };
        let number = self.paths.first(path, accepts)?;
        let entry = self.entries.get(number as usize)?;
        Some(Matched { rule: &entry.rule, prefix: entry.prefix })
    }
}

impl LooksAt {
    fn of(matches: &[&RouteMatch]) -> LooksAt {
        let headers = matches.iter().flat_map(|wanted| &wanted.headers);
        let headers: BTreeSet<_> = headers.map(|header| header.name.to_ascii_lowercase()).collect();
        LooksAt {
            method: matches.iter().any(|wanted| wanted.method.is_some()),
            query: matches.iter().any(|wanted| !wanted.query.is_empty()),
            headers: headers.into_iter().map(Arc::from).collect(),
        }
    }
}

/// One match of one rule, before its place is known.
struct Candidate<'a> {
    route: &'a Route,
    rule: &'a Arc<Rule>,
    index: usize,
    path: &'a PathMatch,
    conditions: Conditions,
}

impl Candidate<'_> {
    /// Sorts the better match of two with the same path first. An unknown age counts as the youngest.
    fn rank(&self) -> (conditions::Rank, i64, &weft_ir::ObjectName, u32, usize) {
        let age = if self.route.created == 0 { i64::MAX } else { self.route.created };
        (self.conditions.rank(), age, &self.route.origin, self.route.rule, self.index)
    }
}
