// SPDX-License-Identifier: Apache-2.0
//! Which frame may come when (RFC 9113, sections 3.4, 4, 5.1 and 6).

use super::*;

/// Frames after the handshake of a server, and how the connection or the stream ends.
fn server_ends(frames: &[Vec<u8>]) -> (Vec<String>, Vec<String>) {
    let mut end = End::server();
    let events = end.feed(&frames.concat());
    (events, end.sent())
}

#[track_caller]
fn closes(frames: &[Vec<u8>], code: u32) {
    let (events, sent) = server_ends(frames);
    assert_eq!(events.last().map(String::as_str), Some(&format!("closed {code}")[..]), "{events:?}");
    assert!(
        sent.last().unwrap().starts_with("GOAWAY") && sent.last().unwrap().ends_with(&format!(" {code}"))
    );
}

#[track_caller]
fn resets(frames: &[Vec<u8>], stream: u32, code: u32) {
    let (events, sent) = server_ends(frames);
    assert_eq!(events.last().unwrap(), &format!("reset {stream} {code}"));
    assert_eq!(sent.last().unwrap(), &format!("RST_STREAM {stream} {code}"));
}

fn get(stream: u32) -> Vec<u8> {
    End::server().get(stream)
}

fn post(stream: u32) -> Vec<u8> {
    End::server().post(stream)
}

#[test]
fn a_connection_begins_with_its_preface_and_settings() {
    let server = |bytes: &[u8]| {
        let mut end = End::new(|out| Connection::server(&config(), out));
        end.feed_some(bytes)
    };
    assert_eq!(server(b"GET / HTTP/1.1\r\n").0, ["closed 1"]);
    assert_eq!(server(b"PRI * HTTP/2.0\r\n").0, NOTHING);
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    assert_eq!(server(&[&PREFACE[..], &ping].concat()).0, ["closed 1"]);
    let ack = frame(kind::SETTINGS, flag::ACK, 0, b"");
    assert_eq!(server(&[&PREFACE[..], &ack].concat()).0, ["closed 1"]);
    let mut client = End::new(|out| Connection::client(&config(), out));
    assert_eq!(client.feed(&ping), ["closed 1"]);
}

#[test]
fn the_first_frames_say_what_is_offered_and_the_peer_s_are_acknowledged() {
    let mut end = End::new(|out| Connection::server(&config(), out));
    assert_eq!(end.sent(), ["SETTINGS", "WINDOW_UPDATE 0 196605"]);
    end.feed(&[&PREFACE[..], &settings(&[(1, 0), (3, 1), (0xfff, 7)])].concat());
    assert_eq!(end.sent(), ["SETTINGS ack"]);
    assert!(end.connection.pending().settings);
    end.feed(&frame(kind::SETTINGS, flag::ACK, 0, b""));
    assert!(!end.connection.pending().settings);
}

#[test]
fn settings_have_values_that_are_allowed() {
    closes(&[settings(&[(2, 2)])], 1);
    closes(&[settings(&[(4, 1 << 31)])], 3);
    closes(&[settings(&[(5, 16_383)])], 1);
    closes(&[settings(&[(5, 1 << 24)])], 1);
    closes(&[settings(&[(8, 2)])], 1);
    closes(&[settings(&[(8, 1)]), settings(&[(8, 0)])], 1);
    let mut client = End::client();
    assert_eq!(client.feed(&settings(&[(2, 1)])), ["closed 1"]);
    let fine = [(1, u32::MAX), (2, 1), (3, 0), (4, (1 << 31) - 1), (5, (1 << 24) - 1), (6, 0), (8, 1)];
    assert_eq!(server_ends(&[settings(&fine)]).0, NOTHING);
}

#[test]
fn a_frame_that_is_too_large_is_refused_by_its_header() {
    let mut end = End::server();
    let header = &frame(kind::DATA, 0, 1, &vec![0; MAX_PAYLOAD + 1])[..9];
    assert_eq!(end.feed(header), ["closed 6"]);
}

#[test]
fn a_header_block_is_not_interrupted() {
    let get = get(1);
    let start = frame(kind::HEADERS, flag::END_STREAM, 1, &get[9..11]);
    let rest = frame(kind::CONTINUATION, flag::END_HEADERS, 1, &get[11..]);
    assert_eq!(server_ends(&[start.clone(), rest.clone()]).0, ["head 1 end"]);
    closes(&[start.clone(), frame(kind::PING, 0, 0, &[0; 8])], 1);
    closes(&[start.clone(), data(1, b"", false)], 1);
    closes(&[start.clone(), frame(kind::CONTINUATION, flag::END_HEADERS, 3, b"")], 1);
    closes(&[start.clone(), frame(0xee, 0, 0, b"")], 1);
    closes(std::slice::from_ref(&rest), 1);
    closes(&[get, rest], 1);
}

