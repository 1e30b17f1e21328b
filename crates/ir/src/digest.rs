// SPDX-License-Identifier: Apache-2.0
//! Digests: whether two ends hold the same resources, and where they differ.
//!
//! A tree over the hashes of keys and encoded resources. Its shape follows from what it holds and from
//! nothing else, so that equal contents have equal digests however they came about. A change costs the
//! path from one leaf to the root.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use sha2::{Digest as _, Sha256};

use crate::ResourceKey;

/// The most entries of a leaf: what is sent again when one of them differs.
const LEAF: usize = 32;

/// Names contents: the first half of a SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The keys whose hash begins with as many bits as the places before this branch leave over, and the
/// first bytes of their digest. The branches of a tree lie side by side: together they are all keys.
///
/// Seven bytes are enough to look for differences, since the digest of the whole is compared as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The number of bits that its keys share.
    pub bits: u8,
    /// The start of the digest of what it holds.
    pub digest: [u8; 7],
}

impl Branch {
    fn new(bits: u8, digest: Digest) -> Branch {
        let [a, b, c, d, e, f, g, ..] = digest.0;
        Branch { bits, digest: [a, b, c, d, e, f, g] }
    }

    pub(crate) fn bytes(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g] = self.digest;
        [self.bits, a, b, c, d, e, f, g]
    }

    pub(crate) fn from_bytes([bits, a, b, c, d, e, f, g]: [u8; 8]) -> Branch {
        Branch { bits, digest: [a, b, c, d, e, f, g] }
    }
}

/// Where a key is in the tree: the first half of the SHA-256 of its text.
type Place = u128;

/// The place of a key.
pub(crate) fn place(key: &ResourceKey) -> Place {
    u128::from_be_bytes(half(Sha256::digest(key.to_string().as_bytes()).into()).0)
}

/// The digest of an encoded resource.
pub(crate) fn of_bytes(bytes: &[u8]) -> Digest {
    half(Sha256::digest(bytes).into())
}

fn half(hash: [u8; 32]) -> Digest {
    let mut digest = Digest::default();
    digest.0.copy_from_slice(&hash[..16]);
    digest
}

/// What somebody holds. A clone shares everything with the original.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    root: Arc<Part>,
}

/// The entries below a prefix.
#[derive(Clone, Debug, Default)]
struct Part {
    len: usize,
    content: Content,
    digest: OnceLock<Digest>,
}

#[derive(Clone, Debug)]
enum Content {
    /// At most [`LEAF`] entries, in the order of their places.
    Leaf(Vec<(Place, Digest)>),
    /// More than that, by the next bit.
    Fork(Arc<Part>, Arc<Part>),
}

impl Default for Content {
    fn default() -> Content {
        Content::Leaf(Vec::new())
    }
}

impl Tree {
    /// Puts an entry, or replaces it.
    pub(crate) fn insert(&mut self, key: &ResourceKey, content: Digest) {
        Arc::make_mut(&mut self.root).insert(0, place(key), content);
    }

    /// Takes an entry out, if it is there.
    pub(crate) fn remove(&mut self, key: &ResourceKey) {
        let place = place(key);
        if self.root.find(0, place).is_some() {
            Arc::make_mut(&mut self.root).remove(0, place);
        }
    }

    /// The digest of everything.
    pub(crate) fn digest(&self) -> Digest {
        self.root.digest()
    }

    /// Branches that lie side by side and cover everything, at most `most` of them.
    pub(crate) fn branches(&self, most: usize) -> Vec<Branch> {
        let mut depth = 0;
        // Each level has at most twice as many.
        while depth < 64 && self.root.count(depth + 1) <= most && self.root.is_forked_at(depth) {
            depth += 1;
        }
        let mut branches = Vec::new();
        self.root.branches(0, depth, &mut branches);
        branches
    }

    /// The indices of those branches of another tree below which this one holds something else.
    pub(crate) fn differences(&self, branches: &[Branch]) -> Vec<u32> {
        let mut at: Place = 0;
        let mut differing = Vec::new();
        for (index, branch) in (0..).zip(branches) {
            if Branch::new(branch.bits, self.root.digest_below(0, at, branch.bits)) != *branch {
                differing.push(index);
            }
            at = at.wrapping_add(width(branch.bits));
        }
        differing
    }
}

/// Whether branches lie side by side and cover everything.
pub(crate) fn cover(branches: &[Branch]) -> bool {
    let mut at: Place = 0;
    for (index, branch) in branches.iter().enumerate() {
        let is_aligned = branch.bits <= 64 && at & (width(branch.bits).wrapping_sub(1)) == 0;
        let (next, is_over) = match branch.bits {
            0 => (0, true),
            bits => at.overflowing_add(width(bits)),
        };
        if !is_aligned || is_over && (next != 0 || index + 1 != branches.len()) {
            return false;
        }
        if is_over {
            return true;
        }
        at = next;
    }
    false
}

/// Some of the branches of a tree.
pub(crate) struct Within {
    /// Where each branch begins, and whether it is one of them.
    branches: Vec<(Place, bool)>,
}

impl Within {
    /// The branches with these indices. An index that there is not stands for nothing.
    pub(crate) fn new(all: &[Branch], indices: &[u32]) -> Within {
        let next = |at: &mut Place, branch: &Branch| {
            let start = *at;
            *at = at.wrapping_add(width(branch.bits));
            Some((start, false))
        };
        let mut branches: Vec<(Place, bool)> = all.iter().scan(0, next).collect();
        for index in indices {
            if let Some((_, chosen)) = branches.get_mut(*index as usize) {
                *chosen = true;
            }
        }
        Within { branches }
    }

