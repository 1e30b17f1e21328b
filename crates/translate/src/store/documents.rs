// SPDX-License-Identifier: Apache-2.0
//! The objects of one text.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use weft_api::{
    decode::{DecodeError, Decoded},
    object::{Kind, Object, ObjectKey},
    recognize::{Recognition, recognize},
};

use super::{
    entry::{Entry, Refused},
    found::{Found, Objects},
    problems::{Problem, Severity},
};
use crate::{
    ineffective, name, refused, validate,
    yaml::{self, Budget, Chunk, Located, MAX_DOCUMENTS, Shape, YamlError},
};

/// After how many documents that are not recognised the rest of a text is not read: whoever mends it reads
/// the first few.
const MAX_UNRECOGNIZED: usize = 100;

/// What a source holds.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Its objects.
    pub(super) found: Objects,
    pub(super) problems: Vec<Problem>,
    /// How many objects there are of each kind that is none of Weft's business, by `apiVersion` and kind.
    pub(super) foreign: BTreeMap<(Arc<str>, Arc<str>), usize>,
    /// Of how many documents nobody can tell what they name.
    pub(super) unrecognized: usize,
}

impl Source {
    /// Reads every object of a text that is ours to read. What is the same as in `objects` is not
    /// checked again.
    pub(super) fn read(name: &Arc<str>, text: &str, objects: &BTreeMap<ObjectKey, Entry>) -> Source {
        let mut source = Source::default();
        let mut budget = Budget::default();
        for (number, chunk) in yaml::chunks(text).into_iter().enumerate() {
            let stop = match source.unrecognized {
                _ if number == MAX_DOCUMENTS => Some(format!("has more than {MAX_DOCUMENTS} documents")),
                MAX_UNRECOGNIZED => Some(format!("has more than {MAX_UNRECOGNIZED} such documents")),
                _ => None,
            };
            if let Some(message) = stop {
                source.unrecognized(name, chunk.line, format!("{message}: what follows is not read"));
                break;
            }
            let mut reading = Reading { name, objects, source: Source::default() };
            // Of a document with an error nothing is used.
            match reading.document(chunk, &mut budget) {
                Ok(()) => source.add(reading.source),
                Err(error) => source.unrecognized(name, error.line, error.message),
            }
        }
        source.found.sort();
        source
    }

    /// Takes one object as a server gives it. What is the same as in `objects` is not checked again.
    pub(super) fn of_object(name: &Arc<str>, object: Value, objects: &BTreeMap<ObjectKey, Entry>) -> Source {
        let mut reading = Reading { name, objects, source: Source::default() };
        match reading.object(Located::without_lines(object), None) {
            Ok(()) => reading.source,
            Err(message) => {
                let mut source = Source::default();
                source.unrecognized(name, 0, message);
                source
            }
        }
    }

    fn add(&mut self, part: Source) {
        self.found.append(part.found);
        self.problems.extend(part.problems);
        for (kind, count) in part.foreign {
            *self.foreign.entry(kind).or_default() += count;
        }
    }

    /// A part of which nobody can tell what it names.
    fn unrecognized(&mut self, name: &Arc<str>, line: u32, message: String) {
        self.problems.push(Problem::unread(name, line, &message));
        self.unrecognized += 1;
    }

    /// Keeps the objects of an earlier text that this one does not name.
    pub(super) fn keep(&mut self, old: Source) {
        if self.found.keep(old.found) {
            for problem in self.problems.iter_mut().filter(|one| one.severity == Severity::Unrecognized) {
                problem.message = format!("{}; what was read before stays", problem.message).into();
            }
        }
    }
}

/// One document. An error means that nobody can tell what it names.
struct Reading<'a> {
    name: &'a Arc<str>,
    objects: &'a BTreeMap<ObjectKey, Entry>,
    source: Source,
}

