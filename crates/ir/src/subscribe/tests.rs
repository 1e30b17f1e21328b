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

/// A batch after which the node holds this.
fn batch(epoch: u64, base: Option<u64>, revision: u64, upserts: Vec<Upsert>, state: &[Upsert]) -> Batch {
    let mut tree = Tree::default();
    state.iter().for_each(|one| tree.insert(&one.key, digest::of_bytes(&one.resource)));
    Batch {
        position: Position { epoch, revision },
        base: base.map_or(Base::Nothing, Base::Revision),
        versions: Versions::default(),
        digest: tree.digest(),
        frame: 0,
        upserts,
        removes: Vec::new(),
        last: true,
    }
}

/// A snapshot of this.
fn snapshot(epoch: u64, revision: u64, state: Vec<Upsert>) -> Batch {
    let of = state.clone();
    batch(epoch, None, revision, state, &of)
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
    let both = [upsert(&identity(1, "a")), upsert(&identity(2, "a"))];
    let mut first = batch(1, None, 1, both[..1].to_vec(), &both);
    first.last = false;
    assert_eq!(node.frame(first), Ok(Progress::Incomplete));
    assert_eq!(node.commit(), None);
    let mut last = batch(1, None, 1, both[1..].to_vec(), &both);
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
    let first = commit(node.frame(snapshot(1, 1, vec![upsert(&good)])));
    node.applied(first.position, Vec::new());
    let bad = Upsert { resource: Bytes::from_static(b"\xff"), ..upsert(&good) };
    let unknown =
        Upsert { key: identity(2, "").key(), min_schema: 99, resource: wire::encode(&identity(2, "")) };
    let both = [bad.clone(), unknown];
    let second = commit(node.frame(batch(1, Some(1), 2, both.to_vec(), &both)));
    assert_eq!(second.snapshot.resources.get(&good.key()).map(|found| (**found).clone()), Some(good.clone()));
    assert_eq!(second.snapshot.resources.len(), 1, "without a good version it is absent");
    assert_eq!(second.rejected.len(), 2);
    assert_eq!(second.changed.len(), 2);
    let ack = node.applied(second.position, Vec::new()).unwrap();
    assert!(ack.rejected[1].message.contains("needs schema 99"), "{ack:?}");
    let hello = node.hello();
    assert_eq!(hello.resume, None, "to have them sent once more");
    assert_eq!(hello.held.unwrap().digest, Tree::default().digest(), "and it claims neither");

    // The same snapshot from another run changes nothing; the good version is still there.
    let third = commit(node.frame(snapshot(2, 1, vec![bad])));
    assert!(third.snapshot.resources.contains_key(&good.key()));
    assert_eq!(third.changed, []);
    assert_eq!(third.removed, [identity(2, "").key()]);
    node.applied(third.position, Vec::new());
    let fourth = commit(node.frame(batch(2, Some(1), 2, vec![upsert(&good)], &[upsert(&good)])));
    assert_eq!((fourth.changed.clone(), fourth.rejected.len()), (vec![good.key()], 0));
}

#[test]
fn a_key_that_is_not_the_resources_own_is_rejected() {
    let mut node = Subscriber::new("a".into());
    let wrong = Upsert { key: identity(2, "").key(), ..upsert(&identity(1, "")) };
    let commit = commit(node.frame(snapshot(1, 1, vec![wrong])));
    assert!(commit.snapshot.resources.is_empty());
    assert_eq!(commit.rejected.len(), 1);
}

#[test]
fn nothing_rolls_a_node_back() {
    let mut node = Subscriber::new("a".into());
    let five = commit(node.frame(snapshot(1, 5, Vec::new())));
    assert_eq!(node.frame(batch(1, Some(5), 6, Vec::new(), &[])), Err(SubscribeError::Unacknowledged(6)));
    node.applied(five.position, Vec::new());
    let rollback = Err(SubscribeError::Rollback { found: 4, held: 5 });
    assert_eq!(node.frame(snapshot(1, 4, Vec::new())), rollback);
    assert_eq!(node.frame(batch(1, Some(4), 6, Vec::new(), &[])), Err(SubscribeError::WrongBase { base: 4 }));
    assert_eq!(node.frame(batch(2, Some(5), 6, Vec::new(), &[])), Err(SubscribeError::WrongBase { base: 5 }));
    assert_eq!(commit(node.frame(snapshot(2, 1, Vec::new()))).position.epoch, 2);
}

