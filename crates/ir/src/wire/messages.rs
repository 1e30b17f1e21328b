// SPDX-License-Identifier: Apache-2.0
//! The messages of the stream, and the state on a node's disk.

use bytes::Bytes;
use prost::Message;

use super::{
    WireError,
    fields::{all, required},
    generated::{self as pb, from_node, to_node},
};
use crate::{
    ResourceKey,
    stream::{Ack, Batch, Certificates, FromNode, Hello, JoinRequest, Position, Rejection, Upsert},
};

/// The state on a node's disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SavedState {
    pub(crate) position: Position,
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
    })
}

/// Encodes what a controller sends.
pub fn encode_to_node(batch: Batch) -> Bytes {
    let batch = pb::Batch {
        epoch: batch.position.epoch,
        revision: batch.position.revision,
        base: batch.base,
        frame: batch.frame,
        upserts: batch.upserts.into_iter().map(upsert).collect(),
        removes: batch.removes.iter().map(ResourceKey::to_string).collect(),
        last: batch.last,
    };
    pb::ToNode { message: Some(to_node::Message::Batch(batch)) }.encode_to_vec().into()
}

/// Decodes what a controller sent. Resources stay encoded: one that cannot be read must not take the
/// others with it.
///
/// # Errors
/// Bytes that are no message, and fields that are missing.
pub fn decode_to_node(bytes: Bytes) -> Result<Batch, WireError> {
    let message = pb::ToNode::decode(bytes)?.message;
    let to_node::Message::Batch(batch) = required(message, "to_node.message")?;
    Ok(Batch {
        position: Position { epoch: batch.epoch, revision: batch.revision },
        base: batch.base,
        frame: batch.frame,
        upserts: batch.upserts.into_iter().map(parse_upsert).collect(),
        removes: batch.removes.into_iter().map(key).collect(),
        last: batch.last,
    })
}

pub(crate) fn encode_saved(state: SavedState) -> Vec<u8> {
    pb::SavedState {
        epoch: state.position.epoch,
        revision: state.position.revision,
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
        position: Position { epoch: state.epoch, revision: state.revision },
        schema: state.schema,
        resources: all(state.resources, |from| Ok(parse_upsert(from)))?,
        rejected: all(state.rejected, |r| Ok(Rejection { key: key(r.key), message: r.message.into() }))?,
    })
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
