// SPDX-License-Identifier: Apache-2.0
use http::HeaderName;
use proptest::prelude::*;

use super::*;

type Whole = (Vec<u8>, Headers, Vec<u8>);

/// Feeds `pieces` to a chunked decoder; the content, the trailers and what was left over.
fn decode(pieces: &[&[u8]]) -> Result<Option<Whole>, &'static str> {
    let config = H1Config::default();
    let (mut decoder, mut buf, mut content) = (Decoder::chunked(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf, &config)? {
                Decoded::Data(bytes) => content.extend_from_slice(&bytes),
                Decoded::NeedMore => break,
                Decoded::End => return Ok(Some((content, Headers::default(), buf.to_vec()))),
                Decoded::Trailers(trailers) => return Ok(Some((content, trailers, buf.to_vec()))),
            }
        }
    }
    Ok(None)
}

#[test]
fn a_chunked_body_is_the_same_wherever_it_is_split() {
    let body = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\nConnection: X-Sum2\r\nX-Sum2: 2\r\nHost: a\r\n\r\nGET";
    for split in 0..body.len() {
        let (content, trailers, rest) =
            decode(&[&body[..split], &body[split..]]).expect("valid").expect("complete");
        assert_eq!(content, b"abc0123456789", "split at {split}");
        assert_eq!(trailers.get(&HeaderName::from_static("x-sum")), Some(&b"1"[..]));
        assert_eq!(trailers.len(), 1);
        assert!(b"GET".starts_with(&rest));
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(decode(&bytes).expect("valid").expect("complete").0, b"abc0123456789");
}

#[test]
fn malformed_chunks_are_refused() {
    for body in [
        &b"\r\n"[..],
        b"x\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"3\r\nabc0\r\n\r\n",
        b"3;\0\r\nabc\r\n",
        b"3;a\rb\r\nabc\r\n",
        b"3 ;a\r\nabc\r\n",
        b"ffffffffffffffff\r\n",
        b"10000000000000000\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\n X: 1\r\n\r\n",
        b"0\r\nX: 1\n\r\n",
        b"0\r\n\n",
    ] {
        assert!(decode(&[body]).is_err(), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn size_lines_extensions_and_trailers_are_bounded() {
    let long_line = [b"1;".to_vec(), vec![b'a'; 300]].concat();
    assert!(decode(&[&long_line]).is_err());
    let extensions = format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(30);
    assert!(decode(&[extensions.as_bytes()]).is_err());
    let trailers = format!("0\r\n{}", "X: 1\r\n".repeat(10_000));
    assert!(decode(&[trailers.as_bytes()]).is_err());
}

#[test]
fn a_length_takes_exactly_its_bytes() {
    let config = H1Config::default();
    let (mut decoder, mut buf) = (Decoder::length(3), BytesMut::from(&b"abcGET"[..]));
    assert!(matches!(decoder.decode(&mut buf, &config), Ok(Decoded::Data(bytes)) if bytes == "abc"));
    assert!(decoder.is_done());
    assert!(matches!(decoder.decode(&mut buf, &config), Ok(Decoded::End)));
    assert_eq!(buf, "GET");
}

proptest! {
    #[test]
    fn arbitrary_chunks_never_panic(pieces in proptest::collection::vec("[0-9a-f;\r\n x]{0,12}", 0..20)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
        drop(decode(&pieces));
    }
}
