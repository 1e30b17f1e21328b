// SPDX-License-Identifier: Apache-2.0
//! The messages of the stream, and the state on a node's disk.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message;

use super::{
    WireError,
    fields::{all, required},
    generated::{self as pb, batch, from_node, to_node},
};
use crate::{
    Branch, Digest, ResourceKey, digest,
    stream::{
        Ack, Base, Batch, Certificates, FromNode, Held, Hello, JoinRequest, MAX_BRANCHES,
        MAX_REJECTION_BYTES, MAX_VERSION_NAME_BYTES, MAX_VERSIONS, Position, Rejection, ToNode, Upsert,
        Versions,
    },
};

/// The state on a node's disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SavedState {
    pub(crate) node: Arc<str>,
    pub(crate) position: Position,
    pub(crate) versions: Versions,
    pub(crate) schema: u32,
    pub(crate) resources: Vec<Upsert>,
    pub(crate) rejected: Vec<Rejection>,
}

/// Encodes the request of a node that joins.
pub fn encode_join(join: JoinRequest) -> Bytes {
    pb::JoinRequest { node: join.node.to_string(), request: join.request }.encode_to_vec().into()
}

/// Decodes the request of a node that joins.
///
/// # Errors
/// Bytes that are no message.
pub fn decode_join(bytes: Bytes) -> Result<JoinRequest, WireError> {
    let join = pb::JoinRequest::decode(bytes)?;
    Ok(JoinRequest { node: join.node.into(), request: join.request })
}

/// Encodes the request for a renewal, which says nothing.
pub fn encode_renew((): ()) -> Bytes {
    pb::RenewRequest {}.encode_to_vec().into()
}

/// Decodes the request for a renewal.
///
/// # Errors
/// Bytes that are no message.
pub fn decode_renew(bytes: Bytes) -> Result<(), WireError> {
    pb::RenewRequest::decode(bytes).map(|pb::RenewRequest {}| ()).map_err(Into::into)
}

/// Encodes certificates.
pub fn encode_certificates(certificates: Certificates) -> Bytes {
    pb::Certificates { chain: certificates.chain }.encode_to_vec().into()
}

/// Decodes certificates.
///
/// # Errors
/// Bytes that are no message.
pub fn decode_certificates(bytes: Bytes) -> Result<Certificates, WireError> {
    Ok(Certificates { chain: pb::Certificates::decode(bytes)?.chain })
}

/// Encodes what a node sends on its stream.
pub fn encode_from_node(message: &FromNode) -> Bytes {
    let message = match message {
        FromNode::Hello(hello) => from_node::Message::Hello(pb::Hello {
            node: hello.node.to_string(),
            schema: hello.schema,
            resume: hello.resume.map(|p| pb::Position { epoch: p.epoch, revision: p.revision }),
            versions: versions(&hello.versions),
            held: hello.held.as_ref().map(held),
        }),
        FromNode::Ack(ack) => from_node::Message::Ack(pb::Ack {
            revision: ack.revision,
            rejected: ack
                .rejected
                .iter()
                .map(|r| pb::Rejection { key: r.key.to_string(), message: r.message.to_string() })
                .collect(),
            omitted: ack.omitted,
        }),
        FromNode::Pong => from_node::Message::Pong(pb::Pong {}),
    };
    pb::FromNode { message: Some(message) }.encode_to_vec().into()
}

/// Decodes what a node sent.
///
/// # Errors
/// Bytes that are no message, and fields that are missing.
pub fn decode_from_node(bytes: Bytes) -> Result<FromNode, WireError> {
    let message = pb::FromNode::decode(bytes)?.message;
    Ok(match required(message, "from_node.message")? {
        from_node::Message::Hello(hello) => FromNode::Hello(Hello {
            node: hello.node.into(),
            schema: hello.schema,
            resume: hello.resume.map(|p| Position { epoch: p.epoch, revision: p.revision }),
            versions: parse_versions(hello.versions, "hello.versions")?,
            held: hello.held.map(parse_held).transpose()?,
        }),
        from_node::Message::Ack(ack) => FromNode::Ack(Ack {
            revision: ack.revision,
            rejected: ack
                .rejected
                .into_iter()
                .map(|r| Rejection { key: key(r.key), message: r.message.into() })
                .collect(),
            omitted: ack.omitted,
        }),
        from_node::Message::Pong(pb::Pong {}) => FromNode::Pong,
    })
}

/// Encodes what a controller sends.
pub fn encode_to_node(message: ToNode) -> Bytes {
    let message = match message {
        ToNode::Batch(from) => to_node::Message::Batch(batch(from)),
        ToNode::Ping => to_node::Message::Ping(pb::Ping {}),
        ToNode::Withheld { reason } => {
            to_node::Message::Withheld(pb::Withheld { reason: reason.to_string() })
        }
    };
    pb::ToNode { message: Some(message) }.encode_to_vec().into()
}

