// SPDX-License-Identifier: Apache-2.0
//! The streams of a connection: those that are open, and what is remembered of those that are closed.

/// A stream of one connection. What it names may be gone; no other stream is ever found by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    pub(crate) number: u32,
    pub(crate) slot: u32,
}

impl StreamId {
    /// The number that frames carry.
    pub fn number(self) -> u32 {
        self.number
    }
}

/// What the peer still has to send on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiving {
    /// A response, of which nothing but interim ones came.
    Head,
    /// Content and trailers.
    Content,
    /// Content that nobody wants: the request was refused.
    Unwanted,
    /// Nothing.
    Ended,
}

/// What we still have to send on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// A response.
    Head,
    /// Content and trailers.
    Content,
    /// Nothing.
    Ended,
}

/// What the frames of a stream are held against.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) number: u32,
    /// The user's own.
    pub(crate) token: u32,
    pub(crate) receiving: Receiving,
    pub(crate) sending: Sending,
    /// Octets that we may send. Below 0 where the peer made its windows smaller (RFC 9113, section 6.9.2).
    pub(crate) send_window: i32,
    /// Octets that the peer may send.
    pub(crate) receive_window: u32,
    /// Octets that were handed out and not released.
    pub(crate) held: u32,
    /// Octets that were released and not yet given back to the peer.
    pub(crate) credit: u32,
    /// Octets of content that have to follow; `u64::MAX` where the head does not say.
    pub(crate) content_left: u64,
    /// The response to it has no content, whatever its head says (RFC 9110, section 6.4.1).
    pub(crate) no_content: bool,
    /// It was asked to become a tunnel, whose content no length bounds (RFC 9110, section 9.3.6).
    pub(crate) connect: bool,
    /// Somebody has content for it that the stream's window does not take.
    pub(crate) waits_for_window: bool,
    /// It stands in the line for the connection's window.
    pub(crate) in_line: bool,
    /// It was refused as it came: to answer it is of no use to anybody.
    pub(crate) refused: bool,
    /// Both sides are done with it; it is here for what is held.
    pub(crate) lingers: bool,
}

impl Stream {
    /// Whether both sides are done with it.
    pub(crate) fn is_ended(&self) -> bool {
        self.receiving == Receiving::Ended && self.sending == Sending::Ended
    }
}

/// Streams by slot and by number.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    /// Slots by number: a table with linear probing, of a power of two and at most half full. A slot is
    /// stored plus one; 0 is no entry.
    index: Vec<u32>,
    /// Streams that are in a slot.
    len: u32,
    /// Of these, the ones on which both sides are done, and whose content is still held by the user.
    lingering: u32,
}

impl Streams {
    /// Streams that count against a limit of concurrent ones.
    pub(crate) fn active(&self) -> u32 {
        self.len - self.lingering
    }

    /// Streams that are known.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Notes that both sides are done with a stream, whose slot stays for what is held.
    pub(crate) fn keep(&mut self, id: StreamId) {
        if let Some(stream) = self.get(id).filter(|stream| !stream.lingers) {
            stream.lingers = true;
            self.lingering += 1;
        }
    }

    #[inline]
    pub(crate) fn get(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.slots.get_mut(id.slot as usize).filter(|stream| stream.number == id.number)
    }

    #[inline]
    pub(crate) fn find(&self, number: u32) -> Option<StreamId> {
        let mut at = self.bucket(number)?;
        loop {
            let slot = self.index[at].checked_sub(1)?;
            if self.slots[slot as usize].number == number {
                return Some(StreamId { number, slot });
            }
            at = (at + 1) & (self.index.len() - 1);
        }
    }

    /// The streams, for what concerns all of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        let slots = self.slots.iter().enumerate().filter(|(_, stream)| stream.number != 0);
        slots.map(|(slot, stream)| (StreamId { number: stream.number, slot: slot as u32 }, stream))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream)> {
        let slots = self.slots.iter_mut().enumerate().filter(|(_, stream)| stream.number != 0);
        slots.map(|(slot, stream)| (StreamId { number: stream.number, slot: slot as u32 }, stream))
    }

    /// Adds a stream whose number is not in use.
    pub(crate) fn insert(&mut self, stream: Stream) -> StreamId {
        if self.index.len() < 2 * (self.len as usize + 1) {
            self.grow();
        }
        let number = stream.number;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                self.slots.len() as u32 - 1
            }
        };
        self.enter(number, slot);
        self.len += 1;
        StreamId { number, slot }
    }

    /// Removes a stream that is there.
    pub(crate) fn remove(&mut self, id: StreamId) {
        let Some(stream) = self.slots.get_mut(id.slot as usize).filter(|stream| stream.number == id.number)
        else {
            return;
        };
        self.lingering -= u32::from(stream.lingers);
        self.leave(id);
        self.slots[id.slot as usize].number = 0;
        self.free.push(id.slot);
        self.len -= 1;
    }

    /// Where a number's search begins; none while there is no table.
    #[inline]
    fn bucket(&self, number: u32) -> Option<usize> {
        (!self.index.is_empty()).then(|| scatter(number) & (self.index.len() - 1))
    }

    fn enter(&mut self, number: u32, slot: u32) {
        let Some(mut at) = self.bucket(number) else { return };
        while self.index[at] != 0 {
            at = (at + 1) & (self.index.len() - 1);
        }
        self.index[at] = slot + 1;
    }

    /// Takes a stream out of the table, and moves those behind it to where a search finds them.
    fn leave(&mut self, id: StreamId) {
        let Some(mut hole) = self.bucket(id.number) else { return };
        let mask = self.index.len() - 1;
        while self.index[hole] != id.slot + 1 {
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(slot) = self.index[at].checked_sub(1) else { break };
            let home = scatter(self.slots[slot as usize].number) & mask;
            // It may move back only as far as its own bucket.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.index[hole] = self.index[at];
                hole = at;
            }
        }
        self.index[hole] = 0;
    }

    #[cold]
    fn grow(&mut self) {
        let length = (2 * self.index.len()).max(8);
        self.index.clear();
        self.index.resize(length, 0);
        let known: Vec<(u32, u32)> = self.iter().map(|(id, _)| (id.number, id.slot)).collect();
        for (number, slot) in known {
            self.enter(number, slot);
        }
    }
}

