// SPDX-License-Identifier: Apache-2.0
use std::{cell::RefCell, collections::BTreeMap, io};

use proptest::{collection::vec, prelude::*, sample::select};
use weft_ebpf_common::{
    Verdict,
    identity::FIRST_ALLOCATED,
    layout::{ANY_IDENTITY, BackendKey, Endpoint as Backend, PolicyKey},
};
use weft_ir::{
    AppProtocol, Endpoint, EndpointPort, Endpoints, Identity, IdentityNumber, ObjectName, Protocol,
    RateLimit, RateLimitTarget, Resource, ResourceKey, ServicePort, Snapshot, Workload as Pod,
};
use weft_policy::{PolicySet, capture::Services};

use super::{tables::Entries, *};
use crate::desired::PolicyEntries;

/// Tables in memory. After each write whatever an entry points to has to be there.
#[derive(Debug, Default)]
struct Memory(RefCell<State>);

#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    identities: BTreeMap<Prefix<Address>, u32>,
    policy: BTreeMap<Prefix<PolicyKey>, Verdict>,
    backends: BTreeMap<BackendKey, Backend>,
    counters: BTreeSet<u32>,
    services: BTreeMap<ServiceKey, Service>,
    workloads: BTreeMap<Address, Workload>,
    /// Writes that are done before one fails; all where there is none.
    left: Option<usize>,
    /// Whose connections are decided again; nothing for all.
    told: Option<Vec<Prefix<Address>>>,
}

impl Tables for Memory {
    fn read(&self) -> Result<Entries, SyncError> {
        let state = self.0.borrow();
        Ok(Entries {
            identities: state.identities.clone().into_iter().collect(),
            policy: state.policy.clone().into_iter().collect(),
            backends: state.backends.clone().into_iter().collect(),
            counters: state.counters.iter().copied().collect(),
            services: state.services.clone().into_iter().collect(),
            workloads: state.workloads.clone().into_iter().collect(),
        })
    }

    fn write(&self, write: &Write) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        match &mut state.left {
            Some(0) => return Err(io::Error::other("the table is full")),
            Some(left) => *left -= 1,
            None => {}
        }
        state.check_unused(write);
        match *write {
            Write::Identity(key, value) => put(&mut state.identities, key, value),
            Write::Policy(key, value) => put(&mut state.policy, key, value),
            Write::Backend(key, value) => put(&mut state.backends, key, value),
            Write::Service(key, value) => put(&mut state.services, key, value),
            Write::Workload(key, value) => put(&mut state.workloads, key, value),
            Write::Counters(id, Some(())) => drop(state.counters.insert(id)),
            Write::Counters(id, None) => drop(state.counters.remove(&id)),
            Write::Epoch => state.told = None,
            Write::Change(prefix) => {
                if let Some(told) = &mut state.told {
                    told.push(prefix);
                }
            }
        }
        state.check();
        Ok(())
    }
}

fn put<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => table.insert(key, value),
        None => table.remove(&key),
    };
}

impl State {
    /// What somebody points to never changes: it is replaced as a whole.
    fn check_unused(&self, write: &Write) {
        match write {
            Write::Policy(key, _) => {
                let used = self.workloads.values().any(|workload| workload.policy == key.data.set);
                let seen = key.data.identity == ANY_IDENTITY
                    || key.data.identity < FIRST_ALLOCATED
                    || self.identities.values().any(|number| *number == key.data.identity);
                assert!(!used || !seen, "what somebody sees of a policy set changes while it is in use");
            }
            Write::Backend(key, _) => {
                let used = self.services.values().any(|service| service.list == key.list);
                assert!(!used, "a list of backends changes while it is in use");
            }
            _ => {}
        }
    }

    /// No entry points to what is not there, or not whole.
    fn check(&self) {
        for (key, service) in &self.services {
            for slot in 0..service.backends {
                let backend = BackendKey { list: service.list, slot };
                assert!(self.backends.contains_key(&backend), "{key:?} points to a list that is not written");
            }
            assert!(service.id == 0 || self.counters.contains(&service.id), "{key:?} has no counters");
        }
    }

    /// The policy of each workload, with what it says instead of the number of its set. The numbers of
    /// rules are a matter of history.
    fn policies(&self) -> BTreeMap<Address, (Workload, PolicyEntries)> {
        let unnamed = |verdict: Verdict| Verdict { rule: 0, ..verdict };
        let entries = |set| {
            let of_set = self.policy.iter().filter(move |(key, _)| key.data.set == set);
            let key = |key: &Prefix<PolicyKey>| Prefix { data: PolicyKey { set: 0, ..key.data }, ..*key };
            of_set.map(|(found, verdict)| (key(found), unnamed(*verdict))).collect()
        };
        let plain = |workload: &Workload| Workload {
            policy: 0,
            id: 0,
            egress: unnamed(workload.egress),
            ingress: unnamed(workload.ingress),
            ..*workload
        };
        let all = self.workloads.iter();
        all.map(|(key, workload)| (*key, (plain(workload), entries(workload.policy)))).collect()
    }

