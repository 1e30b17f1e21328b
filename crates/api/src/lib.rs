// SPDX-License-Identifier: Apache-2.0
//! The Kubernetes objects that Weft reads, its own custom resources, and the statuses it writes.
//!
//! The types hold only the fields that Weft reads. A field that no type names is never dropped in
//! silence: [`object::decode`] returns the path of each one, and the translators decide what that
//! means for the object. The crate does no I/O and has no client.
//!
//! Read [`object`] first, [`recognize`], then the kinds, then [`status`].

pub mod core;
pub mod decode;
pub mod duration;
pub mod gateway;
pub mod httproute;
pub mod meta;
pub mod object;
mod parts;
pub mod policy;
pub mod ratelimit;
pub mod recognize;
pub mod status;
