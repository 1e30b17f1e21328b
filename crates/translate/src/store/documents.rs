// SPDX-License-Identifier: Apache-2.0
//! The objects of one text.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use weft_api::object::{ObjectKey, Recognition, recognize};

use super::{Content, Entry, Foreign, Problem, Refused};
use crate::{
    validate,
    yaml::{self, Lines},
};

/// What a source holds.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Its objects, each once or, wrongly, several times.
    pub(super) found: BTreeMap<ObjectKey, Vec<Found>>,
    pub(super) problems: Vec<Problem>,
    pub(super) foreign: Vec<Foreign>,
    /// Nobody can tell what a part of the text names.
    pub(super) unrecognized: bool,
}

/// An object of a text.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) line: u32,
    pub(super) content: Content,
}

impl Source {
    /// Reads every object of a text that is ours to read. What is the same as in `objects` is not
    /// checked again.
    pub(super) fn read(name: &Arc<str>, text: &str, objects: &BTreeMap<ObjectKey, Entry>) -> Source {
        let mut reading = Reading { name, objects, source: Source::default() };
        for document in yaml::read(text) {
            match document.content {
                Ok(located) => reading.object(located.value, &located.lines, document.line),
                Err(error) => reading.unrecognized(error.line, error.message),
            }
        }
        reading.source
    }

    /// Keeps the objects of an earlier text that this one does not name.
    pub(super) fn keep(&mut self, old: Source) {
        let kept = old.found.into_iter().filter(|(key, _)| !self.found.contains_key(key));
        let kept: Vec<(ObjectKey, Vec<Found>)> = kept.collect();
        if !kept.is_empty() {
            for problem in self.problems.iter_mut().filter(|problem| problem.unreadable) {
                problem.message = format!("{}; what was read before stays", problem.message).into();
            }
        }
        self.found.extend(kept);
    }
}

struct Reading<'a> {
    name: &'a Arc<str>,
    objects: &'a BTreeMap<ObjectKey, Entry>,
    source: Source,
}

impl Reading<'_> {
    fn problem(&mut self, line: u32, message: String) {
        let source = self.name.clone();
        let problem = Problem { source, line, object: None, message: message.into(), unreadable: false };
        self.source.problems.push(problem);
    }

    /// A part of which nobody can tell what it names.
    fn unrecognized(&mut self, line: u32, message: String) {
        self.source.problems.push(Problem::unread(self.name, line, &message));
        self.source.unrecognized = true;
    }

    fn object(&mut self, value: Value, lines: &Lines, line: u32) {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            self.unrecognized(line, "apiVersion and kind are required".into());
            return;
        }
        if api_version == "v1" && kind == "List" {
            self.list(value, lines, line);
            return;
        }
        let recognized = recognize(&api_version, &kind);
        let kind = match recognized {
            Recognition::Read(kind) => kind,
            Recognition::Unsupported { api_version, kind } => {
                self.problem(line, format!("{kind} of {api_version} is not supported"));
                return;
            }
            Recognition::Foreign => {
                self.source.foreign.push(Foreign {
                    line,
                    api_version: api_version.into(),
                    kind: kind.into(),
                });
                return;
            }
        };
        let name = |field: &str| {
            value.pointer(field).and_then(Value::as_str).filter(|name| !name.is_empty()).map(Arc::from)
        };
        let Some(object_name) = name("/metadata/name") else {
            self.unrecognized(line, format!("{}: metadata.name is required", kind.name()));
            return;
        };
        let namespace: Arc<str> = match kind.namespaced() {
            true => name("/metadata/namespace").unwrap_or_else(|| "default".into()),
            false => "".into(),
        };
        let key = ObjectKey { kind, namespace, name: object_name };
        let before = self.objects.get(&key).and_then(|entry| entry.content.as_ref().ok());
        let content = validate::read(kind, &value, before).map_err(|error| {
            let line = lines.of(&error.path).max(line);
            Arc::new(Refused { value, error, line })
        });
        self.source.found.entry(key).or_default().push(Found { line, content });
    }

    fn list(&mut self, value: Value, lines: &Lines, line: u32) {
        let Some(Value::Array(items)) = value.get("items") else { return };
        for (index, item) in items.iter().enumerate() {
            let item_lines = lines.field("items").map(|items| items.item(index)).unwrap_or_default();
            let item_line = item_lines.line.max(line);
            self.object(item.clone(), &item_lines, item_line);
        }
    }
}
