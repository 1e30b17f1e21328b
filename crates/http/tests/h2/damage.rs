// SPDX-License-Identifier: Apache-2.0
//! Valid conversations with octets changed: no panic, no loop, bounded memory, and an answer to every error.

use proptest::prelude::*;
use weft_http::h2::{Config, Connection};

use crate::{
    exchange::message,
    feed::{client, endure},
    pieces::converse,
};

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
        endure(Connection::server(&config, &mut Vec::new()), &from_client, piece);
        endure(client(&config), &from_server, piece);
    }
}
