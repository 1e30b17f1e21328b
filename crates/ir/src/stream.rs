// SPDX-License-Identifier: Apache-2.0
//! The messages of the stream between a controller and a node.
//!
//! The node sends one [`Hello`], then an [`Ack`] for every commit that it has applied. The controller
//! answers with [`Batch`] frames; it starts a batch only when the one before is acknowledged.

use std::sync::Arc;

use bytes::Bytes;

use crate::ResourceKey;

/// The path of the stream, in the gRPC service `weft.ir.v1.State`.
pub const STREAM_PATH: &str = "/weft.ir.v1.State/Stream";

/// The path of the method that exchanges the join token for a certificate.
pub const JOIN_PATH: &str = "/weft.ir.v1.State/Join";

/// The path of the method that renews the certificate which the connection began with.
pub const RENEW_PATH: &str = "/weft.ir.v1.State/Renew";

/// The newest schema that this build reads and writes.
pub const SCHEMA: u32 = 1;

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
}

/// Opens the stream, and is sent only once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The node's name.
    pub node: Arc<str>,
    /// The newest schema that the node reads.
    pub schema: u32,
    /// The last commit that the node holds completely; nothing where it wants a snapshot.
    pub resume: Option<Position>,
}

/// A commit of one run of a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Names the run of the publisher.
    pub epoch: u64,
    /// Numbers its commits, from 1.
    pub revision: u64,
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
    /// The revision that a delta starts from; nothing for a snapshot, which replaces everything.
    pub base: Option<u64>,
    /// Counts the frames of this batch from 0.
    pub frame: u32,
    /// New and changed resources.
    pub upserts: Vec<Upsert>,
    /// Keys that are gone.
    pub removes: Vec<ResourceKey>,
    /// This is the last frame of the batch.
    pub last: bool,
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
