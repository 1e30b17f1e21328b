// SPDX-License-Identifier: Apache-2.0
use weft_ir::{
    AppProtocol, Endpoint, Endpoints, MeshDefaults, ObjectName, PolicyDirection, PolicyKind, PolicyRule,
    Protocol, Selector, Service, ServicePort, Workload,
};

use super::*;

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn policy(name: &str, cidrs: &[&str]) -> Resource {
    let cidr = |cidr: IpNet| Peer::Cidr { cidr, except: Vec::new() };
    let rule = PolicyRule {
        peers: prefixes(cidrs).into_iter().map(cidr).collect(),
        ports: Vec::new(),
        authenticate: false,
    };
    Resource::Policy(Policy {
        kind: PolicyKind::CiliumNetworkPolicy,
        name: ObjectName::new("shop", name),
        index: 0,
        tier: weft_ir::Tier::Normal,
        priority: 0,
        subject: Selector::default(),
        ingress: PolicyDirection::default(),
        egress: PolicyDirection { default_deny: true, allow: vec![rule], deny: Vec::new() },
    })
}

fn pod_on(node: &str, name: &str, address: &str, identity: u32) -> Workload {
    Workload {
        name: ObjectName::new("shop", name),
        node: node.into(),
        addresses: addresses(&[address]),
        identity: IdentityNumber(identity),
        service_account: "default".into(),
        host_network: false,
        owner: "".into(),
        ports: Vec::new(),
    }
}

fn pod(name: &str, address: &str, identity: u32) -> Resource {
    Resource::Workload(pod_on("n1", name, address, identity))
}

fn host_pod(name: &str, address: &str, identity: u32) -> Resource {
    Resource::Workload(Workload { host_network: true, ..pod_on("n1", name, address, identity) })
}

fn node_of(name: &str, address: &str, ingress: &[&str], pod_cidrs: &[&str]) -> Resource {
    Resource::Node(Node {
        name: name.into(),
        addresses: addresses(&[address]),
        ingress_addresses: addresses(ingress),
        pod_cidrs: prefixes(pod_cidrs),
    })
}

fn node(name: &str, address: &str, ingress: &str) -> Resource {
    node_of(name, address, &[ingress], &[])
}

fn defaults(pod_cidrs: &[&str]) -> Resource {
    Resource::MeshDefaults(MeshDefaults { pod_cidrs: prefixes(pod_cidrs) })
}

fn apiserver(texts: &[&str]) -> Resource {
    let endpoint = |address| Endpoint { address, ready: true, serving: true, terminating: false };
    Resource::Endpoints(Endpoints {
        name: ObjectName::new("default", "kubernetes"),
        service: "kubernetes".into(),
        ports: Vec::new(),
        endpoints: addresses(texts).into_iter().map(endpoint).collect(),
    })
}

fn snapshot(resources: impl IntoIterator<Item = Resource>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    resources.into_iter().for_each(|resource| snapshot.insert(resource));
    snapshot
}

fn directory(resources: impl IntoIterator<Item = Resource>) -> Directory {
    Directory::build(&snapshot(resources), "n1")
}

fn follow(directory: &Directory, old: &Snapshot, new: &Snapshot) -> Directory {
    directory.next(new, &Changes::between(old, new))
}

fn find<'a>(directory: &'a Directory, address: &str) -> &'a Party {
    directory.find(address.parse().unwrap())
}

fn identity_of(directory: &Directory, address: &str) -> u32 {
    find(directory, address).identity.0
}

fn place_of(directory: &Directory, address: &str) -> Place {
    find(directory, address).place
}

