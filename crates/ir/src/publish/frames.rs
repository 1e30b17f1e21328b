// SPDX-License-Identifier: Apache-2.0
//! Cuts a batch into frames of bounded size.

use crate::{
    ResourceKey,
    stream::{Base, Batch, MAX_FRAME_BYTES, Upsert},
};

/// What protobuf adds to a key and a resource, at most: four tags and three lengths.
const OVERHEAD_BYTES: usize = 24;

/// What the fields of a frame take besides its resources and keys, at most: numbers and the digest.
const FRAME_BYTES: usize = 96;

/// What a version takes besides its name, and the index of a branch, at most.
const VERSION_BYTES: usize = 20;
const INDEX_BYTES: usize = 3;

pub(super) struct Frames {
    done: Vec<Batch>,
    open: Batch,
    bytes: usize,
}

impl Frames {
    /// Begins with a frame that holds nothing yet.
    pub(super) fn new(first: Batch) -> Frames {
        let bytes = header(&first);
        Frames { done: Vec::new(), open: first, bytes }
    }

    pub(super) fn upsert(&mut self, upsert: Upsert) {
        self.make_room(upsert.key.text_len() + upsert.resource.len());
        self.open.upserts.push(upsert);
    }

    pub(super) fn remove(&mut self, key: ResourceKey) {
        self.make_room(key.text_len());
        self.open.removes.push(key);
    }

    pub(super) fn finish(mut self) -> Vec<Batch> {
        self.open.last = true;
        self.done.push(self.open);
        self.done
    }

    fn make_room(&mut self, bytes: usize) {
        let bytes = bytes + OVERHEAD_BYTES;
        let is_empty = self.open.upserts.is_empty() && self.open.removes.is_empty();
        if !is_empty && self.bytes + bytes > MAX_FRAME_BYTES {
            let next = Batch {
                position: self.open.position,
                base: match &self.open.base {
                    Base::Hello { .. } => Base::Hello { branches: Vec::new() },
                    other => other.clone(),
                },
                versions: self.open.versions.clone(),
                digest: self.open.digest,
                frame: self.open.frame + 1,
                upserts: Vec::new(),
                removes: Vec::new(),
                last: false,
            };
            self.bytes = header(&next);
            self.done.push(std::mem::replace(&mut self.open, next));
        }
        self.bytes += bytes;
    }
}

fn header(frame: &Batch) -> usize {
    let versions: usize = frame.versions.0.keys().map(|part| part.len() + VERSION_BYTES).sum();
    let branches = match &frame.base {
        Base::Hello { branches } => branches.len(),
        Base::Nothing | Base::Revision(_) => 0,
    };
    FRAME_BYTES + versions + branches * INDEX_BYTES
}
