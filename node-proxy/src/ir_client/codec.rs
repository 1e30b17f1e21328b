// SPDX-License-Identifier: Apache-2.0
//! The stream's messages for tonic.

use bytes::{Buf, BufMut};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use weft_ir::{
    stream::{Batch, FromNode},
    wire,
};

/// Sends [`FromNode`], receives [`Batch`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NodeCodec;

impl Codec for NodeCodec {
    type Encode = FromNode;
    type Decode = Batch;
    type Encoder = NodeCodec;
    type Decoder = NodeCodec;

    fn encoder(&mut self) -> NodeCodec {
        NodeCodec
    }

    fn decoder(&mut self) -> NodeCodec {
        NodeCodec
    }
}

impl Encoder for NodeCodec {
    type Item = FromNode;
    type Error = Status;

    fn encode(&mut self, message: FromNode, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(wire::encode_from_node(&message));
        Ok(())
    }
}

impl Decoder for NodeCodec {
    type Item = Batch;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Batch>, Status> {
        let bytes = src.copy_to_bytes(src.remaining());
        wire::decode_to_node(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