#[test]
fn every_kind_of_address_has_its_identity() {
    let directory = directory([
        pod("client", "10.244.0.5", 258),
        host_pod("agent", "192.168.0.1", 259),
        node("n1", "192.168.0.1", "192.168.0.101"),
        node("n2", "192.168.0.2", "192.168.0.102"),
        defaults(&["10.244.0.0/16"]),
        policy("p", &["10.0.0.0/8", "10.244.0.0/24", "198.51.100.0/24"]),
    ]);
    assert_eq!(identity_of(&directory, "10.244.0.5"), 258);
    assert_eq!(identity_of(&directory, "::ffff:10.244.0.5"), 258);
    assert_eq!(identity_of(&directory, "192.168.0.1"), identity::HOST);
    assert_eq!(identity_of(&directory, "192.168.0.2"), identity::REMOTE_NODE);
    assert_eq!(identity_of(&directory, "192.168.0.102"), identity::INGRESS);
    assert_eq!(identity_of(&directory, "10.244.7.7"), identity::UNKNOWN);
    let inside = identity_of(&directory, "10.244.0.6");
    assert_eq!(inside, identity::UNKNOWN, "no CIDR rule matches inside a pod CIDR");
    assert_eq!(identity_of(&directory, "10.9.9.9"), identity::LOCAL_SCOPE | 1);
    assert_eq!(identity_of(&directory, "198.51.100.7"), identity::LOCAL_SCOPE | 2);
    assert_eq!(identity_of(&directory, "8.8.8.8"), identity::WORLD);
    assert_eq!(identity_of(&directory, "2001:db8::1"), identity::WORLD);
    assert_eq!(identity_of(&directory, "::1"), identity::HOST);
    assert_eq!(identity_of(&directory, "127.8.8.8"), identity::HOST);
}

#[test]
fn places_are_seen_from_this_node() {
    let directory = directory([
        pod("near", "10.244.0.5", 258),
        Resource::Workload(pod_on("n2", "far", "10.244.1.5", 258)),
        node("n1", "192.168.0.1", "192.168.0.101"),
        node("n2", "192.168.0.2", "192.168.0.102"),
        defaults(&["10.244.0.0/16"]),
        policy("p", &["10.0.0.0/8"]),
    ]);
    let places = ["10.244.0.5", "10.244.1.5", "192.168.0.101", "192.168.0.102", "10.244.9.9", "10.1.1.1"];
    assert_eq!(
        places.map(|address| place_of(&directory, address)),
        [Place::LocalPod, Place::RemotePod, Place::Host, Place::OtherNode, Place::Unknown, Place::Outside]
    );
    assert_eq!(&*find(&directory, "10.244.1.5").workload.as_ref().unwrap().name.name, "far");
}

#[test]
fn an_address_that_several_pods_claim_belongs_to_nobody() {
    for other in [258, 259] {
        let twice = directory([pod("b", "10.0.0.1", 258), pod("a", "10.0.0.1", other)]);
        let party = find(&twice, "10.0.0.1");
        assert_eq!((party.identity.0, party.place), (identity::UNKNOWN, Place::LocalPod));
        assert_eq!(party.workload, None);
        let claimants: Vec<_> = party.claimants.iter().flat_map(|names| names.iter()).collect();
        assert_eq!(claimants, [&ObjectName::new("shop", "a"), &ObjectName::new("shop", "b")]);
    }
}

#[test]
fn a_pod_of_which_nothing_is_known_is_a_pod_and_never_the_world() {
    let lost = Resource::Workload(pod_on("", "lost", "10.0.1.6", identity::UNKNOWN));
    let directory = directory([pod("refused", "10.0.1.5", identity::UNKNOWN), lost, defaults(&[])]);
    let party = find(&directory, "10.0.1.5");
    assert_eq!((party.identity.0, party.is_local()), (identity::UNKNOWN, true), "this node closes it");
    assert_eq!(party.workload.as_ref().map(|one| &*one.name.name), Some("refused"));
    assert_eq!(identity_of(&directory, "10.0.1.6"), identity::UNKNOWN);
    assert_eq!(place_of(&directory, "10.0.1.6"), Place::RemotePod);
}