#[test]
fn changes_add_up_until_they_are_applied() {
    let mut node = Subscriber::new("a".into());
    let both = [upsert(&identity(1, "")), upsert(&identity(2, ""))];
    let first = commit(node.frame(snapshot(1, 1, both[..1].to_vec())));
    node.hello();
    let second = commit(node.frame(batch(1, Some(1), 2, both[1..].to_vec(), &both)));
    assert_eq!(node.applied(first.position, Vec::new()), None, "no longer the last");
    assert_eq!(second.changed.len(), 2);
    assert!(node.applied(second.position, Vec::new()).is_some());
    node.hello();
    let again = node.frame(batch(1, Some(2), 2, Vec::new(), &both));
    assert!(matches!(again, Ok(Progress::Ack(Ack { revision: 2, .. }))), "{again:?}");
}

#[test]
fn what_the_node_refuses_is_reported_in_bounds() {
    let mut node = Subscriber::new("a".into());
    let commit = commit(node.frame(snapshot(1, 1, Vec::new())));
    let refused =
        |number: u32| Rejection { key: identity(number, "").key(), message: "é".repeat(2000).into() };
    let ack = node.applied(commit.position, (0..300).map(refused).collect()).unwrap();
    assert_eq!((ack.rejected.len(), ack.omitted), (MAX_REJECTIONS, 44));
    assert!(ack.rejected.iter().all(|rejection| rejection.message.len() <= MAX_REJECTION_BYTES));
}

#[test]
fn what_is_made_of_less_than_the_node_was_told_is_refused_unless_it_is_the_same() {
    let mut node = Subscriber::new("a".into());
    let state = |numbers: std::ops::Range<u32>| numbers.map(|number| upsert(&identity(number, ""))).collect();
    let of = |epoch, version, state| Batch {
        versions: Versions::of("files", version),
        ..snapshot(epoch, 1, state)
    };
    let first = commit(node.frame(of(1, 12, state(0..12))));
    node.applied(first.position, Vec::new());
    let stale = node.frame(of(2, 8, state(0..8)));
    let (offered, held) = (Versions::of("files", 8), Versions::of("files", 12));
    assert_eq!(stale, Err(SubscribeError::KnowsLess { offered, held }));
    assert_eq!(node.commit().unwrap().snapshot.resources.len(), 12);
    let same = node.frame(of(2, 8, state(0..12)));
    let same = commit(same);
    assert_eq!((same.position.epoch, same.changed.len()), (2, 0));
    assert_eq!(same.versions, Versions::of("files", 12), "what it was told once, it was told");
    let saved = crate::persist::decode(&crate::persist::encode(&"a".into(), &same)).unwrap();
    let mut again = Subscriber::restored("a".into(), &saved.commit, true);
    assert!(matches!(again.frame(of(3, 11, state(0..8))), Err(SubscribeError::KnowsLess { .. })));
    assert_eq!(commit(again.frame(of(3, 12, state(0..8)))).removed.len(), 4);
}

#[test]
fn a_state_that_is_not_what_was_meant_is_not_applied_and_asked_for_as_a_whole() {
    let mut node = Subscriber::new("a".into());
    let (one, two) = (upsert(&identity(1, "")), upsert(&identity(2, "")));
    let first = commit(node.frame(snapshot(1, 1, vec![one.clone()])));
    node.applied(first.position, Vec::new());
    let wrong = batch(1, Some(1), 2, vec![two.clone()], std::slice::from_ref(&two));
    assert_eq!(node.frame(wrong), Err(SubscribeError::WrongDigest { revision: 2 }));
    assert_eq!(node.commit().unwrap().snapshot.resources.len(), 1);
    let hello = node.hello();
    assert_eq!((hello.resume, hello.held), (None, None));
    let whole = commit(node.frame(snapshot(1, 2, vec![two])));
    assert_eq!((whole.changed.len(), whole.removed.len()), (1, 1));
    node.applied(whole.position, Vec::new());
    assert!(node.hello().held.is_some());
}

#[test]
fn differences_start_from_the_hello_and_from_nothing_else() {
    let mut node = Subscriber::new("a".into());
    let state = vec![upsert(&identity(1, ""))];
    let differences = |revision, state: &[Upsert]| Batch {
        base: Base::Hello { branches: Vec::new() },
        ..batch(2, None, revision, Vec::new(), state)
    };
    assert_eq!(node.frame(differences(1, &[])), Err(SubscribeError::WrongHello), "it said nothing");
    let first = commit(node.frame(snapshot(1, 1, state.clone())));
    node.applied(first.position, Vec::new());
    node.hello();
    let second = commit(node.frame(differences(1, &state)));
    assert_eq!((second.position.epoch, second.changed.len(), second.removed.len()), (2, 0, 0));
    node.applied(second.position, Vec::new());
    assert_eq!(node.frame(differences(2, &state)), Err(SubscribeError::WrongHello), "that was long ago");
}
