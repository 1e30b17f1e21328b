// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::{
    Identity, IdentityNumber,
    stream::{Held, MAX_BRANCHES, MAX_FRAME_BYTES, MAX_RESOURCE_BYTES},
    wire,
};

fn identity(number: u32, padding: usize) -> Resource {
    let labels = BTreeMap::from([(Arc::from("k8s:app"), Arc::from("x".repeat(padding)))]);
    Resource::Identity(Identity { number: IdentityNumber(number), labels })
}

fn change(upserts: Vec<Resource>) -> Change {
    Change { upserts, ..Change::default() }
}

fn hello(node: &Arc<str>, resume: Option<Position>) -> Hello {
    Hello { node: node.clone(), schema: 1, resume, versions: Versions::default(), held: None }
}

fn ack(revision: u64) -> Ack {
    Ack { revision, ..Ack::default() }
}

#[test]
fn nothing_is_sent_before_the_first_commit() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    publisher.on_hello(hello(&node, None)).unwrap();
    assert!(publisher.next_batch(&node).unwrap().is_empty());
    assert_eq!(publisher.commit(Change::default()), 1);
    assert_eq!(publisher.next_batch(&node).unwrap().len(), 1);
}

#[test]
fn commits_merge_while_a_batch_is_in_flight() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    publisher.on_hello(hello(&node, None)).unwrap();
    publisher.commit(change(vec![identity(1, 1)]));
    assert_eq!(publisher.next_batch(&node).unwrap()[0].base, Base::Nothing);
    publisher.commit(change(vec![identity(2, 1)]));
    publisher.commit(change(vec![identity(2, 2), identity(3, 1)]));
    assert!(publisher.next_batch(&node).unwrap().is_empty());
    publisher.on_ack(&node, ack(1)).unwrap();
    let batch = publisher.next_batch(&node).unwrap();
    assert_eq!((batch.len(), &batch[0].base, batch[0].position.revision), (1, &Base::Revision(1), 3));
    assert_eq!(batch[0].upserts.len(), 2);
    assert_eq!(publisher.behind(3).count(), 1);
    publisher.on_ack(&node, ack(3)).unwrap();
    assert_eq!(publisher.behind(3).count(), 0);
    assert!(publisher.next_batch(&node).unwrap().is_empty());
}

#[test]
fn the_same_state_again_is_no_commit() {
    let mut publisher = Publisher::new(7);
    assert_eq!(publisher.commit(change(vec![identity(1, 1)])), 1);
    assert_eq!(publisher.commit(change(vec![identity(1, 1)])), 1);
    let gone = |number| Change { removes: vec![identity(number, 1).key()], ..Change::default() };
    assert_eq!(publisher.commit(gone(2)), 1, "it was not there");
    assert_eq!(publisher.commit(gone(1)), 2);
}

#[test]
fn a_wrong_acknowledgement_changes_nothing() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    assert_eq!(publisher.on_ack(&node, ack(1)), Err(PublishError::NotConnected(node.clone())));
    publisher.on_hello(hello(&node, None)).unwrap();
    publisher.commit(change(vec![identity(1, 1)]));
    publisher.next_batch(&node).unwrap();
    let wrong = Err(PublishError::UnexpectedAck { node: node.clone(), acked: 9 });
    assert_eq!(publisher.on_ack(&node, ack(9)), wrong);
    assert_eq!(publisher.behind(1).count(), 1);
}

#[test]
fn a_node_resumes_where_the_log_reaches_and_gets_a_snapshot_elsewhere() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    for number in 0..10_000 {
        publisher.commit(change(vec![identity(number % 100, number as usize % 7 + number as usize / 100)]));
    }
    let base_of = |publisher: &mut Publisher, epoch, revision| {
        publisher.on_hello(hello(&node, Some(Position { epoch, revision }))).unwrap();
        publisher.next_batch(&node).unwrap()[0].base.clone()
    };
    let last = publisher.revision();
    assert_eq!(base_of(&mut publisher, 7, last - 10), Base::Revision(last - 10));
    assert_eq!(base_of(&mut publisher, 7, 1), Base::Nothing, "too long ago");
    assert_eq!(base_of(&mut publisher, 8, last), Base::Nothing, "another run");
    assert_eq!(base_of(&mut publisher, 7, last + 1), Base::Nothing, "not yet published");
}

#[test]
fn frames_are_bounded_and_an_oversized_resource_is_held_back() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    let many = (0..50).map(|number| identity(number, 20_000)).collect();
    publisher.commit(change(many));
    publisher.commit(change(vec![identity(99, MAX_RESOURCE_BYTES)]));
    publisher.on_hello(hello(&node, None)).unwrap();
    let batch = publisher.next_batch(&node).unwrap();
    assert!(batch.len() >= 4);
    let held_back = batch.iter().flat_map(|frame| &frame.upserts).filter(|upsert| upsert.resource.is_empty());
    assert_eq!(held_back.count(), 1);
    for frame in batch {
        assert!(wire::encode_to_node(crate::stream::ToNode::Batch(frame)).len() <= MAX_FRAME_BYTES);
    }
}

