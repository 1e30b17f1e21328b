// SPDX-License-Identifier: Apache-2.0
//! The reader's end of the ring.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rtrb::Consumer;

use super::slot::{Ended, KINDS, MAX_TEXT, NAMES, Record, RequestLine, Slot, further};

/// Where records are taken.
pub struct Records {
    ring: Consumer<Slot>,
    names: Box<[Option<Arc<str>>; KINDS * NAMES]>,
    lost: Arc<AtomicU64>,
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
        Records { ring, names: Box::new([const { None }; KINDS * NAMES]), lost }
    }

    /// Records for which there was no room since this was last asked.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// The next text of a slot, where all of it is there already.
    fn text(&mut self, begin: &[u8], len: usize) -> String {
        let mut text = Vec::with_capacity(len.min(MAX_TEXT));
        text.extend_from_slice(&begin[..len.min(begin.len())]);
        while text.len() < len {
            let Ok(Slot::More(more)) = self.ring.pop() else { break };
            text.extend_from_slice(&more[..(len - text.len()).min(more.len())]);
        }
        // Cut off within a character, or never checked: targets are bytes.
        String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    fn named(&mut self, record: &Record) -> Named {
        let name = |number: Option<u16>| number.and_then(|number| self.names[usize::from(number)].clone());
        let (policy, route, upstream) =
            (name(record.names.policy), name(record.names.route), name(record.names.upstream));
        let text = self.text(&record.text.begin, usize::from(record.text.len)).into_boxed_str();
        Named { ended: record.ended, policy, route, upstream, request: record.request, text }
    }
}

/// Whether the slots that go on with this one are in the ring too.
fn is_complete(slot: &Slot, there: usize) -> bool {
    let further = match slot {
        Slot::Record(record) => further(usize::from(record.text.len), record.text.begin.len()),
        Slot::Name { text, .. } => further(usize::from(text.len), text.begin.len()),
        Slot::More(_) => 0,
    };
    further < there
}

/// The records that are there, oldest first.
impl Iterator for Records {
    type Item = Named;

    fn next(&mut self) -> Option<Named> {
        loop {
            let there = self.ring.slots();
            if !is_complete(self.ring.peek().ok()?, there) {
                return None;
            }
            match self.ring.pop().ok()? {
                Slot::Record(record) => return Some(self.named(&record)),
                Slot::Name { number, text } => {
                    let name = self.text(&text.begin, usize::from(text.len));
                    self.names[usize::from(number)] = Some(name.into());
                }
                // Goes on with nothing: the writer never begins with it.
                Slot::More(_) => {}
            }
        }
    }
}

impl Named {
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
