// SPDX-License-Identifier: Apache-2.0
//! What a document is, without its values.

use granit_parser::Event;
use serde_json::Value;

use super::{Chunk, YamlError, scalar::scalar};

/// The longest name of an object, group or kind that is looked at: Kubernetes allows 253 characters.
const MAX_TEXT: usize = 512;

/// What a document names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The line of the file that its content begins on.
    pub(crate) line: u32,
    pub(crate) api_version: String,
    pub(crate) kind: String,
    /// Only where the whole document was looked at.
    pub(crate) namespace: Option<String>,
    /// Only where the whole document was looked at.
    pub(crate) name: Option<String>,
}

/// Looks at the events of a document, until `enough` is true of its `apiVersion` and kind, or to its end.
/// Nothing where the document is empty.
///
/// # Errors
/// When what was looked at is no YAML, is more than one document, or does not say its `apiVersion` and kind.
pub(crate) fn head(chunk: Chunk<'_>, enough: impl Fn(&str, &str) -> bool) -> Result<Option<Head>, YamlError> {
    let mut skim = Skim::default();
    let mut asked = false;
    for event in chunk.events() {
        let (event, span) = event.map_err(|error| chunk.error(&error))?;
        let line = chunk.line(span.start.line());
        skim.event(&event, line).map_err(|message| YamlError { line, message })?;
        // Asked once: a large document has many events.
        if let (false, Some(api_version), Some(kind)) = (asked, &skim.api_version, &skim.kind) {
            asked = true;
            if enough(api_version, kind) {
                break;
            }
        }
    }
    let Some(line) = skim.line else { return Ok(None) };
    match (skim.api_version, skim.kind) {
        (Some(api_version), Some(kind)) if !api_version.is_empty() && !kind.is_empty() => {
            Ok(Some(Head { line, api_version, kind, namespace: skim.namespace, name: skim.name }))
        }
        _ => {
            let message = "apiVersion and kind are required, each as a text; what is no object of Kubernetes \
                           does not belong here";
            Err(YamlError { line, message: message.into() })
        }
    }
}

/// A key of the outermost map, or of `metadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    ApiVersion,
    Kind,
    Metadata,
    Namespace,
    Name,
    Other,
}

impl Key {
    fn of(level: usize, text: &str) -> Key {
        match (level, text) {
            (0, "apiVersion") => Key::ApiVersion,
            (0, "kind") => Key::Kind,
            (0, "metadata") => Key::Metadata,
            (1, "namespace") => Key::Namespace,
            (1, "name") => Key::Name,
            _ => Key::Other,
        }
    }
}

#[derive(Default)]
struct Skim {
    documents: usize,
    /// Where the outermost map begins.
    line: Option<u32>,
    /// How many collections are open.
    depth: usize,
    /// The key whose value comes next, of the outermost map and of `metadata`.
    keys: [Option<Key>; 2],
    in_metadata: bool,
    api_version: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Skim {
    fn event(&mut self, event: &Event<'_>, line: u32) -> Result<(), String> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("another document begins here: put a line of `---` before it".into());
                }
            }
            Event::Scalar(text, style, _, tag) => {
                if self.depth == 0 && !scalar(text, *style, tag.as_deref())?.is_null() {
                    return Err("must be a map with apiVersion and kind".into());
                }
                if let Some(key) = self.level().and_then(|level| self.keys[level]) {
                    self.named(key, text, || scalar(text, *style, tag.as_deref()))?;
                }
                self.passed(Some(text));
            }
            Event::Alias(_) => self.passed(None),
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                let is_map = matches!(event, Event::MappingStart(..));
                match self.depth {
                    0 if !is_map => return Err("must be a map with apiVersion and kind".into()),
                    0 => self.line = Some(line),
                    1 => {
                        (self.in_metadata, self.keys[1]) =
                            (is_map && self.keys[0] == Some(Key::Metadata), None)
                    }
                    _ => {}
                }
                self.depth += 1;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.depth -= 1;
                self.passed(None);
            }
            _ => {}
        }
        Ok(())
    }

    /// Which of the two maps is the innermost that is open.
    fn level(&self) -> Option<usize> {
        match self.depth {
            1 => Some(0),
            2 if self.in_metadata => Some(1),
            _ => None,
        }
    }

    /// A key or a value has ended; `text` is that of a scalar.
    fn passed(&mut self, text: Option<&str>) {
        if let Some(level) = self.level() {
            let key = &mut self.keys[level];
            *key = match key {
                Some(_) => None,
                None => Some(text.map_or(Key::Other, |text| Key::of(level, text))),
            };
        }
    }

    /// Takes the value of a key. What is no text is as good as absent.
    fn named(
        &mut self,
        key: Key,
        text: &str,
        value: impl FnOnce() -> Result<Value, String>,
    ) -> Result<(), String> {
        let (named, name) = match key {
            Key::ApiVersion => (&mut self.api_version, "apiVersion"),
            Key::Kind => (&mut self.kind, "kind"),
            Key::Namespace => (&mut self.namespace, "metadata.namespace"),
            Key::Name => (&mut self.name, "metadata.name"),
            Key::Metadata | Key::Other => return Ok(()),
        };
        if named.is_some() {
            return Err(format!("{name} appears twice"));
        }
        if text.len() > MAX_TEXT {
            return Err(format!("{name} is longer than {MAX_TEXT} bytes"));
        }
        if let Value::String(text) = value()? {
            *named = Some(text);
        }
        Ok(())
    }
}
