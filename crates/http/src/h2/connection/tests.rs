// SPDX-License-Identifier: Apache-2.0
//! Rules of RFC 9113, frame by frame: bytes in, what is said and sent.

use super::*;
use crate::hpack::{Indexing, Line};

mod closing;
mod floods;
mod flow;
mod messages;
mod order;

/// One end under test; the other is written by hand.
struct End {
    connection: Connection,
    head: Head,
    out: Vec<u8>,
    /// What the peer's encoder knows.
    encoder: Encoder,
}

fn config() -> Config {
    Config { max_streams: 10, stream_window: 65_535, connection_window: 4 * 65_535, ..Config::default() }
}

impl End {
    /// A server whose handshake is done.
    fn server() -> End {
        End::server_with(&config())
    }

    fn server_with(config: &Config) -> End {
        let mut end = End::new(|out| Connection::server(config, out));
        assert_eq!(end.feed(&[&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b"")].concat()), NOTHING);
        end.out.clear();
        end
    }

    /// A client whose handshake is done.
    fn client() -> End {
        let mut end = End::new(|out| Connection::client(&config(), out));
        assert!(end.out.starts_with(PREFACE));
        assert_eq!(end.feed(&frame(kind::SETTINGS, 0, 0, b"")), NOTHING);
        end.out.clear();
        end
    }

    fn new(connection: impl FnOnce(&mut Vec<u8>) -> Connection) -> End {
        let mut out = Vec::new();
        let connection = connection(&mut out);
        End { connection, head: Head::new(), out, encoder: Encoder::default() }
    }

    /// What is said about these bytes. Content is released at once.
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let (events, consumed) = self.feed_some(bytes);
        assert_eq!(consumed, bytes.len(), "everything was whole");
        events
    }

    fn feed_some(&mut self, mut bytes: &[u8]) -> (Vec<String>, usize) {
        let (mut events, length) = (Vec::new(), bytes.len());
        loop {
            let Received { consumed, event } = self.connection.receive(bytes, &mut self.head, &mut self.out);
            bytes = &bytes[consumed..];
            let Some(event) = event else { return (events, length - bytes.len()) };
            if let Event::Data { stream, content, .. } = event {
                self.connection.release(stream, content.len(), &mut self.out);
            }
            events.push(text(&event));
        }
    }

    /// The frames that were sent since the last time.
    fn sent(&mut self) -> Vec<String> {
        let mut rest = &std::mem::take(&mut self.out)[..];
        let mut frames = Vec::new();
        while let Some((header, after)) = rest.split_first_chunk() {
            let header = Header::parse(header);
            let (payload, after) = after.split_at(header.length);
            frames.push(frame_text(header, payload));
            rest = after;
        }
        assert_eq!(rest, b"");
        frames
    }

    /// A header block with these fields.
    fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            let line = Line::plain(name.as_bytes(), value.as_bytes());
            self.encoder.field(&line, Indexing::Insert, &mut block);
        }
        block
    }

    /// A HEADERS frame with these fields.
    fn head(&mut self, stream: u32, end: bool, fields: &[(&str, &str)]) -> Vec<u8> {
        let block = self.block(fields);
        let end = if end { flag::END_STREAM } else { 0 };
        frame(kind::HEADERS, flag::END_HEADERS | end, stream, &block)
    }

    fn get(&mut self, stream: u32) -> Vec<u8> {
        self.head(stream, true, GET)
    }

    fn post(&mut self, stream: u32) -> Vec<u8> {
        self.head(stream, false, POST)
    }

    /// Sends a request.
    fn ask(&mut self, method: &[u8], end: bool, token: u32) -> StreamId {
        let mut head = Head::new();
        head.start_request(method, b"/", b"a.test").unwrap();
        let id = self.connection.open(&head, end, token, &mut self.out).unwrap();
        self.out.clear();
        id
    }

    /// Answers with a status.
    fn answer(&mut self, number: u32, status: u16, end: bool) {
        let mut head = Head::new();
        head.start_response(status).unwrap();
        let id = self.id(number);
        self.connection.send_head(id, &head, end, &mut self.out).unwrap();
    }

    fn id(&self, number: u32) -> StreamId {
        self.connection.streams.find(number).unwrap()
    }
}

const NOTHING: [&str; 0] = [];
const GET: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];
const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_header(payload.len(), kind, flags, stream, &mut out);
    out.extend_from_slice(payload);
    out
}

