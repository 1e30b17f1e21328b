// SPDX-License-Identifier: Apache-2.0
use weft_ir::{
    AppProtocol, Identity, ObjectName, Protocol, Resource, Service, ServicePort, Snapshot, Workload,
    stream::Position,
};

use super::*;

fn workload(pod: &str, address: &str) -> Workload {
    Workload {
        name: ObjectName::new("shop", pod),
        node: "n1".into(),
        addresses: vec![address.parse().unwrap()],
        identity: IdentityNumber(300),
        service_account: "default".into(),
        host_network: false,
        owner: "client".into(),
        ports: Vec::new(),
    }
}

fn directory() -> Directory {
    let mut snapshot = Snapshot { revision: 9, ..Snapshot::default() };
    snapshot.insert(Resource::Identity(Identity {
        number: IdentityNumber(300),
        labels: [("k8s:app".into(), "client".into())].into(),
    }));
    for pod in ["client", "one", "other"] {
        let address = if pod == "client" { "10.244.0.2" } else { "10.244.0.3" };
        snapshot.insert(Resource::Workload(workload(pod, address)));
    }
    snapshot.insert(Resource::Service(Service {
        name: ObjectName::new("shop", "checkout"),
        addresses: vec!["10.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap()],
        ports: vec![ServicePort {
            name: "".into(),
            port: 80,
            protocol: Protocol::Tcp,
            app_protocol: AppProtocol::Http,
        }],
    }));
    Directory::build(&snapshot, "n1")
}

fn event(source: (&str, u32), destination: (&str, u32)) -> UnnamedFlow {
    let end = |(ip, identity): (&str, u32)| UnnamedEnd { ip: ip.parse().unwrap(), port: 80, identity };
    UnnamedFlow {
        time: Timestamp(1),
        event: Event::Drop,
        verdict: Verdict::Dropped,
        reason: Some(Reason::PolicyDenied),
        direction: Direction::Egress,
        source: end(source),
        destination: end(destination),
        service: None,
        protocol: IpProtocol::TCP,
        flags: TcpFlags(2),
        is_reply: None,
        policies: Vec::new(),
    }
}

#[test]
fn a_kernel_event_gets_names_labels_and_the_revision() {
    let flow = flow(&directory(), event(("10.244.0.2", 300), ("10.96.0.1", 2)));
    assert_eq!((&*flow.node, flow.revision), ("n1", Position { epoch: 0, revision: 9 }));
    assert_eq!(
        (&*flow.source.namespace, &*flow.source.pod, &*flow.source.workload),
        ("shop", "client", "client")
    );
    assert_eq!(flow.source.labels.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["k8s:app=client"]);
    assert_eq!(&*flow.destination.service, "shop/checkout");
    assert_eq!(flow.destination.labels.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["reserved:world"]);
    assert_eq!((flow.reason, flow.l4.flags), (Some(Reason::PolicyDenied), TcpFlags(2)));
}

#[test]
fn the_service_that_was_asked_for_belongs_to_the_server() {
    let asked = UnnamedFlow {
        service: Some(("fd00:96::1".parse().unwrap(), 80)),
        is_reply: Some(true),
        ..event(("10.244.0.9", 0), ("10.244.0.2", 300))
    };
    let flow = flow(&directory(), asked);
    assert_eq!((&*flow.source.service, &*flow.destination.service), ("shop/checkout", ""));
}

#[test]
fn a_name_is_shown_only_with_the_identity_that_was_decided_with() {
    let flow = flow(&directory(), event(("10.244.0.2", 301), ("::ffff:10.244.0.2", 300)));
    assert_eq!((&*flow.source.pod, flow.source.identity), ("", 301));
    assert_eq!(&*flow.destination.pod, "client");
}

#[test]
fn an_address_that_several_pods_claim_has_no_name_but_theirs_are_shown() {
    let flow = flow(&directory(), event(("10.244.0.3", 0), ("10.244.0.3", 300)));
    assert_eq!((&*flow.source.pod, &*flow.destination.pod), ("", ""));
    let labels: Vec<&str> = flow.source.labels.iter().map(AsRef::as_ref).collect();
    assert_eq!(labels, ["reserved:unknown", "weft:claimed-by=shop/one", "weft:claimed-by=shop/other"]);
    assert_eq!(flow.destination.labels.len(), 1, "decided when it was one pod's");
}

#[test]
fn reserved_identities_have_hubbles_names() {
    assert_eq!((reserved_name(1), reserved_name(8)), (Some("host"), Some("ingress")));
    assert_eq!((reserved_name(300), reserved_name(1 << 24)), (None, None));
}
