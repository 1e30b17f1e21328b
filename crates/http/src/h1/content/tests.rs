// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;
use crate::head::Name;

type Whole = (Vec<u8>, Head, Vec<u8>);

/// Feeds `pieces` to a chunked decoder; the content, the trailers and what was left over.
fn decode(pieces: &[&[u8]]) -> Result<Option<Whole>, &'static str> {
    let (mut decoder, limits) = (Decoder::chunked(), Limits::default());
    let (mut rest, mut content, mut trailers) = (Vec::new(), Vec::new(), Head::new());
    for piece in pieces {
        rest.extend_from_slice(piece);
        loop {
            let (used, event) =
                decoder.receive(&rest, &mut trailers, &limits).map_err(|error| error.detail)?;
            let ends = matches!(event, Some(Event::End | Event::Trailers));
            let more = event.is_some();
            if let Some(Event::Data(bytes)) = event {
                content.extend_from_slice(bytes);
            }
            rest.drain(..used);
            if ends {
                return Ok(Some((content, trailers, rest)));
            }
            if !more {
                break;
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
        assert_eq!(trailers.get(&Name::new(b"x-sum").expect("a name")), Some(&b"1"[..]));
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
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(decode(&bytes).err(), decode(&[body]).err(), "{}", String::from_utf8_lossy(body));
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
    let long_trailer = format!("0\r\nX: {}", "x".repeat(17_000));
    assert_eq!(decode(&[long_trailer.as_bytes()]).err(), Some("the trailer section is too large"));
}

#[test]
fn a_length_takes_exactly_its_bytes() {
    let (mut decoder, limits, mut head) = (Decoder::length(3), Limits::default(), Head::new());
    assert_eq!(decoder.receive(b"", &mut head, &limits), Ok((0, None)));
    assert_eq!(decoder.receive(b"abcGET", &mut head, &limits), Ok((3, Some(Event::Data(b"abc")))));
    assert!(decoder.is_done());
    assert_eq!(decoder.receive(b"GET", &mut head, &limits), Ok((0, Some(Event::End))));
}

#[test]
fn an_end_without_trailers_leaves_the_head_alone() {
    let (mut decoder, limits, mut head) = (Decoder::chunked(), Limits::default(), Head::new());
    head.start_response(204).expect("a status");
    assert_eq!(decoder.receive(b"0\r\n\r\n", &mut head, &limits), Ok((5, Some(Event::End))));
    assert_eq!(head.status(), 204);
}

proptest! {
    #[test]
    fn arbitrary_chunks_are_the_same_in_any_pieces(pieces in proptest::collection::vec("[0-9a-f;\r\n x]{0,12}", 0..20)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
        let whole = pieces.concat();
        let text = |decoded: Result<Option<Whole>, &'static str>| decoded.map(|whole| whole.map(|(content, trailers, _)| (content, format!("{:?}", trailers.iter().collect::<Vec<_>>()))));
        prop_assert_eq!(text(decode(&pieces)), text(decode(&[&whole])));
    }
}
