// SPDX-License-Identifier: Apache-2.0
//! Compiled rules and route tables, kept as long as the resources behind them are the same.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use weft_ir::{ObjectName, Resource, ResourceKey, Route};

use crate::route::{Hostnames, RouteTable, ratelimit::RateLimiter, rule::Rule};

/// A route resource with its compiled rule.
#[derive(Clone, Debug)]
pub(super) struct CompiledRoute {
    pub(super) resource: Arc<Resource>,
    /// What is served in its place where a part of it cannot be used.
    pub(super) closed: Option<Arc<Route>>,
    pub(super) rule: Arc<Rule>,
}

impl CompiledRoute {
    /// The route; the resource was checked to be one when this was made.
    pub(super) fn route(&self) -> Option<&Route> {
        match (&self.closed, self.resource.as_ref()) {
            (Some(closed), _) => Some(closed),
            (None, Resource::Route(route)) => Some(route),
            (None, _) => None,
        }
    }

    pub(super) fn is_made_from(&self, resource: &Arc<Resource>, limits: &[Arc<RateLimiter>]) -> bool {
        Arc::ptr_eq(&self.resource, resource) && same_limits(&self.rule.limits, limits)
    }
}

/// Whose routes a table holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TableKey {
    Service(ObjectName, u16),
    /// The listeners that share an address, a port and a hostname.
    Listeners(Vec<ResourceKey>),
}

#[derive(Debug)]
struct Built {
    routes: Vec<CompiledRoute>,
    table: Arc<RouteTable>,
}

/// Route tables of the last state; those of the next one are taken from here where they can be.
#[derive(Debug)]
pub(super) struct Tables<K = TableKey> {
    built: HashMap<K, Built>,
}

impl<K> Default for Tables<K> {
    fn default() -> Self {
        Tables { built: HashMap::new() }
    }
}

impl<K: Eq + Hash> Tables<K> {
    /// The table over these routes: the one of `last` if nothing has changed.
    pub(super) fn table(
        &mut self,
        last: &mut Tables<K>,
        key: K,
        routes: Vec<CompiledRoute>,
        hostnames: Hostnames,
    ) -> Arc<RouteTable> {
        if let Some(built) = self.built.get(&key) {
            return Arc::clone(&built.table);
        }
        let built = match last.built.remove(&key) {
            Some(built) if same_routes(&built.routes, &routes) => built,
            _ => {
                let parts: Vec<(&Route, Arc<Rule>)> = routes
                    .iter()
                    .filter_map(|compiled| Some((compiled.route()?, Arc::clone(&compiled.rule))))
                    .collect();
                let table = RouteTable::build(&parts, hostnames);
                Built { routes, table: Arc::new(table) }
            }
        };
        let table = Arc::clone(&built.table);
        self.built.insert(key, built);
        table
    }
}

pub(super) fn same_limits(a: &[Arc<RateLimiter>], b: &[Arc<RateLimiter>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn same_routes(a: &[CompiledRoute], b: &[CompiledRoute]) -> bool {
    let same = |(a, b): (&CompiledRoute, &CompiledRoute)| {
        Arc::ptr_eq(&a.resource, &b.resource) && Arc::ptr_eq(&a.rule, &b.rule)
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}
