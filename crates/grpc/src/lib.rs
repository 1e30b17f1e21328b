// SPDX-License-Identifier: Apache-2.0
//! The messages between controller and nodes, for tonic: the same on both ends.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use weft_ir::wire::WireError;

/// Sends `E` and receives `D`, by these functions of `weft_ir::wire`.
pub struct Wire<E, D> {
    encode: fn(E) -> Bytes,
    decode: fn(Bytes) -> Result<D, WireError>,
}

impl<E, D> Wire<E, D> {
    /// A codec of these functions.
    pub fn new(encode: fn(E) -> Bytes, decode: fn(Bytes) -> Result<D, WireError>) -> Wire<E, D> {
        Wire { encode, decode }
    }
}

impl<E, D> Clone for Wire<E, D> {
    fn clone(&self) -> Wire<E, D> {
        *self
    }
}

impl<E, D> Copy for Wire<E, D> {}

impl<E, D> fmt::Debug for Wire<E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl<E: Send + 'static, D: Send + 'static> Codec for Wire<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = Wire<E, D>;
    type Decoder = Wire<E, D>;

    fn encoder(&mut self) -> Wire<E, D> {
        *self
    }

    fn decoder(&mut self) -> Wire<E, D> {
        *self
    }
}

impl<E, D> Encoder for Wire<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, message: E, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put((self.encode)(message));
        Ok(())
    }
}

impl<E, D> Decoder for Wire<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let bytes = src.copy_to_bytes(src.remaining());
        (self.decode)(bytes).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