/// Decodes what a controller sent. Resources stay encoded: one that cannot be read must not take the
/// others with it.
///
/// # Errors
/// Bytes that are no message, and fields that are missing.
pub fn decode_to_node(bytes: Bytes) -> Result<ToNode, WireError> {
    let message = pb::ToNode::decode(bytes)?.message;
    Ok(match required(message, "to_node.message")? {
        to_node::Message::Batch(from) => ToNode::Batch(parse_batch(from)?),
        to_node::Message::Ping(pb::Ping {}) => ToNode::Ping,
        to_node::Message::Withheld(pb::Withheld { reason }) => {
            let end = reason.floor_char_boundary(MAX_REJECTION_BYTES);
            ToNode::Withheld { reason: reason[..end].into() }
        }
    })
}

fn batch(from: Batch) -> pb::Batch {
    pb::Batch {
        epoch: from.position.epoch,
        revision: from.position.revision,
        base: match from.base {
            Base::Nothing => None,
            Base::Revision(revision) => Some(batch::Base::Delta(revision)),
            Base::Hello { branches } => Some(batch::Base::Differences(pb::Differences { branches })),
        },
        frame: from.frame,
        versions: versions(&from.versions),
        digest: from.digest.0.to_vec().into(),
        upserts: from.upserts.into_iter().map(upsert).collect(),
        removes: from.removes.iter().map(ResourceKey::to_string).collect(),
        last: from.last,
    }
}

fn parse_batch(from: pb::Batch) -> Result<Batch, WireError> {
    Ok(Batch {
        position: Position { epoch: from.epoch, revision: from.revision },
        base: match from.base {
            None => Base::Nothing,
            Some(batch::Base::Delta(revision)) => Base::Revision(revision),
            Some(batch::Base::Differences(found)) => Base::Hello { branches: found.branches },
        },
        frame: from.frame,
        versions: parse_versions(from.versions, "batch.versions")?,
        digest: parse_digest(&from.digest, "batch.digest")?,
        upserts: from.upserts.into_iter().map(parse_upsert).collect(),
        removes: from.removes.into_iter().map(key).collect(),
        last: from.last,
    })
}

pub(crate) fn encode_saved(state: SavedState) -> Vec<u8> {
    pb::SavedState {
        node: state.node.to_string(),
        epoch: state.position.epoch,
        revision: state.position.revision,
        versions: versions(&state.versions),
        schema: state.schema,
        resources: state.resources.into_iter().map(upsert).collect(),
        rejected: state
            .rejected
            .into_iter()
            .map(|r| pb::SavedRejection { key: r.key.to_string(), message: r.message.to_string() })
            .collect(),
    }
    .encode_to_vec()
}

pub(crate) fn decode_saved(bytes: Bytes) -> Result<SavedState, WireError> {
    let state = pb::SavedState::decode(bytes)?;
    Ok(SavedState {
        node: state.node.into(),
        position: Position { epoch: state.epoch, revision: state.revision },
        versions: parse_versions(state.versions, "saved_state.versions")?,
        schema: state.schema,
        resources: all(state.resources, |from| Ok(parse_upsert(from)))?,
        rejected: all(state.rejected, |r| Ok(Rejection { key: key(r.key), message: r.message.into() }))?,
    })
}

fn versions(from: &Versions) -> BTreeMap<String, u64> {
    from.0.iter().map(|(part, version)| (part.to_string(), *version)).collect()
}

fn parse_versions(from: BTreeMap<String, u64>, field: &'static str) -> Result<Versions, WireError> {
    let longest = from.keys().map(String::len).max().unwrap_or(0);
    if from.len() > MAX_VERSIONS || longest > MAX_VERSION_NAME_BYTES {
        return Err(WireError::OutOfRange { field, value: from.len().max(longest) as u64 });
    }
    Ok(Versions(from.into_iter().map(|(part, version)| (part.into(), version)).collect()))
}

fn held(from: &Held) -> pb::Held {
    pb::Held {
        digest: from.digest.0.to_vec().into(),
        branches: from.branches.iter().flat_map(Branch::bytes).collect(),
    }
}

fn parse_held(from: pb::Held) -> Result<Held, WireError> {
    let (branches, rest) = from.branches.as_chunks();
    let branches: Vec<Branch> = branches.iter().map(|bytes| Branch::from_bytes(*bytes)).collect();
    if !rest.is_empty() || branches.len() > MAX_BRANCHES || !digest::cover(&branches) {
        return Err(WireError::OutOfRange { field: "held.branches", value: branches.len() as u64 });
    }
    Ok(Held { digest: parse_digest(&from.digest, "held.digest")?, branches })
}

fn parse_digest(from: &[u8], field: &'static str) -> Result<Digest, WireError> {
    let bytes = from.try_into().or(Err(WireError::OutOfRange { field, value: from.len() as u64 }))?;
    Ok(Digest(bytes))
}

fn upsert(from: Upsert) -> pb::Upsert {
    pb::Upsert { key: from.key.to_string(), min_schema: from.min_schema, resource: from.resource }
}

fn parse_upsert(from: pb::Upsert) -> Upsert {
    Upsert { key: key(from.key), min_schema: from.min_schema, resource: from.resource }
}

fn key(from: String) -> ResourceKey {
    ResourceKey::parse(&from)
}
