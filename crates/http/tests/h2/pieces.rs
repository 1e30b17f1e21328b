// SPDX-License-Identifier: Apache-2.0
//! What comes in pieces is understood as what comes at once.

use proptest::prelude::*;
use weft_http::h2::{Config, Connection};

use crate::{
    ends::{Asker, Echo, End, check},
    exchange::{Message, message},
    feed::said,
};

/// Carries octets between two ends of ours, in pieces, until the client is done; returns what each sent.
pub(crate) fn converse(messages: &[Message], config: &Config, pieces: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let (mut client, mut server) = (Asker::new(config, messages.to_vec()), Echo::new(config));
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    let mut sizes = pieces.iter().copied().cycle();
    client.start();
    for _ in 0..1_000_000 {
        from_client.extend_from_slice(&client.out);
        from_server.extend_from_slice(&server.out);
        to_server.append(&mut client.out);
        to_client.append(&mut server.out);
        if client.is_done() {
            check(messages, &client.answers);
            return (from_client, from_server);
        }
        let mut size = || sizes.next().unwrap();
        step(&mut server, &mut to_server, size());
        step(&mut client, &mut to_client, size());
        assert_eq!((client.failure, server.failure), (None, None));
    }
    panic!("it goes on for ever");
}

/// Gives an end at most `size` further octets than it needs.
fn step(end: &mut impl End, waiting: &mut Vec<u8>, size: usize) {
    let mut there = size.min(waiting.len());
    loop {
        let consumed = end.take(&waiting[..there]);
        waiting.drain(..consumed);
        if consumed > 0 || there == waiting.len() {
            return;
        }
        // A frame that is not whole: more of it comes.
        there = (there + size).min(waiting.len());
    }
}

fn config() -> impl Strategy<Value = Config> {
    (1_u32..10, 65_535_u32..200_000, prop_oneof![Just(0_u32), Just(100), Just(4096)]).prop_map(
        |(max_streams, stream_window, header_table)| Config {
            max_streams,
            stream_window,
            connection_window: 4 * stream_window,
            header_table,
            ..Config::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn our_ends_understand_each_other(
        messages in prop::collection::vec(message(), 1..12),
        config in config(),
        pieces in prop::collection::vec(prop_oneof![1_usize..30, 100_usize..80_000], 1..20),
    ) {
        converse(&messages, &config, &pieces);
    }

    #[test]
    fn what_comes_in_pieces_is_what_comes_at_once(
        messages in prop::collection::vec(message(), 1..6),
        pieces in prop::collection::vec(1_usize..40, 1..20),
    ) {
        let config = Config::default();
        let (from_client, _) = converse(&messages, &config, &[1 << 20]);
        let server = || Connection::server(&config, &mut Vec::new());
        let at_once = said(server(), &from_client, || usize::MAX / 2);
        let mut sizes = pieces.iter().copied().cycle();
        prop_assert_eq!(&said(server(), &from_client, || sizes.next().unwrap()), &at_once);
    }
}

#[test]
fn octet_by_octet_is_as_good_as_at_once() {
    let message = Message {
        method: "POST".to_owned(),
        path: "/a".to_owned(),
        fields: vec![("x-a".to_owned(), b"1".to_vec())],
        content: b"hello".repeat(100),
        piece: 7,
        trailers: Some(vec![("x-b".to_owned(), b"2".to_vec())]),
        given_up: None,
    };
    let config = Config::default();
    let (from_client, _) = converse(&vec![message; 3], &config, &[1]);
    let server = || Connection::server(&config, &mut Vec::new());
    let at_once = said(server(), &from_client, || usize::MAX / 2);
    assert_eq!(said(server(), &from_client, || 1), at_once);
    assert_eq!(at_once.iter().filter(|event| event.starts_with("Head")).count(), 3);
}
