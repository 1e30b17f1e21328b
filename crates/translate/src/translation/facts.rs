// SPDX-License-Identifier: Apache-2.0
//! What objects say about others, collected by the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_api::object::{Kind, ObjectKey};
use weft_gateway_api::{Attached, GatewayState, Lookup};
use weft_ir::ObjectName;

/// The facts that no single object holds.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The target of each rate limit, and when the limit was made.
    targets: BTreeMap<ObjectKey, (ObjectKey, i64)>,
    /// The rate limits of each target, those first that were made first.
    limits: BTreeMap<ObjectKey, BTreeSet<(i64, ObjectKey)>>,
    /// The valid Gateways; nothing for those of other controllers.
    gateways: BTreeMap<ObjectKey, Option<Arc<GatewayState>>>,
    /// The routes at the listeners of each Gateway, none of them 0.
    attached: BTreeMap<ObjectKey, Attached>,
    nothing: Attached,
}

/// A listener of a Gateway.
pub(super) type ListenerName = (ObjectName, Arc<str>);

impl Facts {
    /// Notes what a rate limit names now, and returns the targets for which that is news.
    pub(super) fn name_target(
        &mut self,
        limit: &ObjectKey,
        named: Option<(ObjectKey, i64)>,
    ) -> Vec<ObjectKey> {
        let before = self.targets.remove(limit);
        let same = before == named;
        if let Some((target, created)) = &before
            && let Some(limits) = self.limits.get_mut(target)
        {
            limits.remove(&(*created, limit.clone()));
            if limits.is_empty() {
                self.limits.remove(target);
            }
        }
        if let Some((target, created)) = &named {
            self.limits.entry(target.clone()).or_default().insert((*created, limit.clone()));
            self.targets.insert(limit.clone(), (target.clone(), *created));
        }
        if same {
            return Vec::new();
        }
        before.into_iter().chain(named).map(|(target, _)| target).collect()
    }

    /// The rate limit that holds: the oldest, then the first by name (GEP-713, conflict resolution).
    pub(super) fn rate_limit(&self, target: &ObjectKey) -> Option<&ObjectKey> {
        self.limits.get(target)?.first().map(|(_, limit)| limit)
    }

    /// Notes what a Gateway is now, nothing where there is none that is valid, and whether that is news.
    pub(super) fn set_gateway(&mut self, key: &ObjectKey, now: Option<Option<Arc<GatewayState>>>) -> bool {
        if self.gateways.get(key) == now.as_ref() {
            return false;
        }
        match now {
            Some(now) => drop(self.gateways.insert(key.clone(), now)),
            None => drop(self.gateways.remove(key)),
        }
        true
    }

    pub(super) fn gateway(&self, key: &ObjectKey) -> Lookup {
        match self.gateways.get(key) {
            Some(Some(state)) => Lookup::Ours(state.clone()),
            Some(None) => Lookup::Foreign,
            None => Lookup::Missing,
        }
    }

    /// Notes where a route is attached now, and returns the Gateways for which that is news.
    pub(super) fn attach(&mut self, before: &[ListenerName], now: &[ListenerName]) -> BTreeSet<ObjectKey> {
        let key = |name: &ObjectName| {
            let ObjectName { namespace, name } = name.clone();
            ObjectKey { kind: Kind::Gateway, namespace, name }
        };
        let mut news = BTreeSet::new();
        for (gateway, listener) in now.iter().filter(|one| !before.contains(one)) {
            let gateway = key(gateway);
            *self.attached.entry(gateway.clone()).or_default().entry(listener.clone()).or_default() += 1;
            news.insert(gateway);
        }
        for (gateway, listener) in before.iter().filter(|one| !now.contains(one)) {
            let gateway = key(gateway);
            if let Some(listeners) = self.attached.get_mut(&gateway) {
                if let Some(routes) = listeners.get_mut(listener) {
                    *routes -= 1;
                }
                listeners.retain(|_, routes| *routes > 0);
                if listeners.is_empty() {
                    self.attached.remove(&gateway);
                }
            }
            news.insert(gateway);
        }
        news
    }

    pub(super) fn attached(&self, gateway: &ObjectKey) -> &Attached {
        self.attached.get(gateway).unwrap_or(&self.nothing)
    }
}