#[test]
fn a_nodes_address_is_the_nodes_whatever_else_claims_it() {
    let directory = directory([
        node("n1", "192.168.0.1", "192.168.0.101"),
        node("n2", "192.168.0.2", "192.168.0.1"),
        node("n3", "192.168.0.2", "192.168.0.103"),
        pod("near", "192.168.0.1", 258),
        pod("far", "192.168.0.2", 258),
        pod("gateway", "192.168.0.101", 258),
        policy("p", &["192.168.0.1/32", "192.168.0.2/32"]),
    ]);
    assert_eq!(identity_of(&directory, "192.168.0.1"), identity::HOST);
    assert_eq!(identity_of(&directory, "192.168.0.2"), identity::REMOTE_NODE);
    assert_eq!(identity_of(&directory, "192.168.0.101"), identity::INGRESS);
    let single: BTreeMap<IpNet, IdentityNumber> = directory.identities().collect();
    assert_eq!(single.len(), directory.identities().count(), "no prefix is there twice");
    assert_eq!(single[&"192.168.0.1/32".parse::<IpNet>().unwrap()].0, identity::HOST);
}

#[test]
fn a_delete_takes_an_address_only_from_the_pod_that_is_gone() {
    let (old, new) = (pod("old", "10.0.0.1", 258), pod("new", "10.0.0.1", 259));
    let first = snapshot([old]);
    let (mut both, replaced) = (first.clone(), snapshot([new.clone()]));
    both.insert(new);
    let overlap = follow(&directory([pod("old", "10.0.0.1", 258)]), &first, &both);
    assert_eq!(identity_of(&overlap, "10.0.0.1"), identity::UNKNOWN);
    assert_eq!(identity_of(&follow(&overlap, &both, &replaced), "10.0.0.1"), 259);
    assert_eq!(identity_of(&follow(&overlap, &both, &first), "10.0.0.1"), 258);
}

#[test]
fn an_address_can_be_given_from_pod_to_pod_in_one_change() {
    let first = snapshot([pod("a", "10.0.0.1", 258), pod("b", "10.0.0.2", 259)]);
    let second = snapshot([pod("a", "10.0.0.2", 258), pod("b", "10.0.0.1", 259)]);
    let directory = follow(&Directory::build(&first, "n1"), &first, &second);
    assert_eq!((identity_of(&directory, "10.0.0.1"), identity_of(&directory, "10.0.0.2")), (259, 258));
}

#[test]
fn no_object_can_claim_the_hosts_loopback_address() {
    let directory = directory([
        pod("a", "127.0.0.1", 258),
        pod("b", "::1", 258),
        defaults(&["127.0.0.0/16", "::1/128"]),
        policy("p", &["127.0.0.0/24", "::1/128"]),
    ]);
    assert_eq!(["127.0.0.1", "127.0.9.9", "::1"].map(|ip| identity_of(&directory, ip)), [identity::HOST; 3]);
}

#[test]
fn api_servers_on_nodes_and_outside_are_known() {
    let first =
        snapshot([node("n2", "192.168.0.2", "192.168.0.102"), apiserver(&["192.168.0.2", "198.51.100.1"])]);
    let known = Directory::build(&first, "n1");
    assert_eq!(identity_of(&known, "192.168.0.2"), identity::KUBE_APISERVER);
    assert_eq!(identity_of(&known, "198.51.100.1"), identity::LOCAL_SCOPE | 2);
    let second = snapshot([node("n2", "192.168.0.2", "192.168.0.102")]);
    let gone = follow(&known, &first, &second);
    assert_eq!(identity_of(&gone, "192.168.0.2"), identity::REMOTE_NODE);
    assert_eq!(identity_of(&gone, "198.51.100.1"), identity::WORLD);
}

#[test]
fn host_bits_of_a_prefix_do_not_matter() {
    let directory = directory([policy("p", &["10.1.2.3/8"])]);
    assert_eq!(identity_of(&directory, "10.200.0.1"), identity::LOCAL_SCOPE | 1);
}

#[test]
fn a_prefix_has_a_number_as_long_as_a_policy_names_it() {
    let first = snapshot([policy("p", &["10.0.0.0/8"]), policy("q", &["10.0.0.0/8"])]);
    let second = snapshot([policy("q", &["10.0.0.0/8", "10.1.0.0/16"])]);
    let third = snapshot([policy("q", &["10.1.0.0/16"])]);
    let directory = follow(&Directory::build(&first, "n1"), &first, &second);
    assert_eq!(identity_of(&directory, "10.9.9.9"), identity::LOCAL_SCOPE | 1);
    let directory = follow(&directory, &second, &third);
    assert_eq!(identity_of(&directory, "10.9.9.9"), identity::WORLD);
    assert_eq!(identity_of(&directory, "10.1.9.9"), identity::LOCAL_SCOPE | 2);
}

