// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::{Identity, IdentityNumber, stream::MAX_FRAME_BYTES};

fn identity(number: u32, padding: usize) -> Resource {
    let labels = BTreeMap::from([(Arc::from("k8s:app"), Arc::from("x".repeat(padding)))]);
    Resource::Identity(Identity { number: IdentityNumber(number), labels })
}

fn change(upserts: Vec<Resource>) -> Change {
    Change { upserts, removes: Vec::new() }
}

fn hello(node: &Arc<str>, resume: Option<Position>) -> Hello {
    Hello { node: node.clone(), schema: 1, resume }
}

fn ack(revision: u64) -> Ack {
    Ack { revision, ..Ack::default() }
}

#[test]
fn nothing_is_sent_before_the_first_commit() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    publisher.on_hello(&hello(&node, None)).unwrap();
    assert!(publisher.next_batch(&node).unwrap().is_empty());
    assert_eq!(publisher.commit(Change::default()), 1);
    assert_eq!(publisher.next_batch(&node).unwrap().len(), 1);
}

#[test]
fn commits_merge_while_a_batch_is_in_flight() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    publisher.on_hello(&hello(&node, None)).unwrap();
    publisher.commit(change(vec![identity(1, 1)]));
    assert_eq!(publisher.next_batch(&node).unwrap()[0].base, None);
    publisher.commit(change(vec![identity(2, 1)]));
    publisher.commit(change(vec![identity(2, 2), identity(3, 1)]));
    assert!(publisher.next_batch(&node).unwrap().is_empty());
    publisher.on_ack(&node, ack(1)).unwrap();
    let batch = publisher.next_batch(&node).unwrap();
    assert_eq!((batch.len(), batch[0].base, batch[0].position.revision), (1, Some(1), 3));
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
    let gone = |number| Change { upserts: Vec::new(), removes: vec![identity(number, 1).key()] };
    assert_eq!(publisher.commit(gone(2)), 1, "it was not there");
    assert_eq!(publisher.commit(gone(1)), 2);
}

#[test]
fn a_wrong_acknowledgement_changes_nothing() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    assert_eq!(publisher.on_ack(&node, ack(1)), Err(PublishError::NotConnected(node.clone())));
    publisher.on_hello(&hello(&node, None)).unwrap();
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
        publisher.on_hello(&hello(&node, Some(Position { epoch, revision }))).unwrap();
        publisher.next_batch(&node).unwrap()[0].base
    };
    let last = publisher.revision();
    assert_eq!(base_of(&mut publisher, 7, last - 10), Some(last - 10));
    assert_eq!(base_of(&mut publisher, 7, 1), None, "too long ago");
    assert_eq!(base_of(&mut publisher, 8, last), None, "another run");
    assert_eq!(base_of(&mut publisher, 7, last + 1), None, "not yet published");
}

#[test]
fn frames_are_bounded_and_an_oversized_resource_is_held_back() {
    let (mut publisher, node) = (Publisher::new(7), Arc::from("a"));
    let many = (0..50).map(|number| identity(number, 20_000)).collect();
    publisher.commit(change(many));
    publisher.commit(change(vec![identity(99, MAX_RESOURCE_BYTES)]));
    publisher.on_hello(&hello(&node, None)).unwrap();
    let batch = publisher.next_batch(&node).unwrap();
    assert!(batch.len() >= 4);
    let held_back = batch.iter().flat_map(|frame| &frame.upserts).filter(|upsert| upsert.resource.is_empty());
    assert_eq!(held_back.count(), 1);
    for frame in batch {
        assert!(wire::encode_to_node(frame).len() <= MAX_FRAME_BYTES);
    }
}

#[test]
fn names_are_checked_and_absent_nodes_make_room() {
    let mut publisher = Publisher::new(7);
    assert_eq!(publisher.on_hello(&hello(&"".into(), None)), Err(PublishError::NodeName(0)));
    for number in 0..MAX_NODES {
        publisher.on_hello(&hello(&number.to_string().into(), None)).unwrap();
    }
    let late = Arc::from("late");
    assert_eq!(publisher.on_hello(&hello(&late, None)), Err(PublishError::TooManyNodes));
    publisher.on_disconnect("5");
    assert_eq!(publisher.on_hello(&hello(&late, None)), Ok(()));
}
