// SPDX-License-Identifier: Apache-2.0
//! The rules of routes, by the resources behind them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use weft_ir::{BackendService, ObjectName, RateLimitTarget, Resource, ResourceKey, Route, RouteParent};

use super::limits::Limits;
use crate::route::{self, RouteTable, rule::Rule, slots::Slots};

/// A route resource with its compiled rule.
#[derive(Clone, Debug)]
pub(super) struct CompiledRoute {
    resource: Arc<Resource>,
    /// What is served in its place where a part of it cannot be used.
    closed: Option<Arc<Route>>,
    rule: Arc<Rule>,
}

/// The rules of the last state.
#[derive(Debug, Default)]
pub(super) struct Rules {
    compiled: HashMap<ResourceKey, CompiledRoute>,
    rejected: BTreeMap<ResourceKey, String>,
}

impl CompiledRoute {
    /// The route.
    pub(super) fn route(&self) -> &Route {
        match (&self.closed, self.resource.as_ref()) {
            (Some(closed), _) => closed,
            (None, Resource::Route(route)) => route,
            (None, _) => unreachable!("invariant: only routes are compiled as such"),
        }
    }

    /// The Services that it is attached to.
    pub(super) fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.route().parents.iter().filter_map(|parent| match parent {
            RouteParent::Service { service, .. } => Some(service),
            RouteParent::Listener { .. } => None,
        })
    }

    fn backends(&self) -> impl Iterator<Item = &BackendService> {
        self.route().action.backends.iter().filter_map(|backend| backend.service.as_ref())
    }
}

impl Rules {
    /// Compiles what is now under a key; yields what was there before.
    pub(super) fn compile(
        &mut self,
        key: &ResourceKey,
        resource: Option<&Arc<Resource>>,
        limits: &Limits,
        slots: &mut Slots<BackendService>,
    ) -> Option<CompiledRoute> {
        let old = self.compiled.remove(key);
        if let Some(resource) = resource
            && let Resource::Route(route) = resource.as_ref()
        {
            let target = RateLimitTarget::Route { kind: route.kind, name: route.origin.clone() };
            let (usable, error) = route::usable(route);
            let rule = Rule::compile(&usable, limits.on(&target), |service| slots.hold(service));
            let closed = error.is_some().then(|| Arc::new(usable.into_owned()));
            match error {
                Some(error) => self.rejected.insert(key.clone(), error.to_string()),
                None => self.rejected.remove(key),
            };
            let compiled = CompiledRoute { resource: Arc::clone(resource), closed, rule: Arc::new(rule) };
            self.compiled.insert(key.clone(), compiled);
        } else {
            self.rejected.remove(key);
        }
        old.iter().flat_map(CompiledRoute::backends).for_each(|service| slots.release(service));
        old
    }

    /// The rule under a key.
    pub(super) fn find(&self, key: &ResourceKey) -> Option<&CompiledRoute> {
        self.compiled.get(key)
    }

    /// The routes of which a part cannot be used, with the reason.
    pub(super) fn rejected(&self) -> impl Iterator<Item = (&ResourceKey, &String)> {
        self.rejected.iter()
    }
}

/// Replaces the rules of a hostname.
pub(super) fn set_host<'a>(
    table: &mut RouteTable,
    host: &str,
    routes: impl IntoIterator<Item = &'a CompiledRoute>,
) {
    let parts: Vec<_> =
        routes.into_iter().map(|compiled| (compiled.route(), Arc::clone(&compiled.rule))).collect();
    table.set_host(host, &parts);
}

/// Whether both are the same rules.
pub(super) fn same(a: &[CompiledRoute], b: &[CompiledRoute]) -> bool {
    let same = |(a, b): (&CompiledRoute, &CompiledRoute)| {
        Arc::ptr_eq(&a.resource, &b.resource) && Arc::ptr_eq(&a.rule, &b.rule)
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}
