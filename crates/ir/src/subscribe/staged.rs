// SPDX-License-Identifier: Apache-2.0
//! A batch whose last frame is not there yet.

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdMap;

use super::{Rejected, SubscribeError};
use crate::{
    Resource, ResourceKey,
    stream::{Batch, Position, SCHEMA, Upsert},
    wire,
};

/// The most bytes of one batch: several times the largest cluster that Kubernetes supports (150,000
/// pods, some 300 bytes each).
pub(super) const MAX_BATCH_BYTES: usize = 512 * 1024 * 1024;

type Resources = OrdMap<ResourceKey, Arc<Resource>>;

#[derive(Debug)]
pub(super) struct Staged {
    position: Position,
    base: Option<u64>,
    next_frame: u32,
    bytes: usize,
    done: Done,
}

/// The state after the batch.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) resources: Resources,
    pub(super) rejected: Rejected,
    pub(super) changed: BTreeSet<ResourceKey>,
    pub(super) removed: BTreeSet<ResourceKey>,
}

impl Staged {
    pub(super) fn snapshot(position: Position) -> Staged {
        Staged { position, base: None, next_frame: 0, bytes: 0, done: Done::default() }
    }

    pub(super) fn delta(position: Position, base: u64, resources: &Resources, rejected: &Rejected) -> Staged {
        let done = Done { resources: resources.clone(), rejected: rejected.clone(), ..Done::default() };
        Staged { base: Some(base), done, ..Staged::snapshot(position) }
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Adds a frame. `old` is the state before the batch.
    pub(super) fn take(&mut self, batch: Batch, old: &Resources) -> Result<(), SubscribeError> {
        let same_batch = batch.position == self.position && batch.base == self.base;
        if !same_batch || batch.frame != self.next_frame {
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
        for key in batch.removes {
            let was_there = self.done.resources.remove(&key).is_some();
            if self.done.rejected.remove(&key).is_some() || was_there {
                self.done.changed.remove(&key);
                self.done.removed.insert(key);
            }
        }
        Ok(())
    }

    /// The state after the last frame. `old` and `was_rejected` are the state before the batch.
    pub(super) fn finish(mut self, old: &Resources, was_rejected: &Rejected) -> Done {
        if self.base.is_none() {
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
            // What is rejected for the same reason as before is nothing new.
            done.changed.retain(|key| {
                let reason = done.rejected.get(key);
                reason.is_none() || reason != was_rejected.get(key)
            });
        }
        self.done
    }

    fn upsert(&mut self, upsert: Upsert, old: &Resources) {
        let done = &mut self.done;
        let key = upsert.key.clone();
        done.removed.remove(&key);
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
