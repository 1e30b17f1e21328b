// SPDX-License-Identifier: Apache-2.0
//! YAML files of several documents, with the line of every field.
//!
//! Each document is parsed on its own, so that an error in one says nothing about the others.
//! Anchors and aliases work within limits; tags other than those of the core schema, merge keys and
//! keys that appear twice are errors. Scalars follow YAML 1.2, except that a number with a leading
//! zero is a text: readers disagree about its base.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Number, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Tag};

/// How many values a document may have once its aliases are expanded.
const MAX_VALUES: usize = 200_000;

/// One document of a file.
#[derive(Debug)]
pub struct Document {
    /// The line of the file that it starts on, from 1.
    pub line: u32,
    /// Its text.
    pub text: String,
    /// What it holds, or why it could not be read.
    pub content: Result<Located, YamlError>,
}

/// A value and the lines of its fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The value; absent and `null` fields of maps are the same to Kubernetes, and so the latter are left out.
    pub value: Value,
    /// The lines.
    pub lines: Lines,
}

/// The line of a value and of what is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// The line of the file, from 1.
    pub line: u32,
    children: Children,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Children {
    #[default]
    None,
    Map(Vec<(String, Lines)>),
    Seq(Vec<Lines>),
}

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// The line of the file, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

impl Lines {
    /// A value of which only this line is known.
    pub fn at(line: u32) -> Lines {
        Lines { line, children: Children::None }
    }

    /// The line of a field such as `spec.rules[0].matches`; of the nearest one above it where the
    /// field itself is not there.
    pub fn of(&self, path: &str) -> u32 {
        match self.step(path) {
            Some((child, rest)) => child.of(rest),
            None => self.line,
        }
    }

    /// The entry of a list.
    pub(crate) fn item(&self, index: usize) -> Lines {
        match &self.children {
            Children::Seq(items) => items.get(index).cloned().unwrap_or_default(),
            Children::Map(_) | Children::None => Lines { line: self.line, children: Children::None },
        }
    }

    /// The field of a map.
    pub(crate) fn field(&self, name: &str) -> Option<&Lines> {
        match &self.children {
            Children::Map(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, lines)| lines),
            Children::Seq(_) | Children::None => None,
        }
    }

    fn step<'a, 'p>(&'a self, path: &'p str) -> Option<(&'a Lines, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        if let Some(inner) = path.strip_prefix('[') {
            let (key, rest) = inner.split_once(']')?;
            return match &self.children {
                Children::Seq(items) => Some((items.get(key.parse::<usize>().ok()?)?, rest)),
                Children::Map(_) | Children::None => Some((self.field(key)?, rest)),
            };
        }
        let end = path.find(['.', '[']).unwrap_or(path.len());
        let (key, rest) = path.split_at(end);
        Some((self.field(key)?, rest))
    }
}

/// Splits a file at its `---` lines and reads each document. Documents without content are left out.
pub fn read(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut start = 1;
    let mut chunk = String::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        {
            documents.extend(read_one(start, std::mem::take(&mut chunk)));
            start = number;
        }
        chunk.push_str(line);
    }
    documents.extend(read_one(start, chunk));
    documents
}

fn read_one(start: u32, text: String) -> Option<Document> {
    let content = parse(start, &text);
    if let Ok(located) = &content
        && located.value.is_null()
    {
        return None;
    }
    let blank = text.lines().take_while(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with("---")
    });
    let line = start + u32::try_from(blank.count()).unwrap_or(0);
    Some(Document { line, text, content })
}

/// Reads one document whose first line has this number in its file.
fn parse(start: u32, text: &str) -> Result<Located, YamlError> {
    let mut builder = Builder { start, ..Builder::default() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError {
            line: builder.line(error.marker().line()),
            message: error.info(),
        })?;
        let line = builder.line(span.start.line());
        builder.event(event, line).map_err(|message| YamlError { line, message })?;
    }
    Ok(builder.root.unwrap_or(Located { value: Value::Null, lines: Lines::default() }))
}

#[derive(Default)]
struct Builder {
    start: u32,
    open: Vec<Open>,
    anchors: HashMap<usize, Located>,
    root: Option<Located>,
    values: usize,
}

/// A collection that has not ended.
struct Open {
    line: u32,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    Seq(Vec<Located>),
    Map { fields: Vec<(String, Located)>, names: HashSet<String>, key: Option<String> },
}

impl Builder {
    fn line(&self, in_document: usize) -> u32 {
        self.start + u32::try_from(in_document.saturating_sub(1)).unwrap_or(0)
    }

