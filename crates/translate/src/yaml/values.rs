// SPDX-License-Identifier: Apache-2.0
//! The values of a document, with their lines.

use std::collections::{BTreeMap, HashMap};

use granit_parser::{Event, Tag};
use serde_json::{Map, Value};

use super::{
    Chunk, MAX_BYTES, MAX_DEPTH, MAX_VALUES, YamlError,
    scalar::{core_tag, scalar},
};

/// A value and the lines of its fields.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located {
    /// The value; absent and `null` fields of maps are the same to Kubernetes, and so the latter are left out.
    pub(crate) value: Value,
    lines: Lines,
    /// The fields that were left out, by path and line; of many the first.
    nulls: Vec<(String, u32)>,
}

/// How many fields that are `null` are told of: each is told with its whole path.
pub(super) const MAX_NULLS: usize = 8;

/// The line of a value, and of what is in it: the entries of a list, or the fields of a map in their order.
#[derive(Clone, Debug, PartialEq)]
struct Lines {
    line: u32,
    children: Vec<Lines>,
}

impl Located {
    /// A value that was in no file: every line is 0.
    pub(crate) fn without_lines(value: Value) -> Located {
        Located { value, lines: Lines { line: 0, children: Vec::new() }, nulls: Vec::new() }
    }

    /// The line of the file that it begins on, from 1.
    pub(crate) fn line(&self) -> u32 {
        self.lines.line
    }

    /// The fields that are `null`, and the lines that they are on; of many the first.
    pub(crate) fn nulls(&self) -> impl Iterator<Item = (&str, u32)> {
        self.nulls.iter().map(|(path, line)| (&**path, *line))
    }

    /// The line of a field such as `spec.rules[0].matches`; of the nearest one above it where the field
    /// itself is not there.
    pub(crate) fn line_of(&self, path: &str) -> u32 {
        let (mut value, mut lines, mut path) = (&self.value, &self.lines, path);
        while let Some((inner, at, rest)) = step(value, path)
            && let Some(of_inner) = lines.children.get(at)
        {
            (value, lines, path) = (inner, of_inner, rest);
        }
        lines.line
    }
}

/// The first field of a path: its value, its place, and the rest of the path.
fn step<'v, 'p>(value: &'v Value, path: &'p str) -> Option<(&'v Value, usize, &'p str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    let (key, rest) = match path.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => path.split_at(path.find(['.', '[']).unwrap_or(path.len())),
    };
    match value {
        Value::Array(items) => {
            let at = key.parse().ok()?;
            Some((items.get(at)?, at, rest))
        }
        Value::Object(fields) => {
            let (at, (_, inner)) = fields.iter().enumerate().find(|(_, (name, _))| *name == key)?;
            Some((inner, at, rest))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Whether a document is one object or a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    /// Its `items` are objects.
    List,
}

/// How much the aliases of a file may still add to it.
#[derive(Debug)]
pub(crate) struct Budget(Size);

impl Default for Budget {
    fn default() -> Budget {
        Budget(Size { values: MAX_VALUES, bytes: MAX_BYTES, depth: 0 })
    }
}

/// How large a value is.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    values: usize,
    bytes: usize,
    depth: usize,
}

impl Size {
    fn of(value: &Value) -> Size {
        let leaf = |bytes| Size { values: 1, bytes, depth: 0 };
        let inner = |sizes: &mut dyn Iterator<Item = Size>| {
            sizes.fold(Size { values: 1, bytes: 0, depth: 1 }, |sum, one| Size {
                values: sum.values + one.values,
                bytes: sum.bytes + one.bytes,
                depth: sum.depth.max(one.depth + 1),
            })
        };
        match value {
            Value::Array(items) => inner(&mut items.iter().map(Size::of)),
            Value::Object(fields) => inner(&mut fields.iter().map(|(key, value)| {
                let size = Size::of(value);
                Size { bytes: size.bytes + key.len(), ..size }
            })),
            Value::String(text) => leaf(text.len()),
            Value::Null | Value::Bool(_) | Value::Number(_) => leaf(0),
        }
    }
}

