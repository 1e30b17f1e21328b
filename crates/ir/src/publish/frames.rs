// SPDX-License-Identifier: Apache-2.0
//! Cuts a batch into frames of bounded size.

use crate::{
    ResourceKey,
    stream::{Batch, MAX_FRAME_BYTES, Position, Upsert},
};

/// What protobuf adds to a key and a resource, at most: four tags and three lengths.
const OVERHEAD_BYTES: usize = 24;

/// What the fields of a frame take besides its resources and keys.
const FRAME_BYTES: usize = 64;

pub(super) struct Frames {
    done: Vec<Batch>,
    open: Batch,
    bytes: usize,
}

impl Frames {
    pub(super) fn new(position: Position, base: Option<u64>) -> Frames {
        Frames { done: Vec::new(), open: empty(position, base, 0), bytes: FRAME_BYTES }
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
            let next = empty(self.open.position, self.open.base, self.open.frame + 1);
            self.done.push(std::mem::replace(&mut self.open, next));
            self.bytes = FRAME_BYTES;
        }
        self.bytes += bytes;
    }
}

fn empty(position: Position, base: Option<u64>, frame: u32) -> Batch {
    Batch { position, base, frame, upserts: Vec::new(), removes: Vec::new(), last: false }
}
