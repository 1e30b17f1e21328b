// SPDX-License-Identifier: Apache-2.0
//! The search for the end of a section that has not come whole.

use weft_ebpf_common::reason::Reason;

use crate::error::Error;

/// Finds the end of a section line by line; remembers what it has seen, so that a section that arrives
/// byte by byte is looked through once.
///
/// What it says of some bytes it says of them whatever follows: pieces change no answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// Bytes that were searched for a line end.
    searched: usize,
    /// Where the current line starts.
    line: usize,
    /// Complete lines, without the empty one at the end.
    lines: usize,
}

/// Bounds of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of the first line.
    pub(super) first_line: usize,
    /// Bytes of all lines.
    pub(super) bytes: usize,
    /// Lines, the first included.
    pub(super) lines: usize,
}

impl Scan {
    /// Whether some of the section was searched in vain.
    pub(super) fn has_begun(&self) -> bool {
        self.searched > 0
    }

    /// The bytes of the section, with the empty line that ends it; none if it is not complete. Errs at
    /// once on a line that ends with a bare LF (RFC 9112, section 2.2) and on what is too large already.
    pub(super) fn section_len(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<usize>, Error> {
        while let Some(found) = memchr::memchr(b'\n', &input[self.searched.min(input.len())..]) {
            let end = self.searched + found;
            self.check(end + 1, bounds)?;
            if end == self.line || input[end - 1] != b'\r' {
                return Err(Error::bad_request("a line ends with a bare LF"));
            }
            let empty = end - 1 == self.line;
            self.searched = end + 1;
            self.line = end + 1;
            if empty {
                *self = Scan::default();
                return Ok(Some(end + 1));
            }
            self.lines += 1;
            if self.lines > bounds.lines {
                return Err(HEAD_TOO_LARGE);
            }
        }
        self.searched = input.len();
        self.check(input.len(), bounds)?;
        Ok(None)
    }

    fn check(&self, bytes: usize, bounds: &Bounds) -> Result<(), Error> {
        if self.lines == 0 && bytes > bounds.first_line {
            return Err(TARGET_TOO_LONG);
        }
        if bytes > bounds.bytes { Err(HEAD_TOO_LARGE) } else { Ok(()) }
    }
}

pub(super) const TARGET_TOO_LONG: Error =
    Error::new(Reason::UriTooLong, 414, "the request target is longer than allowed");

pub(super) const HEAD_TOO_LARGE: Error =
    Error::new(Reason::HeadersTooLarge, 431, "the header section is larger than allowed");

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { first_line: 40, bytes: 80, lines: 4 };

    #[test]
    fn a_section_is_found_wherever_it_is_split() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for split in 0..head.len() {
            let mut scan = Scan::default();
            let first = scan.section_len(&head[..split], &BOUNDS).expect("strict line ends");
            let found = first.or_else(|| scan.section_len(head, &BOUNDS).expect("strict line ends"));
            assert_eq!(found, Some(head.len() - 4), "split at {split}");
        }
    }

    #[test]
    fn pieces_change_no_answer() {
        let long_line = "x".repeat(41) + "\r\n\r\n";
        let long_section = "x\r\n".to_owned() + &"x".repeat(90) + "\n";
        for section in [
            "a\n\n",
            "a\r\nb\n",
            "\n",
            &long_line,
            &long_section,
            "a\r\nb\r\nc\r\nd\r\ne\r\n\r\n",
            "a\r\n\r\n",
        ] {
            let whole = Scan::default().section_len(section.as_bytes(), &BOUNDS);
            let mut scan = Scan::default();
            let pieces = (1..=section.len())
                .map(|end| scan.section_len(&section.as_bytes()[..end], &BOUNDS))
                .find(|answer| *answer != Ok(None));
            assert_eq!(pieces, Some(whole), "{section:?}");
        }
    }
}
