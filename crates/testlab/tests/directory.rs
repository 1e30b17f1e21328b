// SPDX-License-Identifier: Apache-2.0
//! The kernel's tables, the proxy and the flows say the same of every address, whatever the state is and
//! however it came about.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use proptest::{collection::vec, prelude::*, sample::select};
use weft_ebpf_redirect::desired::Desired;
use weft_flow_export::enrich;
use weft_ir::{
    Endpoint, Endpoints, Identity, IdentityNumber, MeshDefaults, Node, ObjectName, Resource, ResourceKey,
    Snapshot, Workload,
};
use weft_node_proxy::{Compiler, MeshState};
use weft_policy::{Party, Place, capture::Services};

const NODE: &str = "n1";
const ADDRESSES: &[&str] = &[
    "10.244.0.1",
    "10.244.0.2",
    "10.244.0.3",
    "::ffff:10.244.0.2",
    "10.244.9.9",
    "192.168.0.1",
    "192.168.0.2",
    "10.9.0.1",
    "10.9.0.77",
    "127.0.0.1",
    "127.0.0.9",
    "8.8.8.8",
    "fd00::4",
    "fd00::9",
    "::1",
    "2001:db8::1",
];

fn addresses(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<IpAddr>> {
    vec(select(ADDRESSES.to_vec()).prop_map(|text| text.parse().unwrap()), count)
}

fn networks() -> impl Strategy<Value = Vec<ipnet::IpNet>> {
    let texts = vec!["10.244.0.0/16", "10.9.0.0/24", "fd00::/64", "0.0.0.0/0", "10.244.0.2/32"];
    vec(select(texts).prop_map(|text| text.parse().unwrap()), 0..2)
}

fn workload(name: u32, node: &str, addresses: Vec<IpAddr>, identity: u32, host_network: bool) -> Resource {
    Resource::Workload(Workload {
        name: ObjectName::new("shop", &format!("w{name}")),
        node: node.into(),
        addresses,
        identity: IdentityNumber(identity),
        service_account: "default".into(),
        host_network,
        owner: "".into(),
        ports: Vec::new(),
    })
}

fn resource() -> impl Strategy<Value = Resource> {
    let workload = (0..6_u32, select(vec![NODE, "n2"]), addresses(0..3), 256..260_u32, 0..8_u32).prop_map(
        |(name, node, addresses, identity, host)| workload(name, node, addresses, identity, host == 0),
    );
    let node = (select(vec![NODE, "n2", "n3"]), addresses(0..2), addresses(0..2), networks()).prop_map(
        |(name, addresses, ingress_addresses, pod_cidrs)| {
            Resource::Node(Node { name: name.into(), addresses, ingress_addresses, pod_cidrs })
        },
    );
    let slice = addresses(0..2).prop_map(|addresses| {
        let endpoint = |address| Endpoint { address, ready: true, serving: true, terminating: false };
        Resource::Endpoints(Endpoints {
            name: ObjectName::new("default", "kubernetes"),
            service: "kubernetes".into(),
            ports: Vec::new(),
            endpoints: addresses.into_iter().map(endpoint).collect(),
        })
    });
    let defaults = networks().prop_map(|pod_cidrs| Resource::MeshDefaults(MeshDefaults { pod_cidrs }));
    let identity = (256..260_u32, select(vec!["a", "b"])).prop_map(|(number, app)| {
        let labels = [(Arc::from("k8s:app"), Arc::from(app))].into();
        Resource::Identity(Identity { number: IdentityNumber(number), labels })
    });
    prop_oneof![6 => workload, 2 => node, 1 => slice, 1 => defaults, 1 => identity]
}

/// What the kernel does with an address: of its table's prefixes that match, the longest counts.
fn in_kernel(desired: &Desired, address: IpAddr) -> u32 {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => Ipv6Addr::to_bits(address),
    };
    let asked = bits(address.to_canonical());
    let matching = desired.identities.iter().filter(|(prefix, _)| {
        let shift = 128 - prefix.length;
        bits(prefix.data.ip()).checked_shr(shift) == asked.checked_shr(shift)
    });
    *matching.max_by_key(|(prefix, _)| prefix.length).unwrap().1
}

