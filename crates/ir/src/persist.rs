// SPDX-License-Identifier: Apache-2.0
//! The last good state as bytes, for a node to start from while the controller is away.
//!
//! Eight bytes of magic and version, the checksum and the length of the rest (both 64 bits, big
//! endian), then a `SavedState` of the schema.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use crate::{
    Snapshot,
    stream::{Position, Rejection, SCHEMA, Upsert},
    subscribe::Commit,
    wire::{self, SavedState},
};

/// Why saved bytes cannot be used. The node starts without a state.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PersistError {
    /// Another file, or one of another version.
    #[error("not a saved state of this version")]
    Format,
    /// The file is cut short, or was changed.
    #[error("the saved state is damaged")]
    Damaged,
    /// The content is no valid message.
    #[error("the saved state cannot be read")]
    Wire(#[from] wire::WireError),
}

/// A state read from disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// The node that wrote it.
    pub node: Arc<str>,
    /// The state; all of its keys count as changed.
    pub commit: Commit,
    /// It was written by a build with the same schema.
    pub same_schema: bool,
}

const MAGIC: &[u8; 8] = b"weft-ir\x01";

/// Encodes the state of a node. The cost is that of the whole state.
pub fn encode(node: &Arc<str>, commit: &Commit) -> Vec<u8> {
    let resources = commit.snapshot.resources.iter().map(|(key, resource)| Upsert {
        key: key.clone(),
        min_schema: SCHEMA,
        resource: wire::encode(resource),
    });
    let rejected = commit.rejected.iter();
    let body = wire::encode_saved(SavedState {
        node: node.clone(),
        position: commit.position,
        versions: commit.versions.clone(),
        schema: SCHEMA,
        resources: resources.collect(),
        rejected: rejected
            .map(|(key, message)| Rejection { key: key.clone(), message: message.clone() })
            .collect(),
    });
    let mut bytes = Vec::with_capacity(body.len() + 24);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&checksum(&body).to_be_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Decodes what [`encode`] wrote. A resource that this build cannot read is rejected on its own.
///
/// # Errors
/// Another format, a wrong length or checksum, and bytes that are no message.
pub fn decode(bytes: &[u8]) -> Result<Restored, PersistError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(PersistError::Format)?;
    let (sum, rest) = rest.split_first_chunk::<8>().ok_or(PersistError::Damaged)?;
    let (length, body) = rest.split_first_chunk::<8>().ok_or(PersistError::Damaged)?;
    if u64::from_be_bytes(*length) != body.len() as u64 || u64::from_be_bytes(*sum) != checksum(body) {
        return Err(PersistError::Damaged);
    }
    let saved = wire::decode_saved(Bytes::copy_from_slice(body))?;
    let mut resources = OrdMap::new();
    let mut rejected = OrdMap::new();
    for upsert in saved.resources {
        match wire::decode(&upsert.resource) {
            Ok(resource) if resource.key() == upsert.key => {
                resources.insert(upsert.key, Arc::new(resource));
            }
            Ok(resource) => {
                rejected.insert(upsert.key, format!("is the resource {}", resource.key()).into());
            }
            Err(error) => {
                rejected.insert(upsert.key, error.to_string().into());
            }
        }
    }
    for rejection in saved.rejected {
        rejected.insert(rejection.key, rejection.message);
    }
    let changed = resources.keys().chain(rejected.keys().filter(|key| !resources.contains_key(*key)));
    let changed = changed.cloned().collect();
    let Position { epoch, revision } = saved.position;
    let snapshot = Snapshot { epoch, revision, resources };
    Ok(Restored {
        node: saved.node,
        commit: Commit {
            position: saved.position,
            versions: saved.versions,
            snapshot,
            changed,
            removed: Vec::new(),
            rejected,
        },
        same_schema: saved.schema == SCHEMA,
    })
}

/// FNV-1a with 64 bits: finds torn and damaged files; it is no protection against intent.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
