// SPDX-License-Identifier: Apache-2.0
//! The encoding of resources and stream messages (`proto/weft/ir/v1/ir.proto`).
//!
//! Only this module and its children see the generated types. What cannot be decoded into a valid
//! value is an error that names the field: nothing is guessed, nothing falls back to a default.

use bytes::Bytes;
use prost::Message;

use crate::Resource;

mod fields;
#[rustfmt::skip]
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    unreachable_pub,
    unnameable_types,
    reason = "generated code"
)]
mod generated;
mod messages;
mod policy;
mod resource;
mod route;
mod service;

pub(crate) use messages::{SavedState, decode_saved, encode_saved};
pub use messages::{
    decode_certificates, decode_from_node, decode_join, decode_renew, decode_to_node, encode_certificates,
    encode_from_node, encode_join, encode_renew, encode_to_node,
};

/// Why bytes are no valid value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WireError {
    /// Not the encoding of the expected message at all.
    #[error("not a valid message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field that must be there is missing, or its variant is one that this build does not know.
    #[error("{field}: missing, or of a kind that this version does not know")]
    Missing {
        /// `message.field` of the schema.
        field: &'static str,
    },
    /// An enum value that this build does not know.
    #[error("{field}: unknown value {value}")]
    UnknownEnum {
        /// `message.field` of the schema.
        field: &'static str,
        /// The value found.
        value: i32,
    },
    /// A value that is outside of its range.
    #[error("{field}: {value} is out of range")]
    OutOfRange {
        /// `message.field` of the schema.
        field: &'static str,
        /// The value found.
        value: u64,
    },
    /// Neither an IPv4 nor an IPv6 address.
    #[error("{field}: an address has 4 or 16 bytes, not {length}")]
    Address {
        /// `message.field` of the schema.
        field: &'static str,
        /// The length found.
        length: usize,
    },
    /// A name that Kubernetes would not take.
    #[error("{field}: not a name of Kubernetes")]
    Name {
        /// `message.field` of the schema.
        field: &'static str,
    },
    /// The same key twice in a map.
    #[error("{field}: a key is there twice")]
    Duplicate {
        /// `message.field` of the schema.
        field: &'static str,
    },
    /// The publisher sent an empty stand-in.
    #[error("the controller holds it back: it is larger than {} bytes", crate::stream::MAX_RESOURCE_BYTES)]
    HeldBack,
}

/// Encodes a resource. Equal resources have equal bytes.
pub fn encode(resource: &Resource) -> Bytes {
    resource::to_wire(resource).encode_to_vec().into()
}

/// Decodes a resource.
///
/// # Errors
/// Whatever is not a valid resource in every field.
pub fn decode(bytes: &[u8]) -> Result<Resource, WireError> {
    if bytes.is_empty() {
        return Err(WireError::HeldBack);
    }
    resource::from_wire(generated::Resource::decode(bytes)?)
}

#[cfg(test)]
mod tests;
