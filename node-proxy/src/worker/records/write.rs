// SPDX-License-Identifier: Apache-2.0
//! The worker's end of the ring.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rtrb::Producer;
use tokio::sync::Notify;

use super::slot::{
    Ended, KINDS, MAX_TEXT, MORE_TEXT, NAME_TEXT, NAMES, Names, RECORD_TEXT, Record, RequestLine, Slot,
    Spoken, Text, further,
};

/// The longest method and authority; more is cut off (a host has 255 bytes at most, RFC 1035).
const MAX_PART: usize = 255;

/// Where a worker leaves its records. Never waits: what finds no room is counted as lost.
pub struct Recorder {
    ring: Producer<Slot>,
    /// The name that each number means for the reader, by the end of the ring.
    known: Box<[Option<Arc<str>>; KINDS * NAMES]>,
    lost: Arc<AtomicU64>,
    full: Arc<Notify>,
    /// The reader was asked to take what is there, and has not yet.
    asked: bool,
}

/// The names that a record refers to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shared<'a> {
    /// The policy that allowed or denied (`namespace/name`).
    pub(crate) policy: Option<&'a Arc<str>>,
    /// The route rule (`namespace/name/index`).
    pub(crate) route: Option<&'a Arc<str>>,
    /// The Service that took it (`namespace/name`).
    pub(crate) upstream: Option<&'a Arc<str>>,
}

/// A request, as its record says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// From the head of the request to that of the response, in nanoseconds; 0 without one.
    pub(crate) latency: u64,
    /// The status that the client got; 0 for none.
    pub(crate) status: u16,
    /// The version that the client spoke.
    pub(crate) version: Spoken,
    /// The method.
    pub(crate) method: &'a [u8],
    /// Host and port; empty without.
    pub(crate) authority: &'a [u8],
    /// Path and query.
    pub(crate) target: &'a [u8],
}

impl Recorder {
    pub(super) fn new(ring: Producer<Slot>, full: Arc<Notify>, lost: Arc<AtomicU64>) -> Recorder {
        Recorder { ring, known: Box::new([const { None }; KINDS * NAMES]), lost, full, asked: false }
    }

    /// Leaves the record of a request.
    pub(crate) fn request(&mut self, ended: Ended, shared: Shared<'_>, asked: Asked<'_>) {
        let method = &asked.method[..asked.method.len().min(MAX_PART)];
        let authority = &asked.authority[..asked.authority.len().min(MAX_PART)];
        let room = MAX_TEXT - method.len() - authority.len();
        let target = &asked.target[..asked.target.len().min(room)];
        let line = RequestLine {
            latency: asked.latency,
            status: asked.status,
            version: asked.version,
            method_len: method.len() as u8,
            authority_len: authority.len() as u8,
        };
        self.leave(ended, shared, Some(line), &[method, authority, target]);
    }

    /// Leaves the record of a connection that was relayed as bytes, or refused.
    pub(crate) fn connection(&mut self, ended: Ended, policy: Option<&Arc<str>>) {
        self.leave(ended, Shared { policy, ..Shared::default() }, None, &[]);
    }

    fn leave(&mut self, ended: Ended, shared: Shared<'_>, line: Option<RequestLine>, text: &[&[u8]]) {
        let names = Names {
            policy: self.number(0, shared.policy),
            route: self.number(1, shared.route),
            upstream: self.number(2, shared.upstream),
        };
        // A name without room has no number: the record is lost with it.
        let complete = names.policy.is_some() == shared.policy.is_some()
            && names.route.is_some() == shared.route.is_some()
            && names.upstream.is_some() == shared.upstream.is_some();
        let record = |text| Slot::Record(Record { ended, names, request: line, text });
        if !complete || !self.push::<RECORD_TEXT>(text, record) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.ask();
    }

    /// The number of a name, which the reader is told where it does not know it.
    fn number(&mut self, kind: u16, name: Option<&Arc<str>>) -> Option<u16> {
        let name = name?;
        let number = kind * NAMES as u16 + u16::from(place(name));
        let known = self.known[usize::from(number)].as_ref();
        if known.is_some_and(|known| Arc::ptr_eq(known, name)) {
            return Some(number);
        }
        let text = &name.as_bytes()[..name.len().min(MAX_TEXT)];
        if !self.push::<NAME_TEXT>(&[text], |text| Slot::Name { number, text }) {
            return None;
        }
        // Held, so that no other name can come to lie at this one's address.
        self.known[usize::from(number)] = Some(Arc::clone(name));
        Some(number)
    }

    /// Writes a slot and those that its text needs beyond it, or nothing where there is no room for all.
    fn push<const ROOM: usize>(&mut self, parts: &[&[u8]], slot: impl FnOnce(Text<ROOM>) -> Slot) -> bool {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let slots = 1 + further(len, ROOM);
        if self.ring.slots() < slots {
            return false;
        }
        let mut text = Text { len: len as u16, begin: [0; ROOM] };
        if slots == 1 {
            let mut at = 0;
            for part in parts {
                text.begin[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            return self.ring.push(slot(text)).is_ok();
        }
        let mut all = [0; MAX_TEXT];
        let mut at = 0;
        for part in parts {
            all[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        text.begin.copy_from_slice(&all[..ROOM]);
        let mut written = self.ring.push(slot(text)).is_ok();
        for piece in all[ROOM..len].chunks(MORE_TEXT) {
            let mut more = [0; MORE_TEXT];
            more[..piece.len()].copy_from_slice(piece);
            written &= self.ring.push(Slot::More(more)).is_ok();
        }
        written
    }

    /// Asks the reader, once, to take what is there when half of the room is.
    fn ask(&mut self) {
        let half_full = self.ring.slots() < self.ring.buffer().capacity() / 2;
        if half_full && !self.asked {
            self.full.notify_one();
        }
        self.asked = half_full;
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("free", &self.ring.slots()).finish_non_exhaustive()
    }
}

/// The number that a name gets among its kind, from its address: names that live at the same time mostly
/// differ in it.
fn place(name: &Arc<str>) -> u8 {
    let address = Arc::as_ptr(name).cast::<u8>() as usize;
    ((address >> 4) ^ (address >> 12)) as u8
}
