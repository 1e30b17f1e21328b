// SPDX-License-Identifier: Apache-2.0
//! What the kernel redirects is what the proxy has a plan for.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use tokio::sync::mpsc;
use weft_ebpf_common::{
    Action, Verdict,
    layout::{ANY_IDENTITY, Address, EGRESS, INGRESS, POLICY_PREFIX, PolicyKey, ServiceKey},
};
use weft_ebpf_redirect::{
    bpf::Prefix,
    desired::{Desired, DesiredWorkload},
};
use weft_ir::Snapshot;

use super::*;
use crate::{
    state::{
        compile::Compiler,
        world::{self, NODE, PORTS},
    },
    upstream::dial::{DialConfig, Dialer},
    worker::{
        Worker, WorkerParts,
        limits::Limits,
        metrics::WorkerMetrics,
        records::ring,
        target::{Ends, Entrance},
    },
};

const TCP: u8 = 6;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Redirected,
    Passed,
    Dropped,
}

fn worker(snapshot: &Snapshot) -> Rc<Worker> {
    let (state, _rejected) = Compiler::new(NODE.into(), vec![]).compile(snapshot, &[]);
    let dial = DialConfig { mark: None, ports: 1..=1, taken: None, connect_timeout: Duration::from_secs(1) };
    Worker::new(WorkerParts {
        seed: 1,
        state,
        retired: mpsc::channel(1).0,
        metrics: Arc::new(WorkerMetrics::default()),
        recorder: ring(64, Arc::default()).0,
        dialer: Dialer::new(dial, 0),
        limits: Limits::default(),
        connections: 1,
        transparent: false,
    })
}

/// The tables' longest prefix that holds the address.
fn identity(desired: &Desired, address: IpAddr) -> u32 {
    let bits = |address: Address| u128::from_be_bytes(octets(address));
    let holds = |prefix: &Prefix<Address>| {
        let shift = 128 - prefix.length;
        prefix.length == 0 || bits(prefix.data) >> shift == bits(address.into()) >> shift
    };
    let found = desired.identities.iter().filter(|(prefix, _)| holds(prefix));
    *found.max_by_key(|(prefix, _)| prefix.length).expect("prefixes of length 0").1
}

fn octets(address: Address) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// What the programs decide by one workload's entries (`verdict` in programs/src/policy.rs).
fn entry(workload: &DesiredWorkload, direction: u8, peer: u32, port: u16) -> Fate {
    let matching = |key: &Prefix<PolicyKey>| {
        let bits = key.length - POLICY_PREFIX;
        let same_port = bits == 0 || u16::from_be(key.data.port_be) >> (16 - bits) == port >> (16 - bits);
        key.data.direction == direction
            && [peer, ANY_IDENTITY].contains(&key.data.identity)
            && [TCP, 0].contains(&key.data.protocol)
            && same_port
    };
    let rest = match direction {
        EGRESS => workload.egress,
        _ => workload.ingress,
    };
    let entries = workload.policy.iter().filter(|(key, _)| matching(key)).map(|(_, verdict)| *verdict);
    match entries.fold(rest, Verdict::or).action() {
        Action::Deny => Fate::Dropped,
        Action::Allow => Fate::Passed,
        Action::Redirect => Fate::Redirected,
    }
}

/// What the programs do with a new connection to an endpoint's address.
fn to_endpoint(desired: &Desired, client: IpAddr, endpoint: SocketAddr) -> Fate {
    let egress = desired
        .workloads
        .get(&client)
        .map(|workload| entry(workload, EGRESS, identity(desired, endpoint.ip()), endpoint.port()));
    let ingress = desired
        .workloads
        .get(&endpoint.ip())
        .map(|workload| entry(workload, INGRESS, identity(desired, client), endpoint.port()));
    let both = [egress.unwrap_or(Fate::Passed), ingress.unwrap_or(Fate::Passed)];
    match both {
        _ if both.contains(&Fate::Dropped) => Fate::Dropped,
        _ if both.contains(&Fate::Redirected) => Fate::Redirected,
        _ => Fate::Passed,
    }
}

fn planned(worker: &Rc<Worker>, client: IpAddr, destination: SocketAddr) -> Plan {
    let ends = Ends { client: SocketAddr::new(client, 40_000), destination, entrance: Entrance::Redirected };
    let connection = Connection::new(Rc::clone(worker), ends);
    let resolved = connection.resolve();
    plan(&connection, &resolved)
}

fn key(address: SocketAddr) -> ServiceKey {
    ServiceKey { address: address.ip().into(), port_be: address.port().to_be(), protocol: TCP, pad: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_the_kernel_redirects_the_proxy_serves_and_nothing_else(edits in vec(world::edit(), 1..40)) {
        let mut snapshot = world::ground();
        edits.into_iter().for_each(|edit| world::put(&mut snapshot, edit));
        let worker = worker(&snapshot);
        let held = worker.held();
        let state = held.state();
        let desired = Desired::empty(NODE).next(&snapshot, state.services(), state.policies());
        let clients: Vec<IpAddr> = (1..5).map(world::pod_address).collect();
        for client in clients.iter().filter(|client| desired.workloads.contains_key(client)) {
            for vip in world::vips().flat_map(|vip| PORTS.map(|port| SocketAddr::new(vip, port))) {
                let Some(Some(service)) = desired.services.get(&key(vip)) else { continue };
                let plan = planned(&worker, *client, vip);
                let named = state.service(vip).is_some_and(|target| target.capture.is_redirected());
                prop_assert_eq!(service.kept, named, "{}", vip);
                prop_assert!(!service.kept || matches!(plan, Plan::Http), "{} has no plan", vip);
            }
        }
        for (client, endpoint) in clients.iter().flat_map(|client| clients.iter().map(move |to| (client, to))) {
            let local = desired.workloads.contains_key(client) || desired.workloads.contains_key(endpoint);
            for port in PORTS.into_iter().filter(|_| local && client != endpoint) {
                let endpoint = SocketAddr::new(*endpoint, 8000 + port);
                let fate = to_endpoint(&desired, *client, endpoint);
                let agrees = match planned(&worker, *client, endpoint) {
                    // Each request is then decided by both ends, and denied where one of them denies.
                    Plan::Http => fate != Fate::Passed,
                    Plan::Bytes(..) => fate == Fate::Passed,
                    Plan::Refused(..) => fate == Fate::Dropped,
                };
                prop_assert!(agrees, "{} to {} is {:?} in the kernel", client, endpoint, fate);
            }
        }
    }
}
