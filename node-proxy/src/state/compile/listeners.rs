// SPDX-License-Identifier: Apache-2.0
//! The listeners of Gateways with the routes that are attached to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use weft_ir::{Changes, Listener, ResourceKey, RouteParent, Snapshot};

use super::rules::{self, CompiledRoute, Rules};
use crate::{
    route::{RouteTable, hostnames_of},
    state::listeners::{ListenPoint, by_address},
};

/// The listeners of the last state.
#[derive(Debug)]
pub(super) struct Listeners {
    default: Vec<IpAddr>,
    /// The rules attached to a listener, by hostname.
    attached: HashMap<ResourceKey, BTreeMap<Arc<str>, BTreeSet<ResourceKey>>>,
    /// One table for the listeners that share an address, a port and a hostname.
    tables: HashMap<Group, Arc<RouteTable>>,
    layout: BTreeMap<SocketAddr, BTreeMap<String, Group>>,
    points: Arc<BTreeMap<SocketAddr, Arc<ListenPoint>>>,
}

type Group = Vec<ResourceKey>;

/// A listener, and a hostname whose rules on it differ.
pub(super) type TouchedHost = (ResourceKey, Arc<str>);

impl Listeners {
    /// No listeners yet; those without addresses of their own will listen on these.
    pub(super) fn new(default: Vec<IpAddr>) -> Listeners {
        Listeners {
            default,
            attached: HashMap::new(),
            tables: HashMap::new(),
            layout: BTreeMap::new(),
            points: Arc::default(),
        }
    }

    /// Where Gateways listen, and what is served there.
    pub(super) fn points(&self) -> &Arc<BTreeMap<SocketAddr, Arc<ListenPoint>>> {
        &self.points
    }

    /// How much is kept: listeners with routes, and tables.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.attached.len(), self.tables.len())
    }

    /// Attaches what is now under a rule's key instead of what was; yields what that touches.
    pub(super) fn attach(
        &mut self,
        key: &ResourceKey,
        old: Option<&CompiledRoute>,
        new: Option<&CompiledRoute>,
    ) -> Vec<TouchedHost> {
        let (old, new) = (hosts(old), hosts(new));
        for (listener, host) in &old {
            let Some(known) = self.attached.get_mut(listener) else { continue };
            if let Some(rules) = known.get_mut(host) {
                rules.remove(key);
                if rules.is_empty() {
                    known.remove(host);
                }
            }
            if known.is_empty() {
                self.attached.remove(listener);
            }
        }
        for (listener, host) in &new {
            let known = self.attached.entry(listener.clone()).or_default();
            known.entry(Arc::clone(host)).or_default().insert(key.clone());
        }
        old.into_iter().chain(new).collect()
    }

    /// Compiles what a change touches.
    pub(super) fn compile(
        &mut self,
        changes: &Changes,
        touched: &BTreeSet<TouchedHost>,
        snapshot: &Snapshot,
        rules: &Rules,
    ) {
        let moved = changes.listeners().next().is_some();
        if !moved && touched.is_empty() {
            return;
        }
        if moved {
            self.lay_out(snapshot);
        }
        let mut groups: BTreeMap<Group, BTreeSet<Arc<str>>> = BTreeMap::new();
        for group in self.layout.values().flat_map(BTreeMap::values) {
            let is_new = !self.tables.contains_key(group);
            let hosts = if is_new { self.hosts_of(group) } else { self.touched_in(group, touched) };
            if is_new || !hosts.is_empty() {
                groups.insert(group.clone(), hosts);
            }
        }
        for (group, hosts) in &groups {
            let mut table = self.tables.get(group).map(|table| RouteTable::clone(table)).unwrap_or_default();
            for host in hosts {
                rules::set_host(&mut table, host, self.rules_of(group, host, rules));
            }
            self.tables.insert(group.clone(), Arc::new(table));
        }
        self.place(|group| moved || groups.contains_key(group));
    }

    /// Sorts the listeners into groups; forgets the tables of groups that are gone.
    fn lay_out(&mut self, snapshot: &Snapshot) {
        let all: Vec<&Listener> = snapshot.listeners().collect();
        self.layout.clear();
        for ((address, hostname), shared) in by_address(&all, &self.default) {
            let group = shared.iter().map(|listener| listener.key()).collect();
            self.layout.entry(address).or_default().insert(hostname, group);
        }
        let groups: BTreeSet<&Group> = self.layout.values().flat_map(BTreeMap::values).collect();
        self.tables.retain(|group, _| groups.contains(group));
    }

    /// Makes the points anew that have one of these groups.
    fn place(&mut self, changed: impl Fn(&Group) -> bool) {
        let mut points = BTreeMap::new();
        for (address, hostnames) in &self.layout {
            let last = self.points.get(address).filter(|_| !hostnames.values().any(&changed));
            let point = last.cloned().unwrap_or_else(|| {
                let mut point = ListenPoint::default();
                for (hostname, group) in hostnames {
                    point.add(hostname, self.tables.get(group).cloned().unwrap_or_default());
                }
                Arc::new(point)
            });
            points.insert(*address, point);
        }
        self.points = Arc::new(points);
    }

    fn touched_in(&self, group: &Group, touched: &BTreeSet<TouchedHost>) -> BTreeSet<Arc<str>> {
        let of = |listener: &ResourceKey| {
            let first = (listener.clone(), Arc::from(""));
            let listener = listener.clone();
            touched.range(first..).take_while(move |(key, _)| *key == listener)
        };
        group.iter().flat_map(of).map(|(_, host)| Arc::clone(host)).collect()
    }

    fn hosts_of(&self, group: &Group) -> BTreeSet<Arc<str>> {
        let known = group.iter().filter_map(|listener| self.attached.get(listener));
        known.flat_map(BTreeMap::keys).cloned().collect()
    }

    /// The rules that the listeners of a group have for a hostname, each once.
    fn rules_of<'a>(&self, group: &Group, host: &str, rules: &'a Rules) -> Vec<&'a CompiledRoute> {
        let of = |listener| self.attached.get(listener).and_then(|known| known.get(host));
        let keys: BTreeSet<&ResourceKey> = group.iter().filter_map(of).flatten().collect();
        keys.into_iter().filter_map(|key| rules.find(key)).collect()
    }
}

/// The listeners and hostnames that a rule is attached to.
fn hosts(compiled: Option<&CompiledRoute>) -> BTreeSet<TouchedHost> {
    let route = compiled.map(CompiledRoute::route);
    let parents = route.into_iter().flat_map(|route| route.parents.iter().map(move |parent| (route, parent)));
    let listeners = parents.filter_map(|(route, parent)| match parent {
        RouteParent::Listener { parent, listener } => {
            let key = ResourceKey::Listener { parent: parent.clone(), listener: Arc::clone(listener) };
            Some((route, key))
        }
        RouteParent::Service { .. } => None,
    });
    listeners
        .flat_map(|(route, key)| hostnames_of(route).into_iter().map(move |host| (key.clone(), host)))
        .collect()
}