fn data(stream: u32, content: &[u8], end: bool) -> Vec<u8> {
    frame(kind::DATA, u8::from(end), stream, content)
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_settings(entries, &mut out);
    out
}

fn text(event: &Event<'_>) -> String {
    let ends = |end: &bool| if *end { " end" } else { "" };
    match event {
        Event::Head { stream, end, .. } => format!("head {}{}", stream.number, ends(end)),
        Event::Interim { stream, .. } => format!("interim {}", stream.number),
        Event::Rejected { stream, failure } => {
            let stream = stream.map_or(0, StreamId::number);
            format!("rejected {stream} {}", failure.error.status.unwrap())
        }
        Event::Data { stream, content, end, .. } => {
            format!("data {} {}{}", stream.number, String::from_utf8_lossy(content), ends(end))
        }
        Event::Trailers { stream, .. } => format!("trailers {}", stream.number),
        Event::Reset { stream, failure, unprocessed, .. } => {
            let again = if *unprocessed { " unprocessed" } else { "" };
            format!("reset {} {}{again}", stream.number, failure.code.0)
        }
        Event::Window { stream, .. } => format!("window {}", stream.number),
        Event::GoAway { code } => format!("goaway {}", code.0),
        Event::Closed { failure } => format!("closed {}", failure.code.0),
    }
}

fn frame_text(header: Header, payload: &[u8]) -> String {
    let stream = header.stream;
    let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    match header.kind {
        kind::DATA => format!("DATA {stream} {} {}", payload.len(), header.flags),
        kind::HEADERS => format!("HEADERS {stream} {}", header.flags),
        kind::RST_STREAM => format!("RST_STREAM {stream} {}", number(0)),
        kind::SETTINGS if header.has(flag::ACK) => "SETTINGS ack".to_owned(),
        kind::SETTINGS => "SETTINGS".to_owned(),
        kind::PING => format!("PING {} {:?}", header.flags, String::from_utf8_lossy(payload)),
        kind::GOAWAY => format!("GOAWAY {} {}", number(0), number(4)),
        kind::WINDOW_UPDATE => format!("WINDOW_UPDATE {stream} {}", number(0)),
        kind => format!("{kind} {stream}"),
    }
}

#[test]
fn a_request_is_answered() {
    let mut end = End::server();
    let bytes = [end.post(1), data(1, b"he", false), data(1, b"llo", true)].concat();
    assert_eq!(end.feed(&bytes), ["head 1", "data 1 he", "data 1 llo end"]);
    assert_eq!(end.connection.open_streams(), 1);
    end.answer(1, 200, false);
    let id = end.id(1);
    assert_eq!(end.connection.send_data(id, b"ok", false, &mut end.out), Ok(2));
    end.connection.send_trailers(id, &Head::new(), &mut end.out).unwrap();
    assert_eq!(end.sent(), ["HEADERS 1 4", "DATA 1 2 0", "DATA 1 0 1"]);
    assert_eq!(end.connection.open_streams(), 0);
}

#[test]
fn a_response_comes_with_the_token_of_its_request() {
    let mut end = End::client();
    end.ask(b"GET", true, 77);
    let bytes = [
        end.head(1, false, &[(":status", "103"), ("link", "</a>")]),
        end.head(1, false, &[(":status", "200"), ("content-length", "2")]),
        data(1, b"ok", false),
        end.head(1, true, &[("grpc-status", "0")]),
    ]
    .concat();
    let Received { event, .. } = end.connection.receive(&bytes, &mut end.head, &mut end.out);
    assert!(matches!(event, Some(Event::Interim { token: 77, .. })));
    let mut end = End::client();
    end.ask(b"GET", true, 77);
    assert_eq!(end.feed(&bytes), ["interim 1", "head 1", "data 1 ok", "trailers 1"]);
    assert_eq!(end.head.known(crate::head::FieldName::GrpcStatus), Some(&b"0"[..]));
    assert_eq!(end.connection.open_streams(), 0);
}

#[test]
fn the_state_of_an_idle_connection_is_small() {
    // What 1.5 KB for an idle connection leave room for, beside its buffers.
    assert!(size_of::<Connection>() <= 1024, "{}", size_of::<Connection>());
    assert!(size_of::<Event<'_>>() <= 72, "{}", size_of::<Event<'_>>());
}