    fn event(&mut self, event: Event<'_>, line: u32) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.wants_key() {
                    return self.key(&text);
                }
                let value = scalar(&text, style, tag.as_deref())?;
                self.value(Located { value, lines: Lines { line, children: Children::None } }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                core_tag(tag.as_deref())?;
                self.begin(line, anchor, OpenContent::Seq(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                core_tag(tag.as_deref())?;
                let content = OpenContent::Map { fields: Vec::new(), names: HashSet::new(), key: None };
                self.begin(line, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).ok_or("an alias inside of its own anchor")?;
                let mut copy = target.clone();
                copy.lines.line = line;
                self.values += count(&copy.value);
                self.value(copy, 0)
            }
            _ => Ok(()),
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: OpenContent::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, text: &str) -> Result<(), String> {
        if text == "<<" {
            return Err("merge keys (`<<`) are not supported".into());
        }
        if let Some(Open { content: OpenContent::Map { names, key, .. }, .. }) = self.open.last_mut() {
            if !names.insert(text.to_owned()) {
                return Err(format!("the key `{text}` appears twice"));
            }
            *key = Some(text.to_owned());
        }
        Ok(())
    }

    fn begin(&mut self, line: u32, anchor: usize, content: OpenContent) -> Result<(), String> {
        if self.wants_key() {
            return Err("a key must be a text".into());
        }
        self.open.push(Open { line, anchor, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let located = match open.content {
            OpenContent::Seq(items) => {
                let (values, lines) = items.into_iter().map(|item| (item.value, item.lines)).unzip();
                Located {
                    value: Value::Array(values),
                    lines: Lines { line: open.line, children: Children::Seq(lines) },
                }
            }
            OpenContent::Map { fields, .. } => {
                let mut map = Map::new();
                let mut lines = Vec::with_capacity(fields.len());
                for (key, located) in fields {
                    lines.push((key.clone(), located.lines));
                    map.insert(key, located.value);
                }
                Located {
                    value: Value::Object(map),
                    lines: Lines { line: open.line, children: Children::Map(lines) },
                }
            }
        };
        self.value(located, open.anchor)
    }

    fn value(&mut self, located: Located, anchor: usize) -> Result<(), String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("the document has more than {MAX_VALUES} values"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, located.clone());
        }
        // To Kubernetes a field that is null is absent. A label that is null is an error.
        let absent = located.value.is_null() && !holds_labels(&self.open);
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(located),
            Some(OpenContent::Seq(items)) => items.push(located),
            Some(OpenContent::Map { fields, key, .. }) => match key.take() {
                Some(_) if absent => {}
                Some(name) => fields.push((name, located)),
                None => return Err("a key must be a text".into()),
            },
        }
        Ok(())
    }
}

/// Whether the innermost open map holds labels, which cannot be null.
fn holds_labels(open: &[Open]) -> bool {
    let parent = open.len().checked_sub(2).and_then(|index| open.get(index));
    matches!(
        parent,
        Some(Open { content: OpenContent::Map { key: Some(name), .. }, .. })
            if matches!(name.as_str(), "matchLabels" | "labels" | "annotations")
    )
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

fn core_tag(tag: Option<&Tag>) -> Result<Option<String>, String> {
    let Some(tag) = tag else { return Ok(None) };
    let text = tag.to_string();
    let name = text.trim_start_matches("tag:yaml.org,2002:").trim_start_matches('!');
    let name = name.trim_start_matches("tag:yaml.org,2002:");
    match name {
        "str" | "int" | "bool" | "float" | "null" | "map" | "seq" => Ok(Some(name.to_owned())),
        _ => Err(format!("the tag `{text}` is not supported")),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let tag = core_tag(tag)?;
    if tag.as_deref() == Some("str") || !matches!(style, ScalarStyle::Plain) {
        return Ok(Value::String(text.to_owned()));
    }
    Ok(plain(text))
}

/// The core schema of YAML 1.2 (section 10.3.2).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    if numeric && !leading_zero {
        if let Ok(number) = text.parse::<i64>() {
            return Value::Number(number.into());
        }
        if let Some(number) = text.parse::<f64>().ok().and_then(Number::from_f64) {
            return Value::Number(number);
        }
    }
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Value {
        let mut documents = read(text);
        assert_eq!(documents.len(), 1, "{documents:?}");
        documents.remove(0).content.unwrap().value
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let text = "a: 1\nb: '1'\nc: yes\nd: true\ne: 010\nf: 1.5\ng: ~\nh: !!str 7\ni: 1.2.3.4\nj: -3\n";
        let expected = json!({"a": 1, "b": "1", "c": "yes", "d": true, "e": "010", "f": 1.5,
                              "h": "7", "i": "1.2.3.4", "j": -3});
        assert_eq!(one(text), expected);
    }

    #[test]
    fn a_label_that_is_null_stays() {
        assert_eq!(one("matchLabels:\n  app:\nother:\n"), json!({"matchLabels": {"app": null}}));
    }

    #[test]
    fn every_document_stands_alone_and_knows_its_lines() {
        let text = "# head\n---\na:\n- b: 1\n  c: 2\n---\nx: [\n---\n--- # empty\nd: 1\n";
        let documents = read(text);
        assert_eq!(documents.len(), 3);
        let first = documents[0].content.as_ref().unwrap();
        assert_eq!(documents[0].line, 3);
        assert_eq!((first.lines.of("a[0].c"), first.lines.of("a[0].nope"), first.lines.of("a")), (5, 4, 4));
        assert!(documents[1].content.is_err());
        assert_eq!(documents[2].content.as_ref().unwrap().lines.of("d"), 10);
    }

    #[test]
    fn double_keys_and_merge_keys_and_foreign_tags_are_errors() {
        for text in ["a: 1\na: 2\n", "a: &x {b: 1}\nc:\n  <<: *x\n", "a: !secret x\n", "? [a]\n: 1\n"] {
            assert!(read(text)[0].content.is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        for (open, close) in [("[", "]"), ("{a: ", "}")] {
            let text = format!("a: {}{}\n", open.repeat(60_000), close.repeat(60_000));
            assert!(read(&text)[0].content.is_err());
        }
        let block: String = (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(read(&block)[0].content.is_err());
        assert!(read(&format!("a: {}{}\n", "[".repeat(60), "]".repeat(60)))[0].content.is_ok());
    }

    #[test]
    fn aliases_do_not_nest_deeper_than_the_limit() {
        let mut text = String::from("a0: &a0 []\n");
        for level in 1..1_000 {
            text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(read(&text)[0].content.is_err());
    }

    #[test]
    fn expanding_aliases_has_a_limit() {
        let mut text = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
        for level in 1..9 {
            let before = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(",")));
        }
        let documents = read(&text);
        let error = documents[0].content.as_ref().unwrap_err();
        assert!(error.message.contains("more than"), "{error}");
    }
}
