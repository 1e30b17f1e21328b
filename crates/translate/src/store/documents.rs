// SPDX-License-Identifier: Apache-2.0
//! The objects of one text.

use std::sync::Arc;

use serde_json::Value;
use weft_api::object::{DecodeError, ObjectKey, Recognition, recognize};

use super::{Entry, Foreign, Problem, Refused};
use crate::{
    memo::Good,
    validate,
    yaml::{self, Lines},
};

/// An object of a text, read or not.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: ObjectKey,
    line: u32,
    /// The lines of the fields, where the object could not be read.
    lines: Lines,
    value: Arc<Value>,
    content: Result<Arc<Good>, DecodeError>,
}

impl Found {
    /// The line of the error, or of the object.
    pub(super) fn error_line(&self) -> u32 {
        match &self.content {
            Ok(_) => self.line,
            Err(error) => self.lines.of(&error.path).max(self.line),
        }
    }

    /// The entry of the store, after the one before.
    pub(super) fn entry(&self, source: &Arc<str>, before: Option<Entry>) -> Entry {
        let stated = self.value.pointer("/metadata/generation").and_then(Value::as_i64);
        let same = before.as_ref().is_some_and(|before| before.value == self.value);
        let counted = before.as_ref().map_or(1, |before| before.generation + i64::from(!same));
        let (good, refused) = match &self.content {
            Ok(decoded) => (Some(decoded.clone()), None),
            Err(error) => {
                let refused = Refused { value: self.value.clone(), error: error.clone() };
                (before.and_then(|before| before.good), Some(refused))
            }
        };
        Entry {
            good,
            refused,
            generation: stated.unwrap_or(counted),
            value: self.value.clone(),
            place: (source.clone(), self.line),
        }
    }
}

/// What a text holds.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    source: &'a Arc<str>,
    pub(super) found: Vec<Found>,
    pub(super) problems: Vec<Problem>,
    pub(super) foreign: Vec<Foreign>,
}

/// Reads every object of a text that is ours to read.
pub(super) fn read<'a>(source: &'a Arc<str>, text: &str) -> Reading<'a> {
    let mut reading = Reading { source, found: Vec::new(), problems: Vec::new(), foreign: Vec::new() };
    for document in yaml::read(text) {
        match document.content {
            Ok(located) => reading.object(located.value, &located.lines, document.line),
            Err(error) => reading.unreadable(&document.text, document.line, error),
        }
    }
    reading
}

impl Reading<'_> {
    fn problem(&mut self, line: u32, object: Option<ObjectKey>, message: String) -> &mut Problem {
        let source = self.source.clone();
        self.problems.push(Problem { source, line, object, message: message.into(), unreadable: false });
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    fn object(&mut self, value: Value, lines: &Lines, line: u32) {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            self.problem(line, None, "apiVersion and kind are required".into());
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
                self.problem(line, None, format!("{kind} of {api_version} is not supported"));
                return;
            }
            Recognition::Foreign => {
                self.foreign.push(Foreign { line, api_version: api_version.into(), kind: kind.into() });
                return;
            }
        };
        let name = |field: &str| {
            value.pointer(field).and_then(Value::as_str).filter(|name| !name.is_empty()).map(Arc::from)
        };
        let Some(object_name) = name("/metadata/name") else {
            self.problem(line, None, format!("{}: metadata.name is required", kind.name()));
            return;
        };
        let namespace: Arc<str> = match kind.namespaced() {
            true => name("/metadata/namespace").unwrap_or_else(|| "default".into()),
            false => "".into(),
        };
        let key = ObjectKey { kind, namespace, name: object_name };
        let content = validate::read(kind, &value).map(|decoded| Arc::new(Good::new(decoded)));
        // Whoever has no error never asks for the line of a field.
        let lines = if content.is_ok() { Lines::at(line) } else { lines.clone() };
        self.found.push(Found { key, line, lines, value: Arc::new(value), content });
    }

    fn list(&mut self, value: Value, lines: &Lines, line: u32) {
        let Some(Value::Array(items)) = value.get("items") else { return };
        for (index, item) in items.iter().enumerate() {
            let item_lines = lines.field("items").map(|items| items.item(index)).unwrap_or_default();
            let item_line = item_lines.line.max(line);
            self.object(item.clone(), &item_lines, item_line);
        }
    }

    /// A document that is no YAML. Where its first lines name an object, that object is refused and
    /// the rest goes on; else nobody can tell what it names.
    fn unreadable(&mut self, text: &str, line: u32, error: yaml::YamlError) {
        let key = named_by(text);
        let problem = self.problem(error.line, key.clone(), error.message.clone());
        problem.unreadable = true;
        if let Some(key) = key {
            let lines = Lines::at(error.line);
            let content = Err(DecodeError::new(format!("line {}", error.line), error.message));
            self.found.push(Found { key, line, lines, value: Arc::new(Value::Null), content });
        }
    }
}

/// The object that the lines of a broken document name in block style.
fn named_by(text: &str) -> Option<ObjectKey> {
    let (mut api_version, mut kind, mut name, mut namespace) = (None, None, None, None);
    let mut in_metadata = false;
    for line in text.lines() {
        let value = |line: &str, key: &str| {
            let rest = line.strip_prefix(key)?.strip_prefix(':')?;
            let rest = rest.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
            (!rest.is_empty()).then(|| rest.to_owned())
        };
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if trimmed.len() == line.len() {
            in_metadata = line.trim_end() == "metadata:";
            api_version = api_version.or_else(|| value(line, "apiVersion"));
            kind = kind.or_else(|| value(line, "kind"));
        } else if in_metadata && line.len() - trimmed.len() == 2 {
            name = name.or_else(|| value(trimmed, "name"));
            namespace = namespace.or_else(|| value(trimmed, "namespace"));
        }
    }
    let Recognition::Read(kind) = recognize(&api_version?, &kind?) else { return None };
    let namespace: Arc<str> = match kind.namespaced() {
        true => namespace.unwrap_or_else(|| "default".into()).into(),
        false => "".into(),
    };
    Some(ObjectKey { kind, namespace, name: name?.into() })
}