    fn lists(&self) -> BTreeMap<ServiceKey, (u32, Vec<Backend>)> {
        let backends = |list| self.backends.iter().filter(move |(key, _)| key.list == list);
        let all = self.services.iter();
        all.map(|(key, service)| {
            (*key, (service.flags, backends(service.list).map(|(_, backend)| *backend).collect()))
        })
        .collect()
    }

    /// Whether those are told whom what became of the tables concerns: an address with another identity, and a
    /// workload that is not what it was.
    fn told_all(&self, before: &State) -> bool {
        let Some(told) = &self.told else { return true };
        let in_prefix = |key: &Prefix<Address>| {
            let bits = |address: Address| match address.ip() {
                IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
                IpAddr::V6(address) => u128::from(address),
            };
            let inside = |prefix: &Prefix<Address>| {
                let rest = 128 - prefix.length;
                rest == 128 || bits(prefix.data) >> rest == bits(key.data) >> rest
            };
            told.iter().any(|prefix| prefix.length <= key.length && inside(prefix))
        };
        let keys: BTreeSet<_> = self.identities.keys().chain(before.identities.keys()).collect();
        let identities =
            keys.into_iter().filter(|key| self.identities.get(key) != before.identities.get(key));
        let workloads = self.workloads.iter().filter(|(key, workload)| {
            let entries = |state: &State, set| -> Vec<_> {
                state
                    .policy
                    .iter()
                    .filter(|(key, _)| key.data.set == set)
                    .map(|(key, verdict)| {
                        (Prefix { data: PolicyKey { set: 0, ..key.data }, ..*key }, *verdict)
                    })
                    .filter(|(key, _)| {
                        self.identities.values().any(|number| *number == key.data.identity)
                            && before.identities.values().any(|number| *number == key.data.identity)
                    })
                    .collect()
            };
            before.workloads.get(key).is_none_or(|old| {
                Workload { policy: 0, ..*old } != Workload { policy: 0, ..**workload }
                    || entries(self, workload.policy) != entries(before, old.policy)
            })
        });
        let workloads: Vec<_> = workloads.map(|(key, _)| Prefix { length: 128, data: *key }).collect();
        identities.copied().chain(workloads).all(|key| in_prefix(&key))
    }

    /// Entries that nothing points to.
    fn left_over(&self) -> usize {
        let lists: BTreeSet<u32> = self.services.values().map(|service| service.list).collect();
        let sets: BTreeSet<u32> = self.workloads.values().map(|workload| workload.policy).collect();
        let ids: BTreeSet<u32> = self.services.values().map(|service| service.id).collect();
        self.backends.keys().filter(|key| !lists.contains(&key.list)).count()
            + self.policy.keys().filter(|key| !sets.contains(&key.data.set)).count()
            + self.counters.difference(&ids).count()
    }
}

const NODE: &str = "one";

fn pod(number: u8, identity: u32) -> Resource {
    Resource::Workload(Pod {
        name: ObjectName::new("shop", &format!("p{number}")),
        node: NODE.into(),
        addresses: vec![IpAddr::from([10, 0, 0, number])],
        identity: IdentityNumber(identity),
        service_account: "default".into(),
        host_network: false,
        owner: "".into(),
        ports: vec![],
    })
}

fn service(number: u8, vip: u8) -> Resource {
    Resource::Service(weft_ir::Service {
        name: ObjectName::new("shop", &format!("s{number}")),
        addresses: vec![IpAddr::from([10, 96, 0, vip])],
        ports: vec![ServicePort {
            name: "http".into(),
            port: 80,
            protocol: Protocol::Tcp,
            app_protocol: AppProtocol::Http,
        }],
    })
}

