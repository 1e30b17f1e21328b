// SPDX-License-Identifier: Apache-2.0
//! Whom rules speak about: each selector, entity and CIDR that occurs, once, with its identities.
//!
//! The identities of a group are found when a rule that uses it is first compiled. From then on a new state
//! only adds and removes those that changed, so that a new identity costs a look at the selectors of its
//! namespace and at those without one, however many policies and identities there are.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use imbl::{HashMap, OrdMap, OrdSet};
use ipnet::IpNet;
use weft_ebpf_common::identity;
use weft_ir::{Entity, IdentityNumber, Peer};

use crate::{
    directory::Directory,
    selector::{IdentityTable, Labels, NAMESPACE, is_allocated, is_local_prefix, matches, namespaces},
};

/// Names a group, in one line of states.
pub(crate) type GroupId = u64;

/// The peers of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerSet {
    /// Anybody, unknown addresses included.
    Any,
    /// These identities, in order.
    Identities(Arc<[IdentityNumber]>),
}

/// All groups of a state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    ids: HashMap<Arc<Peer>, GroupId>,
    groups: OrdMap<GroupId, Group>,
    by_namespace: OrdMap<Arc<str>, OrdSet<GroupId>>,
    /// Entities, CIDRs, and selectors that are not limited to namespaces.
    anywhere: OrdSet<GroupId>,
    next: GroupId,
}

#[derive(Clone, Debug)]
struct Group {
    peer: Arc<Peer>,
    /// How many rules use it.
    users: u32,
    /// Shared by the states in which they are the same; a state that differs has a place of its own.
    members: Arc<OnceLock<Arc<[IdentityNumber]>>>,
}

/// An identity that may be in a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) number: IdentityNumber,
    pub(crate) labels: &'a Labels,
    /// The prefix that the number stands for.
    pub(crate) prefix: Option<IpNet>,
}

impl PeerSet {
    /// Whether everybody in `other` is in this set too.
    pub(crate) fn covers(&self, other: &PeerSet) -> bool {
        match (self, other) {
            (PeerSet::Any, _) => true,
            (PeerSet::Identities(_), PeerSet::Any) => false,
            (PeerSet::Identities(mine), PeerSet::Identities(theirs)) => {
                theirs.iter().all(|number| mine.binary_search(number).is_ok())
            }
        }
    }
}

impl Groups {
    /// The group of a peer, for one more rule.
    pub(crate) fn enter(&mut self, peer: &Peer) -> GroupId {
        if let Some(id) = self.ids.get(peer).copied() {
            if let Some(group) = self.groups.get_mut(&id) {
                group.users += 1;
            }
            return id;
        }
        self.next += 1;
        let (id, peer) = (self.next, Arc::new(peer.clone()));
        match namespaces_of(&peer) {
            Some(names) => names.iter().for_each(|name| {
                self.by_namespace.entry(name.clone()).or_default().insert(id);
            }),
            None => drop(self.anywhere.insert(id)),
        }
        self.ids.insert(peer.clone(), id);
        self.groups.insert(id, Group { peer, users: 1, members: Arc::default() });
        id
    }

    /// One rule less uses the group.
    pub(crate) fn leave(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.users -= 1;
        if group.users > 0 {
            return;
        }
        let peer = group.peer.clone();
        self.groups.remove(&id);
        self.ids.remove(&peer);
        let Some(names) = namespaces_of(&peer) else {
            self.anywhere.remove(&id);
            return;
        };
        for name in names {
            let Some(ids) = self.by_namespace.get_mut(name) else { continue };
            ids.remove(&id);
            if ids.is_empty() {
                self.by_namespace.remove(name);
            }
        }
    }

