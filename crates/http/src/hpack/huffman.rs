// SPDX-License-Identifier: Apache-2.0
//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: its codes follow from their lengths. Every printable character that is frequent has
//! a code of at most 8 bits, so one table of 256 entries decodes nearly everything, a symbol per step; longer
//! codes are found by their length.

use super::Error;

/// Bits of each octet's code, from RFC 7541, appendix B.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The longest code, in bits.
const LONGEST: usize = 30;

/// What one look at the bits that follow decides: codes of at most 8 bits.
const SHORT: [(u8, u8); 256] = short_codes();

const CODES: [u32; 256] = codes();

/// For each length: the first code, aligned to 32 bits; how many there are; where its symbols begin in
/// [`SYMBOLS`].
const BY_LENGTH: [(u32, u32, u16); LONGEST + 1] = by_length();

/// The octets in the order of their codes.
const SYMBOLS: [u8; 256] = symbols();

const fn symbols() -> [u8; 256] {
    let mut symbols = [0; 256];
    let (mut bits, mut next) = (5, 0);
    while bits <= LONGEST {
        let mut octet = 0;
        while octet < 256 {
            if LENGTHS[octet] as usize == bits {
                symbols[next] = octet as u8;
                next += 1;
            }
            octet += 1;
        }
        bits += 1;
    }
    symbols
}

const fn codes() -> [u32; 256] {
    let mut codes = [0; 256];
    let (mut code, mut bits, mut at) = (0, 5, 0);
    while at < 256 {
        let octet = SYMBOLS[at] as usize;
        while bits < LENGTHS[octet] {
            code <<= 1;
            bits += 1;
        }
        codes[octet] = code;
        code += 1;
        at += 1;
    }
    codes
}

const fn by_length() -> [(u32, u32, u16); LONGEST + 1] {
    let mut lengths = [(0, 0, 0); LONGEST + 1];
    let mut at = 0;
    while at < 256 {
        let octet = SYMBOLS[at] as usize;
        let bits = LENGTHS[octet] as usize;
        if lengths[bits].1 == 0 {
            lengths[bits].0 = CODES[octet] << (32 - bits);
            lengths[bits].2 = at as u16;
        }
        lengths[bits].1 += 1;
        at += 1;
    }
    lengths
}

const fn short_codes() -> [(u8, u8); 256] {
    let mut short = [(0, 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let bits = LENGTHS[octet] as u32;
        if bits <= 8 {
            let first = (CODES[octet] << (8 - bits)) as usize;
            let mut at = first;
            while at < first + (1 << (8 - bits)) {
                short[at] = (octet as u8, bits as u8);
                at += 1;
            }
        }
        octet += 1;
    }
    short
}

/// Appends what `coded` stands for. At most 8/5 of its length is appended.
///
/// # Errors
/// When the padding is not ones, is 8 bits or longer, or where the code of the end of a string is inside
/// (RFC 7541, section 5.2).
pub(crate) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    out.resize(start + coded.len() * 8 / 5 + 1, 0);
    let text = &mut out[start..];
    let (mut bits, mut have, mut read, mut written) = (0_u64, 0_u32, 0, 0);
    loop {
        if have <= 32 {
            (bits, have, read) = refill(coded, bits, have, read);
        }
        let (octet, length) = SHORT[(bits >> 56) as usize];
        let (octet, length) = match length {
            0 => long_code(bits, have)?,
            length => (octet, u32::from(length)),
        };
        if length > have {
            break;
        }
        text[written] = octet;
        written += 1;
        bits <<= length;
        have -= length;
    }
    // Only padding is left: fewer than 8 bits, all ones.
    if have >= 8 || (have > 0 && bits >> (64 - have) != (1 << have) - 1) {
        return Err(Error::Huffman);
    }
    out.truncate(start + written);
    Ok(())
}

/// Fills the bits from the top, by whole octets.
#[inline]
fn refill(coded: &[u8], mut bits: u64, mut have: u32, mut read: usize) -> (u64, u32, usize) {
    if let Some(word) = coded.get(read..).and_then(|rest| rest.first_chunk::<4>()) {
        bits |= u64::from(u32::from_be_bytes(*word)) << (32 - have);
        return (bits, have + 32, read + 4);
    }
    while have <= 56 && read < coded.len() {
        bits |= u64::from(coded[read]) << (56 - have);
        have += 8;
        read += 1;
    }
    (bits, have, read)
}

/// A code of more than 8 bits at the top of `bits`. A length above what is there means that only padding is
/// left.
#[cold]
fn long_code(bits: u64, have: u32) -> Result<(u8, u32), Error> {
    if have < 10 {
        return Ok((0, u32::MAX));
    }
    let top = (bits >> 32) as u32;
    for (length, &(first, count, symbols)) in BY_LENGTH.iter().enumerate().skip(10) {
        let nth = top.wrapping_sub(first) >> (32 - length);
        if count > 0 && top >= first && nth < count {
            return Ok((SYMBOLS[symbols as usize + nth as usize], length as u32));
        }
    }
    Err(Error::Huffman)
}

/// Octets that `text` needs when coded.
pub(crate) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&octet| usize::from(LENGTHS[usize::from(octet)])).sum();
    bits.div_ceil(8)
}

/// Appends `text`, coded and padded with ones.
pub(crate) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut have) = (0_u64, 0_u32);
    for &octet in text {
        let length = u32::from(LENGTHS[usize::from(octet)]);
        bits = bits << length | u64::from(CODES[usize::from(octet)]);
        have += length;
        while have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    if have > 0 {
        out.push((bits << (8 - have)) as u8 | (0xff >> have) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = b"before".to_vec();
        decode(coded, &mut out)?;
        Ok(out.split_off(6))
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out);
        assert_eq!(out.len(), encoded_len(text));
        out
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let example = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&example).unwrap(), b"www.example.com");
        assert_eq!(encoded(b"www.example.com"), example);
        assert_eq!(encoded(b"no-cache"), [0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]);
    }

    #[test]
    fn every_pair_of_octets_comes_back() {
        for first in 0..=255 {
            for second in 0..=255 {
                let text = [first, second, first];
                assert_eq!(decoded(&encoded(&text)).as_deref(), Ok(&text[..]));
            }
        }
    }

    #[test]
    fn the_codes_are_those_of_the_appendix() {
        // One of each kind: short, long, the first and the last octet.
        for (octet, code) in [
            (b'0', 0),
            (b'a', 3),
            (b'&', 0xf8),
            (b'Z', 0xfd),
            (0, 0x1ff8),
            (255, 0x3ff_ffee),
            (22, 0x3fff_fffe),
        ] {
            assert_eq!(CODES[usize::from(octet)], code, "{octet}");
        }
    }

    #[test]
    fn padding_is_ones_and_shorter_than_an_octet() {
        assert_eq!(decoded(&[0x1f]).as_deref(), Ok(&b"a"[..]));
        assert_eq!(decoded(&[0x1e]), Err(Error::Huffman));
        assert_eq!(decoded(&[0x18]), Err(Error::Huffman));
        assert_eq!(decoded(&[0x1f, 0xff]), Err(Error::Huffman));
        assert_eq!(decoded(&[0xff]), Err(Error::Huffman));
        assert_eq!(decoded(&[]).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn the_end_of_string_code_is_refused() {
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(Error::Huffman));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xfc]), Err(Error::Huffman));
        assert_eq!(decoded(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0x1f]), Err(Error::Huffman));
    }
}
