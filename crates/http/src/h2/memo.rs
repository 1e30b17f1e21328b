// SPDX-License-Identifier: Apache-2.0
//! Header blocks that come again and again.
//!
//! A client that calls the same method, and a server that answers well, send the same octets each time. While
//! the table of the decoder is as it was, the same octets stand for the same head: it is copied, not read.

use crate::head::Head;

/// Blocks that are longer are seldom the same twice, in octets.
const LONGEST: usize = 1024;

/// The last block of one kind, and what it stands for.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    octets: Vec<u8>,
    /// The state of the decoder's table that the block was read in.
    state: u32,
    /// Made when a block comes for the second time: what never does costs no copy.
    read: Option<Box<Read>>,
    filled: bool,
}

#[derive(Debug)]
struct Read {
    head: Head,
    length: Option<u64>,
}

impl Memo {
    /// Fills the head, and says how long its content is, if this is the block of the last time.
    #[inline]
    pub(crate) fn recall(&self, octets: &[u8], state: u32, head: &mut Head) -> Option<Option<u64>> {
        let read = self.read.as_deref().filter(|_| self.filled && self.is(octets, state))?;
        head.clone_from(&read.head);
        Some(read.length)
    }

    /// Remembers a block that left the table as it was, and that was read without a fault.
    pub(crate) fn remember(&mut self, octets: &[u8], state: u32, head: &Head, length: Option<u64>) {
        if self.is(octets, state) {
            match &mut self.read {
                Some(read) => {
                    read.head.clone_from(head);
                    read.length = length;
                }
                None => self.read = Some(Box::new(Read { head: head.clone(), length })),
            }
            self.filled = true;
        } else if octets.len() <= LONGEST {
            self.octets.clear();
            self.octets.extend_from_slice(octets);
            self.state = state;
            self.filled = false;
        }
    }

    #[inline]
    fn is(&self, octets: &[u8], state: u32) -> bool {
        self.state == state && self.octets == octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_recalled_from_its_third_time_on_while_the_table_is_the_same() {
        let (mut memo, mut head, mut other) = (Memo::default(), Head::new(), Head::new());
        head.start_request(b"GET", b"/one", b"a.test").expect("valid");
        for _ in 0..2 {
            assert_eq!(memo.recall(b"block", 7, &mut other), None);
            memo.remember(b"block", 7, &head, Some(3));
        }
        assert_eq!(memo.recall(b"block", 7, &mut other), Some(Some(3)));
        assert_eq!(other.target(), b"/one");
        assert_eq!(memo.recall(b"block", 8, &mut other), None);
        assert_eq!(memo.recall(b"other", 7, &mut other), None);
        // Another takes its place, and is not taken for it.
        memo.remember(b"other", 7, &head, None);
        assert_eq!(memo.recall(b"block", 7, &mut other), None);
        assert_eq!(memo.recall(b"other", 7, &mut other), None);
    }
}
