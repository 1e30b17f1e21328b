// SPDX-License-Identifier: Apache-2.0
//! Integers with a prefix of 1 to 8 bits (RFC 7541, section 5.1).

use super::Error;

/// Bits of continuation after which an integer is refused: 28 bits are far above every length and index that
/// the limits allow, and an encoder that pads with zeros makes nobody loop.
const MAX_SHIFT: u32 = 28;

/// Reads the integer whose first octet is at `at`; returns it, and where the next octet is.
#[inline]
pub(crate) fn decode(block: &[u8], at: usize, prefix: u32) -> Result<(usize, usize), Error> {
    let limit = (1_u32 << prefix) - 1;
    let first = u32::from(*block.get(at).ok_or(Error::Truncated)?) & limit;
    if first < limit {
        return Ok((first as usize, at + 1));
    }
    decode_rest(block, at + 1, limit)
}

fn decode_rest(block: &[u8], mut at: usize, limit: u32) -> Result<(usize, usize), Error> {
    let (mut value, mut shift) = (limit, 0);
    loop {
        let octet = *block.get(at).ok_or(Error::Truncated)?;
        at += 1;
        value += u32::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Ok((value as usize, at));
        }
        shift += 7;
        if shift >= MAX_SHIFT {
            return Err(Error::IntegerTooLarge);
        }
    }
}

/// Writes an integer behind the bits of `pattern` that its prefix leaves.
#[inline]
pub(crate) fn encode(value: usize, prefix: u32, pattern: u8, out: &mut Vec<u8>) {
    let limit = (1_usize << prefix) - 1;
    if value < limit {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | limit as u8);
    let mut rest = value - limit;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: usize, prefix: u32) -> Vec<u8> {
        let mut out = Vec::new();
        encode(value, prefix, 0, &mut out);
        out
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541, appendix C.1.
        assert_eq!(encoded(10, 5), [0x0a]);
        assert_eq!(encoded(1337, 5), [0x1f, 0x9a, 0x0a]);
        assert_eq!(encoded(42, 8), [0x2a]);
        assert_eq!(decode(&[0xea], 0, 5), Ok((10, 1)));
        assert_eq!(decode(&[0xff, 0x9a, 0x0a], 0, 5), Ok((1337, 3)));
        assert_eq!(decode(&[0x2a], 0, 8), Ok((42, 1)));
    }

    #[test]
    fn every_prefix_comes_back() {
        for prefix in 1..=8 {
            for value in (0..600).chain([16_383, 16_384, 65_536, (1 << 28) - 1]) {
                let bytes = encoded(value, prefix);
                assert_eq!(decode(&bytes, 0, prefix), Ok((value, bytes.len())), "{value} in {prefix}");
                let cut = &bytes[..bytes.len() - 1];
                assert_eq!(decode(cut, 0, prefix), Err(Error::Truncated), "{value} in {prefix}");
            }
        }
    }

    #[test]
    fn padded_and_huge_integers_are_refused() {
        assert_eq!(decode(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x00], 0, 7), Err(Error::IntegerTooLarge));
        assert_eq!(decode(&[0xff; 12], 0, 7), Err(Error::IntegerTooLarge));
        // The largest that is read: 127 and 28 bits.
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 0x7f], 0, 7), Ok(((1 << 28) - 1 + 127, 5)));
    }
}