/// Spreads numbers, which follow each other, over the table: neighbours would make each other's searches long.
#[inline]
fn scatter(number: u32) -> usize {
    // 2^32 divided by the golden ratio.
    (u64::from(number.wrapping_mul(0x9e37_79b9)) >> 12) as usize
}

/// How a stream that is gone was closed (RFC 9113, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// We reset it: what the peer sent before it knew is ignored.
    ResetByUs,
    /// Both sides ended it, or the peer reset it: nothing may follow.
    ByPeer,
    /// It was never used: its number was passed over.
    Unused,
}

/// Closed streams whose end is remembered: those of the last moments, since frames for them may be under way.
const REMEMBERED: usize = 64;

/// Marks a number of a stream that we reset.
const OURS: u32 = 1 << 31;

/// How the last closed streams ended.
#[derive(Debug)]
pub(crate) struct Tombs {
    ring: [u32; REMEMBERED],
    next: usize,
    /// The highest number that we reset and that is no longer in the ring. Below it, what is not known is
    /// taken for one of those.
    forgotten: u32,
}

impl Default for Tombs {
    fn default() -> Tombs {
        Tombs { ring: [0; REMEMBERED], next: 0, forgotten: 0 }
    }
}

impl Tombs {
    /// Remembers a stream that is closed.
    #[inline]
    pub(crate) fn add(&mut self, number: u32, reset_by_us: bool) {
        let entry = &mut self.ring[self.next];
        if *entry & OURS != 0 {
            self.forgotten = self.forgotten.max(*entry & !OURS);
        }
        *entry = if reset_by_us { number | OURS } else { number };
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// How a stream ended whose number was in use, or was passed over.
    pub(crate) fn find(&self, number: u32) -> Closed {
        for entry in &self.ring {
            if entry & !OURS == number {
                return if entry & OURS != 0 { Closed::ResetByUs } else { Closed::ByPeer };
            }
        }
        if number <= self.forgotten { Closed::ResetByUs } else { Closed::Unused }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn stream(number: u32) -> Stream {
        Stream {
            number,
            token: number + 1,
            receiving: Receiving::Content,
            sending: Sending::Head,
            send_window: 0,
            receive_window: 0,
            held: 0,
            credit: 0,
            content_left: u64::MAX,
            no_content: false,
            connect: false,
            waits_for_window: false,
            in_line: false,
            refused: false,
            lingers: false,
        }
    }

    proptest! {
        /// Against a map, with numbers that are far apart, so that many share a bucket.
        #[test]
        fn streams_are_found_by_number_and_by_slot(
            steps in prop::collection::vec((any::<bool>(), 0_u32..40, 0_usize..40), 0..400)
        ) {
            let (mut streams, mut model) = (Streams::default(), BTreeMap::new());
            let mut next = 1;
            for (adds, gap, which) in steps {
                if adds && model.len() < 30 {
                    next += 2 + 32 * (gap / 10);
                    model.insert(next, streams.insert(stream(next)));
                } else if let Some((&number, &id)) = model.iter().nth(which % model.len().max(1)) {
                    streams.remove(id);
                    model.remove(&number);
                    prop_assert!(streams.get(id).is_none() && streams.find(number).is_none());
                }
                prop_assert_eq!(streams.len() as usize, model.len());
                for (number, id) in &model {
                    prop_assert_eq!(streams.find(*number), Some(*id));
                    prop_assert_eq!(streams.get(*id).unwrap().token, number + 1);
                }
            }
            prop_assert_eq!(streams.iter().count(), model.len());
        }
    }

    #[test]
    fn a_slot_that_is_used_again_is_not_found_by_the_old_name() {
        let mut streams = Streams::default();
        let old = streams.insert(stream(1));
        streams.remove(old);
        let new = streams.insert(stream(3));
        assert_eq!(new.slot, old.slot);
        assert!(streams.get(old).is_none() && streams.get(new).is_some());
    }

    #[test]
    fn closed_streams_are_remembered_as_long_as_frames_may_be_under_way() {
        let mut tombs = Tombs::default();
        tombs.add(1, true);
        tombs.add(3, false);
        assert_eq!(
            (tombs.find(1), tombs.find(3), tombs.find(5)),
            (Closed::ResetByUs, Closed::ByPeer, Closed::Unused)
        );
        for number in 0..REMEMBERED as u32 {
            tombs.add(11 + 2 * number, false);
        }
        assert_eq!((tombs.find(1), tombs.find(3)), (Closed::ResetByUs, Closed::Unused));
    }
}
