// SPDX-License-Identifier: Apache-2.0

use bytes::Bytes;

use super::*;
use crate::{Identity, IdentityNumber, Resource, stream::Upsert, wire};

fn identity(number: u32, label: &str) -> Resource {
    let labels = [(Arc::from(label), Arc::from(""))].into();
    Resource::Identity(Identity { number: IdentityNumber(number), labels })
}

fn upsert(resource: &Resource) -> Upsert {
    Upsert { key: resource.key(), min_schema: 1, resource: wire::encode(resource) }
}

fn batch(epoch: u64, base: Option<u64>, revision: u64, upserts: Vec<Upsert>) -> Batch {
    let position = Position { epoch, revision };
    Batch { position, base, frame: 0, upserts, removes: Vec::new(), last: true }
}

fn commit(progress: Result<Progress, SubscribeError>) -> Arc<Commit> {
    match progress {
        Ok(Progress::Commit(commit)) => commit,
        other => panic!("no commit: {other:?}"),
    }
}

#[test]
fn nothing_is_seen_before_the_last_frame() {
    let mut node = Subscriber::new("a".into());
    let mut first = batch(1, None, 1, vec![upsert(&identity(1, "a"))]);
    first.last = false;
    assert_eq!(node.frame(first), Ok(Progress::Incomplete));
    assert_eq!(node.commit(), None);
    let mut last = batch(1, None, 1, vec![upsert(&identity(2, "a"))]);
    last.frame = 1;
    let commit = commit(node.frame(last));
    assert_eq!(commit.changed.len(), 2);
    assert_eq!(node.applied(commit.position, Vec::new()).unwrap().revision, 1);
    assert_eq!(node.applied(commit.position, Vec::new()), None, "acknowledged once");
}

#[test]
fn a_rejected_resource_keeps_its_last_good_version() {
    let mut node = Subscriber::new("a".into());
    let good = identity(1, "good");
    let first = commit(node.frame(batch(1, None, 1, vec![upsert(&good)])));
    node.applied(first.position, Vec::new());
    let bad = Upsert { resource: Bytes::from_static(b"\xff"), ..upsert(&good) };
    let unknown =
        Upsert { key: identity(2, "").key(), min_schema: 99, resource: wire::encode(&identity(2, "")) };
    let second = commit(node.frame(batch(1, Some(1), 2, vec![bad.clone(), unknown])));
    assert_eq!(second.snapshot.resources.get(&good.key()).map(|found| (**found).clone()), Some(good.clone()));
    assert_eq!(second.snapshot.resources.len(), 1, "without a good version it is absent");
    assert_eq!(second.rejected.len(), 2);
    assert_eq!(second.changed.len(), 2);
    let ack = node.applied(second.position, Vec::new()).unwrap();
    assert!(ack.rejected[1].message.contains("needs schema 99"), "{ack:?}");
    assert_eq!(node.hello().resume, None, "to have them sent once more");

    // The same snapshot from another run changes nothing; the good version is still there.
    let third = commit(node.frame(batch(2, None, 1, vec![bad])));
    assert!(third.snapshot.resources.contains_key(&good.key()));
    assert_eq!(third.changed, []);
    assert_eq!(third.removed, [identity(2, "").key()]);
    node.applied(third.position, Vec::new());
    let fourth = commit(node.frame(batch(2, Some(1), 2, vec![upsert(&good)])));
    assert_eq!((fourth.changed.clone(), fourth.rejected.len()), (vec![good.key()], 0));
}

#[test]
fn a_key_that_is_not_the_resources_own_is_rejected() {
    let mut node = Subscriber::new("a".into());
    let wrong = Upsert { key: identity(2, "").key(), ..upsert(&identity(1, "")) };
    let commit = commit(node.frame(batch(1, None, 1, vec![wrong])));
    assert!(commit.snapshot.resources.is_empty());
    assert_eq!(commit.rejected.len(), 1);
}

#[test]
fn nothing_rolls_a_node_back() {
    let mut node = Subscriber::new("a".into());
    let five = commit(node.frame(batch(1, None, 5, Vec::new())));
    assert_eq!(node.frame(batch(1, Some(5), 6, Vec::new())), Err(SubscribeError::Unacknowledged(6)));
    node.applied(five.position, Vec::new());
    let rollback = Err(SubscribeError::Rollback { found: 4, held: 5 });
    assert_eq!(node.frame(batch(1, None, 4, Vec::new())), rollback);
    assert_eq!(node.frame(batch(1, Some(4), 6, Vec::new())), Err(SubscribeError::WrongBase { base: 4 }));
    assert_eq!(node.frame(batch(2, Some(5), 6, Vec::new())), Err(SubscribeError::WrongBase { base: 5 }));
    assert_eq!(commit(node.frame(batch(2, None, 1, Vec::new()))).position.epoch, 2);
}

#[test]
fn changes_add_up_until_they_are_applied() {
    let mut node = Subscriber::new("a".into());
    let first = commit(node.frame(batch(1, None, 1, vec![upsert(&identity(1, ""))])));
    node.hello();
    let second = commit(node.frame(batch(1, Some(1), 2, vec![upsert(&identity(2, ""))])));
    assert_eq!(node.applied(first.position, Vec::new()), None, "no longer the last");
    assert_eq!(second.changed.len(), 2);
    assert!(node.applied(second.position, Vec::new()).is_some());
    node.hello();
    let again = node.frame(batch(1, Some(2), 2, Vec::new()));
    assert!(matches!(again, Ok(Progress::Ack(Ack { revision: 2, .. }))), "{again:?}");
}

#[test]
fn what_the_node_refuses_is_reported_in_bounds() {
    let mut node = Subscriber::new("a".into());
    let commit = commit(node.frame(batch(1, None, 1, Vec::new())));
    let refused =
        |number: u32| Rejection { key: identity(number, "").key(), message: "é".repeat(2000).into() };
    let ack = node.applied(commit.position, (0..300).map(refused).collect()).unwrap();
    assert_eq!((ack.rejected.len(), ack.omitted), (MAX_REJECTIONS, 44));
    assert!(ack.rejected.iter().all(|rejection| rejection.message.len() <= MAX_REJECTION_BYTES));
}
