// SPDX-License-Identifier: Apache-2.0
//! The key of a WebSocket's handshake, and the answer to it (RFC 6455, section 4.2.2): the base64 of the SHA-1
//! (RFC 3174) of the key and a fixed text. It proves that a server knows the protocol, and keeps no secret.

/// What the key is joined with.
const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The text of a key: 16 octets in base64.
const KEY: usize = 24;

/// The key that these random octets make.
pub fn key(random: [u8; 16]) -> [u8; KEY] {
    base64(&random)
}

/// The answer to a key; nothing if it is none. What its 24 characters stand for does not matter to anybody.
pub fn accept(key: &[u8]) -> Option<[u8; 28]> {
    let key: &[u8; KEY] = key.try_into().ok()?;
    let mut text = [0; KEY + GUID.len()];
    text[..KEY].copy_from_slice(key);
    text[KEY..].copy_from_slice(GUID);
    Some(base64(&sha1(&text)))
}

/// The digest of a text of less than 512 MiB.
fn sha1(text: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut blocks = text.chunks_exact(64);
    for block in &mut blocks {
        digest(&mut state, block);
    }
    let rest = blocks.remainder();
    let mut last = [0; 128];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    let end = if rest.len() < 56 { 64 } else { 128 };
    last[end - 8..end].copy_from_slice(&(8 * text.len() as u64).to_be_bytes());
    for block in last[..end].chunks_exact(64) {
        digest(&mut state, block);
    }
    let mut digest = [0; 20];
    for (word, octets) in state.iter().zip(digest.chunks_exact_mut(4)) {
        octets.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// Digests one block of 64 octets.
fn digest(state: &mut [u32; 5], block: &[u8]) {
    let mut words = [0_u32; 80];
    for (word, octets) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = octets.iter().fold(0, |word, octet| word << 8 | u32::from(*octet));
    }
    for at in 16..80 {
        words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (at, word) in words.into_iter().enumerate() {
        let (mixed, constant) = match at / 20 {
            0 => (b & c | !b & d, 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => (b & c | b & d | c & d, 0x8f1b_bcdc_u32),
            _ => (b ^ c ^ d, 0xca62_c1d6),
        };
        let next =
            a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    for (word, added) in state.iter_mut().zip([a, b, c, d, e]) {
        *word = word.wrapping_add(added);
    }
}

/// Base64 with padding (RFC 4648, section 4), of as many octets as give this length.
fn base64<const LENGTH: usize>(octets: &[u8]) -> [u8; LENGTH] {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'='; LENGTH];
    for (group, letters) in octets.chunks(3).zip(text.chunks_mut(4)) {
        let octet = |at: usize| group.get(at).map_or(0, |octet| u32::from(*octet));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        // Two letters stand for one octet, three for two, four for three.
        for (at, letter) in letters.iter_mut().enumerate().take(group.len() + 1) {
            *letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_standard() {
        // RFC 6455, section 1.3.
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ==").as_ref(), Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(&key(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!((accept(b""), accept(b"dGhlIHNhbXBsZSBub25jZQ=")), (None, None));
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        // RFC 3174, section 7.3, and FIPS 180-1; lengths around that of a block.
        let hex = |text: &[u8]| sha1(text).iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        assert_eq!(hex(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        let two = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(two), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(hex(&b"01234567".repeat(80)), "dea356a2cddd90c7a7ecedc5ebb563934f460452");
        assert_eq!(hex(&[b'a'; 55]), "c1c8bbdc22796e28c0e15163d20899b65621d65a");
        assert_eq!(hex(&[b'a'; 64]), "0098ba824b5c16427bd7a1122a5a442a25ec644d");
    }
}
