// SPDX-License-Identifier: Apache-2.0
//! Octets for one end, in pieces: what it says, and that nothing breaks it. The fuzz targets use it too.

use weft_http::{
    h2::{Config, Connection, ErrorCode, Event, OUTPUT_LIMIT, Received},
    head::Head,
};

/// A client with requests that wait for their answers.
pub(crate) fn client(config: &Config) -> Connection {
    let mut client = Connection::client(config, &mut Vec::new());
    let mut request = Head::new();
    request.start_request(b"POST", b"/", b"a.test").unwrap();
    for token in 0..4 {
        client.open(&request, false, token, &mut Vec::new()).unwrap();
    }
    client
}

/// What is said about the octets that one end sent, with content joined.
pub(crate) fn said(
    mut connection: Connection,
    bytes: &[u8],
    mut pieces: impl FnMut() -> usize,
) -> Vec<String> {
    let (mut head, mut out, mut events) = (Head::new(), Vec::new(), Vec::<String>::new());
    let (mut at, mut there) = (0, 0);
    while there < bytes.len() {
        there = (there + pieces()).min(bytes.len());
        loop {
            let Received { consumed, event } = connection.receive(&bytes[at..there], &mut head, &mut out);
            at += consumed;
            let Some(event) = event else { break };
            let text = match event {
                Event::Data { stream, content, end, .. } => {
                    connection.release(stream, content.len(), &mut out);
                    let name = format!("data {} ", stream.number());
                    let joined = match events.last() {
                        Some(last) if last.starts_with(&name) => events.pop().unwrap(),
                        _ => name,
                    };
                    let content: String = content.iter().map(|octet| format!("{octet:02x}")).collect();
                    format!("{joined}{content}{}", if end { " end" } else { "" })
                }
                Event::Head { .. } | Event::Interim { .. } | Event::Trailers { .. } => {
                    let fields: Vec<_> = head.iter().collect();
                    let start = (head.method_text(), head.target(), head.authority(), head.status());
                    format!("{event:?} {start:?} {fields:?}")
                }
                event => format!("{event:?}"),
            };
            events.push(text);
        }
        out.clear();
    }
    events.push(format!("{at} octets"));
    events
}

/// Feeds octets to an end whose owner answers what it can: nothing that it holds grows, and it comes to an end.
pub(crate) fn endure(mut connection: Connection, bytes: &[u8], piece: usize) {
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
