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

/// Sends [`Batch`], receives [`FromNode`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ControllerCodec;

impl Codec for ControllerCodec {
    type Encode = Batch;
    type Decode = FromNode;
    type Encoder = ControllerCodec;
    type Decoder = ControllerCodec;

    fn encoder(&mut self) -> ControllerCodec {
        ControllerCodec
    }

    fn decoder(&mut self) -> ControllerCodec {
        ControllerCodec
    }
}

impl Encoder for ControllerCodec {
    type Item = Batch;
    type Error = Status;

    fn encode(&mut self, batch: Batch, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(wire::encode_to_node(batch));
        Ok(())
    }
}

impl Decoder for ControllerCodec {
    type Item = FromNode;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<FromNode>, Status> {
        let bytes = src.copy_to_bytes(src.remaining());
        wire::decode_from_node(bytes).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
