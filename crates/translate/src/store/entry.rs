// SPDX-License-Identifier: Apache-2.0
//! An object as the store has it.

use std::sync::Arc;

use serde_json::Value;
use weft_api::{decode::DecodeError, object::ObjectKey};
use weft_gateway_api::Item;

use super::problems::{Problem, Severity};
use crate::good::Good;

/// An object of the store: valid, or refused, by nothing but its own text.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub(super) content: Content,
    /// Where it is.
    pub(super) place: (Arc<str>, u32),
}

/// What an object is.
pub(super) type Content = Result<Arc<Good>, Arc<Refused>>;

impl Entry {
    /// The object, where it is valid.
    pub fn good(&self) -> Option<&Good> {
        self.content.as_deref().ok()
    }

    /// Its text and the error, where it is refused.
    pub fn refused(&self) -> Option<&Refused> {
        self.content.as_ref().err().map(AsRef::as_ref)
    }

    /// `metadata.generation`. An object of a file has none and counts as just made, which is 1: whatever
    /// is said of it, is said of the only text there is.
    pub fn generation(&self) -> i64 {
        let stated = match &self.content {
            Ok(good) => good.object.metadata().generation,
            Err(refused) => refused.value.pointer("/metadata/generation").and_then(Value::as_i64),
        };
        stated.unwrap_or(1)
    }

    /// A part of the object, with what its source says about it; nothing where it is refused.
    pub(crate) fn item<'a, T>(&'a self, object: &'a T) -> Option<Item<'a, T>> {
        let unknown = &self.good()?.unknown;
        Some(Item { object, unknown, generation: self.generation(), refused: None })
    }

    /// Something that is wrong with the object.
    pub(crate) fn problem(&self, key: &ObjectKey, message: Arc<str>) -> Problem {
        let (source, line) = self.place.clone();
        let severity = Severity::Refused;
        Problem { source, line, object: Some(key.clone()), message, severity }
    }
}

/// An object that is not valid.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// What its text holds.
    pub value: Value,
    /// Why.
    pub error: DecodeError,
    /// The line of the field that is wrong, or of the object.
    pub(super) line: u32,
}
