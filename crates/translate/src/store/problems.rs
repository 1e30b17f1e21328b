// SPDX-License-Identifier: Apache-2.0
//! What is wrong with sources and their objects.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Serialize, Serializer};
use weft_api::object::ObjectKey;

use crate::plain::Plain;

/// Something that the user should know and that no status says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The source's name.
    pub source: Arc<str>,
    /// The line, from 1; 0 where the whole source is meant.
    pub line: u32,
    /// The object, where one could be named.
    #[serde(serialize_with = "as_text", skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectKey>,
    /// What is wrong.
    pub message: Arc<str>,
    /// What it means for what is served.
    pub severity: Severity,
}

/// What a problem means for what is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A part of the object has no effect; the rest has.
    Note,
    /// The object is not served as it is written.
    Refused,
    /// Nobody can tell which object it is, and so its source keeps what it had.
    Unrecognized,
}

impl Problem {
    /// A source that cannot be read, from a line on or, with line 0, at all.
    pub fn unread(source: &str, line: u32, message: &str) -> Problem {
        let severity = Severity::Unrecognized;
        Problem { source: source.into(), line, object: None, message: message.into(), severity }
    }
}

fn as_text<S: Serializer>(object: &Option<ObjectKey>, serializer: S) -> Result<S::Ok, S::Error> {
    match object {
        Some(object) => serializer.collect_str(object),
        None => serializer.serialize_none(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: ", Plain(&self.source))?,
            line => write!(f, "{}:{line}: ", Plain(&self.source))?,
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        Plain(&self.message).fmt(f)
    }
}

/// Problems in their order. Two may be the same; each is there until it was removed as often as added.
#[derive(Debug, Default)]
pub(super) struct ProblemSet {
    times: BTreeMap<Problem, usize>,
    version: u64,
}

impl ProblemSet {
    pub(super) fn add(&mut self, problems: &[Problem]) {
        for problem in problems {
            self.version += 1;
            *self.times.entry(problem.clone()).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, problems: &[Problem]) {
        for problem in problems {
            self.version += 1;
            if let Some(times) = self.times.get_mut(problem) {
                *times -= 1;
                if *times == 0 {
                    self.times.remove(problem);
                }
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.times.keys()
    }

    /// Another number after every change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }
}