#[test]
fn a_rule_about_every_ipv6_address_has_none_of_ipv4_in_a_table_of_both_families() {
    let directory = directory([policy("p", &["::/0", "::/8", "::ffff:10.0.0.0/104"])]);
    let all: BTreeMap<String, u32> =
        directory.identities().map(|(prefix, number)| (prefix.to_string(), number.0)).collect();
    assert_eq!(all["0.0.0.0/0"], identity::WORLD);
    assert_eq!(all["::/0"], identity::LOCAL_SCOPE | 1);
    assert!(!all.contains_key("::ffff:10.0.0.0/104"), "no packet has such an address");
    assert_eq!(identity_of(&directory, "10.1.1.1"), identity::WORLD);
}

#[test]
fn addresses_of_the_nodes_own_devices_are_the_host_unless_the_state_knows_better() {
    let state = snapshot([
        pod("client", "10.244.0.5", 258),
        node("n1", "192.168.0.1", "192.168.0.101"),
        defaults(&["10.244.0.0/16"]),
    ]);
    let own = addresses(&["10.244.0.1", "10.244.0.5", "192.168.0.101", "127.0.0.1"]);
    let directory = Directory::empty("n1").with_device_addresses(&own);
    let directory = follow(&directory, &Snapshot::default(), &state);
    assert_eq!(identity_of(&directory, "10.244.0.1"), identity::HOST, "the bridge");
    assert_eq!(place_of(&directory, "10.244.0.1"), Place::Host);
    assert_eq!(identity_of(&directory, "10.244.0.5"), 258);
    assert_eq!(identity_of(&directory, "192.168.0.101"), identity::INGRESS);
    let moved = directory.with_device_addresses(&addresses(&["10.244.0.2"]));
    assert_eq!(identity_of(&moved, "10.244.0.1"), identity::UNKNOWN);
    assert_eq!(identity_of(&moved, "10.244.0.2"), identity::HOST);
}

#[test]
fn only_configured_networks_count_where_there_are_any() {
    let resources = || {
        [
            node_of("n1", "192.168.0.1", &[], &["10.8.1.0/24"]),
            pod("a", "10.8.1.5", 258),
            pod("b", "10.9.1.5", 258),
        ]
    };
    let learnt = directory(resources());
    assert_eq!(identity_of(&learnt, "10.8.1.99"), identity::UNKNOWN);
    assert_eq!(identity_of(&learnt, "10.9.1.6"), identity::UNKNOWN);
    assert_eq!(learnt.guess().map(|guess| guess.network), Some("10.9.1.0/26".parse().ok()));
    let configured = directory(resources().into_iter().chain([defaults(&["10.7.0.0/16"])]));
    assert_eq!(identity_of(&configured, "10.7.0.1"), identity::UNKNOWN);
    assert_eq!(identity_of(&configured, "10.8.1.99"), identity::WORLD);
    assert_eq!(identity_of(&configured, "10.9.1.6"), identity::WORLD);
    assert_eq!(configured.guess(), None);
}

#[test]
fn a_network_is_learnt_from_its_pods_and_ends_with_them() {
    let far = || pod("far", "10.9.3.200", 258);
    let first = snapshot([pod("near", "10.9.1.5", 258), node("n1", "192.168.0.1", "192.168.0.2")]);
    let (mut second, third) = (first.clone(), first.clone());
    second.insert(far());
    let one = Directory::build(&first, "n1");
    assert_eq!(identity_of(&one, "10.9.1.63"), identity::UNKNOWN);
    assert_eq!(identity_of(&one, "10.9.2.1"), identity::WORLD);
    let two = follow(&one, &first, &second);
    assert_eq!(identity_of(&two, "10.9.2.1"), identity::UNKNOWN);
    assert_eq!(identity_of(&two, "10.9.4.1"), identity::WORLD);
    assert_eq!(identity_of(&follow(&two, &second, &third), "10.9.2.1"), identity::WORLD);
}