    /// Whether a key belongs to one of them.
    pub(crate) fn contains(&self, key: &ResourceKey) -> bool {
        let place = place(key);
        let after = self.branches.partition_point(|(start, _)| *start <= place);
        after.checked_sub(1).is_some_and(|at| self.branches[at].1)
    }
}

/// How many places share their first bits; 0 stands for all of them.
fn width(bits: u8) -> Place {
    1u128.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

fn bit(place: Place, depth: u8) -> bool {
    place << depth >> 127 == 1
}

impl Part {
    fn of(entries: Vec<(Place, Digest)>, depth: u8) -> Part {
        let len = entries.len();
        let content = if len <= LEAF {
            Content::Leaf(entries)
        } else {
            let (left, right) = entries.into_iter().partition(|(place, _)| !bit(*place, depth));
            Content::Fork(Arc::new(Part::of(left, depth + 1)), Arc::new(Part::of(right, depth + 1)))
        };
        Part { len, content, digest: OnceLock::new() }
    }

    fn find(&self, depth: u8, place: Place) -> Option<Digest> {
        match &self.content {
            Content::Leaf(entries) => {
                entries.binary_search_by_key(&place, |(place, _)| *place).ok().map(|at| entries[at].1)
            }
            Content::Fork(_, right) if bit(place, depth) => right.find(depth + 1, place),
            Content::Fork(left, _) => left.find(depth + 1, place),
        }
    }

    fn insert(&mut self, depth: u8, place: Place, content: Digest) {
        self.digest = OnceLock::new();
        match &mut self.content {
            Content::Leaf(entries) => {
                match entries.binary_search_by_key(&place, |(place, _)| *place) {
                    Ok(at) => entries[at].1 = content,
                    Err(at) => entries.insert(at, (place, content)),
                }
                *self = Part::of(std::mem::take(entries), depth);
            }
            Content::Fork(left, right) => {
                let part = Arc::make_mut(if bit(place, depth) { right } else { left });
                part.insert(depth + 1, place, content);
                self.len = left.len + right.len;
            }
        }
    }

    /// Takes out what is there.
    fn remove(&mut self, depth: u8, place: Place) {
        self.digest = OnceLock::new();
        self.len -= 1;
        match &mut self.content {
            Content::Leaf(entries) => entries.retain(|(found, _)| *found != place),
            Content::Fork(left, right) => {
                Arc::make_mut(if bit(place, depth) { right } else { left }).remove(depth + 1, place);
                if self.len <= LEAF {
                    let mut entries = Vec::with_capacity(self.len);
                    self.entries(&mut entries);
                    self.content = Content::Leaf(entries);
                }
            }
        }
    }

    fn entries(&self, into: &mut Vec<(Place, Digest)>) {
        match &self.content {
            Content::Leaf(entries) => into.extend(entries),
            Content::Fork(left, right) => {
                left.entries(into);
                right.entries(into);
            }
        }
    }

    fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| match &self.content {
            Content::Leaf(entries) => leaf(entries),
            Content::Fork(left, right) => {
                let mut hash = Sha256::new_with_prefix(b"fork");
                hash.update(left.digest().0);
                hash.update(right.digest().0);
                half(hash.finalize().into())
            }
        })
    }

    /// The digest of the entries whose places begin like `prefix`.
    fn digest_below(&self, depth: u8, prefix: Place, bits: u8) -> Digest {
        match &self.content {
            _ if depth == bits => self.digest(),
            Content::Fork(_, right) if bit(prefix, depth) => right.digest_below(depth + 1, prefix, bits),
            Content::Fork(left, _) => left.digest_below(depth + 1, prefix, bits),
            // What is below a leaf would be a leaf.
            Content::Leaf(entries) => {
                let last = prefix | width(bits).wrapping_sub(1);
                let from = entries.partition_point(|(place, _)| *place < prefix);
                let to = entries.partition_point(|(place, _)| *place <= last);
                leaf(&entries[from..to])
            }
        }
    }

    /// How many branches there are above a depth.
    fn count(&self, levels: u8) -> usize {
        match &self.content {
            Content::Fork(left, right) if levels > 0 => left.count(levels - 1) + right.count(levels - 1),
            Content::Fork(..) | Content::Leaf(_) => 1,
        }
    }

    fn is_forked_at(&self, levels: u8) -> bool {
        match &self.content {
            Content::Leaf(_) => false,
            Content::Fork(..) if levels == 0 => true,
            Content::Fork(left, right) => left.is_forked_at(levels - 1) || right.is_forked_at(levels - 1),
        }
    }

    fn branches(&self, bits: u8, levels: u8, into: &mut Vec<Branch>) {
        match &self.content {
            Content::Fork(left, right) if levels > 0 => {
                left.branches(bits + 1, levels - 1, into);
                right.branches(bits + 1, levels - 1, into);
            }
            Content::Fork(..) | Content::Leaf(_) => {
                into.push(Branch::new(bits, self.digest()));
            }
        }
    }
}

fn leaf(entries: &[(Place, Digest)]) -> Digest {
    let mut hash = Sha256::new_with_prefix(b"leaf");
    for (place, content) in entries {
        hash.update(place.to_be_bytes());
        hash.update(content.0);
    }
    half(hash.finalize().into())
}

#[cfg(test)]
mod tests;
