// SPDX-License-Identifier: Apache-2.0
//! What the targets share with the tests of the crate: drivers of the machines, and other parsers beside them.
#![allow(dead_code, reason = "the tests use more of the drivers than the targets")]

#[path = "../../tests/h1/drive.rs"]
mod drive;
#[path = "../../tests/h1/proxy.rs"]
mod proxy;
#[path = "../../tests/h1/same.rs"]
mod same;
#[path = "../../tests/h1/support.rs"]
mod support;

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
