// SPDX-License-Identifier: Apache-2.0
//! The messages of the stream between a controller and a node.
//!
//! The node sends one [`Hello`], then an [`Ack`] for every commit that it has applied. The controller
//! answers with [`Batch`] frames; it starts a batch only when the one before is acknowledged.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{Branch, Digest, ResourceKey};

/// The path of the stream, in the gRPC service `weft.ir.v1.State`.
pub const STREAM_PATH: &str = "/weft.ir.v1.State/Stream";

/// The path of the method that exchanges the join token for a certificate.
pub const JOIN_PATH: &str = "/weft.ir.v1.State/Join";

/// The path of the method that renews the certificate which the connection began with.
pub const RENEW_PATH: &str = "/weft.ir.v1.State/Renew";

/// The newest schema that this build reads and writes.
pub(crate) const SCHEMA: u32 = 1;

/// Frames are cut before they grow beyond this; a larger resource travels alone in its frame.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;

/// The largest encoded resource. etcd holds no object above 1.5 MiB, so what is larger is no
/// Kubernetes object; the publisher sends an empty stand-in, which nodes reject.
pub const MAX_RESOURCE_BYTES: usize = 2 * 1024 * 1024;

/// The largest message of a stream, in either direction, with room around the largest resource.
pub const MAX_MESSAGE_BYTES: usize = MAX_RESOURCE_BYTES + MAX_FRAME_BYTES;

/// The most rejections that one [`Ack`] lists; the others are counted.
pub const MAX_REJECTIONS: usize = 256;

/// A rejection's message is cut to this length, in bytes.
pub const MAX_REJECTION_BYTES: usize = 1024;

/// The most branches of a [`Hello`], which is 32 KiB of them. In a state of 100,000 resources one then
/// has some 40: what is sent again where one of them differs.
pub(crate) const MAX_BRANCHES: usize = 4096;

/// The most sources that have a version.
pub(crate) const MAX_VERSIONS: usize = 64;

/// The longest name of a source that has a version, in bytes.
pub(crate) const MAX_VERSION_NAME_BYTES: usize = 128;

/// Asks for a certificate; the join token travels in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The name that the node wants.
    pub node: Arc<str>,
    /// A certificate request (PKCS #10, DER).
    pub request: Bytes,
}

/// The answer to [`JoinRequest`] and to a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The node's certificate, then that of the controller's CA (DER).
    pub chain: Vec<Bytes>,
}

/// What a node sends on its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromNode {
    /// Opens the stream.
    Hello(Hello),
    /// The node has applied a commit.
    Ack(Ack),
    /// The answer to [`ToNode::Ping`].
    Pong,
}

/// What a controller sends on a node's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToNode {
    /// A frame of a batch.
    Batch(Batch),
    /// Asks whether the node is still there: another process has opened a stream with its credential.
    Ping,
    /// Nothing is sent until further notice, for this reason.
    Withheld {
        /// The reason, at most [`MAX_REJECTION_BYTES`] long.
        reason: Arc<str>,
    },
}

/// Opens the stream, and is sent only once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The node's name.
    pub node: Arc<str>,
    /// The newest schema that the node reads.
    pub schema: u32,
    /// The last commit that the node holds completely; nothing where it wants none of its deltas.
    pub resume: Option<Position>,
    /// What the source was known up to in the state that the node holds.
    pub versions: Versions,
    /// What the node holds; nothing where it wants a snapshot.
    pub held: Option<Held>,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The digest of everything.
    pub digest: Digest,
    /// Branches that lie side by side and cover everything.
    pub branches: Vec<Branch>,
}

/// What a source was known up to when the state was made of it: a number for each part that is watched
/// on its own, which only grows. Whoever has a smaller one knows less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions(pub BTreeMap<Arc<str>, u64>);

impl Versions {
    /// The versions of a source that has only one part.
    pub fn of(part: &str, version: u64) -> Versions {
        Versions([(part.into(), version)].into())
    }

