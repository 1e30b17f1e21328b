// SPDX-License-Identifier: Apache-2.0
//! Which bytes may stand where. One table of 256 entries, one bit for each class.

/// A byte of a token: method and field names (RFC 9110, section 5.6.2).
pub(crate) const TOKEN: u8 = 1;
/// A byte of a path, up to the question mark. Visible ASCII without `#`, which ends a URI's hierarchical
/// part and is never sent (RFC 9112, section 3.2), and without `<`, `>` and the backtick.
pub(crate) const PATH: u8 = 8;
/// A byte of a query: as of a path, with `?` and the backtick, without the quotation mark.
pub(crate) const QUERY: u8 = 16;
/// A byte of a host's name as names use it. Of what RFC 3986 allows, `,`, `;`, `%` and the like are left
/// out: a reader behind us may split at them.
pub(crate) const HOST: u8 = 2;
/// A byte of an IPv6 address between brackets. Zone identifiers mean nothing to another host.
pub(crate) const LITERAL: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let alphanumeric = byte.is_ascii_alphanumeric();
        if alphanumeric || in_set(byte, b"!#$%&'*+-.^_`|~") {
            table[at] |= TOKEN;
        }
        if matches!(byte, 0x21..=0x7e) && !in_set(byte, b"#<>`?") {
            table[at] |= PATH;
        }
        if matches!(byte, 0x21..=0x7e) && !in_set(byte, b"#<>\"") {
            table[at] |= QUERY;
        }
        if alphanumeric || in_set(byte, b"-._~") {
            table[at] |= HOST;
        }
        if byte.is_ascii_hexdigit() || in_set(byte, b":.") {
            table[at] |= LITERAL;
        }
        at += 1;
    }
    table
};

const fn in_set(byte: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether the byte is of the class.
#[inline]
pub(crate) const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// The number of bytes before the first that is not of the class.
#[inline]
pub(crate) fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| !is(*byte, class)).unwrap_or(bytes.len())
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The number of bytes before the first that `stops`, eight at a time. `stops` marks bytes by their highest
/// bit, exactly at least up to the first; `passes` lets one through that it marks, and `ends` says of a
/// single byte what both say of a word.
#[inline(always)]
fn before(
    bytes: &[u8],
    stops: impl Fn(u64) -> u64,
    passes: impl Fn(u8) -> bool,
    ends: impl Fn(u8) -> bool,
) -> usize {
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let found = stops(u64::from_le_bytes(*word));
        if found == 0 {
            rest = after;
            continue;
        }
        rest = &rest[(found.trailing_zeros() / 8) as usize..];
        match rest {
            [byte, after @ ..] if passes(*byte) => rest = after,
            _ => return bytes.len() - rest.len(),
        }
    }
    bytes.len() - rest.len() + rest.iter().position(|byte| ends(*byte)).unwrap_or(rest.len())
}

/// Marks the bytes that are this one, exactly up to the first.
#[inline(always)]
pub(crate) fn same(word: u64, byte: u8) -> u64 {
    let differs = word ^ (ONES * byte as u64);
    differs.wrapping_sub(ONES) & !differs & HIGH
}

/// Where the byte stands first. For what is found within a few words.
#[inline]
pub(crate) fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    let at = before(bytes, |word| same(word, wanted), |_| false, |byte| byte == wanted);
    (at < bytes.len()).then_some(at)
}

/// The number of bytes before the first that may not stand in a field's value: a control other than HTAB
/// (RFC 9110, section 5.5).
#[inline]
pub(crate) fn value_len(bytes: &[u8]) -> usize {
    // Of the lower seven bits, 0x20 to 0x7e are 0x21 to 0x7f with one more, and all others at most 0x20.
    let stops = |word: u64| !(((((word & !HIGH) + ONES) & !HIGH) + ONES * 0x5f) | word) & HIGH;
    before(bytes, stops, |byte| byte == b'\t', |byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f)
}

/// Whether the bytes may be a field's value: no control but HTAB, and no blank at either end (RFC 9110,
/// section 5.5).
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    value_len(bytes) == bytes.len() && !blank(bytes.first()) && !blank(bytes.last())
}

/// Whether the bytes are a token, and so may be a field's name.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && run(bytes, TOKEN) == bytes.len()
}

