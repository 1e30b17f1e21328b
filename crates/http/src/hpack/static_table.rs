// SPDX-License-Identifier: Apache-2.0
//! The fields that every connection knows from the start (RFC 7541, appendix A).

use super::{Entry, Line, hash};
use crate::head::FieldName;

/// Entries of the static table; the dynamic table's newest has the next index.
pub(crate) const LEN: usize = 61;

/// The entry with an index from 1 to [`LEN`].
#[inline]
pub(crate) fn entry(index: usize) -> Option<&'static Entry<'static>> {
    TABLE.get(index.wrapping_sub(1))
}

/// The index of exactly this field.
#[inline]
pub(crate) fn find(hash: u32, line: &Line<'_>) -> Option<usize> {
    find_in(&FIELDS, hash, |entry| entry.is(line))
}

/// The index of an entry with this name, given the hash of the name with an empty value.
#[inline]
pub(crate) fn find_name(hash: u32, name: &[u8]) -> Option<usize> {
    find_in(&NAMES, hash, |entry| entry.name() == name)
}

/// The index of an entry with a name of the list.
#[inline]
pub(crate) fn name(known: FieldName) -> Option<usize> {
    let index = KNOWN[known as usize];
    (index != 0).then_some(usize::from(index))
}

/// Indices of the entries of known names; 0 for none.
const KNOWN: [u8; FieldName::ALL.len() + 1] = {
    let mut known = [0; FieldName::ALL.len() + 1];
    let mut at = LEN;
    while at > 0 {
        at -= 1;
        known[TABLE[at].known as usize] = at as u8 + 1;
    }
    known[FieldName::Other as usize] = 0;
    known
};

fn find_in(buckets: &[u8; BUCKETS], hash: u32, same: impl Fn(&Entry<'_>) -> bool) -> Option<usize> {
    let mut bucket = hash as usize % BUCKETS;
    while let Some(entry) = entry(usize::from(buckets[bucket])) {
        if same(entry) {
            return Some(usize::from(buckets[bucket]));
        }
        bucket = (bucket + 1) % BUCKETS;
    }
    None
}

/// Four times the entries, so that a field that is not here is seldom compared with one.
const BUCKETS: usize = 256;

/// Indices of whole fields, by the hash of the field.
const FIELDS: [u8; BUCKETS] = buckets(false);

/// Indices of the first entry of each name, by the hash of the name with an empty value.
const NAMES: [u8; BUCKETS] = buckets(true);

const fn buckets(by_name: bool) -> [u8; BUCKETS] {
    let mut buckets = [0; BUCKETS];
    let mut at = 0;
    while at < LEN {
        let entry = &TABLE[at];
        let repeated = by_name && at > 0 && same(name_of(entry), name_of(&TABLE[at - 1]));
        if !repeated {
            let hash = if by_name { hash(name_of(entry), b"") } else { entry.hash };
            let mut bucket = hash as usize % BUCKETS;
            while buckets[bucket] != 0 {
                bucket = (bucket + 1) % BUCKETS;
            }
            buckets[bucket] = at as u8 + 1;
        }
        at += 1;
    }
    buckets
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

const fn name_of(entry: &Entry<'static>) -> &'static [u8] {
    entry.text.split_at(entry.name).0
}

const fn field(text: &'static str, name: usize) -> Entry<'static> {
    let text = text.as_bytes();
    let (name_text, value) = text.split_at(name);
    let hash = hash(name_text, value);
    // Of the values, only that of an authority is none.
    let valid = !same(text, b":authority");
    Entry { text, name, huffman: &[], hash, known: known(name_text), valid, sensitive: false }
}

const fn known(name: &[u8]) -> FieldName {
    let mut at = 0;
    while at < FieldName::ALL.len() {
        if same(FieldName::ALL[at].text().as_bytes(), name) {
            return FieldName::ALL[at];
        }
        at += 1;
    }
    FieldName::Other
}

macro_rules! table {
    ($($name:literal $value:literal,)*) => {
        static TABLE: [Entry<'static>; LEN] = [$(field(concat!($name, $value), $name.len()),)*];
    };
}

table! {
    ":authority" "",
    ":method" "GET",
    ":method" "POST",
    ":path" "/",
    ":path" "/index.html",
    ":scheme" "http",
    ":scheme" "https",
    ":status" "200",
    ":status" "204",
    ":status" "206",
    ":status" "304",
    ":status" "400",
    ":status" "404",
    ":status" "500",
    "accept-charset" "",
    "accept-encoding" "gzip, deflate",
    "accept-language" "",
    "accept-ranges" "",
    "accept" "",
    "access-control-allow-origin" "",
    "age" "",
    "allow" "",
    "authorization" "",
    "cache-control" "",
    "content-disposition" "",
    "content-encoding" "",
    "content-language" "",
    "content-length" "",
    "content-location" "",
    "content-range" "",
    "content-type" "",
    "cookie" "",
    "date" "",
    "etag" "",
    "expect" "",
    "expires" "",
    "from" "",
    "host" "",
    "if-match" "",
    "if-modified-since" "",
    "if-none-match" "",
    "if-range" "",
    "if-unmodified-since" "",
    "last-modified" "",
    "link" "",
    "location" "",
    "max-forwards" "",
    "proxy-authenticate" "",
    "proxy-authorization" "",
    "range" "",
    "referer" "",
    "refresh" "",
    "retry-after" "",
    "server" "",
    "set-cookie" "",
    "strict-transport-security" "",
    "transfer-encoding" "",
    "user-agent" "",
    "vary" "",
    "via" "",
    "www-authenticate" "",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_field_and_by_name() {
        for (at, entry) in TABLE.iter().enumerate() {
            let line = Line { known: entry.known, ..Line::plain(entry.name(), entry.value()) };
            assert_eq!(entry.known, FieldName::of(line.name));
            assert_eq!(entry.valid, super::super::check::is_value(line.name, line.value));
            let named = (entry.known != FieldName::Other).then_some(at + 1);
            assert_eq!(name(entry.known), named);
            assert_eq!(find(entry.hash, &line), Some(at + 1));
            let first = TABLE.iter().position(|other| other.name() == line.name).unwrap();
            assert_eq!(find_name(hash(line.name, b""), line.name), Some(first + 1));
        }
        assert_eq!(find(hash(b"x", b"y"), &Line::plain(b"x", b"y")), None);
        assert_eq!(find_name(hash(b"x", b""), b"x"), None);
        assert!(entry(0).is_none() && entry(62).is_none());
    }
}
