// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::IdentityNumber;

fn key(number: u32) -> ResourceKey {
    ResourceKey::Identity(IdentityNumber(number))
}

fn tree(of: &BTreeMap<u32, u8>) -> Tree {
    let mut tree = Tree::default();
    for (number, content) in of {
        tree.insert(&key(*number), of_bytes(&[*content]));
    }
    tree
}

fn contents() -> impl Strategy<Value = BTreeMap<u32, u8>> {
    prop::collection::btree_map(0..400u32, 0..3u8, 0..300)
}

proptest! {
    #[test]
    fn equal_contents_have_equal_digests_however_they_came_about(
        first in contents(),
        last in contents(),
        order in any::<u64>(),
    ) {
        let mut grown = tree(&first);
        let before = grown.clone();
        let mut steps: Vec<u32> = first.keys().chain(last.keys()).copied().collect();
        steps.sort_unstable_by_key(|number| u64::from(*number).wrapping_mul(order | 1));
        for number in steps {
            match last.get(&number) {
                Some(content) => grown.insert(&key(number), of_bytes(&[*content])),
                None => grown.remove(&key(number)),
            }
        }
        prop_assert_eq!(grown.digest(), tree(&last).digest());
        prop_assert_eq!(before.digest(), tree(&first).digest(), "a clone stays as it was");
        prop_assert_eq!(first == last, before.digest() == grown.digest());
    }

    #[test]
    fn differences_are_found_and_are_few(mine in contents(), theirs in contents(), most in 1..200usize) {
        let (held, own) = (tree(&theirs), tree(&mine));
        let branches = held.branches(most);
        prop_assert!(cover(&branches) && branches.len() <= most, "{branches:?}");
        let differing = own.differences(&branches);
        let keys: BTreeSet<u32> = mine.keys().chain(theirs.keys()).copied().collect();
        let changed: Vec<u32> = keys.into_iter().filter(|one| mine.get(one) != theirs.get(one)).collect();
        let within = Within::new(&branches, &differing);
        prop_assert!(changed.iter().all(|number| within.contains(&key(*number))));
        for index in differing {
            let one = Within::new(&branches, &[index]);
            prop_assert!(changed.iter().any(|number| one.contains(&key(*number))), "{index} does not differ");
        }
    }

    #[test]
    fn branches_that_do_not_cover_everything_once_are_refused(bits in prop::collection::vec(0..70u8, 0..20)) {
        let branches: Vec<Branch> = bits.iter().map(|bits| Branch { bits: *bits, digest: [0; 7] }).collect();
        let total: f64 = bits.iter().map(|bits| 0.5f64.powi(i32::from(*bits))).sum();
        if cover(&branches) {
            prop_assert_eq!(total, 1.0);
        }
    }
}

#[test]
fn what_lies_side_by_side_covers_everything() {
    let of = |bits: &[u8]| bits.iter().map(|bits| Branch { bits: *bits, digest: [0; 7] }).collect::<Vec<_>>();
    for good in [&[0][..], &[1, 1], &[1, 2, 2], &[2, 2, 1], &[3, 3, 2, 1]] {
        assert!(cover(&of(good)), "{good:?}");
    }
    for bad in [&[][..], &[1], &[1, 1, 1], &[0, 0], &[2, 1, 2], &[1, 2], &[1, 2, 2, 2], &[65, 65]] {
        assert!(!cover(&of(bad)), "{bad:?}");
    }
}

/// A change hashes the path to one leaf, whatever the size of the whole.
#[test]
fn a_change_costs_the_path_to_its_leaf() {
    let of = |len: u32| {
        let mut tree = Tree::default();
        (0..len).for_each(|number| tree.insert(&key(number), Digest::default()));
        tree.digest();
        let before = tree.clone();
        tree.insert(&key(7), of_bytes(b"x"));
        let mut open = 0;
        let mut parts = vec![&tree.root];
        while let Some(part) = parts.pop() {
            open += usize::from(part.digest.get().is_none());
            if let Content::Fork(left, right) = &part.content {
                parts.extend([left, right]);
            }
        }
        assert_ne!(before.digest(), tree.digest());
        open
    };
    let (small, large) = (of(1_000), of(100_000));
    assert!(large <= small + 9, "{small} hashes in a tree of 1,000, {large} in one of 100,000");
}