/// Reads the values of a document, and hands over its object, or the entries of its list one by one.
///
/// # Errors
/// When it is no YAML or exceeds a limit. What was handed over by then may be a part of the whole.
pub(crate) fn objects(
    chunk: Chunk<'_>,
    shape: Shape,
    budget: &mut Budget,
    each: &mut dyn FnMut(Located),
) -> Result<(), YamlError> {
    let mut builder = Builder {
        shape,
        budget,
        each,
        open: Vec::new(),
        anchors: HashMap::new(),
        size: Size::default(),
        has_items: false,
    };
    for event in chunk.events() {
        let (event, span) = event.map_err(|error| chunk.error(&error))?;
        let line = chunk.line(span.start.line());
        builder.event(event, line).map_err(|message| YamlError { line, message })?;
    }
    if shape == Shape::List && !builder.has_items {
        let message = "items must be a list: write `items: []` where it is empty".into();
        return Err(YamlError { line: chunk.line, message });
    }
    Ok(())
}

struct Builder<'a> {
    shape: Shape,
    budget: &'a mut Budget,
    each: &'a mut dyn FnMut(Located),
    open: Vec<Open>,
    anchors: HashMap<usize, (Located, Size)>,
    /// Of the object so far; its depth is that of `open`.
    size: Size,
    has_items: bool,
}

/// A collection that has not ended.
struct Open {
    line: u32,
    anchor: usize,
    content: Content,
}