fn slice(service: u8, endpoints: &[u8]) -> Resource {
    let endpoint = |last: &u8| Endpoint {
        address: IpAddr::from([10, 0, 0, *last]),
        ready: true,
        serving: true,
        terminating: false,
    };
    Resource::Endpoints(Endpoints {
        name: ObjectName::new("shop", &format!("s{service}-1")),
        service: format!("s{service}").into(),
        ports: vec![EndpointPort { name: "http".into(), port: 8080, protocol: Protocol::Tcp }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    })
}

fn limit(service: u8) -> Resource {
    Resource::RateLimit(RateLimit {
        name: ObjectName::new("shop", &format!("l{service}")),
        target: RateLimitTarget::Service(ObjectName::new("shop", &format!("s{service}"))),
        requests: 1,
        interval: std::time::Duration::from_secs(1),
        burst: 1,
        per_client: false,
    })
}

/// A policy for one of the identities, which decides what it may receive from another.
fn policy(subject: u32, from: u32) -> Resource {
    use weft_ir::{
        Operator, Peer, Policy, PolicyDirection, PolicyKind, PolicyRule, Requirement, Selector, Tier,
    };
    let app = |number: u32| Selector {
        requirements: vec![Requirement {
            key: "k8s:app".into(),
            operator: Operator::In(vec![number.to_string().into()]),
        }],
    };
    let rule = PolicyRule { peers: vec![Peer::Selector(app(from))], ports: vec![], authenticate: false };
    Resource::Policy(Policy {
        kind: PolicyKind::NetworkPolicy,
        name: ObjectName::new("shop", &format!("n{subject}")),
        index: 0,
        tier: Tier::Normal,
        priority: 0,
        subject: app(subject),
        ingress: PolicyDirection { default_deny: true, allow: vec![rule], deny: vec![] },
        egress: PolicyDirection::default(),
    })
}

fn identities() -> impl Iterator<Item = Resource> {
    (300..303).map(|number: u32| {
        let label = |key: &str, value: &str| (key.into(), value.into());
        let labels =
            [label("k8s:app", &number.to_string()), label("k8s:io.kubernetes.pod.namespace", "shop")];
        Resource::Identity(Identity { number: IdentityNumber(number), labels: labels.into() })
    })
}

/// A resource that comes or changes, or the key of one that goes.
fn edits() -> impl Strategy<Value = Result<Resource, ResourceKey>> {
    let number = || 1..4_u8;
    let came = prop_oneof![
        (number(), 300..303_u32).prop_map(|(number, identity)| pod(number, identity)),
        (number(), 1..3_u8).prop_map(|(number, vip)| service(number, vip)),
        (number(), vec(select(vec![1_u8, 2, 3, 9]), 0..4)).prop_map(|(number, to)| slice(number, &to)),
        number().prop_map(limit),
        (300..303_u32, 300..303_u32).prop_map(|(subject, from)| policy(subject, from)),
    ];
    (came, any::<bool>()).prop_map(|(resource, stays)| if stays { Ok(resource) } else { Err(resource.key()) })
}

fn places(desired: &Desired) -> BTreeMap<IpAddr, Place> {
    desired.workloads.keys().map(|ip| (*ip, Place { ifindex: 7, bridge: None })).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever changes, and wherever a write fails: an entry never points to what is not there, and the
    /// tables that grew change by change are those that a state gives from scratch.
    #[test]
    fn tables_that_grow_with_changes_are_those_of_the_state(
        commits in vec((vec(edits(), 1..4), proptest::option::weighted(0.3, 0..12_usize)), 1..12),
    ) {
        let tables = Memory::default();
        let mut snapshot = Snapshot::default();
        identities().for_each(|identity| snapshot.insert(identity));
        let mut policies = PolicySet::empty(NODE);
        let mut desired = Desired::empty(NODE);
        let mut services = Services::default();
        let mut before = Snapshot::default();
        let mut brought: Option<(Known, Desired)> = None;
        for (edits, fails_after) in commits {
            for edit in edits {
                match edit {
                    Ok(resource) => snapshot.insert(resource),
                    Err(key) => drop(snapshot.resources.remove(&key)),
                }
            }
            snapshot.revision += 1;
            let changes = weft_ir::Changes::between(&before, &snapshot);
            policies = policies.next(&snapshot, &changes, &[]);
            services = services.next(&changes);
            desired = desired.next(&snapshot, &services, &policies);
            before = snapshot.clone();
            tables.0.borrow_mut().left = fails_after;
            tables.0.borrow_mut().told = Some(Vec::new());
            let was = tables.0.borrow().clone();
            let (mut known, last) = match brought.take() {
                Some((known, last)) => (known, Some(last)),
                None => (Known::read(&tables).unwrap(), None),
            };
            let done = synchronise(&tables, &mut known, last.as_ref(), &desired, &places(&desired));
            if done.is_ok() {
                prop_assert!(tables.0.borrow().told_all(&was));
                brought = Some((known, desired.clone()));
            }
        }
        let mut known = Known::read(&tables).unwrap();
        let last = brought.map(|(known_before, last)| { known = known_before; last });
        tables.0.borrow_mut().left = None;
        synchronise(&tables, &mut known, last.as_ref(), &desired, &places(&desired)).unwrap();

        let fresh = Memory::default();
        let scratch = PolicySet::compile(&snapshot, NODE);
        let wanted = Desired::empty(NODE).next(&snapshot, &Services::of(&snapshot), &scratch);
        let mut known = Known::read(&fresh).unwrap();
        synchronise(&fresh, &mut known, None, &wanted, &places(&wanted)).unwrap();
        let (grown, fresh) = (tables.0.borrow(), fresh.0.borrow());
        prop_assert_eq!(&grown.identities, &fresh.identities);
        prop_assert_eq!(grown.lists(), fresh.lists());
        prop_assert_eq!(grown.policies(), fresh.policies());
        prop_assert_eq!(grown.left_over(), 0);
        prop_assert_eq!(known.service_numbers().len(), wanted.services.values().flatten().count());
    }
}

/// Tables that follow a state.
struct Following {
    tables: Memory,
    snapshot: Snapshot,
    before: Snapshot,
    policies: PolicySet,
    services: Services,
    brought: Option<(Known, Desired)>,
}

impl Following {
    fn new() -> Following {
        let mut snapshot = Snapshot::default();
        identities().for_each(|identity| snapshot.insert(identity));
        Following {
            tables: Memory::default(),
            snapshot,
            before: Snapshot::default(),
            policies: PolicySet::empty(NODE),
            services: Services::default(),
            brought: None,
        }
    }

    /// What a change of the state writes, and whose connections are decided again.
    fn put(&mut self, resources: Vec<Resource>) -> (Changes, Option<Vec<Prefix<Address>>>) {
        resources.into_iter().for_each(|resource| self.snapshot.insert(resource));
        self.snapshot.revision += 1;
        let changes = weft_ir::Changes::between(&self.before, &self.snapshot);
        self.policies = self.policies.next(&self.snapshot, &changes, &[]);
        self.services = self.services.next(&changes);
        self.before = self.snapshot.clone();
        let (mut known, last) = match self.brought.take() {
            Some((known, last)) => (known, Some(last)),
            None => (Known::read(&self.tables).unwrap(), None),
        };
        let from = last.clone().unwrap_or_else(|| Desired::empty(NODE));
        let desired = from.next(&self.snapshot, &self.services, &self.policies);
        self.tables.0.borrow_mut().told = Some(Vec::new());
        let places = places(&desired);
        let done = synchronise(&self.tables, &mut known, last.as_ref(), &desired, &places).unwrap();
        self.brought = Some((known, desired));
        let told = self.tables.0.borrow().told.clone();
        (done, told)
    }
}

fn remote(number: u8, identity: u32) -> Resource {
    let Resource::Workload(local) = pod(number, identity) else { unreachable!("a pod is a workload") };
    Resource::Workload(Pod { node: "two".into(), ..local })
}

/// One that the policies about 300 name, and a number that is not given yet.
fn newcomer(number: u32) -> Resource {
    let label = |key: &str, value: &str| (key.into(), value.into());
    let labels =
        [label("k8s:app", "301"), label("k8s:io.kubernetes.pod.namespace", "shop"), label("k8s:v", "2")];
    Resource::Identity(Identity { number: IdentityNumber(number), labels: labels.into() })
}

#[test]
fn an_identity_that_comes_or_goes_costs_its_own_entries() {
    let host = |number| Prefix { length: 128, data: Address::from(IpAddr::from([10, 0, 0, number])) };
    let mut node = Following::new();
    let (_, told) = node.put(vec![pod(1, 300), remote(2, 301), remote(3, 302), policy(300, 301)]);
    assert_eq!(told, None, "what an earlier process did is not known");
    // Another version of what the policy allows: its address, and its entry in the set of the pod.
    let (changes, told) = node.put(vec![newcomer(400), remote(4, 400)]);
    assert_eq!((changes.written, changes.removed, told), (2, 0, Some(vec![host(4)])));
    // Of somebody whom no policy names: an address.
    let (changes, told) = node.put(vec![remote(5, 302)]);
    assert_eq!((changes.written, changes.removed, told), (1, 0, Some(vec![host(5)])));
    let (changes, told) = node.put(vec![remote(4, 302)]);
    assert_eq!((changes.written, told), (1, Some(vec![host(4)])));
    // An identity that is in use already and that a policy begins to name: another set.
    let (changes, told) = node.put(vec![policy(300, 302)]);
    assert!(changes.written > 1 && changes.removed > 0, "{changes:?}");
    assert_eq!(told, Some(vec![host(1)]));
}
