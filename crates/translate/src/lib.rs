// SPDX-License-Identifier: Apache-2.0
//! From text to the IR: the YAML reader, the object store, and all translators. The controller and
//! `weft translate` share it.
//!
//! The crate does no I/O and has no clock: whoever calls it reads files, keeps the identities and
//! says what time it is.
//!
//! Read `yaml` first, then `store`, `translation`, `policy`.

mod good;
pub mod identity;
mod ineffective;
mod name;
mod nodes;
mod plain;
mod policy;
mod preview;
mod ratelimit;
mod refused;
pub mod report;
mod store;
mod translation;
mod validate;
mod workload;
mod yaml;

pub use good::Good;
pub use identity::{Identities, IdentityRecord};
pub use preview::{Preview, PreviewFormat, PrintError, UnknownFormat};
pub use store::{Entry, Problem, Refused, Severity, Store};
pub use weft_ir::Resource;

pub use translation::{Delta, ObjectCounts, ObjectStatus, Translation, Translator};

/// Writes a value as YAML, for people and for golden tests.
///
/// # Errors
/// When the value has a map whose keys are no texts.
pub fn to_yaml<T: serde::Serialize>(value: &T) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(value)
}
