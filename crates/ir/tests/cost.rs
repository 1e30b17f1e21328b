// SPDX-License-Identifier: Apache-2.0
//! What a node costs on the wire when its controller starts again.
//!
//! `cargo test -p weft-ir --test cost -- --nocapture` prints the figures of ADR 0007.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and prints what it measures")]

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use weft_ir::{
    AppProtocol, Endpoint, EndpointPort, Endpoints, Identity, IdentityNumber, ObjectName, Protocol, Resource,
    Service, ServicePort, Workload,
    publish::{Change, Publisher},
    stream::{Base, FromNode, Hello, ToNode},
    subscribe::{Progress, Subscriber},
    wire,
};

fn address(number: u32) -> std::net::IpAddr {
    std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
}

fn workload(number: u32) -> Resource {
    let owner = format!("checkout-{}-7d9c6b8f5", number / 20);
    Resource::Workload(Workload {
        name: ObjectName::new(&format!("team-{}", number % 200), &format!("{owner}-x{number:04}")),
        node: format!("worker-{:04}.example.internal", number % 3000).into(),
        addresses: vec![address(number)],
        identity: IdentityNumber(256 + number / 20),
        service_account: "checkout".into(),
        host_network: false,
        owner: owner.into(),
        ports: Vec::new(),
    })
}

fn identity(number: u32) -> Resource {
    let labels = [
        ("k8s:app.kubernetes.io/name", format!("checkout-{number}")),
        ("k8s:io.kubernetes.pod.namespace", format!("team-{}", number % 200)),
        ("k8s:io.cilium.k8s.policy.serviceaccount", "checkout".to_owned()),
        ("k8s:io.cilium.k8s.policy.cluster", "default".to_owned()),
    ];
    let labels: BTreeMap<Arc<str>, Arc<str>> =
        labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    Resource::Identity(Identity { number: IdentityNumber(256 + number), labels })
}

fn service(number: u32) -> Resource {
    let port = ServicePort {
        name: "http".into(),
        port: 80,
        protocol: Protocol::Tcp,
        app_protocol: AppProtocol::Http,
    };
    let name = ObjectName::new(&format!("team-{}", number % 200), &format!("checkout-{number}"));
    Resource::Service(Service { name, addresses: vec![address((1 << 20) + number)], ports: vec![port] })
}

fn endpoints(number: u32) -> Resource {
    let endpoint =
        |number| Endpoint { address: address(number), ready: true, serving: true, terminating: false };
    let name = format!("checkout-{number}");
    Resource::Endpoints(Endpoints {
        name: ObjectName::new(&format!("team-{}", number % 200), &format!("{name}-abcde")),
        service: name.into(),
        ports: vec![EndpointPort { name: "http".into(), port: 8080, protocol: Protocol::Tcp }],
        endpoints: (0..20).map(|at| endpoint(20 * number + at)).collect(),
    })
}

/// A cluster: of twenty pods each, a Service with its slice, and an identity.
fn cluster(resources: u32) -> Vec<Resource> {
    let groups = resources / 23;
    let pods = (0..resources - 3 * groups).map(workload);
    pods.chain((0..groups).flat_map(|group| [identity(group), service(group), endpoints(group)])).collect()
}

/// Bytes to and from the node until it holds what the publisher has, and whether it was a snapshot.
fn exchange(publisher: &mut Publisher, node: &mut Subscriber) -> (usize, usize, bool) {
    let name: Arc<str> = "n".into();
    let hello = node.hello();
    let from = wire::encode_from_node(&FromNode::Hello(hello.clone())).len();
    publisher.on_hello(hello).unwrap();
    let (mut to, mut whole, mut commit) = (0, false, None);
    for frame in publisher.next_batch(&name).unwrap() {
        whole |= frame.base == Base::Nothing;
        let bytes = wire::encode_to_node(ToNode::Batch(frame));
        to += bytes.len();
        let ToNode::Batch(frame) = wire::decode_to_node(bytes).unwrap() else { panic!("a batch") };
        if let Progress::Commit(done) = node.frame(frame).unwrap() {
            commit = Some(done);
        }
    }
    let ack = node.applied(commit.unwrap().position, Vec::new()).unwrap();
    publisher.on_ack(&name, ack).unwrap();
    (from, to, whole)
}

fn publisher(epoch: u64, upserts: Vec<Resource>) -> Publisher {
    let mut publisher = Publisher::new(epoch);
    publisher.commit(Change { upserts, ..Change::default() });
    publisher
}

fn measure(resources: u32) -> [usize; 3] {
    let mut node = Subscriber::new("n".into());
    let (_, snapshot, whole) = exchange(&mut publisher(1, cluster(resources)), &mut node);
    assert!(whole);
    let (asked, same, whole) = exchange(&mut publisher(2, cluster(resources)), &mut node);
    assert!(!whole);
    let mut changed = cluster(resources);
    for at in 0..10 {
        let Resource::Workload(pod) = &mut changed[at * 97] else { panic!("a pod") };
        pod.addresses = vec![address((1 << 21) + at as u32)];
    }
    let (_, ten, whole) = exchange(&mut publisher(3, changed), &mut node);
    assert!(!whole);
    println!(
        "{resources} resources: snapshot {snapshot} B; a restart costs {asked} B of digests, and {same} B \
         where nothing changed, {ten} B where 10 pods did"
    );
    [snapshot, asked + same, asked + ten]
}

#[test]
fn a_restart_of_the_controller_costs_no_snapshot() {
    for resources in [10_000, 100_000] {
        let [snapshot, same, ten] = measure(resources);
        assert!(same <= snapshot / 200, "{same} of {snapshot}");
        assert!(ten <= snapshot / 40, "{ten} of {snapshot}");
    }
}

#[test]
fn a_workload_of_another_node_takes_less_than_two_hundred_bytes() {
    let mut node = Subscriber::new("n".into());
    let (_, bytes, _) = exchange(&mut publisher(1, (0..20_000).map(workload).collect()), &mut node);
    println!("20,000 pods: {bytes} B, {} B each", bytes / 20_000);
    assert!(bytes < 20_000 * 200);
}

/// The side of the controller: what 300 nodes say that come back, and what they are answered.
#[test]
fn three_hundred_nodes_that_come_back_cost_less_than_a_snapshot_of_one() {
    let mut node = Subscriber::new("n".into());
    let (_, snapshot, _) = exchange(&mut publisher(1, cluster(10_000)), &mut node);
    let mut restarted = publisher(2, cluster(10_000));
    let begin = Instant::now();
    let mut bytes = 0;
    for number in 0..300 {
        let name: Arc<str> = format!("worker-{number}").into();
        let hello = Hello { node: name.clone(), ..node.hello() };
        bytes += wire::encode_from_node(&FromNode::Hello(hello.clone())).len();
        restarted.on_hello(hello).unwrap();
        bytes += restarted
            .next_batch(&name)
            .unwrap()
            .into_iter()
            .map(|f| wire::encode_to_node(ToNode::Batch(f)).len())
            .sum::<usize>();
    }
    println!(
        "300 nodes with 10,000 resources: {bytes} B, {:.1?}; one snapshot {snapshot} B",
        begin.elapsed()
    );
    assert!(bytes < snapshot);
}