/// Whether the bytes are a host, and nothing or a colon and a port (which may be empty, RFC 3986,
/// section 3.2.3) behind it. User information is refused (RFC 9110, section 4.2.4).
pub(crate) fn is_host_and_port(text: &[u8]) -> bool {
    let host = match text {
        [b'[', rest @ ..] => match run(rest, LITERAL) {
            end if end > 0 && rest.get(end) == Some(&b']') => end + 2,
            _ => 0,
        },
        _ => run(text, HOST),
    };
    match text.get(host) {
        _ if host == 0 => false,
        None => true,
        Some(b':') => is_port(&text[host + 1..]),
        Some(_) => false,
    }
}

fn is_port(text: &[u8]) -> bool {
    text.len() <= 5 && digits(text).is_some_and(|port| port <= u64::from(u16::MAX))
}

/// The number that these at most 19 digits are, which is below 2^64; 0 without any.
fn digits(text: &[u8]) -> Option<u64> {
    let mut number = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    Some(number)
}

/// Where the query's question mark stands in a path and query, or their length without one. None where a
/// byte may not stand there, or the form is neither `/...` nor `*`.
pub(crate) fn query_at(target: &[u8]) -> Option<usize> {
    if target == b"*" {
        return Some(1);
    }
    if target.first() != Some(&b'/') {
        return None;
    }
    let path = run(target, PATH);
    let query = target.get(path..).unwrap_or_default();
    let ends = query.is_empty() || (query[0] == b'?' && run(query, QUERY) == query.len());
    ends.then_some(path)
}

/// A decimal number of digits only (RFC 9110, section 8.6): no sign, no list, no overflow. Lengths above
/// the largest offset of a file cannot be meant, and leave room for sums.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    digits(text).filter(|number| *number <= i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_where_it_stands_first() {
        for length in 0..40 {
            let mut bytes = vec![b';'; length];
            assert_eq!(find(&bytes, b':'), None);
            bytes.extend_from_slice(b":;:");
            assert_eq!(find(&bytes, b':'), Some(length));
        }
    }

    #[test]
    fn a_value_ends_at_the_first_control_byte() {
        for length in 0..40 {
            for control in [0, b'\r', b'\n', 0x1f, 0x7f] {
                let mut bytes = vec![b'\xe9'; length];
                if length > 3 {
                    bytes[3] = b'\t';
                }
                bytes.push(control);
                bytes.extend_from_slice(b"more than eight bytes");
                assert_eq!(value_len(&bytes), length);
            }
        }
    }

    #[test]
    fn targets_are_what_a_uri_allows() {
        for (target, wanted) in [
            (&b"/"[..], Some(1)),
            (b"*", Some(1)),
            (b"/a?b?c", Some(2)),
            (b"/{\"a\"}?{1}", Some(6)),
            (b"/a?`", Some(2)),
            (b"", None),
            (b"a", None),
            (b"**", None),
            (b"/a b", None),
            (b"/a#b", None),
            (b"/a?b#c", None),
            (b"/a`", None),
            (b"/<", None),
            (b"/a?\"", None),
            (b"/\xff", None),
        ] {
            assert_eq!(query_at(target), wanted, "{}", String::from_utf8_lossy(target));
        }
    }

    /// The `http` crate is the oracle: what we take as path and query it takes unchanged.
    #[test]
    fn every_byte_of_a_target_is_one_that_the_http_crate_takes() {
        for byte in 0..=255u8 {
            for target in [vec![b'/', byte], vec![b'/', b'?', byte]] {
                let theirs = http::uri::PathAndQuery::try_from(&target[..]);
                let same = theirs.is_ok_and(|theirs| theirs.as_str().as_bytes() == target);
                assert_eq!(query_at(&target).is_some(), same && byte != 0x7f, "{byte:#x}");
            }
        }
    }

    #[test]
    fn hosts_have_a_name_and_at_most_a_port() {
        for good in [&b"a"[..], b"a:", b"a:80", b"[::1]", b"[::1]:65535", b"a_b.c~d-e"] {
            assert!(is_host_and_port(good), "{}", String::from_utf8_lossy(good));
        }
        for bad in [
            &b""[..],
            b":80",
            b"a:b",
            b"a:65536",
            b"a:000080",
            b"u@a",
            b"a,b",
            b"[]",
            b"[::1",
            b"[::1]x",
            b"a/b",
        ] {
            assert!(!is_host_and_port(bad), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn lengths_are_digits_up_to_the_largest_offset() {
        assert_eq!(decimal(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in
            [&b""[..], b"+1", b"-1", b"1 ", b"0x1", b"1,1", b"9223372036854775808", b"99999999999999999999"]
        {
            assert_eq!(decimal(bad), None, "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(decimal(b"007"), Some(7));
    }
}
