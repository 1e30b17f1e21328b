// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;
use crate::{
    MeshDefaults, Resource,
    stream::{Position, Versions},
};

fn commit() -> Commit {
    let mut snapshot = Snapshot { epoch: 9, revision: 3, ..Snapshot::default() };
    snapshot.insert(Resource::MeshDefaults(MeshDefaults { pod_cidrs: vec!["10.0.0.0/8".parse().unwrap()] }));
    let changed = snapshot.resources.keys().cloned().collect();
    let rejected = OrdMap::from_iter([(crate::ResourceKey::parse("policy/x"), Arc::from("why"))]);
    let mut commit = Commit {
        position: Position { epoch: 9, revision: 3 },
        versions: Versions::of("files", 5),
        snapshot,
        changed,
        removed: Vec::new(),
        rejected,
    };
    commit.changed.push(crate::ResourceKey::parse("policy/x"));
    commit
}

#[test]
fn a_state_survives_the_disk() {
    let restored = decode(&encode(&"a".into(), &commit())).unwrap();
    assert_eq!(restored, Restored { node: "a".into(), commit: commit(), same_schema: true });
}

#[test]
fn any_damage_is_found() {
    let good = encode(&"a".into(), &commit());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        assert!(decode(&bad).is_err(), "byte {at}");
        assert!(decode(&good[..at]).is_err(), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(body in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&checksum(&body).to_be_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&body);
        drop(decode(&bytes));
    }
}