    /// Notes that an identity is new, gone, or has other labels; names the groups that are not the same.
    pub(crate) fn note(
        &mut self,
        old: Option<Candidate<'_>>,
        new: Option<Candidate<'_>>,
        directory: &Directory,
        changed: &mut BTreeSet<GroupId>,
    ) {
        let Some(number) = new.or(old).map(|candidate| candidate.number) else { return };
        let of_namespace = |candidate: Option<Candidate<'_>>| {
            let name = candidate.and_then(|candidate| candidate.labels.get(NAMESPACE));
            name.and_then(|name| self.by_namespace.get(name)).cloned().unwrap_or_default()
        };
        let (before, now) = (of_namespace(old), of_namespace(new));
        for id in self.anywhere.clone().iter().chain(&before).chain(&now) {
            let Some(group) = self.groups.get(id) else { continue };
            let holds = |candidate: Option<Candidate<'_>>| {
                candidate.is_some_and(|candidate| contains(&group.peer, &candidate, directory))
            };
            let is_in = holds(new);
            if holds(old) != is_in && changed.insert(*id) | group.members.get().is_some() {
                self.set_member(*id, number, is_in);
            }
        }
    }

    /// Forgets who is in the group of a peer; names it, where there is one.
    pub(crate) fn forget(&mut self, peer: &Peer, changed: &mut BTreeSet<GroupId>) {
        let Some(id) = self.ids.get(peer).copied() else { return };
        if let Some(group) = self.groups.get_mut(&id) {
            group.members = Arc::default();
            changed.insert(id);
        }
    }

    /// The identities of some groups together.
    pub(crate) fn peers(
        &self,
        ids: &[GroupId],
        identities: &IdentityTable,
        directory: &Directory,
    ) -> PeerSet {
        let all = ids.iter().filter_map(|id| self.groups.get(id));
        let mut all =
            all.map(|group| group.members.get_or_init(|| resolve(&group.peer, identities, directory)));
        match (all.next(), all.next()) {
            (None, _) => PeerSet::Identities(Arc::default()),
            (Some(only), None) => PeerSet::Identities(only.clone()),
            (Some(first), Some(second)) => {
                let rest = all.flat_map(|members| members.iter());
                let numbers: BTreeSet<_> = first.iter().chain(&**second).chain(rest).copied().collect();
                PeerSet::Identities(numbers.into_iter().collect())
            }
        }
    }

    fn set_member(&mut self, id: GroupId, number: IdentityNumber, is_in: bool) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        // An earlier state may still find out who was in it, so that this one has a place of its own.
        let members = match group.members.get() {
            Some(known) => OnceLock::from(with_member(known, number, is_in)),
            None => OnceLock::new(),
        };
        group.members = Arc::new(members);
    }
}

fn with_member(known: &[IdentityNumber], number: IdentityNumber, is_in: bool) -> Arc<[IdentityNumber]> {
    let at = known.partition_point(|other| *other < number);
    let (before, after) = known.split_at(at);
    let after = after.strip_prefix(&[number]).unwrap_or(after);
    let this = is_in.then_some(number);
    before.iter().copied().chain(this).chain(after.iter().copied()).collect()
}

/// Whether the identity is one of those that the peer stands for.
fn contains(peer: &Peer, candidate: &Candidate<'_>, directory: &Directory) -> bool {
    match peer {
        Peer::Any => true,
        Peer::Selector(selector) => matches(selector, candidate.labels),
        Peer::Entity(entity) => is_in(*entity, candidate.number, candidate.prefix, directory),
        Peer::Cidr { cidr, except } => candidate.prefix.is_some_and(|prefix| inside(&prefix, cidr, except)),
    }
}

fn resolve(peer: &Peer, identities: &IdentityTable, directory: &Directory) -> Arc<[IdentityNumber]> {
    let numbers = directory.numbers();
    match peer {
        Peer::Any => identities.numbers().collect(),
        Peer::Selector(selector) => identities.select(selector).into(),
        Peer::Entity(entity) => {
            let one =
                |number: &IdentityNumber| is_in(*entity, *number, numbers.prefix_of(*number), directory);
            identities.numbers().filter(one).collect()
        }
        Peer::Cidr { cidr, except } => {
            let chosen = numbers.prefixes().iter().filter(|(_, prefix)| inside(prefix, cidr, except));
            chosen.map(|(number, _)| *number).collect()
        }
    }
}

fn is_in(entity: Entity, number: IdentityNumber, prefix: Option<IpNet>, directory: &Directory) -> bool {
    match (entity, number.0) {
        (Entity::World, identity::WORLD) | (Entity::Host, identity::HOST) => true,
        (Entity::World, _) => is_local_prefix(number),
        (Entity::Cluster, identity::HOST | identity::REMOTE_NODE | identity::INGRESS) => true,
        (Entity::Cluster, identity::KUBE_APISERVER) => true,
        (Entity::Cluster, _) => is_allocated(number),
        // The number of an API server's node, which is a node all the same.
        (Entity::RemoteNode, identity::REMOTE_NODE | identity::KUBE_APISERVER) => true,
        (Entity::KubeApiserver, identity::KUBE_APISERVER) => true,
        (Entity::KubeApiserver, identity::HOST) => directory.apiserver_is_local(),
        (Entity::KubeApiserver, _) => prefix.is_some_and(|prefix| {
            prefix.prefix_len() == prefix.max_prefix_len() && directory.is_apiserver(prefix.addr())
        }),
        (Entity::Ingress, identity::INGRESS) => true,
        (Entity::All, _) => true,
        (Entity::Host | Entity::RemoteNode | Entity::Ingress | Entity::None, _) => false,
    }
}

/// Whether a prefix is inside of `cidr` and outside of every exception.
fn inside(prefix: &IpNet, cidr: &IpNet, except: &[IpNet]) -> bool {
    cidr.contains(prefix) && !except.iter().any(|except| except.contains(prefix))
}

fn namespaces_of(peer: &Peer) -> Option<&[Arc<str>]> {
    if let Peer::Selector(selector) = peer { namespaces(selector) } else { None }
}
