// SPDX-License-Identifier: Apache-2.0
//! Which rule serves a request, with the precedence of the Gateway API.
//!
//! Among all rules whose hostname, path, method, headers and query match, the winner is the one with
//! the most specific hostname, then the best path (Exact, then RegularExpression, then the longest
//! PathPrefix), then the one that names a method, has most headers, most query parameters, is oldest,
//! and comes first by namespace, name and index (HTTPRouteRule documentation of Gateway API v1.6).
//!
//! Read [`RouteTable::find`] first; [`path`] holds the index that makes it independent of the number
//! of routes, [`conditions`] what is left to check for each candidate.

use std::{collections::HashMap, sync::Arc};

mod conditions;
pub(crate) mod filter;
mod path;
pub(crate) mod ratelimit;
pub(crate) mod rule;
pub(crate) mod slots;
#[cfg(test)]
mod tests;

pub(crate) use conditions::BadExpression;

use conditions::Conditions;
use path::PathIndex;
use weft_codec::message::RequestHead;
use weft_ir::{PathMatch, Route};

use crate::route::rule::Rule;

/// The rules of one listener, or of one port of a Service.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    entries: Vec<Entry>,
    exact_hosts: HashMap<Box<[u8]>, PathIndex>,
    /// By the suffix after `*.`.
    wildcard_hosts: HashMap<Box<[u8]>, PathIndex>,
    any_host: PathIndex,
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

/// Whether all expressions and header names of a route can be used.
pub(crate) fn check(route: &Route) -> Result<(), BadExpression> {
    for wanted in &route.matches {
        Conditions::compile(wanted)?;
        if let PathMatch::Regex(expression) = &wanted.path {
            conditions::anchored(expression)?;
        }
    }
    Ok(())
}

/// How the hostnames of routes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hostnames {
    /// As conditions: the parent is a listener.
    Matched,
    /// Not at all: the parent is a Service (GAMMA).
    Ignored,
}

impl RouteTable {
    /// Builds the table. Matches whose expressions are not valid are left out and returned.
    pub(crate) fn build(
        routes: &[(&Route, Arc<Rule>)],
        hostnames: Hostnames,
    ) -> (RouteTable, Vec<BadExpression>) {
        let mut bad = Vec::new();
        let mut candidates = Vec::new();
        for (route, rule) in routes {
            for (index, wanted) in route.matches.iter().enumerate() {
                match Conditions::compile(wanted) {
                    Ok(conditions) => {
                        candidates.push(Candidate { route, rule, index, path: &wanted.path, conditions });
                    }
                    Err(error) => bad.push(error),
                }
            }
        }
        // Positions in `entries` follow the precedence, so that an index only keeps numbers in order.
        candidates.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut table = RouteTable::default();
        let mut indexed = IndexBuilder::default();
        for Candidate { route, rule, path, conditions, .. } in candidates {
            indexed.add(route, path, table.entries.len() as u32, hostnames);
            let prefix = match path {
                PathMatch::Prefix(prefix) => Some(prefix.trim_end_matches('/').len()),
                PathMatch::Exact(_) | PathMatch::Regex(_) => None,
            };
            table.entries.push(Entry { rule: Arc::clone(rule), conditions, prefix });
        }
        indexed.finish(&mut table, &mut bad);
        (table, bad)
    }

    /// The rule for a request to `host`, which is in lower case and has no port.
    pub(crate) fn find(&self, host: &[u8], request: &RequestHead) -> Option<Matched<'_>> {
        let path = request.path().as_bytes();
        let accepts = |number: u32| {
            self.entries.get(number as usize).is_some_and(|entry| entry.conditions.hold(request))
        };
        let number = self
            .exact_hosts
            .get(host)
            .and_then(|index| index.first(path, accepts))
            .or_else(|| self.find_wildcard(host, path, accepts))
            .or_else(|| self.any_host.first(path, accepts))?;
        let entry = self.entries.get(number as usize)?;
        Some(Matched { rule: &entry.rule, prefix: entry.prefix })
    }

    /// Tries the suffixes of the host, the longest first: `*.x` stands for one label or more.
    fn find_wildcard(&self, host: &[u8], path: &[u8], accepts: impl Fn(u32) -> bool) -> Option<u32> {
        if self.wildcard_hosts.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some(dot) = rest.iter().position(|byte| *byte == b'.') {
            rest = rest.get(dot + 1..)?;
            let found = self.wildcard_hosts.get(rest).and_then(|index| index.first(path, &accepts));
            if found.is_some() {
                return found;
            }
        }
        None
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

/// Collects the indices by hostname until all matches are known.
#[derive(Default)]
struct IndexBuilder {
    exact: HashMap<Box<[u8]>, path::Builder>,
    wildcard: HashMap<Box<[u8]>, path::Builder>,
    any: path::Builder,
}

impl IndexBuilder {
    fn add(&mut self, route: &Route, wanted: &PathMatch, number: u32, hostnames: Hostnames) {
        if hostnames == Hostnames::Ignored || route.hostnames.is_empty() {
            self.any.add(wanted, number);
            return;
        }
        for hostname in &route.hostnames {
            let hostname = hostname.to_ascii_lowercase();
            let builder = match hostname.strip_prefix("*.") {
                Some(suffix) => self.wildcard.entry(suffix.as_bytes().into()),
                None => self.exact.entry(hostname.as_bytes().into()),
            };
            builder.or_default().add(wanted, number);
        }
    }

    fn finish(self, table: &mut RouteTable, bad: &mut Vec<BadExpression>) {
        let mut all = |builders: HashMap<Box<[u8]>, path::Builder>| {
            builders.into_iter().map(|(host, builder)| (host, builder.finish(bad))).collect::<HashMap<_, _>>()
        };
        table.exact_hosts = all(self.exact);
        table.wildcard_hosts = all(self.wildcard);
        table.any_host = self.any.finish(bad);
    }
}
