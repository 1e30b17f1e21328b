// SPDX-License-Identifier: Apache-2.0
//! What a field may be: looked at once, when it comes as a literal, and remembered with its entry in the table.

use crate::octets;

/// Whether it is a field name without capital letters (RFC 9113, section 8.2.1), or a pseudo-field's. Stricter than
/// the RFC asks for: what is no token cannot go on over HTTP/1.1.
pub(super) fn is_name(name: &[u8]) -> bool {
    let rest = name.strip_prefix(b":").unwrap_or(name);
    octets::is_token(rest) && !rest.iter().any(u8::is_ascii_uppercase)
}

/// Whether it may be the value of a field with this name. A path and an authority have forms of their own (RFC
/// 9113, section 8.3.1), which leave out more than those of a value do.
#[inline]
pub(super) fn is_value(name: &[u8], value: &[u8]) -> bool {
    match name {
        b":path" => octets::query_at(value).is_some(),
        b":authority" => octets::is_host_and_port(value),
        _ => octets::is_value(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_in_lower_case() {
        for name in ["a", "x-request-id", "!#$%&'*+-.^_`|~09az", ":path"] {
            assert!(is_name(name.as_bytes()), "{name}");
        }
        for name in ["", ":", "Host", "a b", "a:b", "::path", "a\0", "n\u{e9}", "a\r\nb", "\x7f", "a,"] {
            assert!(!is_name(name.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn a_path_and_an_authority_have_forms_of_their_own() {
        assert!(is_value(b":path", b"/a?b") && is_value(b":authority", b"a:80") && is_value(b"x", b"a b"));
        assert!(!is_value(b":path", b"a b") && !is_value(b":authority", b"") && !is_value(b"x", b"\n"));
    }
}
