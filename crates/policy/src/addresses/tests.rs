// SPDX-License-Identifier: Apache-2.0
use weft_ir::{
    MeshDefaults, Node, ObjectName, Policy, PolicyDirection, PolicyKind, PolicyRule, Resource, Selector,
    Workload,
};

use super::*;

fn policy(name: &str, cidrs: &[&str]) -> Resource {
    let cidr = |text: &&str| Peer::Cidr { cidr: text.parse().unwrap(), except: Vec::new() };
    let rule = PolicyRule { peers: cidrs.iter().map(cidr).collect(), ports: Vec::new(), authenticate: false };
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

fn workload(name: &str, address: &str, identity: u32, host_network: bool) -> Resource {
    Resource::Workload(Workload {
        name: ObjectName::new("shop", name),
        node: "n1".into(),
        addresses: vec![address.parse().unwrap()],
        identity: IdentityNumber(identity),
        service_account: "default".into(),
        host_network,
        owner: "".into(),
        ports: Vec::new(),
    })
}

fn node(name: &str, address: &str, ingress: &str) -> Resource {
    Resource::Node(Node {
        name: name.into(),
        addresses: vec![address.parse().unwrap()],
        ingress_addresses: vec![ingress.parse().unwrap()],
    })
}

fn snapshot(resources: impl IntoIterator<Item = Resource>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    resources.into_iter().for_each(|resource| snapshot.insert(resource));
    snapshot
}

fn table(snapshot: &Snapshot) -> AddressTable {
    AddressTable::build(snapshot, "n1", &[], &PrefixNumbers::default().renew(snapshot))
}

fn identity_of(table: &AddressTable, address: &str) -> u32 {
    table.identity_of(address.parse().unwrap()).0
}

#[test]
fn every_kind_of_address_has_its_identity() {
    let snapshot = snapshot([
        workload("client", "10.244.0.5", 258, false),
        workload("agent", "192.168.0.1", 259, true),
        workload("far-agent", "192.168.0.2", 259, true),
        node("n1", "192.168.0.1", "192.168.0.101"),
        node("n2", "192.168.0.2", "192.168.0.102"),
        Resource::MeshDefaults(MeshDefaults { pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()] }),
        policy("p", &["10.0.0.0/8", "10.244.0.0/24", "198.51.100.0/24"]),
    ]);
    let table = table(&snapshot);
    assert_eq!(identity_of(&table, "10.244.0.5"), 258);
    assert_eq!(identity_of(&table, "::ffff:10.244.0.5"), 258);
    assert_eq!(identity_of(&table, "192.168.0.1"), identity::HOST);
    assert_eq!(identity_of(&table, "192.168.0.2"), identity::REMOTE_NODE);
    assert_eq!(identity_of(&table, "192.168.0.102"), identity::INGRESS);
    assert_eq!(identity_of(&table, "10.244.7.7"), identity::UNKNOWN);
    assert_eq!(
        identity_of(&table, "10.244.0.6"),
        identity::UNKNOWN,
        "no CIDR rule matches inside a pod CIDR"
    );
    assert_eq!(identity_of(&table, "10.9.9.9"), identity::LOCAL_SCOPE | 1);
    assert_eq!(identity_of(&table, "198.51.100.7"), identity::LOCAL_SCOPE | 2);
    assert_eq!(identity_of(&table, "8.8.8.8"), identity::WORLD);
    assert_eq!(identity_of(&table, "2001:db8::1"), identity::WORLD);
    assert_eq!(identity_of(&table, "::1"), identity::HOST);
    assert_eq!(table.iter().count(), 5 + 1 + 2 + 2);
}

