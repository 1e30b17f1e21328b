// SPDX-License-Identifier: Apache-2.0
//! Messages that are valid, and changes that make others of them.

use proptest::{collection::vec, prelude::*, sample::select};

pub(crate) const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /p?q=1 HTTP/1.1\r\nHost: a.test:80\r\nAccept: */*\r\nX-One: 1\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "PUT /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n3;x=y\r\nfgh\r\n0\r\nX-T: 1\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\nTE: trailers\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b.test/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b.test?y HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "\r\nDELETE /x HTTP/1.1\r\nhost:\t[::1]:8080 \r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
];

pub(crate) const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n",
    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nEtag: \"x\"\r\n\r\n",
    "HTTP/1.1 200\r\nConnection: close\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nuntil the end",
];

/// What a change writes: what is likely to matter.
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    "\0",
    ";",
    ",",
    "0",
    "1",
    "f",
    "\r\n\r\n",
    "X: 1\r\n",
    "Host: b\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "chunked",
    "close",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "HTTP/1.1",
    "HTTP/1.0",
    "GET / ",
    "\u{ff}",
    "\x7f",
    "#",
    "%00",
    "0\r\n\r\n",
    "-",
    "+",
];

#[derive(Clone, Debug)]
enum Change {
    Insert(usize, &'static str),
    Remove(usize, usize),
    Set(usize, u8),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), select(PIECES)).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<usize>(), 1..12usize).prop_map(|(at, len)| Change::Remove(at, len)),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<usize>(), 1..40usize).prop_map(|(at, len)| Change::Repeat(at, len)),
    ]
}

fn apply(mut bytes: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        let len = bytes.len().max(1);
        match change {
            Change::Insert(at, piece) => {
                let at = at % len;
                bytes.splice(at..at, piece.bytes());
            }
            Change::Remove(at, count) => {
                let at = at % len;
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Change::Set(at, byte) => {
                if let Some(place) = bytes.get_mut(at % len) {
                    *place = byte;
                }
            }
            Change::Repeat(at, count) => {
                let at = at % len;
                let piece = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// Several messages behind each other, with at most this many changes.
pub(crate) fn stream(messages: &'static [&'static str], changes: usize) -> impl Strategy<Value = Vec<u8>> {
    (vec(select(messages), 1..4), vec(change(), 0..=changes))
        .prop_map(|(messages, changes)| apply(messages.concat().into_bytes(), changes))
}

/// Lengths of pieces, used again and again.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), vec(1..60usize, 1..8)]
}
