// SPDX-License-Identifier: Apache-2.0
//! The number by which an encoder finds a field in its tables.

/// A hash of a field whose name is in lower case; never 0.
///
/// Not secret: whoever finds two fields of one hash makes his own connection's encoder compress worse, since a
/// bucket of it holds one field (RFC 7541 asks for no compression at all).
#[inline]
pub const fn hash(name: &[u8], value: &[u8]) -> u32 {
    let lengths = (name.len() as u64) << 32 | value.len() as u64;
    let mixed = mix(mix(MULTIPLIER ^ lengths, name), value);
    let folded = (mixed >> 32) as u32;
    if folded == 0 { 1 } else { folded }
}

/// An odd number with bits all over: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
const fn mix(mut state: u64, text: &[u8]) -> u64 {
    let mut rest = text;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        state = step(state, u64::from_le_bytes(*word));
        rest = after;
    }
    if rest.is_empty() {
        return state;
    }
    // The last 8 octets again where there are that many, so that no octet is read alone.
    if let Some(word) = text.last_chunk::<8>() {
        return step(state, u64::from_le_bytes(*word));
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let word = (u32::from_le_bytes(*first) as u64) << 32 | u32::from_le_bytes(*last) as u64;
        return step(state, word);
    }
    let word = text[0] as u64 | (text[text.len() / 2] as u64) << 8 | (text[text.len() - 1] as u64) << 16;
    step(state, word)
}

#[inline]
const fn step(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(MULTIPLIER);
    product ^ product >> 29
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn fields_that_differ_a_little_differ() {
        let mut hashes = HashSet::new();
        let text = b"abcdefghijklmnopqrstuvwxyz";
        for name in 1..text.len() {
            for value in 0..text.len() {
                assert!(hashes.insert(hash(&text[..name], &text[..value])));
                for at in 0..value {
                    let mut changed = text[..value].to_vec();
                    changed[at] = b'-';
                    assert!(hashes.insert(hash(&text[..name], &changed)), "{name} {value} {at}");
                }
            }
        }
    }
}