#[test]
fn nothing_is_learnt_where_machines_have_addresses_around_the_pods() {
    for machine in [node("n1", "10.9.200.1", "192.168.0.2"), apiserver(&["10.9.200.1"])] {
        let directory = directory([pod("a", "10.9.1.5", 258), pod("b", "10.9.1.7", 258), machine]);
        assert_eq!(identity_of(&directory, "10.9.1.6"), identity::WORLD);
        let guess = directory.guess().unwrap();
        assert_eq!((guess.pod, guess.pods, guess.network), ("10.9.1.5".parse().unwrap(), 2, None));
    }
}

#[test]
fn pods_inside_of_their_nodes_networks_are_no_guess() {
    let directory = directory([
        node_of("n1", "192.168.0.1", &[], &["10.8.1.0/24", "fd00:8:0:1::/64"]),
        pod("a", "10.8.1.5", 258),
        pod("b", "fd00:8:0:1::5", 258),
    ]);
    assert_eq!(directory.guess(), None);
    assert_eq!(identity_of(&directory, "fd00:8:0:1::6"), identity::UNKNOWN);
}

#[test]
fn the_cluster_is_its_networks_and_the_pods_outside_of_them() {
    let first = snapshot([
        defaults(&["10.8.0.0/16"]),
        pod("in", "10.8.1.5", 258),
        pod("out", "10.9.1.5", 258),
        host_pod("agent", "10.9.1.6", 258),
    ]);
    let mut second = first.clone();
    second.insert(defaults(&["10.9.0.0/16"]));
    let directory = Directory::build(&first, "n1");
    let cluster = |directory: &Directory| directory.cluster().map(|p| p.to_string()).collect::<Vec<_>>();
    assert_eq!(cluster(&directory), ["10.8.0.0/16", "10.9.1.5/32"]);
    let changed = follow(&directory, &first, &second);
    assert_eq!(cluster(&changed), ["10.9.0.0/16", "10.8.1.5/32"]);
    assert!(!changed.has_cluster_of(&directory) && changed.clone().has_cluster_of(&changed));
}

#[test]
fn services_are_named_by_address_port_and_protocol() {
    let service = |name: &str| {
        Resource::Service(Service {
            name: ObjectName::new("shop", name),
            addresses: addresses(&["10.96.0.1"]),
            ports: vec![ServicePort {
                name: "".into(),
                port: 80,
                protocol: Protocol::Tcp,
                app_protocol: AppProtocol::Http,
            }],
        })
    };
    let (first, second) = (snapshot([service("b"), service("a")]), snapshot([service("a")]));
    let directory = Directory::build(&first, "n1");
    let name = |directory: &Directory, port, protocol| {
        directory.service("::ffff:10.96.0.1".parse().unwrap(), port, protocol).map(ToString::to_string)
    };
    assert_eq!(name(&directory, 80, 6).as_deref(), Some("shop/b"));
    assert_eq!((name(&directory, 81, 6), name(&directory, 80, 17)), (None, None));
    assert_eq!(name(&follow(&directory, &first, &second), 80, 6).as_deref(), Some("shop/a"));
}

#[test]
fn what_differs_between_two_versions_is_told() {
    let first = snapshot([pod("a", "10.0.0.1", 258), pod("b", "10.0.0.2", 258), defaults(&["10.0.0.0/8"])]);
    let second =
        snapshot([pod("a", "10.0.0.1", 259), pod("c", "10.0.0.3", 258), policy("p", &["1.1.1.0/24"])]);
    let old = Directory::build(&first, "n1");
    let new = follow(&old, &first, &second);
    let mut told: BTreeMap<IpNet, IdentityNumber> = old.identities().collect();
    let changes: Vec<_> = new.changes_since(&old).collect();
    for (prefix, number) in &changes {
        match number {
            Some(number) => told.insert(*prefix, *number),
            None => told.remove(prefix),
        };
    }
    assert_eq!(told, new.identities().collect());
    assert_eq!(old.changes_since(&old).count(), 0);
    assert!(changes.iter().all(|(prefix, _)| !prefix.to_string().starts_with("127.")), "{changes:?}");
}