impl Reading<'_> {
    fn document(&mut self, chunk: Chunk<'_>, budget: &mut Budget) -> Result<(), YamlError> {
        // The rest of what is ours is looked at when its values are read.
        let is_ours = |api_version: &str, kind: &str| {
            let recognition = recognize(api_version, kind);
            matches!(recognition, Recognition::Read(_) | Recognition::Version(_) | Recognition::List(_))
        };
        let Some(head) = yaml::head(chunk, is_ours)? else { return Ok(()) };
        let of = |result: Result<(), String>, line| result.map_err(|message| YamlError { line, message });
        let list = match recognize(&head.api_version, &head.kind) {
            Recognition::Read(_) | Recognition::Version(_) => None,
            Recognition::List(kind) => Some(kind),
            other => {
                let name = object_name(head.namespace.as_deref(), head.name.as_deref());
                return of(self.other(&other, &head.api_version, &head.kind, &name, head.line), head.line);
            }
        };
        let shape = if list.is_some() { Shape::List } else { Shape::One };
        let mut read = Ok(());
        yaml::objects(chunk, shape, budget, &mut |located| {
            let line = located.line();
            if read.is_ok() {
                read = of(self.object(located, list), line);
            }
        })?;
        read
    }

    /// An object, or an item of a list. Items of a list of one kind need not say it.
    fn object(&mut self, located: Located, list: Option<Option<Kind>>) -> Result<(), String> {
        let text = |field: &str| located.value.get(field).and_then(Value::as_str);
        let recognition = match (list.flatten(), text("apiVersion"), text("kind")) {
            (Some(kind), None, None) if !has_type(&located.value) => Recognition::Read(kind),
            (_, Some(api_version), Some(kind)) => recognize(api_version, kind),
            _ => return Err("apiVersion and kind are required, each as a text".into()),
        };
        let kind = match recognition {
            Recognition::Read(kind) | Recognition::Version(kind) => kind,
            Recognition::List(_) => return Err("a list inside of a list is not supported".into()),
            other => {
                let (api_version, kind) = (text("apiVersion").unwrap_or(""), text("kind").unwrap_or(""));
                let part = |field| located.value.pointer(field).and_then(Value::as_str);
                let name = object_name(part("/metadata/namespace"), part("/metadata/name"));
                return self.other(&other, api_version, kind, &name, located.line());
            }
        };
        let key = name::key(kind, &located.value)?;
        let is_read = matches!(recognition, Recognition::Read(_));
        self.found(key, is_read, located);
        Ok(())
    }

    fn found(&mut self, key: ObjectKey, is_read: bool, located: Located) {
        let line = located.line();
        let before = self.objects.get(&key).and_then(|entry| entry.content.as_ref().ok());
        let read = match is_read {
            true => validate::read(key.kind, &located.value, before),
            false => {
                let message = format!("is not read: write {}", key.kind.api_version());
                Err(DecodeError::new("apiVersion", message))
            }
        };
        let note = read.as_ref().ok().and_then(|good| note(good, &located));
        let content = read.map_err(|error| {
            let line = located.line_of(&error.path).max(line);
            let error = match refused::consequence(&key, &located.value) {
                Some(so) => DecodeError::new(error.path, format!("{}; {so}", error.message)),
                None => error,
            };
            Arc::new(Refused { value: located.value, error, line })
        });
        self.source.found.push(key, Found { line, content, note, kept: false });
    }

    /// An object of a kind that is not read.
    fn other(
        &mut self,
        recognition: &Recognition,
        api_version: &str,
        kind: &str,
        name: &str,
        line: u32,
    ) -> Result<(), String> {
        // As of a text that is not written to its end.
        let is_object =
            !kind.ends_with("List") && (api_version == "v1" || *recognition == Recognition::Unsupported);
        if is_object && name.is_empty() {
            return Err(format!("{kind} of {api_version}: metadata.name is required"));
        }
        match recognition {
            Recognition::Misspelt(meant) => {
                return Err(format!("there is no {kind} of {api_version}: did you mean {meant}?"));
            }
            Recognition::Foreign => {
                *self.source.foreign.entry((api_version.into(), kind.into())).or_default() += 1;
            }
            _ => {
                let message =
                    format!("{kind}{name} of {api_version} is not supported: nothing of it takes effect");
                let (source, message) = (self.name.clone(), message.into());
                let severity = Severity::Refused;
                self.source.problems.push(Problem { source, line, object: None, message, severity });
            }
        }
        Ok(())
    }
}

/// Whether a value says what it is, in whatever form.
fn has_type(value: &Value) -> bool {
    value.get("apiVersion").is_some() || value.get("kind").is_some()
}

/// The name of an object that is not read, as far as there is one, with a space before it.
fn object_name(namespace: Option<&str>, name: Option<&str>) -> String {
    let short = |text: &str| text.chars().take(name::MAX_SHOWN).collect::<String>();
    match (namespace, name) {
        (_, None) => String::new(),
        (None, Some(name)) => format!(" {}", short(name)),
        (Some(namespace), Some(name)) => format!(" {}/{}", short(namespace), short(name)),
    }
}

/// What of an object has no effect, and the line of the first such field.
fn note(decoded: &Decoded<Object>, located: &Located) -> Option<(u32, Arc<str>)> {
    let mut fields = ineffective::fields(decoded);
    let mut line = fields.first().map(|(first, _)| located.line_of(first));
    if ineffective::tells_nulls(&decoded.object) {
        for (path, at) in located.nulls().filter(|(path, _)| path.starts_with("spec")) {
            line.get_or_insert(at);
            fields.push((path.to_owned(), "null is as if it were not there".to_owned()));
        }
    }
    let line = line?;
    let fields: Vec<String> = fields.iter().map(|(field, value)| format!("{field} ({value})")).collect();
    Some((line, format!("has no effect: {}", fields.join(", ")).into()))
}
