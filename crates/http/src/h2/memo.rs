// SPDX-License-Identifier: Apache-2.0
//! Header blocks that come, and go, again and again.
//!
//! A client that calls the same method, and a server that answers well, send the same octets each time. While
//! the table of the decoder is as it was, the same octets stand for the same head: it is copied, not read. And
//! while that of the encoder is as it was, the same head becomes the same octets: they are copied, not made.

use crate::head::{FieldName, Head};

/// Blocks that are longer are seldom the same twice, in octets; nor are heads of more text.
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

/// The last block of one kind that was written, and what it was made of.
#[derive(Debug, Default)]
pub(crate) struct Written {
    block: Option<Box<Block>>,
    /// Heads to come that are not remembered, since those before were never the same again.
    pause: u8,
    /// How long the last pause was.
    last_pause: u8,
}

#[derive(Debug)]
struct Block {
    octets: Vec<u8>,
    /// The state of the encoder's table that it was written in.
    state: u32,
    head: Head,
}

impl Written {
    /// The longest pause: what is copied in vain is a small part of what it costs to write this many heads.
    const LONGEST_PAUSE: u8 = 63;

    /// The octets of this head, if they are those of the last time.
    #[inline]
    pub(crate) fn recall(&mut self, head: &Head, state: u32) -> Option<&[u8]> {
        let block = self.block.as_deref()?;
        if block.state != state || !block.head.is_made_as(head) {
            return None;
        }
        self.last_pause = 0;
        Some(&block.octets)
    }

    /// Remembers what a head became, which left the table as it was. One with a secret is not remembered: how long
    /// another takes would tell whether it has the same.
    pub(crate) fn remember(&mut self, head: &Head, state: u32, octets: &[u8]) {
        if let Some(left) = self.pause.checked_sub(1) {
            self.pause = left;
            return;
        }
        if octets.len() > LONGEST || head.text().len() > LONGEST || has_secret(head) {
            return;
        }
        self.last_pause = (2 * self.last_pause + 1).min(Self::LONGEST_PAUSE);
        self.pause = self.last_pause;
        let block = self
            .block
            .get_or_insert_with(|| Box::new(Block { octets: Vec::new(), state, head: Head::new() }));
        block.octets.clear();
        block.octets.extend_from_slice(octets);
        block.state = state;
        block.head.clone_from(head);
    }
}

fn has_secret(head: &Head) -> bool {
    use FieldName::{Authorization, Cookie, ProxyAuthorization, SetCookie};
    [Authorization, Cookie, ProxyAuthorization, SetCookie].into_iter().any(|name| head.has(name))
        || head.fields().any(|field| field.is_sensitive())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Value;

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

    fn request(target: &str) -> Head {
        let mut head = Head::new();
        head.start_request(b"GET", target.as_bytes(), b"a.test").expect("valid");
        head
    }

    #[test]
    fn a_head_is_recalled_as_long_as_the_table_and_the_head_are_the_same() {
        let (mut written, head) = (Written::default(), request("/one"));
        assert_eq!(written.recall(&head, 7), None);
        written.remember(&head, 7, b"block");
        assert_eq!(written.recall(&head, 7), Some(&b"block"[..]));
        assert_eq!(written.recall(&head, 8), None);
        assert_eq!(written.recall(&request("/two"), 7), None);
        let mut more = request("/one");
        more.append(&FieldName::Via.into(), Value::literal("x")).expect("room");
        assert_eq!(written.recall(&more, 7), None);
        more.remove(&FieldName::Via.into());
        assert_eq!(written.recall(&more, 7), None, "it was made in another way");
        assert_eq!(written.recall(&head, 7), Some(&b"block"[..]));
    }

    #[test]
    fn what_is_never_the_same_again_is_seldom_copied() {
        let mut written = Written::default();
        let copied = |number: &i32| {
            let head = request(&format!("/{number}"));
            assert_eq!(written.recall(&head, 7), None);
            written.remember(&head, 7, b"block");
            written.block.as_deref().is_some_and(|block| block.head.is_made_as(&head))
        };
        let copied = (0..1000).filter(copied).count();
        assert!((2..30).contains(&copied), "{copied} of 1000");
    }

    #[test]
    fn a_head_with_a_secret_is_not_remembered() {
        for name in [FieldName::Authorization, FieldName::Cookie, FieldName::SetCookie] {
            let (mut written, mut head) = (Written::default(), request("/one"));
            head.append(&name.into(), Value::literal("secret")).expect("room");
            written.remember(&head, 7, b"block");
            assert_eq!(written.recall(&head, 7), None);
        }
    }
}
