// SPDX-License-Identifier: Apache-2.0
//! What of a route or Gateway is not understood, by where it stands.

use std::sync::Arc;

use weft_api::decode::DecodeError;

/// Fields that are not known, and parts that could not be read.
#[derive(Debug)]
pub(crate) struct Wrong<'a> {
    unknown: &'a [Arc<str>],
    unread: &'a [DecodeError],
}

impl<'a> Wrong<'a> {
    pub(crate) fn new(unknown: &'a [Arc<str>], unread: &'a [DecodeError]) -> Wrong<'a> {
        Wrong { unknown, unread }
    }

    /// What is wrong at a path or below it.
    pub(crate) fn within(&self, path: &str) -> Option<String> {
        let accepts = |at: &str| is_within(at, path);
        self.unread(accepts).or_else(|| self.unknown(accepts))
    }

    /// What could not be read where a path is accepted.
    pub(crate) fn unread(&self, accepts: impl Fn(&str) -> bool) -> Option<String> {
        self.unread.iter().find(|error| accepts(&error.path)).map(DecodeError::to_string)
    }

    /// What is not known where a path is accepted.
    pub(crate) fn unknown(&self, accepts: impl Fn(&str) -> bool) -> Option<String> {
        let field = self.unknown.iter().find(|field| accepts(field))?;
        Some(format!("{field} is not supported"))
    }
}

/// Whether a path is another or lies below it.
pub(crate) fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