#[test]
fn an_address_that_two_workloads_claim_belongs_to_nobody() {
    let twice = snapshot([workload("a", "10.0.0.1", 258, false), workload("b", "10.0.0.1", 259, false)]);
    assert_eq!(identity_of(&table(&twice), "10.0.0.1"), identity::UNKNOWN);
    let same = snapshot([workload("a", "10.0.0.1", 258, false), workload("b", "10.0.0.1", 258, false)]);
    assert_eq!(identity_of(&table(&same), "10.0.0.1"), 258);
}

#[test]
fn prefixes_keep_their_numbers_and_freed_ones_are_not_given_again_soon() {
    let number = |numbers: &PrefixNumbers, text: &str| {
        let wanted: IpNet = text.parse().unwrap();
        numbers
            .iter()
            .find(|(prefix, _)| *prefix == wanted)
            .map(|(_, number)| number.0 & !identity::LOCAL_SCOPE)
    };
    let first = PrefixNumbers::default().renew(&snapshot([policy("p", &["10.1.0.0/16", "10.2.0.0/16"])]));
    assert_eq!((number(&first, "10.1.0.0/16"), number(&first, "10.2.0.0/16")), (Some(1), Some(2)));
    let second = first.renew(&snapshot([policy("p", &["10.0.0.0/16", "10.2.0.0/16"])]));
    assert_eq!((number(&second, "10.0.0.0/16"), number(&second, "10.2.0.0/16")), (Some(3), Some(2)));
    assert_eq!(number(&second, "10.1.0.0/16"), None);
}

#[test]
fn numbers_begin_again_after_the_last_and_skip_those_in_use() {
    let prefix: IpNet = "10.1.0.0/16".parse().unwrap();
    let used = BTreeMap::from([(prefix, IdentityNumber(identity::LOCAL_SCOPE | 1))]);
    let full = PrefixNumbers { numbers: used, last: LOCAL_NUMBERS };
    let next = full.renew(&snapshot([policy("p", &["10.1.0.0/16", "10.2.0.0/16"])]));
    let numbers: Vec<u32> = next.iter().map(|(_, number)| number.0).collect();
    assert_eq!(numbers, [identity::LOCAL_SCOPE | 1, identity::LOCAL_SCOPE | 2]);
}

#[test]
fn host_bits_of_a_prefix_do_not_matter() {
    let snapshot = snapshot([policy("p", &["10.1.2.3/8"])]);
    assert_eq!(identity_of(&table(&snapshot), "10.200.0.1"), identity::LOCAL_SCOPE | 1);
}

#[test]
fn a_rule_about_every_ipv6_address_has_none_of_ipv4_in_a_table_of_both_families() {
    let snapshot = snapshot([policy("p", &["::/0", "::/8", "::ffff:10.0.0.0/104"])]);
    let table = table(&snapshot);
    let all: BTreeMap<String, u32> =
        table.iter().map(|(prefix, number)| (prefix.to_string(), number.0)).collect();
    assert_eq!(all["0.0.0.0/0"], identity::WORLD);
    assert_eq!(all["::/0"], identity::LOCAL_SCOPE | 1);
    assert!(!all.contains_key("::ffff:10.0.0.0/104"), "no packet has such an address");
    assert_eq!(identity_of(&table, "10.1.1.1"), identity::WORLD);
}

#[test]
fn addresses_of_the_nodes_own_devices_are_the_host_unless_the_state_knows_better() {
    let snapshot = snapshot([
        workload("client", "10.244.0.5", 258, false),
        node("n1", "192.168.0.1", "192.168.0.101"),
        Resource::MeshDefaults(MeshDefaults { pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()] }),
    ]);
    let own = ["10.244.0.1", "10.244.0.5", "192.168.0.101"].map(|text| text.parse().unwrap());
    let table = AddressTable::build(&snapshot, "n1", &own, &PrefixNumbers::default());
    assert_eq!(identity_of(&table, "10.244.0.1"), identity::HOST, "the bridge");
    assert_eq!(identity_of(&table, "10.244.0.5"), 258);
    assert_eq!(identity_of(&table, "192.168.0.101"), identity::INGRESS);
}
