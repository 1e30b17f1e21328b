// SPDX-License-Identifier: Apache-2.0
//! What was looked at when a request was decided about, so that the same need not be decided again.
//!
//! Routes and rules are functions of a request's method, authority and target and of the fields that some
//! condition names. Who decides notes these parts with what came of it; a request in which they are the same
//! bytes gets the same. Nothing is hashed: two requests that differ are never taken for each other.

use std::sync::Arc;

use weft_http::head::Head;

/// The longest note: what is longer is decided each time, so that no client can make a connection large.
const LONGEST: usize = 512;

/// Lists of headers that one decision may look at: rules have [`weft_policy::HttpRules::LISTS`], and no more
/// hostnames than this cover one host in practice.
const LISTS: usize = 4;

/// A request as it is to be decided about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The head.
    pub(crate) head: &'a Head,
    /// Host and port; empty without.
    pub(crate) authority: &'a [u8],
    /// Path and query.
    pub(crate) target: &'a [u8],
    path: &'a [u8],
}

impl<'a> Asked<'a> {
    /// As it was received: the head before any change of a field.
    pub(crate) fn received(head: &'a Head) -> Asked<'a> {
        let authority = head.received_authority().unwrap_or_default();
        Asked { head, authority, target: head.received_target(), path: head.received_path() }
    }

    /// As it takes effect.
    pub(crate) fn effective(head: &'a Head) -> Asked<'a> {
        let authority = head.authority().unwrap_or_default();
        Asked { head, authority, target: head.target(), path: head.path() }
    }

    fn part_of_target(&self, query: bool) -> &'a [u8] {
        if query { self.target } else { self.path }
    }
}

/// Which parts of a request a decision looked at, besides authority and path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked<'a> {
    method: bool,
    query: bool,
    headers: [&'a [Arc<str>]; LISTS],
    lists: usize,
}

impl<'a> Looked<'a> {
    /// Adds what else was looked at.
    pub(crate) fn add(&mut self, method: bool, query: bool, headers: &'a [Arc<str>]) {
        self.method |= method;
        self.query |= query;
        if !headers.is_empty() {
            if let Some(list) = self.headers.get_mut(self.lists) {
                *list = headers;
            }
            self.lists += 1;
        }
    }

    /// The headers; nothing when they are too many to be noted.
    fn names(&self) -> Option<impl Iterator<Item = &'a str>> {
        let lists = self.headers.get(..self.lists)?;
        Some(lists.iter().flat_map(|list| list.iter().map(|name| &**name)))
    }
}

/// The last request that was decided about, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Last<T> {
    note: Note,
    decided: Option<T>,
}

impl<T> Default for Last<T> {
    fn default() -> Last<T> {
        Last { note: Note::default(), decided: None }
    }
}

impl<T> Last<T> {
    /// What came of the last request, if this one is the same in all that was looked at.
    pub(crate) fn get(&self, asked: Asked<'_>) -> Option<&T> {
        let decided = self.decided.as_ref()?;
        self.note.is(asked).then_some(decided)
    }

    /// Notes what came of a request.
    pub(crate) fn set(&mut self, asked: Asked<'_>, looked: &Looked<'_>, decided: T) {
        self.decided = self.note.write(asked, looked).map(|()| decided);
    }
}

/// Parts of a request, each with its length before it: method, authority, target, and then for each header
/// its name and its values.
#[derive(Clone, Debug, Default)]
struct Note {
    method: bool,
    query: bool,
    text: Vec<u8>,
}

/// Stands before a part, and at the end of a header's values.
const PART: u8 = 1;
const END: u8 = 0;

impl Note {
    /// Nothing where it would be too long.
    fn write(&mut self, asked: Asked<'_>, looked: &Looked<'_>) -> Option<()> {
        self.text.clear();
        (self.method, self.query) = (looked.method, looked.query);
        let target = asked.part_of_target(self.query);
        // Room for all but a few fields at once.
        self.text.reserve((asked.authority.len() + target.len()).min(LONGEST) + 32);
        if self.method {
            self.part(asked.head.method_text())?;
        }
        self.part(asked.authority)?;
        self.part(target)?;
        for name in looked.names()? {
            self.part(name.as_bytes())?;
            for value in asked.head.values_named(name.as_bytes()) {
                self.part(value)?;
            }
            self.text.push(END);
        }
        Some(())
    }

    fn part(&mut self, part: &[u8]) -> Option<()> {
        if self.text.len() + part.len() > LONGEST {
            return None;
        }
        let [high, low] = (part.len() as u16).to_be_bytes();
        self.text.extend_from_slice(&[PART, high, low]);
        self.text.extend_from_slice(part);
        Some(())
    }

    fn is(&self, asked: Asked<'_>) -> bool {
        let mut parts = Parts(&self.text);
        let target = asked.part_of_target(self.query);
        (!self.method || parts.next() == Some(asked.head.method_text()))
            && parts.next() == Some(asked.authority)
            && parts.next() == Some(target)
            && std::iter::from_fn(|| parts.header())
                .all(|(name, values)| values.eq(asked.head.values_named(name)))
    }
}

/// Reads a note.
#[derive(Clone)]
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// The next header, with its values.
    fn header(&mut self) -> Option<(&'a [u8], Parts<'a>)> {
        let name = self.next()?;
        let values = self.clone();
        self.by_ref().for_each(drop);
        self.0 = self.0.get(1..)?;
        Some((name, values))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let [PART, high, low, rest @ ..] = self.0 else { return None };
        let (part, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        self.0 = rest;
        Some(part)
    }
}

#[cfg(test)]
mod tests;