enum Content {
    Seq(Vec<Located>),
    Map { fields: BTreeMap<String, Located>, key: Option<String> },
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, line: u32) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.grow(Size { values: 1, bytes: text.len(), depth: 0 })?;
                if self.wants_key() {
                    return if anchor == 0 {
                        self.key(&text)
                    } else {
                        Err("a key cannot be an anchor".into())
                    };
                }
                let value = scalar(&text, style, tag.as_deref())?;
                let lines = Lines { line, children: Vec::new() };
                self.value(Located { value, lines, nulls: Vec::new() }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.has_items |= self.is_items();
                self.begin(line, anchor, tag.as_deref(), "seq", Content::Seq(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Map { fields: BTreeMap::new(), key: None };
                self.begin(line, anchor, tag.as_deref(), "map", content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, line),
            _ => Ok(()),
        }
    }

    /// Counts what is added to the object.
    fn grow(&mut self, by: Size) -> Result<(), String> {
        self.size.values += by.values;
        self.size.bytes += by.bytes;
        match () {
            () if self.open.len() + by.depth > MAX_DEPTH => Err(format!("nests deeper than {MAX_DEPTH}")),
            () if self.size.values > MAX_VALUES => {
                Err(format!("the object has more than {MAX_VALUES} values"))
            }
            () if self.size.bytes > MAX_BYTES => Err(format!("the object has more than {MAX_BYTES} bytes")),
            () => Ok(()),
        }
    }

    fn alias(&mut self, anchor: usize, line: u32) -> Result<(), String> {
        let (target, size) = self.anchors.get(&anchor).ok_or("an alias inside of its own anchor")?;
        let size = *size;
        self.budget.take(size)?;
        let mut copy = target.clone();
        copy.lines.line = line;
        self.grow(size)?;
        self.value(copy, 0)
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    /// Whether what comes next is the value of `items` of a list.
    fn is_items(&self) -> bool {
        let [Open { content: Content::Map { key: Some(key), .. }, .. }] = &*self.open else { return false };
        self.shape == Shape::List && key == "items"
    }

    fn key(&mut self, text: &str) -> Result<(), String> {
        if text == "<<" {
            return Err("merge keys (`<<`) are not supported".into());
        }
        if let Some(Open { content: Content::Map { fields, key }, .. }) = self.open.last_mut() {
            if fields.contains_key(text) {
                return Err(format!("the key `{}` appears twice", text.chars().take(64).collect::<String>()));
            }
            *key = Some(text.to_owned());
        }
        Ok(())
    }

    fn begin(
        &mut self,
        line: u32,
        anchor: usize,
        tag: Option<&Tag>,
        kind: &str,
        content: Content,
    ) -> Result<(), String> {
        if self.wants_key() {
            return Err("a key must be a text".into());
        }
        if tag.map(core_tag).transpose()?.is_some_and(|tag| tag != kind) {
            return Err("the value does not have the type of its tag".into());
        }
        self.grow(Size { values: 1, bytes: 0, depth: 1 })?;
        self.open.push(Open { line, anchor, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Open { line, anchor, content }) = self.open.pop() else { return Ok(()) };
        let mut nulls = Vec::new();
        let (value, children) = match content {
            Content::Seq(items) => {
                for (at, item) in items.iter().enumerate() {
                    below(&mut nulls, &format!("[{at}]"), item);
                }
                let (values, lines) = items.into_iter().map(|item| (item.value, item.lines)).unzip();
                (Value::Array(values), lines)
            }
            Content::Map { mut fields, .. } => {
                // To Kubernetes a field that is null is absent. A label that is null is an error.
                if !self.holds_labels() {
                    nulls.extend(
                        fields
                            .iter()
                            .filter(|(_, field)| field.value.is_null())
                            .map(|(key, field)| (key.clone(), field.lines.line))
                            .take(MAX_NULLS),
                    );
                    fields.retain(|_, field| !field.value.is_null());
                }
                for (key, field) in &fields {
                    below(&mut nulls, key, field);
                }
                let (map, lines): (Map<_, _>, _) =
                    fields.into_iter().map(|(key, field)| ((key, field.value), field.lines)).unzip();
                (Value::Object(map), lines)
            }
        };
        self.value(Located { value, lines: Lines { line, children }, nulls }, anchor)
    }

    /// A value is complete; what it is made of was counted.
    fn value(&mut self, located: Located, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            let size = Size::of(&located.value);
            self.budget.take(size)?;
            self.anchors.insert(anchor, (located.clone(), size));
        }
        let is_item = self.shape == Shape::List && self.open.len() == 2 && self.is_in_items();
        if is_item || (self.open.is_empty() && self.shape == Shape::One) {
            self.size = Size::default();
            (self.each)(located);
            return Ok(());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => {}
            Some(Content::Seq(items)) => items.push(located),
            Some(Content::Map { fields, key }) => {
                let name = key.take().ok_or("a key must be a text")?;
                fields.insert(name, located);
            }
        }
        Ok(())
    }

    /// Whether the outermost map is at its `items`.
    fn is_in_items(&self) -> bool {
        matches!(
            &*self.open,
            [Open { content: Content::Map { key: Some(key), .. }, .. }, Open { content: Content::Seq(_), .. }]
                if key == "items"
        )
    }

    /// Whether the map that just ended holds labels, which cannot be null.
    fn holds_labels(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open { content: Content::Map { key: Some(name), .. }, .. })
                if matches!(name.as_str(), "matchLabels" | "labels" | "annotations")
        )
    }
}

/// Adds the nulls of a value to those of the collection that it is in, at this place.
fn below(nulls: &mut Vec<(String, u32)>, place: &str, inner: &Located) {
    let left = MAX_NULLS.saturating_sub(nulls.len());
    nulls.extend(inner.nulls.iter().take(left).map(|(path, line)| {
        let dot = if path.starts_with('[') { "" } else { "." };
        (format!("{place}{dot}{path}"), *line)
    }));
}

impl Budget {
    fn take(&mut self, size: Size) -> Result<(), String> {
        let Budget(left) = self;
        match (left.values.checked_sub(size.values), left.bytes.checked_sub(size.bytes)) {
            (Some(values), Some(bytes)) => (left.values, left.bytes) = (values, bytes),
            _ => {
                return Err(format!(
                    "the aliases of the file stand for more than {MAX_VALUES} values or {MAX_BYTES} bytes"
                ));
            }
        }
        Ok(())
    }
}
