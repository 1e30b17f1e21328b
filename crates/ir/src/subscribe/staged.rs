// SPDX-License-Identifier: Apache-2.0
//! A batch whose last frame is not there yet.

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdMap;

use super::{Rejected, SubscribeError};
use crate::{
    Digest, Resource, ResourceKey, Snapshot,
    digest::{self, Tree},
    stream::{Base, Batch, Position, SCHEMA, Upsert, Versions},
    wire,
};

/// The most bytes of one batch: several times the largest cluster that Kubernetes supports (150,000
/// pods, some 300 bytes each).
pub(super) const MAX_BATCH_BYTES: usize = 512 * 1024 * 1024;

type Resources = OrdMap<ResourceKey, Arc<Resource>>;

/// What all frames of a batch say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) position: Position,
    pub(super) versions: Versions,
    pub(super) digest: Digest,
    /// The kind of what it starts from, without the branches, which only the first frame has.
    base: Base,
}

#[derive(Debug)]
pub(super) struct Staged {
    header: Header,
    next_frame: u32,
    bytes: usize,
    /// Gone at the end, unless they come again.
    replaced: BTreeSet<ResourceKey>,
    done: Done,
}

/// The state after the batch.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) resources: Resources,
    pub(super) rejected: Rejected,
    pub(super) tree: Tree,
    pub(super) changed: BTreeSet<ResourceKey>,
    pub(super) removed: BTreeSet<ResourceKey>,
}

impl Header {
    fn of(batch: &Batch) -> Header {
        let base = match &batch.base {
            Base::Hello { .. } => Base::Hello { branches: Vec::new() },
            other => other.clone(),
        };
        let (versions, digest) = (batch.versions.clone(), batch.digest);
        Header { position: batch.position, versions, digest, base }
    }
}

impl Staged {
    /// Starts from nothing.
    pub(super) fn snapshot(first: &Batch) -> Staged {
        let (replaced, done) = (BTreeSet::new(), Done::default());
        Staged { header: Header::of(first), next_frame: 0, bytes: 0, replaced, done }
    }

    /// Starts from what the node holds.
    pub(super) fn changes(first: &Batch, held: &Snapshot, rejected: &Rejected, tree: Tree) -> Staged {
        let (resources, rejected) = (held.resources.clone(), rejected.clone());
        let done = Done { resources, rejected, tree, ..Done::default() };
        Staged { done, ..Staged::snapshot(first) }
    }

    /// Without these, unless they come.
    pub(super) fn replacing(self, replaced: BTreeSet<ResourceKey>) -> Staged {
        Staged { replaced, ..self }
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Adds a frame. `old` is the state before the batch.
    pub(super) fn take(&mut self, batch: Batch, old: &Resources) -> Result<(), SubscribeError> {
        if Header::of(&batch) != self.header || batch.frame != self.next_frame {
            let (found, revision) = (batch.frame, batch.position.revision);
            return Err(SubscribeError::OutOfOrder { found, revision });
        }
        self.next_frame = self.next_frame.saturating_add(1);
        let upserts: usize = batch.upserts.iter().map(|u| u.key.text_len() + u.resource.len()).sum();
        let removes: usize = batch.removes.iter().map(ResourceKey::text_len).sum();
        self.bytes = self.bytes.saturating_add(upserts).saturating_add(removes);
        if self.bytes > MAX_BATCH_BYTES {
            return Err(SubscribeError::TooLarge);
        }
        for upsert in batch.upserts {
            self.upsert(upsert, old);
        }
        batch.removes.into_iter().for_each(|key| self.remove(key));
        Ok(())
    }

    fn remove(&mut self, key: ResourceKey) {
        self.done.tree.remove(&key);
        let was_there = self.done.resources.remove(&key).is_some();
        if self.done.rejected.remove(&key).is_some() || was_there {
            self.done.changed.remove(&key);
            self.done.removed.insert(key);
        }
    }

    /// The state after the last frame. `old` and `was_rejected` are the state before the batch.
    pub(super) fn finish(mut self, old: &Resources, was_rejected: &Rejected) -> Done {
        for key in std::mem::take(&mut self.replaced) {
            self.remove(key);
        }
        if self.header.base == Base::Nothing {
            let done = &mut self.done;
            let gone = old.keys().chain(was_rejected.keys());
            let gone =
                gone.filter(|key| !done.resources.contains_key(*key) && !done.rejected.contains_key(*key));
            done.removed = gone.cloned().collect();
            // What was rejected before and is good now must be looked at again, even when it equals
            // the last good version.
            let recovered = was_rejected.keys().filter(|key| done.resources.contains_key(*key));
            let recovered = recovered.filter(|key| !done.rejected.contains_key(*key));
            done.changed.extend(recovered.cloned());
        }
        // What is rejected for the same reason as before is nothing new.
        let Done { changed, rejected, .. } = &mut self.done;
        changed.retain(|key| {
            let reason = rejected.get(key);
            reason.is_none() || reason != was_rejected.get(key)
        });
        self.done
    }

    fn upsert(&mut self, upsert: Upsert, old: &Resources) {
        let done = &mut self.done;
        let key = upsert.key.clone();
        done.removed.remove(&key);
        done.tree.insert(&key, digest::of_bytes(&upsert.resource));
        self.replaced.remove(&key);
        let before = old.get(&key);
        match read(&upsert) {
            Ok(resource) => {
                let recovered = done.rejected.remove(&key).is_some();
                match before.filter(|before| ***before == resource) {
                    Some(before) => {
                        done.resources.insert(key.clone(), before.clone());
                        if recovered {
                            done.changed.insert(key);
                        }
                    }
                    None => {
                        done.resources.insert(key.clone(), Arc::new(resource));
                        done.changed.insert(key);
                    }
                }
            }
            Err(message) => {
                if let Some(before) = before {
                    done.resources.insert(key.clone(), before.clone());
                }
                done.rejected.insert(key.clone(), message.into());
                done.changed.insert(key);
            }
        }
    }
}

fn read(upsert: &Upsert) -> Result<Resource, String> {
    if upsert.min_schema > SCHEMA {
        return Err(format!(
            "needs schema {}, and this node reads {SCHEMA}: upgrade the node",
            upsert.min_schema
        ));
    }
    let resource = wire::decode(&upsert.resource).map_err(|error| error.to_string())?;
    let key = resource.key();
    if key != upsert.key {
        return Err(format!("is the resource {key}"));
    }
    Ok(resource)
}
