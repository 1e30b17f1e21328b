// SPDX-License-Identifier: Apache-2.0
//! Texts of users in lines for people: nothing in them ends the line, or speaks to the terminal.

use std::fmt::{self, Write};

/// A text as it is printed: line breaks, control characters, and those that nobody sees, are escaped.
pub(crate) struct Plain<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\'' | '\\' => self.0.write_char(c)?,
                _ => write!(self.0, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_line_or_cannot_be_seen_is_escaped_and_the_rest_stays() {
        for plain in ["a.yaml:3: `it's` \"so\" \\d+", "größe", "名"] {
            assert_eq!(Plain(plain).to_string(), plain);
        }
        let said = Plain("a\nb\u{1b}[31m\u{200b}\u{202e}").to_string();
        assert_eq!(said, "a\\nb\\u{1b}[31m\\u{200b}\\u{202e}");
    }
}