/// Asks all three about every address; yields the kernel's tables, which follow those of the last state.
fn same_answers(last: &Desired, snapshot: &Snapshot, state: &MeshState) -> Desired {
    let desired = last.next(snapshot, &Services::of(snapshot), state.policies());
    let pods: BTreeMap<ObjectName, &Workload> =
        snapshot.workloads().map(|workload| (workload.name.clone(), workload)).collect();
    for address in ADDRESSES.iter().map(|text| text.parse::<IpAddr>().unwrap()) {
        let party = state.peer(address);
        let identity = party.identity.0;
        assert_eq!(in_kernel(&desired, address), identity, "{address}: kernel and proxy");
        let flow = enrich::endpoint(state.directory(), address, 80, identity);
        assert_eq!(flow.identity, identity, "{address}");
        let named = pods.get(&ObjectName::new(&flow.namespace, &flow.pod));
        let owner = party.workload.as_ref().map(|workload| &workload.name);
        assert_eq!(named.map(|pod| &pod.name), owner, "{address}: flows and proxy");
        let claims = flow.labels.iter().filter(|label| label.starts_with("weft:claimed-by=")).count();
        assert_eq!(claims, party.claimants.as_ref().map_or(0, |names| names.len()), "{address}");
        // The device of a pod of this node is held to the policy of whom the address is said to be.
        let held = desired.workloads.get(&address.to_canonical());
        assert_eq!(held.map(|held| held.identity), party.is_local().then_some(identity), "{address}");
    }
    for (prefix, _) in desired.identities.iter().filter(|(prefix, _)| prefix.length < 96) {
        assert!(prefix.data.ip().is_ipv6(), "no IPv4 prefix is shorter than its family's");
    }
    desired
}

/// Who has the address. Numbers of prefixes depend on the order in which they were given.
fn known(state: &MeshState, address: IpAddr) -> Party {
    let party = state.peer(address).clone();
    Party { identity: IdentityNumber(party.identity.0.min(weft_ebpf_common::identity::LOCAL_SCOPE)), ..party }
}

fn compile(snapshot: &Snapshot) -> Arc<MeshState> {
    Compiler::new(NODE.into(), Vec::new()).compile(snapshot, &[]).0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernel_proxy_and_flows_say_the_same_of_every_address(
        first in vec(resource(), 4..16),
        batches in vec(vec((resource(), prop::bool::weighted(0.3)), 1..4), 1..6),
    ) {
        let mut snapshot = Snapshot { revision: 1, ..Snapshot::default() };
        first.into_iter().for_each(|resource| snapshot.insert(resource));
        let mut compiler = Compiler::new(NODE.into(), Vec::new());
        let mut desired =
            same_answers(&Desired::empty(NODE), &snapshot, &compiler.compile(&snapshot, &[]).0);
        for batch in batches {
            snapshot.revision += 1;
            for (resource, remove) in batch {
                match remove {
                    true => drop(snapshot.resources.remove(&resource.key())),
                    false => snapshot.insert(resource),
                }
            }
            let (state, _) = compiler.compile(&snapshot, &[]);
            desired = same_answers(&desired, &snapshot, &state);
            let fresh = compile(&snapshot);
            for address in ADDRESSES.iter().map(|text| text.parse().unwrap()) {
                prop_assert_eq!(known(&state, address), known(&fresh, address), "{}", address);
            }
        }
    }
}

fn state_of(resources: Vec<Resource>) -> (Snapshot, Arc<MeshState>) {
    let mut snapshot = Snapshot { revision: 1, ..Snapshot::default() };
    resources.into_iter().for_each(|resource| snapshot.insert(resource));
    let state = compile(&snapshot);
    (snapshot, state)
}

#[test]
fn two_pods_with_one_address_are_nobody_to_all_three() {
    let address: IpAddr = "10.244.0.2".parse().unwrap();
    let (snapshot, state) = state_of(vec![
        workload(1, NODE, vec![address], 300, false),
        workload(2, "n2", vec![address], 301, false),
    ]);
    same_answers(&Desired::empty(NODE), &snapshot, &state);
    let party = state.peer(address);
    assert_eq!((party.identity.0, party.place), (0, Place::LocalPod));
}

#[test]
fn a_pod_that_claims_a_nodes_address_is_not_it_to_all_three() {
    let address: IpAddr = "192.168.0.2".parse().unwrap();
    let node = Node {
        name: "n2".into(),
        addresses: vec![address],
        ingress_addresses: Vec::new(),
        pod_cidrs: Vec::new(),
    };
    let pod = workload(1, NODE, vec![address], 400, false);
    let (snapshot, state) = state_of(vec![Resource::Node(node), pod]);
    same_answers(&Desired::empty(NODE), &snapshot, &state);
    assert_eq!((state.peer(address).identity.0, state.peer(address).place), (6, Place::OtherNode));
    assert!(snapshot.resources.contains_key(&ResourceKey::Workload(ObjectName::new("shop", "w1"))));
}
