// SPDX-License-Identifier: Apache-2.0
//! YAML files of several documents, with the line of every field, and with bounds.
//!
//! Each document is read on its own, so that an error in one says nothing about the others, and its kind
//! is looked at before any value is made: what is none of Weft's business costs a pass over its text and no
//! memory. Anchors and aliases work within a budget for the whole file; tags other than those of the core
//! schema, merge keys and keys that appear twice are errors. Scalars follow YAML 1.2, except that a number
//! with a leading zero is a text: readers disagree about its base.

use granit_parser::{Options, Parser, StrInput};

mod head;
mod scalar;
mod values;

pub(crate) use head::head;
#[cfg(test)]
use values::MAX_NULLS;
pub(crate) use values::{Budget, Located, Shape, objects};

/// How deep collections may nest: objects of Kubernetes reach ten.
const MAX_DEPTH: usize = 64;
/// How many values an object may have once its aliases are expanded: an EndpointSlice with 1,000 endpoints,
/// the most that Kubernetes allows, has 20,000.
const MAX_VALUES: usize = 200_000;
/// How many bytes the keys and texts of an object may have once its aliases are expanded: the API server
/// takes no larger request (`MaxRequestBodyBytes`).
const MAX_BYTES: usize = 3 << 20;
/// How many documents a file may have.
pub(crate) const MAX_DOCUMENTS: usize = 50_000;

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct YamlError {
    /// The line of the file, from 1.
    pub(crate) line: u32,
    /// What is wrong.
    pub(crate) message: String,
}

/// The text of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'a> {
    /// The line of the file that it begins on, from 1.
    pub(crate) line: u32,
    pub(crate) text: &'a str,
}

impl<'a> Chunk<'a> {
    fn events(self) -> Parser<'a, StrInput<'a>> {
        let mut options = granit_parser::options! {
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        Options::set_emit_comments(&mut options, false);
        Parser::new_from_str_with_options(self.text, options)
    }

    /// The line of the file for one of the chunk, both from 1.
    fn line(self, in_chunk: usize) -> u32 {
        self.line.saturating_add(u32::try_from(in_chunk.saturating_sub(1)).unwrap_or(u32::MAX))
    }

    fn error(self, error: &granit_parser::ScanError) -> YamlError {
        YamlError { line: self.line(error.marker().line()), message: error.info() }
    }
}

/// Splits a file into its documents, at lines of `---` and `...`, which are nothing else wherever they stand.
/// Directives and comments belong to the document that follows; what has no other line is left out.
pub(crate) fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let mut chunk = Chunk { line: 1, text: "" };
    let (mut begin, mut at, mut has_content) = (0, 0, false);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let is = |marker: &str| {
            let rest = line.strip_prefix(marker);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        };
        let next = at + line.len();
        let (starts, ends) = (is("---"), is("..."));
        if (starts && has_content) || ends {
            chunk.text = &text[begin..at];
            chunks.extend(has_content.then_some(chunk));
            begin = if ends { next } else { at };
            chunk.line = if ends { number + 1 } else { number };
            has_content = false;
        }
        has_content |=
            starts || (!ends && !line.trim_start().starts_with(['#', '%']) && !line.trim().is_empty());
        at = next;
    }
    chunk.text = &text[begin..];
    chunks.extend(has_content.then_some(chunk));
    chunks
}

#[cfg(test)]
mod tests;
