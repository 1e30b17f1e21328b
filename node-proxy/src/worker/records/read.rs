// SPDX-License-Identifier: Apache-2.0
//! The reader's end of the ring.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    vec,
};

use rtrb::Consumer;

use super::slot::{Ended, KINDS, MAX_TEXT, NAMES, Record, RequestLine, Slot, further};

/// The names that numbers stand for.
type Names = [Option<Arc<str>>; KINDS * NAMES];

/// Where records are taken.
pub struct Records {
    ring: Consumer<Slot>,
    names: Arc<Names>,
    lost: Arc<AtomicU64>,
    /// Those that are read one by one.
    read: vec::IntoIter<Named>,
}

/// Records as they lay in the ring, and what numbers stood for before the first of them. They are read when
/// somebody looks at one: of most nobody does.
pub(crate) struct Pile {
    slots: Vec<Slot>,
    names: Arc<Names>,
}

/// A record with the names that it refers to.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its numbers.
    pub ended: Ended,
    /// The policy that allowed or denied (`namespace/name`).
    pub policy: Option<Arc<str>>,
    /// The route rule (`namespace/name/index`).
    pub(crate) route: Option<Arc<str>>,
    /// The Service that took it (`namespace/name`).
    pub(crate) upstream: Option<Arc<str>>,
    /// What was asked for; nothing for a connection that was relayed as bytes, or refused.
    pub(crate) request: Option<RequestLine>,
    text: Box<str>,
}

impl Records {
    pub(super) fn new(ring: Consumer<Slot>, lost: Arc<AtomicU64>) -> Records {
        Records { ring, names: Arc::new([const { None }; KINDS * NAMES]), lost, read: Vec::new().into_iter() }
    }

    /// Records for which there was no room since this was last asked.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Takes the records that are there, oldest first, and when each of them ended.
    pub(crate) fn take_all(&mut self) -> (Vec<u64>, Pile) {
        let pile = Pile { slots: self.take_slots(), names: Arc::clone(&self.names) };
        let mut ended = Vec::with_capacity(pile.slots.len());
        for (at, slot) in pile.slots.iter().enumerate() {
            match slot {
                Slot::Record(record) => ended.push(record.ended.ended),
                Slot::Name { number, text } => {
                    let name = whole(&text.begin, usize::from(text.len), &pile.slots[at + 1..]);
                    Arc::make_mut(&mut self.names)[usize::from(*number)] = Some(name.into());
                }
                Slot::More(_) => {}
            }
        }
        (ended, pile)
    }

    /// The slots that are there, up to a record of which slots are still to come.
    fn take_slots(&mut self) -> Vec<Slot> {
        let there = self.ring.slots();
        let Ok(chunk) = self.ring.read_chunk(there) else { return Vec::new() };
        let (first, second) = chunk.as_slices();
        let ends = first.iter().chain(second).enumerate().map(|(at, slot)| at + 1 + more(slot));
        let count = ends.take_while(|end| *end <= there).last().unwrap_or(0);
        let mut slots = Vec::with_capacity(count);
        slots.extend_from_slice(&first[..count.min(first.len())]);
        slots.extend_from_slice(&second[..count - slots.len()]);
        chunk.commit(count);
        slots
    }
}

/// Slots that go on with this one.
fn more(slot: &Slot) -> usize {
    match slot {
        Slot::Record(record) => further(usize::from(record.text.len), record.text.begin.len()),
        Slot::Name { text, .. } => further(usize::from(text.len), text.begin.len()),
        Slot::More(_) => 0,
    }
}

/// A text, which goes on in the slots behind its own.
fn whole(begin: &[u8], len: usize, behind: &[Slot]) -> String {
    let mut text = Vec::with_capacity(len.min(MAX_TEXT));
    text.extend_from_slice(&begin[..len.min(begin.len())]);
    for slot in behind {
        let Slot::More(more) = slot else { break };
        text.extend_from_slice(&more[..(len - text.len()).min(more.len())]);
    }
    // Cut off within a character, or never checked: targets are bytes.
    String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

impl Pile {
    /// The records, oldest first.
    pub(crate) fn named(&self) -> Vec<Named> {
        let mut names = Arc::clone(&self.names);
        let mut all = Vec::with_capacity(self.slots.len());
        for (at, slot) in self.slots.iter().enumerate() {
            let behind = &self.slots[at + 1..];
            match slot {
                Slot::Record(record) => {
                    let text = whole(&record.text.begin, usize::from(record.text.len), behind);
                    all.push(Named::new(record, &names, text));
                }
                Slot::Name { number, text } => {
                    let name = whole(&text.begin, usize::from(text.len), behind);
                    Arc::make_mut(&mut names)[usize::from(*number)] = Some(name.into());
                }
                // Read with the slot before it.
                Slot::More(_) => {}
            }
        }
        all
    }
}

impl fmt::Debug for Pile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pile").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

/// The records that are there, oldest first.
impl Iterator for Records {
    type Item = Named;

    fn next(&mut self) -> Option<Named> {
        if self.read.len() == 0 {
            self.read = self.take_all().1.named().into_iter();
        }
        self.read.next()
    }
}

impl Named {
    fn new(record: &Record, names: &Names, text: String) -> Named {
        let name = |number: Option<u16>| number.and_then(|number| names[usize::from(number)].clone());
        Named {
            ended: record.ended,
            policy: name(record.names.policy),
            route: name(record.names.route),
            upstream: name(record.names.upstream),
            request: record.request,
            text: text.into_boxed_str(),
        }
    }

    /// The method; empty for a connection.
    pub(crate) fn method(&self) -> &str {
        self.part(0, |line| usize::from(line.method_len))
    }

    /// Host and port; empty without.
    pub(crate) fn authority(&self) -> &str {
        let from = self.request.map_or(0, |line| usize::from(line.method_len));
        self.part(from, |line| usize::from(line.authority_len))
    }

    /// Path and query; empty for a connection.
    pub(crate) fn target(&self) -> &str {
        let from =
            self.request.map_or(0, |line| usize::from(line.method_len) + usize::from(line.authority_len));
        self.text.get(from..).unwrap_or_default()
    }

    fn part(&self, from: usize, len: impl Fn(&RequestLine) -> usize) -> &str {
        let len = self.request.as_ref().map_or(0, len);
        self.text.get(from..from + len).unwrap_or_default()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("waiting", &self.ring.slots()).finish_non_exhaustive()
    }
}
