// SPDX-License-Identifier: Apache-2.0
//! A second schema: the first, and a field more in some messages. Its bytes are made by `prost`, and read by
//! the code of the first one.

use std::sync::Arc;

use prost::Message;

use super::*;
use crate::{
    ObjectName, PathMatch, PolicyKind, Route, RouteAction, RouteKind, RouteMatch, RouteTimeouts, Selector,
    Service,
    publish::{Change, Publisher},
    stream::{Ack, Batch, Hello},
    subscribe::{Progress, Subscriber},
};

/// The fields of a message that schema 2 added.
#[derive(Clone, PartialEq, Message)]
struct Added {
    #[prost(string, optional, tag = "99")]
    only_in_two: Option<String>,
}

/// `Resource` of schema 2, its message as bytes: encoded fields may be joined, as protobuf says.
#[derive(Clone, PartialEq, Message)]
struct Resource2 {
    #[prost(bytes = "vec", optional, tag = "4")]
    service: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "7")]
    route: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "9")]
    policy: Option<Vec<u8>>,
}

/// Objects whose name ends in `-new` use what schema 2 added.
fn encode(resource: &Resource) -> Bytes {
    let is_new = match resource {
        Resource::Policy(policy) => policy.name.name.ends_with("-new"),
        Resource::Route(route) => route.origin.name.ends_with("-new"),
        Resource::Service(service) => service.name.name.ends_with("-new"),
        _ => false,
    };
    let bytes = wire::encode(resource);
    if !is_new {
        return bytes;
    }
    let added = Added { only_in_two: Some("new".into()) }.encode_to_vec();
    let mut whole = Resource2::decode(bytes).unwrap();
    for message in [&mut whole.service, &mut whole.route, &mut whole.policy].into_iter().flatten() {
        message.extend(&added);
    }
    whole.encode_to_vec().into()
}

const ONE: Older =
    Older { number: 1, again: |bytes| wire::decode(bytes).ok().map(|read| wire::encode(&read)) };

const TWO: Schemas = Schemas { current: 2, encode, older: &[ONE] };

fn policy(name: &str, deny: bool) -> Resource {
    let rule = || PolicyRule { peers: vec![Peer::Any], ports: Vec::new(), authenticate: false };
    let deny = if deny { vec![rule()] } else { Vec::new() };
    Resource::Policy(Policy {
        kind: PolicyKind::NetworkPolicy,
        name: ObjectName::new("shop", name),
        index: 0,
        tier: Tier::Normal,
        priority: 0,
        subject: Selector::default(),
        ingress: PolicyDirection { default_deny: true, allow: vec![rule()], deny },
        egress: PolicyDirection::default(),
    })
}

fn route(name: &str) -> Resource {
    let path = PathMatch::Exact("/x".into());
    let one = RouteMatch { path, method: None, headers: Vec::new(), query: Vec::new() };
    Resource::Route(Route {
        kind: RouteKind::HttpRoute,
        origin: ObjectName::new("shop", name),
        rule: 0,
        created: 0,
        parents: Vec::new(),
        hostnames: Vec::new(),
        matches: vec![one],
        action: RouteAction {
            filters: Vec::new(),
            backends: vec![crate::RouteBackend { service: None, weight: 1, filters: Vec::new() }],
            timeouts: RouteTimeouts::default(),
            retry: None,
        },
    })
}

fn service(name: &str) -> Resource {
    let name = ObjectName::new("shop", name);
    Resource::Service(Service { name, addresses: Vec::new(), ports: Vec::new() })
}

fn connect(publisher: &mut Publisher, node: &str, schema: u32) -> Vec<Batch> {
    let hello = Hello { schema, ..Subscriber::new(node.into()).hello() };
    publisher.on_hello(hello).unwrap();
    publisher.next_batch(&node.into()).unwrap()
}

fn published(resources: Vec<Resource>) -> Publisher {
    let mut publisher = Publisher::with_schemas(7, TWO);
    publisher.commit(Change { upserts: resources, ..Change::default() });
    publisher
}