#[test]
fn names_are_checked_and_absent_nodes_make_room() {
    let mut publisher = Publisher::new(7);
    assert_eq!(publisher.on_hello(hello(&"".into(), None)), Err(PublishError::NodeName(0)));
    for number in 0..MAX_NODES {
        publisher.on_hello(hello(&number.to_string().into(), None)).unwrap();
    }
    let late = Arc::from("late");
    assert_eq!(publisher.on_hello(hello(&late, None)), Err(PublishError::TooManyNodes));
    publisher.on_disconnect("5");
    assert_eq!(publisher.on_hello(hello(&late, None)), Ok(()));
}

/// What a node is sent first that holds this, as the kind of the batch and the resources in it.
fn first_batch(publisher: &mut Publisher, held: &Publisher, versions: Versions) -> Vec<Batch> {
    let node: Arc<str> = "a".into();
    let held = Held { digest: held.trees[&1].digest(), branches: held.trees[&1].branches(MAX_BRANCHES) };
    let hello = Hello { versions, held: Some(held), ..hello(&node, None) };
    publisher.on_hello(hello).unwrap();
    publisher.next_batch(&node).unwrap()
}

#[test]
fn a_node_of_another_run_is_sent_what_differs() {
    let published = |epoch, all: Vec<Resource>| {
        let mut publisher = Publisher::new(epoch);
        publisher.commit(change(all));
        publisher
    };
    let all = || (0..2000).map(|number| identity(number, 1));
    let held = published(1, all().collect());
    let mut same = published(2, all().collect());
    let batch = first_batch(&mut same, &held, Versions::default());
    assert_eq!((batch.len(), batch[0].upserts.len()), (1, 0));
    assert_eq!(batch[0].base, Base::Hello { branches: Vec::new() });

    let changed = |one: Resource| if one == identity(5, 1) { identity(5, 2) } else { one };
    let mut other = published(3, all().skip(1).map(changed).collect());
    let batch = first_batch(&mut other, &held, Versions::default());
    let sent: Vec<_> = batch.iter().flat_map(|frame| &frame.upserts).map(|one| one.key.clone()).collect();
    assert!(sent.contains(&identity(5, 1).key()) && !sent.contains(&identity(0, 1).key()));
    assert!(sent.len() <= 2 * 32, "{} of 2000", sent.len());

    let mut strange = published(4, (0..2000).map(|number| identity(number, 3)).collect());
    assert_eq!(first_batch(&mut strange, &held, Versions::default())[0].base, Base::Nothing);
}

#[test]
fn a_publisher_that_knows_less_sends_nothing_until_it_knows_as_much() {
    let publisher = |known, numbers: std::ops::Range<u32>| {
        let mut publisher = Publisher::new(known);
        let upserts = numbers.map(|number| identity(number, 1)).collect();
        publisher.commit(Change { upserts, versions: Versions::of("files", known), ..Change::default() });
        publisher
    };
    let node: Arc<str> = "a".into();
    let current = publisher(12, 0..12);
    let mut stale = publisher(8, 0..8);
    assert_eq!(first_batch(&mut stale, &current, Versions::of("files", 12)), []);
    let ahead = stale.node("a").unwrap().ahead.clone().unwrap();
    assert_eq!(&*ahead, "was told files 12, and this controller knows files 8");
    assert_eq!(stale.behind(1).count(), 1);

    // The same content is no step back, whoever has it.
    let mut older = publisher(8, 0..12);
    assert_eq!(first_batch(&mut older, &current, Versions::of("files", 12)).len(), 1);
    older.on_ack(&node, ack(1)).unwrap();
    // What follows from less is, later on the same stream too.
    older.commit(Change { versions: Versions::of("files", 9), ..change(vec![identity(1, 2)]) });
    assert_eq!(older.next_batch(&node), Ok(Vec::new()));
    older.commit(Change { versions: Versions::of("files", 12), ..change(vec![identity(2, 2)]) });
    assert_eq!(older.next_batch(&node).unwrap()[0].base, Base::Revision(1));
    assert_eq!(older.node("a").unwrap().ahead, None);

    // Who knows less of one part knows less, whatever else it knows.
    let mut other = Publisher::new(7);
    other.commit(Change { versions: Versions::of("more", 99), ..Change::default() });
    assert_eq!(first_batch(&mut other, &current, Versions::of("files", 12)), []);
}

#[test]
fn only_what_was_sent_can_be_rejected() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    publisher.on_hello(hello(&node, None)).unwrap();
    publisher.commit(change(vec![identity(1, 1), identity(2, 1)]));
    publisher.next_batch(&node).unwrap();
    let rejection = |key| Rejection { key, message: "no".into() };
    let invented = ["policy/x", "service/shop/checkout", "identity/3"].map(ResourceKey::parse);
    let rejected: Vec<_> = invented.into_iter().chain([identity(2, 1).key()]).map(rejection).collect();
    publisher.on_ack(&node, Ack { rejected, ..ack(1) }).unwrap();
    let report = publisher.node("a").unwrap();
    assert_eq!((&report.rejected, report.unknown), (&vec![rejection(identity(2, 1).key())], 3));
}
