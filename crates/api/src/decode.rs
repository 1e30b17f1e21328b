// SPDX-License-Identifier: Apache-2.0
//! Reading a value of any type: where an error is, and which fields no type names.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::meta;

/// An object, and the paths of its fields that no type of this crate names.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<T> {
    /// The object.
    pub object: T,
    /// Paths such as `spec.rules[0].filters[1].cors`, without those of `status` and without the fields of
    /// `metadata` that Kubernetes has.
    pub unknown: Vec<Arc<str>>,
}

/// Why an object could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DecodeError {
    /// The field, such as `spec.rules[0].backendRefs[1].port`.
    pub path: Arc<str>,
    /// What is wrong with it.
    pub message: Arc<str>,
}

impl DecodeError {
    /// An error at a field.
    pub fn new(path: impl Into<Arc<str>>, message: impl Into<Arc<str>>) -> DecodeError {
        DecodeError { path: path.into(), message: message.into() }
    }
}

/// Reads a value of any type, with the paths of the fields that the type does not name.
pub fn decode_as<T: DeserializeOwned>(value: &Value) -> Result<Decoded<T>, DecodeError> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        let path = path_text(&path);
        let (first, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
        let is_known = match first {
            "apiVersion" | "kind" | "status" => true,
            "metadata" => meta::is_field(rest),
            _ => false,
        };
        if !is_known {
            unknown.push(Arc::from(path));
        }
    };
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = T::deserialize(serde_ignored::Deserializer::new(deserializer, &mut note));
    match result {
        Ok(object) => Ok(Decoded { object, unknown }),
        Err(error) => Err(DecodeError::new(error_path(&track.path()), error.to_string())),
    }
}

/// A path of `serde_ignored` in the notation of Kubernetes.
fn path_text(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_text(parent)),
        Path::Map { parent, key } => join(path_text(parent), key),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            path_text(parent)
        }
    }
}

/// A path of `serde_path_to_error` in the notation of Kubernetes.
fn error_path(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |text, segment| match segment {
        Segment::Seq { index } => format!("{text}[{index}]"),
        Segment::Map { key } | Segment::Enum { variant: key } => join(text, key),
        Segment::Unknown => text,
    })
}

/// Adds a key to a path: `.key`, or `[key]` where the key itself has dots, brackets or slashes.
fn join(parent: String, key: &str) -> String {
    match (parent.is_empty(), key.contains(['.', '/', '['])) {
        (true, _) => key.to_owned(),
        (false, false) => format!("{parent}.{key}"),
        (false, true) => format!("{parent}[{key}]"),
    }
}