#[test]
fn an_older_node_gets_what_it_reads_and_stand_ins_for_what_it_would_lose() {
    let all = ["old", "x-new"].into_iter().flat_map(|name| [policy(name, false), route(name), service(name)]);
    let mut publisher = published(all.chain([policy("y-new", true)]).collect());
    let mut node = Subscriber::new("old".into());
    node.hello();
    let mut frames = connect(&mut publisher, "old", 1);
    let Progress::Commit(commit) = node.frame(frames.remove(0)).unwrap() else { panic!("one frame") };
    assert!(commit.rejected.is_empty(), "it can read all that it is sent: {:?}", commit.rejected);
    let held =
        |resource: &Resource| commit.snapshot.resources.get(&resource.key()).map(|one| (**one).clone());
    for unchanged in [policy("old", false), route("old"), service("old")] {
        assert_eq!(held(&unchanged), Some(unchanged));
    }
    assert_eq!(held(&service("x-new")), None, "left out");
    let Some(Resource::Route(closed)) = held(&route("x-new")) else { panic!("a route that answers 500") };
    assert_eq!((closed.action.filters, closed.action.backends.len()), (vec![RouteFilter::Invalid], 0));
    assert_eq!(closed.matches.len(), 1, "for what it names, and nothing else");
    for (name, denies) in [("x-new", 0), ("y-new", 1)] {
        let Some(Resource::Policy(closed)) = held(&policy(name, false)) else { panic!("a closed policy") };
        assert!(closed.ingress.default_deny && closed.egress.default_deny);
        assert_eq!((closed.ingress.allow.len(), closed.ingress.deny.len()), (0, denies), "{name}");
    }

    publisher.on_ack(&"old".into(), node.applied(commit.position, Vec::new()).unwrap()).unwrap();
    let report = publisher.node("old").unwrap();
    let said: Vec<String> =
        report.rejected.iter().map(|one| format!("{}: {}", one.key, one.message)).collect();
    assert_eq!(said.len(), 4, "{said:?}");
    let denied = "needs schema 2, and the node reads 1: what it names is denied";
    assert!(
        said.contains(&format!("httproute.gateway.networking.k8s.io/shop/x-new/0: {denied}")),
        "{said:?}"
    );
    assert!(said.iter().any(|line| line.starts_with("service/shop/x-new: ") && line.ends_with("left out")));
}

#[test]
fn a_node_of_the_schema_gets_the_bytes_themselves_and_a_strange_one_nothing() {
    let mut publisher = published(vec![policy("x-new", false), service("x-new")]);
    let frames = connect(&mut publisher, "new", 2);
    let bytes: Vec<Bytes> = frames[0].upserts.iter().map(|one| one.resource.clone()).collect();
    assert_eq!(bytes, [encode(&service("x-new")), encode(&policy("x-new", false))]);
    assert!(frames[0].upserts.iter().all(|one| one.min_schema == 2));
    publisher.on_ack(&"new".into(), Ack { revision: 1, ..Ack::default() }).unwrap();
    assert_eq!(publisher.node("new").unwrap().rejected, []);
    let strange = Hello { schema: 0, ..Subscriber::new("strange".into()).hello() };
    assert_eq!(publisher.on_hello(strange), Err(crate::publish::PublishError::Schema(0)));
}

#[test]
fn a_resource_that_begins_to_need_the_schema_is_replaced_and_comes_back() {
    let mut publisher = published(vec![service("a-new"), policy("p", false)]);
    let (name, mut node): (Arc<str>, _) = ("old".into(), Subscriber::new("old".into()));
    node.hello();
    let take = |node: &mut Subscriber, frames: Vec<Batch>| {
        for frame in frames {
            if let Progress::Commit(commit) = node.frame(frame).unwrap() {
                return node.applied(commit.position, Vec::new()).unwrap();
            }
        }
        panic!("no commit")
    };
    let ack = take(&mut node, connect(&mut publisher, "old", 1));
    publisher.on_ack(&name, ack).unwrap();
    assert_eq!(publisher.node("old").unwrap().rejected.len(), 1);
    // The digest of what the node has is that of its own schema.
    publisher.commit(Change { removes: vec![service("a-new").key()], ..Change::default() });
    let ack = take(&mut node, publisher.next_batch(&name).unwrap());
    publisher.on_ack(&name, ack).unwrap();
    assert_eq!(publisher.node("old").unwrap().rejected, []);
}
