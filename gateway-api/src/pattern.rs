// SPDX-License-Identifier: Apache-2.0
//! Regular expressions that users write: checked here, compiled by the nodes.

use regex::RegexBuilder;

/// How large a compiled expression may be, in bytes. Nodes allow more than this, so that what is
/// accepted here compiles there.
pub const SIZE_LIMIT_BYTES: usize = 1 << 19;

/// Checks that an expression compiles, alone and as a match of the whole text. The error is one line.
pub fn check(expression: &str) -> Result<(), String> {
    for text in [expression.to_owned(), format!(r"\A(?:{expression})\z")] {
        RegexBuilder::new(&text).size_limit(SIZE_LIMIT_BYTES).nest_limit(100).build().map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("`{expression}` is no regular expression: {}", last.trim_start_matches("error: "))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_must_compile_alone_and_anchored() {
        assert!(check("/v[0-9]+/.*").is_ok());
        assert!(check("/foo(").unwrap_err().contains("`/foo(` is no regular expression: unclosed group"));
        assert!(check("a)|(b").is_err());
        assert!(check("(?x)a # comment").is_err());
    }

    #[test]
    fn a_large_expression_is_refused() {
        assert!(check("(a{100}){100}{100}").is_err());
    }
}