#[test]
fn frames_on_streams_that_nobody_opened_end_the_connection() {
    closes(&[data(1, b"", true)], 1);
    closes(&[reset(1, 8)], 1);
    closes(&[window(1, 1)], 1);
    closes(&[window(2, 1)], 1);
    closes(&[get(2)], 1);
    closes(&[data(0, b"", true)], 1);
    // A priority means nothing, and may come at any time.
    assert_eq!(server_ends(&[frame(kind::PRIORITY, 0, 9, &[0; 5])]).0, NOTHING);
    let mut client = End::client();
    let head = client.head(1, true, &[(":status", "200")]);
    assert_eq!(client.feed(&head), ["closed 1"]);
    let mut client = End::client();
    let push = frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0; 4]);
    client.ask(b"GET", true, 0);
    assert_eq!(client.feed(&push), ["closed 1"]);
}

#[test]
fn numbers_of_streams_only_grow() {
    closes(&[get(5), get(3)], 1);
    let (events, _) = server_ends(&[get(5), get(7)]);
    assert_eq!(events, ["head 5 end", "head 7 end"]);
}

#[test]
fn nothing_follows_the_end_of_a_stream() {
    resets(&[get(1), data(1, b"", true)], 1, 5);
    resets(&[get(1), get(1)], 1, 5);
    // After both sides ended it.
    for late in [data(1, b"", true), get(1)] {
        let mut end = End::server();
        end.feed(&get(1));
        end.answer(1, 200, true);
        assert_eq!(end.feed(&late), ["closed 5"]);
    }
    closes(&[post(1), reset(1, 8), data(1, b"", true)], 5);
    closes(&[post(1), reset(1, 8), get(1)], 5);
    // Windows and resets may have been under way.
    let mut end = End::server();
    end.feed(&get(1));
    end.answer(1, 200, true);
    assert_eq!(end.feed(&[window(1, 1), reset(1, 8)].concat()), NOTHING);
}

#[test]
fn what_follows_a_frame_without_content_that_ends_a_stream_is_read() {
    let (events, _) = server_ends(&[get(1), data(1, b"", true), get(3)]);
    assert_eq!(events, ["head 1 end", "reset 1 5", "head 3 end"]);
}

#[test]
fn what_was_under_way_to_a_stream_that_we_reset_is_ignored() {
    let mut end = End::server();
    let post = end.post(1);
    end.feed(&post);
    let id = end.id(1);
    end.connection.reset(id, ErrorCode::CANCEL, &mut end.out);
    assert_eq!(end.sent(), ["RST_STREAM 1 8"]);
    let trailers = end.head(1, true, &[("x-one", "1")]);
    let late = [data(1, b"late", false), trailers, window(1, 5), reset(1, 8)].concat();
    assert_eq!(end.feed(&late), NOTHING);
    // The header table goes on as the peer knows it.
    let next = end.head(3, true, &[GET, &[("x-one", "1")]].concat());
    assert_eq!(end.feed(&next), ["head 3 end"]);
    assert_eq!(end.head.iter().count(), 1);
    assert_eq!(end.connection.send_data(id, b"x", true, &mut end.out), Err(SendError::Gone));
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let mut end = End::server();
    for number in 0..10 {
        let get = end.get(2 * number + 1);
        assert_eq!(end.feed(&get), [format!("head {} end", 2 * number + 1)]);
    }
    let late = end.get(21);
    assert_eq!(end.feed(&late), NOTHING);
    assert_eq!(end.sent(), ["RST_STREAM 21 7"]);
    end.answer(1, 204, true);
    let next = end.get(23);
    assert_eq!(end.feed(&next), ["head 23 end"]);
}

#[test]
fn a_ping_is_answered_with_what_it_carried() {
    let (events, sent) = server_ends(&[frame(kind::PING, 0, 0, b"12345678")]);
    assert_eq!((events.len(), &sent[..]), (0, &["PING 1 \"12345678\"".to_owned()][..]));
}

#[test]
fn a_block_that_cannot_be_read_ends_the_connection() {
    closes(&[frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x80")], 9);
    closes(&[frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x40")], 9);
    closes(&[get(1), frame(kind::HEADERS, flag::END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff")], 9);
}

#[test]
fn what_the_peer_owes_can_be_asked() {
    let mut end = End::new(|out| Connection::server(&config(), out));
    assert!(end.connection.pending().handshake);
    end.feed(&[&PREFACE[..], &settings(&[])].concat());
    assert!(!end.connection.pending().handshake);
    end.feed(&frame(kind::HEADERS, 0, 1, b"\x82"));
    assert!(end.connection.pending().header_block);
    end.out.clear();
    end.connection.ping(&mut end.out);
    end.connection.ping(&mut end.out);
    assert_eq!(end.sent().len(), 1);
    assert!(end.connection.pending().ping);
}
