// SPDX-License-Identifier: Apache-2.0
//! The fields that every connection knows from the start (RFC 7541, appendix A).

use super::hash;
use crate::head::FieldName;

/// Entries of the static table; the dynamic table's newest has the next index.
pub(crate) const LEN: usize = 61;

/// Name and value of the entry with an index from 1 to [`LEN`].
#[inline]
pub(crate) fn entry(index: usize) -> Option<&'static Entry> {
    TABLE.get(index.wrapping_sub(1))
}

/// A field of the static table.
pub(crate) struct Entry {
    pub(crate) name: &'static [u8],
    pub(crate) value: &'static [u8],
    pub(crate) hash: u32,
    pub(crate) known: FieldName,
}

/// The index of exactly this field.
#[inline]
pub(crate) fn find(hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
    find_in(&FIELDS, hash, |entry| entry.name == name && entry.value == value)
}

/// The index of an entry with this name, given the hash of the name with an empty value.
#[inline]
pub(crate) fn find_name(hash: u32, name: &[u8]) -> Option<usize> {
    find_in(&NAMES, hash, |entry| entry.name == name)
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

fn find_in(buckets: &[u8; BUCKETS], hash: u32, same: impl Fn(&Entry) -> bool) -> Option<usize> {
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
        let repeated = by_name && at > 0 && same(entry.name, TABLE[at - 1].name);
        if !repeated {
            let hash = if by_name { hash(entry.name, b"") } else { entry.hash };
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

const fn field(name: &'static str, value: &'static str) -> Entry {
    let (name, value) = (name.as_bytes(), value.as_bytes());
    Entry { name, value, hash: hash(name, value), known: known(name) }
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

static TABLE: [Entry; LEN] = [
    field(":authority", ""),
    field(":method", "GET"),
    field(":method", "POST"),
    field(":path", "/"),
    field(":path", "/index.html"),
    field(":scheme", "http"),
    field(":scheme", "https"),
    field(":status", "200"),
    field(":status", "204"),
    field(":status", "206"),
    field(":status", "304"),
    field(":status", "400"),
    field(":status", "404"),
    field(":status", "500"),
    field("accept-charset", ""),
    field("accept-encoding", "gzip, deflate"),
    field("accept-language", ""),
    field("accept-ranges", ""),
    field("accept", ""),
    field("access-control-allow-origin", ""),
    field("age", ""),
    field("allow", ""),
    field("authorization", ""),
    field("cache-control", ""),
    field("content-disposition", ""),
    field("content-encoding", ""),
    field("content-language", ""),
    field("content-length", ""),
    field("content-location", ""),
    field("content-range", ""),
    field("content-type", ""),
    field("cookie", ""),
    field("date", ""),
    field("etag", ""),
    field("expect", ""),
    field("expires", ""),
    field("from", ""),
    field("host", ""),
    field("if-match", ""),
    field("if-modified-since", ""),
    field("if-none-match", ""),
    field("if-range", ""),
    field("if-unmodified-since", ""),
    field("last-modified", ""),
    field("link", ""),
    field("location", ""),
    field("max-forwards", ""),
    field("proxy-authenticate", ""),
    field("proxy-authorization", ""),
    field("range", ""),
    field("referer", ""),
    field("refresh", ""),
    field("retry-after", ""),
    field("server", ""),
    field("set-cookie", ""),
    field("strict-transport-security", ""),
    field("transfer-encoding", ""),
    field("user-agent", ""),
    field("vary", ""),
    field("via", ""),
    field("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_field_and_by_name() {
        for (at, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.known, FieldName::of(entry.name));
            let named = (entry.known != FieldName::Other).then_some(at + 1);
            assert_eq!(name(entry.known), named);
            assert_eq!(find(entry.hash, entry.name, entry.value), Some(at + 1));
            let first = TABLE.iter().position(|other| other.name == entry.name).unwrap();
            assert_eq!(find_name(hash(entry.name, b""), entry.name), Some(first + 1));
        }
        assert_eq!(find(hash(b"x", b"y"), b"x", b"y"), None);
        assert_eq!(find_name(hash(b"x", b""), b"x"), None);
        assert!(entry(0).is_none() && entry(62).is_none());
    }
}
