// SPDX-License-Identifier: Apache-2.0

use std::{cell::Cell, cmp::Ordering};

use proptest::prelude::*;

use super::*;
use crate::{MeshDefaults, PolicyDirection, RateLimitTarget, RouteAction, RouteTimeouts, Selector, Tier};

fn name(number: u8) -> ObjectName {
    ObjectName::new("shop", &format!("x{number}"))
}

fn endpoints(number: u8, service: u8) -> Resource {
    let (ports, endpoints) = (Vec::new(), Vec::new());
    Resource::Endpoints(Endpoints { name: name(number), service: name(service).name, ports, endpoints })
}

fn route(number: u8, rule: u8) -> Resource {
    let action =
        RouteAction { filters: vec![], backends: vec![], timeouts: RouteTimeouts::default(), retry: None };
    Resource::Route(Route {
        kind: RouteKind::ALL[usize::from(number % 2)],
        origin: name(number),
        rule: rule.into(),
        created: 0,
        parents: Vec::new(),
        hostnames: Vec::new(),
        matches: Vec::new(),
        action,
    })
}

fn policy(number: u8, index: u8) -> Resource {
    Resource::Policy(Policy {
        kind: PolicyKind::ALL[usize::from(number % 3)],
        name: name(number),
        index: index.into(),
        tier: Tier::Normal,
        priority: 0,
        subject: Selector::default(),
        ingress: PolicyDirection::default(),
        egress: PolicyDirection::default(),
    })
}

fn any_resource() -> impl Strategy<Value = Resource> {
    (0..10u8, 0..5u8, 0..3u8).prop_map(|(kind, number, value)| match kind {
        0 => Resource::MeshDefaults(MeshDefaults {
            pod_cidrs: vec![format!("10.{value}.0.0/16").parse().unwrap()],
        }),
        1 => Resource::Node(Node {
            name: name(number).name,
            addresses: vec![[10, 0, 0, value].into()],
            ingress_addresses: Vec::new(),
            pod_cidrs: Vec::new(),
        }),
        2 => Resource::Identity(Identity {
            number: IdentityNumber(number.into()),
            labels: [("a".into(), value.to_string().into())].into(),
        }),
        3 => Resource::Service(Service { name: name(number), addresses: Vec::new(), ports: Vec::new() }),
        4 => endpoints(number, value),
        5 => route(number, value),
        6 => policy(number, value),
        7 => Resource::RateLimit(RateLimit {
            name: name(number),
            target: RateLimitTarget::Service(name(value)),
            requests: 1,
            interval: std::time::Duration::from_secs(1),
            burst: 1,
            per_client: false,
        }),
        8 => Resource::Listener(Listener {
            parent: ListenerParent {
                kind: ListenerParentKind::ALL[usize::from(value % 2)],
                name: name(number),
            },
            name: "http".into(),
            addresses: Vec::new(),
            port: 80,
            hostname: Arc::default(),
        }),
        _ => Resource::Workload(Workload {
            name: name(number),
            node: name(value).name,
            addresses: Vec::new(),
            identity: IdentityNumber(300),
            service_account: "default".into(),
            host_network: false,
            owner: Arc::default(),
            ports: Vec::new(),
        }),
    })
}

fn snapshot(resources: Vec<Resource>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    resources.into_iter().for_each(|resource| snapshot.insert(resource));
    snapshot
}

/// What the typed iterators yield, in their order.
fn all(of: &Snapshot) -> Vec<Resource> {
    let defaults = of.resources.get(&ResourceKey::MeshDefaults);
    let defaults = defaults.into_iter().map(|resource| Resource::clone(resource));
    defaults
        .chain(of.nodes().cloned().map(Resource::Node))
        .chain(of.identities().cloned().map(Resource::Identity))
        .chain(of.workloads().cloned().map(Resource::Workload))
        .chain(of.services().cloned().map(Resource::Service))
        .chain(of.endpoints().cloned().map(Resource::Endpoints))
        .chain(of.listeners().cloned().map(Resource::Listener))
        .chain(of.routes().cloned().map(Resource::Route))
        .chain(of.rate_limits().cloned().map(Resource::RateLimit))
        .chain(of.policies().cloned().map(Resource::Policy))
        .collect()
}

