// SPDX-License-Identifier: Apache-2.0
//! What the targets share with the tests of the crate: drivers of the machines, and other parsers beside them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the tests use more of the drivers than the targets, and the targets are their module"
)]

#[path = "../../tests/h1/drive.rs"]
pub(crate) mod drive;
#[path = "../../tests/h2/feed.rs"]
pub(crate) mod feed;
#[path = "../../tests/h1/proxy.rs"]
pub(crate) mod proxy;
#[path = "../../tests/h1/same.rs"]
pub(crate) mod same;
#[path = "../../tests/h1/support.rs"]
pub(crate) mod support;

pub mod kept;

use weft_http::{
    h2::{Config, Connection, PREFACE},
    hpack::{Decoder, Encoder, Entry, Indexing, Line, Sink},
};

/// The first bytes of an input say in what pieces the others come.
fn cuts(data: &[u8]) -> Option<([usize; 3], &[u8])> {
    let (lengths, input) = data.split_first_chunk::<3>()?;
    Some((lengths.map(|length| usize::from(length) + 1), input))
}

/// A server's machine says the same of a stream in any pieces, and takes for a request only what others do.
pub fn h1_server(data: &[u8]) {
    let Some((cuts, input)) = cuts(data) else { return };
    assert_eq!(drive::serve(&drive::cut(input, &cuts)), drive::serve(&[input]));
    same::same_request(input);
}

/// The same for a client's.
pub fn h1_client(data: &[u8]) {
    let Some((cuts, input)) = cuts(data) else { return };
    for method in ["GET", "HEAD"] {
        assert_eq!(drive::ask(&drive::cut(input, &cuts), method), drive::ask(&[input], method));
    }
    same::same_response(input);
}

/// What goes upstream, another reader takes for as many requests.
pub fn h1_proxy(data: &[u8]) {
    let Some(([piece, ..], input)) = cuts(data) else { return };
    same::same_requests_upstream(input, piece);
}

/// SETTINGS without any.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A server of HTTP/2 says the same of frames in any pieces, and nothing that it holds grows without bound.
pub fn h2_server(data: &[u8]) {
    let config = Config { max_streams: 10, ..Config::default() };
    h2(data, &[PREFACE, SETTINGS].concat(), || Connection::server(&config, &mut Vec::new()));
}

/// The same for a client that waits for responses.
pub fn h2_client(data: &[u8]) {
    let config = Config::default();
    h2(data, SETTINGS, || feed::client(&config));
}

fn h2(data: &[u8], first: &[u8], end: impl Fn() -> Connection) {
    let Some((cuts, input)) = cuts(data) else { return };
    let input = [first, input].concat();
    let mut pieces = cuts.into_iter().cycle();
    let in_pieces = feed::said(end(), &input, || pieces.next().unwrap_or(1));
    let at_once = feed::said(end(), &input, || input.len());
    // A read gives some of the budget back, so that a flood in pieces may go on for longer.
    let calmed = |events: &[String]| events.last().is_some_and(|last| last.contains("ErrorCode(11)"));
    if !calmed(&in_pieces) && !calmed(&at_once) {
        assert_eq!(in_pieces, at_once);
    }
    feed::endure(end(), &input, cuts[0]);
}

/// Names and values, and whether nobody may put them into a table.
#[derive(Default, PartialEq, Eq, Debug)]
struct Fields(Vec<(Vec<u8>, Vec<u8>, bool)>);

impl Sink for Fields {
    fn field(&mut self, entry: &Entry<'_>) {
        self.0.push((entry.name().to_vec(), entry.value().to_vec(), entry.sensitive));
    }
}

/// Passes fields on as an intermediary does.
struct Pass {
    encoder: Encoder,
    out: Vec<u8>,
}

impl Sink for Pass {
    fn field(&mut self, entry: &Entry<'_>) {
        let indexing = match entry {
            Entry { sensitive: true, .. } => Indexing::Never,
            Entry { hash: 0, .. } => Indexing::Without,
            _ => Indexing::Insert,
        };
        let Entry { huffman, hash, known, .. } = *entry;
        let line = Line { name: entry.name(), value: entry.value(), huffman, hash, known };
        self.encoder.field(&line, indexing, &mut self.out);
    }
}

/// What any header blocks say comes out of a second pair of tables as it went in. A length of one octet is before
/// each block.
pub fn hpack(data: &[u8]) {
    const LARGEST: usize = 64 << 10;
    let (mut first, mut between, mut last) = (Decoder::new(4096), Decoder::new(4096), Decoder::new(4096));
    let mut pass = Pass { encoder: Encoder::default(), out: Vec::new() };
    let mut rest = data;
    while let Some((&length, after)) = rest.split_first() {
        let (block, after) = after.split_at(after.len().min(usize::from(length)));
        rest = after;
        let (mut fields, mut passed) = (Fields::default(), Fields::default());
        let read = first.decode(block, LARGEST, &mut fields);
        pass.out.clear();
        pass.encoder.begin(&mut pass.out);
        assert_eq!(between.decode(block, LARGEST, &mut pass), read);
        if read.is_err() {
            return;
        }
        last.decode(&pass.out, usize::MAX, &mut passed).expect("what we write can be read");
        assert_eq!(passed, fields);
    }
}
