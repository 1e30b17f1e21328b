// SPDX-License-Identifier: Apache-2.0
//! Valid conversations with octets changed: no panic, no loop, bounded memory, and an answer to every error.

use proptest::prelude::*;
use weft_http::{
    h2::{Config, Connection, ErrorCode, Event, OUTPUT_LIMIT, Received},
    head::Head,
};

use crate::{exchange::message, pieces::converse};

/// How the octets are changed.
#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Flip(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    // Frames lie close to the start: a place is drawn from there as often as from anywhere.
    let at = || prop_oneof![0_usize..400, any::<usize>()];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, octet)| Damage::Set(at, octet)),
        (at(), 0_u8..8).prop_map(|(at, bit)| Damage::Flip(at, 1 << bit)),
        (at(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, new)| Damage::Insert(at, new)),
        (at(), 1_usize..30).prop_map(|(at, length)| Damage::Remove(at, length)),
        (at(), 1_usize..100).prop_map(|(at, length)| Damage::Repeat(at, length)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        match self {
            Damage::Set(at, octet) => bytes[at % length] = *octet,
            Damage::Flip(at, bits) => bytes[at % length] ^= bits,
            Damage::Insert(at, new) => drop(bytes.splice(at % length..at % length, new.iter().copied())),
            Damage::Remove(at, count) => {
                let at = at % length;
                bytes.drain(at..(at + count).min(length));
            }
            Damage::Repeat(at, count) => {
                let at = at % length;
                let again = bytes[at..(at + count).min(length)].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

/// Feeds damaged octets to an end whose owner answers what it can.
fn feed(mut connection: Connection, bytes: &[u8], piece: usize) {
    let (mut head, mut out) = (Head::new(), Vec::new());
    let (mut at, mut there, mut calls, mut closed) = (0, 0, 0_usize, false);
    while there < bytes.len() {
        there = (there + piece).min(bytes.len());
        loop {
            let Received { consumed, event } = connection.receive(&bytes[at..there], &mut head, &mut out);
            at += consumed;
            calls += 1;
            assert!(calls <= 4 * bytes.len() + 100, "each event costs the peer some octets");
            assert!(out.len() <= OUTPUT_LIMIT + (64 << 10), "{} octets wait to be written", out.len());
            assert!(connection.open_streams() <= 20);
            assert!(head.size_bytes() <= 64 << 10);
            match event {
                None => break,
                Some(event) => closed |= react(&mut connection, event, &mut out),
            }
        }
        assert_eq!(closed, connection.is_closed());
        out.clear();
    }
}

/// What a user does with an event; true if it was the last.
fn react(connection: &mut Connection, event: Event<'_>, out: &mut Vec<u8>) -> bool {
    match event {
        Event::Head { stream, end, .. } => {
            let mut response = Head::new();
            response.start_response(200).unwrap();
            // On a client this is out of order, and has to be refused.
            let _refused = connection.send_head(stream, &response, end, out);
            let _refused = connection.send_data(stream, b"some content", end, out);
        }
        Event::Data { stream, content, .. } if !content.is_empty() => {
            connection.release(stream, content.len(), out);
            let _refused = connection.send_data(stream, content, false, out);
        }
        Event::Trailers { stream, .. } => drop(connection.send_trailers(stream, &Head::new(), out)),
        Event::Rejected { stream: Some(stream), failure } => {
            assert!(failure.error.status.is_some());
            connection.reset(stream, ErrorCode::CANCEL, out);
        }
        Event::Closed { failure } => {
            assert_ne!(failure.code, ErrorCode::NO_ERROR);
            return true;
        }
        _ => {}
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_never_breaks_an_end(
        messages in prop::collection::vec(message(), 1..4),
        damages in prop::collection::vec(damage(), 1..12),
        piece in prop_oneof![1_usize..50, Just(1 << 20)],
    ) {
        let config = Config { max_streams: 10, ..Config::default() };
        let (mut from_client, mut from_server) = converse(&messages, &config, &[1 << 20]);
        for damage in &damages {
            damage.apply(&mut from_client);
            damage.apply(&mut from_server);
        }
        feed(Connection::server(&config, &mut Vec::new()), &from_client, piece);
        let mut client = Connection::client(&config, &mut Vec::new());
        let mut request = Head::new();
        request.start_request(b"POST", b"/", b"a.test").unwrap();
        for token in 0..4 {
            client.open(&request, false, token, &mut Vec::new()).unwrap();
        }
        feed(client, &from_server, piece);
    }
}