/// How many differ, by the typed iterators.
fn typed_len(of: &Changes) -> usize {
    usize::from(of.find(&ResourceKey::MeshDefaults).is_some())
        + of.nodes().count()
        + of.identities().count()
        + of.workloads().count()
        + of.services().count()
        + of.endpoints().count()
        + of.listeners().count()
        + of.routes().count()
        + of.rate_limits().count()
        + of.policies().count()
}

proptest! {
    #[test]
    fn every_resource_is_in_the_iterator_of_its_kind(resources in prop::collection::vec(any_resource(), 0..40)) {
        let snapshot = snapshot(resources);
        let expected: Vec<Resource> = snapshot.resources.values().map(|one| (**one).clone()).collect();
        prop_assert_eq!(all(&snapshot), expected);
    }

    #[test]
    fn changes_are_what_differs(
        shared in prop::collection::vec(any_resource(), 0..40),
        put in prop::collection::vec(any_resource(), 0..10),
        gone in prop::collection::vec(any_resource(), 0..10),
    ) {
        let old = snapshot(shared);
        let mut new = old.clone();
        put.into_iter().for_each(|resource| new.insert(resource));
        for resource in gone {
            new.resources.remove(&resource.key());
        }
        let changes = Changes::between(&old, &new);
        let keys: std::collections::BTreeSet<_> = old.resources.keys().chain(new.resources.keys()).collect();
        let expected: Vec<Changed> = keys
            .into_iter()
            .map(|key| Changed {
                key: key.clone(),
                old: old.resources.get(key).cloned(),
                new: new.resources.get(key).cloned(),
            })
            .filter(|changed| changed.old != changed.new)
            .collect();
        prop_assert_eq!(changes.iter().cloned().collect::<Vec<_>>(), expected.clone());
        prop_assert_eq!((typed_len(&changes), changes.is_empty()), (expected.len(), expected.is_empty()));
        for changed in &expected {
            prop_assert_eq!(changes.find(&changed.key), Some(changed));
        }
        prop_assert_eq!(changes.find(&ResourceKey::Node("none".into())), None);
    }
}

thread_local! {
    static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
}

/// A key and a value that count how often they are compared.
#[derive(Clone, Debug, Eq)]
struct Counted(u32);

impl PartialEq for Counted {
    fn eq(&self, other: &Counted) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Counted) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Counted {
    fn cmp(&self, other: &Counted) -> Ordering {
        LOOKED_AT.set(LOOKED_AT.get() + 1);
        self.0.cmp(&other.0)
    }
}

/// `Changes` costs what `OrdMap::diff` costs, so that this is about the version of `imbl` in use.
#[test]
fn what_two_states_share_is_not_looked_at() {
    let looked_at = |len: u32| {
        let old: OrdMap<_, _> = (0..len).map(|number| (Counted(2 * number), Counted(number))).collect();
        let mut new = old.clone();
        // Changed, new and gone, in one leaf and in several.
        for key in [2, len, 2 * len - 2, len + 1, len + 3, 1] {
            new.insert(Counted(key), Counted(3 * len + key));
        }
        for key in [4, len + 2, len / 3 * 2] {
            new.remove(&Counted(key));
        }
        LOOKED_AT.set(0);
        assert_eq!(old.diff(&new).count(), 9);
        LOOKED_AT.get()
    };
    let (small, large) = (looked_at(1_000), looked_at(300_000));
    // A leaf holds up to 32 entries, and each is compared by key and by value.
    assert!(large <= 9 * 64, "{small} comparisons for 1,000 entries, {large} for 300,000");
}
