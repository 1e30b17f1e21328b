// SPDX-License-Identifier: Apache-2.0
//! Changes of a head's fields. Nothing is shifted: a field that goes leaves its place empty.

use super::{Field, FieldName, Head, MAX_TEXT, Name, Span, TooLarge, Value};

/// Every value of one name.
#[derive(Debug)]
pub struct Values<'a> {
    head: &'a Head,
    name: &'a Name,
    at: usize,
}

impl<'a> Values<'a> {
    pub(super) fn new(head: &'a Head, name: &'a Name) -> Self {
        Values { head, name, at: head.find(name).unwrap_or(head.fields.len()) }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.at < self.head.fields.len() {
            let at = self.at;
            self.at += 1;
            if self.head.is_named(at, self.name) {
                return Some(self.head.value(&self.head.fields[at]));
            }
        }
        None
    }
}

/// Fields that are added to many heads as they are: written once.
#[derive(Clone, Debug)]
pub struct Lines<const N: usize> {
    /// As HTTP/1.1 writes them.
    text: Box<[u8]>,
    /// The name of each, and where its line ends.
    ends: [(FieldName, u32); N],
}

impl<const N: usize> Lines<N> {
    /// Writes them, in order. `FieldName::Other` is no name.
    pub fn new(fields: [(FieldName, Value<'_>); N]) -> Lines<N> {
        let mut text = Vec::new();
        let ends = fields.map(|(name, value)| {
            for part in [name.text().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                text.extend_from_slice(part);
            }
            (name, text.len() as u32)
        });
        Lines { text: text.into(), ends }
    }

    /// The value of the one at this position; empty behind the last.
    pub fn value(&self, at: usize) -> Value<'_> {
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |(_, end)| *end);
        let Some((name, end)) = self.ends.get(at) else { return Value::literal("") };
        Value(&self.text[start as usize + name.text().len() + 2..*end as usize - 2])
    }
}

impl Head {
    /// Adds fields after those that are there.
    pub fn append_lines<const N: usize>(&mut self, lines: &Lines<N>) -> Result<(), TooLarge> {
        let added = self.add_text(&lines.text)?.start();
        let mut start = added;
        for (name, end) in lines.ends {
            let (name_end, end) = (start + name.text().len(), added + end as usize);
            let (text, value) = (Span::new(start, name_end), Span::new(name_end + 2, end - 2));
            self.push(Field::line(text, value, name))?;
            start = end;
        }
        Ok(())
    }

    /// Adds a field after those that are there. Of a name that the connection owns (`Host` among them) the
    /// field is kept and never written: [`set_authority`](Head::set_authority) changes the authority.
    pub fn append(&mut self, name: &Name, value: Value<'_>) -> Result<(), TooLarge> {
        let field = self.add_line(name, value)?;
        self.push(field)
    }

    /// Makes the fields of this name one list that ends with this value (RFC 9110, section 5.3), in the place of
    /// the first of them; without any it is the only one.
    pub fn extend_list(&mut self, name: &Name, value: Value<'_>) -> Result<(), TooLarge> {
        let Some(first) = self.find(name) else { return self.append(name, value) };
        let end = self.fields.len();
        let named = |head: &Head, at: &usize| head.is_named(*at, name);
        let listed = |at: usize| self.fields[at].value.len() + 2;
        let len = (first..end).filter(|at| named(self, at)).map(listed).sum::<usize>();
        let start = self.text.len();
        if len + value.as_bytes().len() > MAX_TEXT - start.min(MAX_TEXT) {
            return Err(TooLarge);
        }
        for at in first..end {
            if named(self, &at) {
                let value = self.fields[at].value;
                self.text.extend_from_within(value.start()..value.end());
                self.text.extend_from_slice(b", ");
            }
        }
        self.text.extend_from_slice(value.as_bytes());
        let value = Span::new(start, self.text.len());
        self.replace(first, name, value);
        Ok(())
    }

    /// Replaces every field of this name by one, which stands where the first of them stood, or last.
    pub fn set(&mut self, name: &Name, value: Value<'_>) -> Result<(), TooLarge> {
        let Some(first) = self.find(name) else { return self.append(name, value) };
        let field = self.add_line(name, value)?;
        self.remove_from(first + 1, name);
        self.fields[first] = field;
        Ok(())
    }

    /// Gives the first field of a name another value, and takes the others away.
    fn replace(&mut self, first: usize, name: &Name, value: Span) {
        self.remove_from(first + 1, name);
        let field = &mut self.fields[first];
        *field = Field { name: field.name, value, known: field.known, ..Field::default() };
    }

    /// Adds the text of a field as HTTP/1.1 writes it, so that it is copied as it stands there.
    fn add_line(&mut self, name: &Name, value: Value<'_>) -> Result<Field, TooLarge> {
        let (text, at) = (name.as_bytes(), self.text.len());
        let parts: [&[u8]; 4] = [text, b": ", value.as_bytes(), b"\r\n"];
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        if len > MAX_TEXT - at.min(MAX_TEXT) {
            return Err(TooLarge);
        }
        self.text.reserve(len);
        parts.iter().for_each(|part| self.text.extend_from_slice(part));
        let end = self.text.len() - 2;
        Ok(Field::line(Span::new(at, at + text.len()), Span::new(at + text.len() + 2, end), name.known()))
    }

    /// Removes every field of this name; says whether there was one.
    pub fn remove(&mut self, name: &Name) -> bool {
        let Some(first) = self.find(name) else { return false };
        self.remove_from(first, name);
        if name.known() != FieldName::Other {
            self.first[name.known() as usize] = 0;
        }
        true
    }

    /// Removes every field that a hidden one names, by what `named` makes of its value.
    pub(crate) fn remove_nominated<'a, I>(&'a mut self, named: impl Fn(&'a [u8]) -> I)
    where
        I: Iterator<Item = &'a [u8]>,
    {
        let Head { text, fields, first, .. } = self;
        let text: &'a [u8] = text;
        for hidden in 0..fields.len() {
            let field = fields[hidden];
            if field.known != FieldName::Connection || field.is_live() {
                continue;
            }
            for name in named(field.value.of(text)) {
                let known = FieldName::of(name);
                first[known as usize] = if known == FieldName::Other { first[0] } else { 0 };
                for field in fields.iter_mut().filter(|field| field.known == known) {
                    if known != FieldName::Other || field.name.of(text).eq_ignore_ascii_case(name) {
                        field.flags |= Field::REMOVED;
                    }
                }
            }
        }
    }

    fn remove_from(&mut self, from: usize, name: &Name) {
        for at in from..self.fields.len() {
            if self.is_named(at, name) {
                self.fields[at].flags |= Field::REMOVED;
            }
        }
    }
}