    /// Whether any part is known less far than in `other`.
    pub(crate) fn know_less_than(&self, other: &Versions) -> bool {
        other.0.iter().any(|(part, version)| self.0.get(part).copied().unwrap_or(0) < *version)
    }

    /// Makes each part the newer of both.
    pub fn raise(&mut self, other: &Versions) {
        for (part, version) in &other.0 {
            let own = self.0.entry(part.clone()).or_default();
            *own = (*own).max(*version);
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (index, (part, version)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{part} {version}")?;
        }
        Ok(())
    }
}

/// A commit of one run of a publisher: what names a state, since no two runs have the same epoch.
///
/// For people it is short (`3f2a.17`); where it is kept, it is all there (`18a2f04c9b3e7d51.17`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Names the run of the publisher.
    pub epoch: u64,
    /// Numbers its commits, from 1.
    pub revision: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return write!(f, "{:016x}.{}", self.epoch, self.revision);
        }
        // Folded, so that every part of the time that an epoch is made of shows.
        let [a, b, c, d, e, g, h, i] = self.epoch.to_be_bytes();
        write!(f, "{:02x}{:02x}.{}", a ^ c ^ e ^ h, b ^ d ^ g ^ i, self.revision)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:#}"))
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let parts = text.split_once('.');
        let position = parts.and_then(|(epoch, revision)| {
            let epoch = u64::from_str_radix(epoch, 16).ok()?;
            Some(Position { epoch, revision: revision.parse().ok()? })
        });
        position.ok_or_else(|| D::Error::custom(format!("`{text}` is no epoch and revision")))
    }
}

/// The node has applied a commit: its tables are live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// The revision that is live.
    pub revision: u64,
    /// Every resource of the state that the node could not take, not only those of the last batch.
    pub rejected: Vec<Rejection>,
    /// How many more there are than `rejected` lists.
    pub omitted: u32,
}

/// A resource that a node could not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The resource.
    pub key: ResourceKey,
    /// Why.
    pub message: Arc<str>,
}

/// One frame of a batch. All frames of a batch make one commit, applied at the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The commit that the node holds after the last frame.
    pub position: Position,
    /// What it starts from.
    pub base: Base,
    /// What the source is known up to in this state.
    pub versions: Versions,
    /// The digest of the whole state of the node after the last frame.
    pub digest: Digest,
    /// Counts the frames of this batch from 0.
    pub frame: u32,
    /// New and changed resources.
    pub upserts: Vec<Upsert>,
    /// Keys that are gone.
    pub removes: Vec<ResourceKey>,
    /// This is the last frame of the batch.
    pub last: bool,
}

/// What a batch starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing: a snapshot, which replaces everything.
    Nothing,
    /// A revision of the same run.
    Revision(u64),
    /// What the node said in its hello that it holds.
    Hello {
        /// The indices of the branches of which everything is replaced; in the first frame only.
        branches: Vec<u32>,
    },
}

/// An encoded resource under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upsert {
    /// The key.
    pub key: ResourceKey,
    /// A node with an older schema must not read the resource.
    pub min_schema: u32,
    /// The encoded resource; empty where it is larger than [`MAX_RESOURCE_BYTES`].
    pub resource: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deserialize(text: &str) -> Result<Position, serde::de::value::Error> {
        Position::deserialize(serde::de::value::StrDeserializer::new(text))
    }

    #[test]
    fn a_position_is_short_for_people_and_whole_for_others() {
        let position = Position { epoch: 0x18a2_f04c_9b3e_7d51, revision: 17 };
        assert_eq!(position.to_string(), "0e81.17");
        assert_eq!(format!("{position:#}"), "18a2f04c9b3e7d51.17");
        assert_eq!(deserialize("18a2f04c9b3e7d51.17"), Ok(position));
        for bad in ["17", "x.17", "18a2f04c9b3e7d51.", "18a2f04c9b3e7d51f.1"] {
            assert!(deserialize(bad).is_err(), "{bad}");
        }
        let next = Position { epoch: position.epoch + 1, revision: 17 };
        assert!(next > position && next.to_string() != position.to_string());
    }
}
