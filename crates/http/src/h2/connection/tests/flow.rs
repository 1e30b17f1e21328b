// SPDX-License-Identifier: Apache-2.0
//! Windows of both directions (RFC 9113, section 6.9).

use super::*;

/// A server with a request that waits for content.
fn answered() -> (End, StreamId) {
    let mut end = End::server();
    let get = end.get(1);
    end.feed(&get);
    end.answer(1, 200, false);
    end.out.clear();
    let id = end.id(1);
    (end, id)
}

#[test]
fn more_than_a_window_is_never_sent() {
    let (mut end, id) = answered();
    let content = vec![b'x'; 100_000];
    assert_eq!(end.connection.send_data(id, &content, true, &mut end.out), Ok(65_535));
    let frames = ["DATA 1 16384 0", "DATA 1 16384 0", "DATA 1 16384 0", "DATA 1 16383 0"];
    assert_eq!(end.sent(), frames);
    assert_eq!(end.connection.send_data(id, &content, true, &mut end.out), Ok(0));
    assert_eq!(end.feed(&window(1, 10)), NOTHING, "the connection's window is empty too");
    assert_eq!(end.feed(&window(0, 100_000)), ["window 1"]);
    assert_eq!(end.connection.send_data(id, b"0123456789ab", true, &mut end.out), Ok(10));
    assert_eq!(end.feed(&window(1, 100)), ["window 1"]);
    assert_eq!(end.connection.send_data(id, b"ab", true, &mut end.out), Ok(2));
    assert_eq!(end.sent(), ["DATA 1 10 0", "DATA 1 2 1"]);
    assert_eq!(end.connection.open_streams(), 0);
}

#[test]
fn an_end_without_content_needs_no_window() {
    let (mut end, id) = answered();
    end.connection.send_data(id, &[0; 65_535], false, &mut end.out).unwrap();
    end.out.clear();
    assert_eq!(end.connection.send_data(id, b"", true, &mut end.out), Ok(0));
    assert_eq!(end.sent(), ["DATA 1 0 1"]);
}

#[test]
fn streams_take_turns_when_the_connection_s_window_opens() {
    let mut end = End::server();
    for number in [1, 3, 5] {
        let get = end.get(number);
        end.feed(&get);
        end.answer(number, 200, false);
    }
    let (first, second, third) = (end.id(1), end.id(3), end.id(5));
    end.out.clear();
    let content = vec![b'x'; 70_000];
    for id in [first, second, third] {
        end.connection.send_data(id, &content, true, &mut end.out).unwrap();
    }
    end.feed(&window(1, 70_000));
    end.out.clear();
    let mut served = Vec::new();
    for _ in 0..6 {
        // Room for one turn: whoever gets it goes to the end of the line.
        let update = window(0, 1000);
        let Received { event, .. } = end.connection.receive(&update, &mut end.head, &mut end.out);
        let Some(Event::Window { stream, .. }) = event else { panic!("{event:?}") };
        assert_eq!(end.connection.send_data(stream, &content, true, &mut end.out), Ok(1000));
        let number = stream.number();
        served.push(number);
    }
    assert_eq!(served, [3, 5, 1, 3, 5, 1]);
    assert_eq!(end.feed(b""), NOTHING);
}

#[test]
fn content_waits_while_the_output_is_not_written() {
    let (mut end, id) = answered();
    end.feed(&[window(0, 1 << 20), window(1, 1 << 20)].concat());
    let content = vec![b'x'; OUTPUT_FOR_CONTENT + 5];
    assert_eq!(end.connection.send_data(id, &content, true, &mut end.out), Ok(OUTPUT_FOR_CONTENT));
    assert_eq!(end.feed(b""), NOTHING);
    assert_eq!(end.connection.pending().blocked_streams, 1);
    end.out.clear();
    assert_eq!(end.feed(b""), ["window 1"]);
    assert_eq!(end.connection.pending().blocked_streams, 0);
}

#[test]
fn nothing_is_read_while_the_peer_reads_nothing() {
    let mut end = End::server();
    end.out.resize(OUTPUT_LIMIT, 0);
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    assert_eq!(end.feed_some(&ping), (vec![], 0));
    end.out.clear();
    assert_eq!(end.feed_some(&ping), (vec![], ping.len()));
}

#[test]
fn a_changed_initial_window_changes_every_stream() {
    let (mut end, id) = answered();
    end.connection.send_data(id, &[0; 60_000], false, &mut end.out).unwrap();
    end.feed(&settings(&[(4, 100)]));
    end.out.clear();
    // Now it is negative: 65,535 - 60,000 - 65,435.
    assert_eq!(end.connection.send_data(id, b"x", true, &mut end.out), Ok(0));
    assert_eq!(end.feed(&window(1, 59_900)), NOTHING);
    assert_eq!(end.feed(&settings(&[(4, 101)])), ["window 1"]);
    end.out.clear();
    assert_eq!(end.connection.send_data(id, b"xx", true, &mut end.out), Ok(1));
    assert_eq!(end.sent(), ["DATA 1 1 0"]);
}

#[test]
fn windows_do_not_grow_by_nothing_or_above_their_limit() {
    let (mut end, _) = answered();
    assert_eq!(end.feed(&window(1, 0)), ["reset 1 1"]);
    let (mut end, _) = answered();
    assert_eq!(end.feed(&window(0, 0)), ["closed 1"]);
    let (mut end, _) = answered();
    assert_eq!(end.feed(&window(1, (1 << 31) - 1)), ["reset 1 3"]);
    let (mut end, _) = answered();
    assert_eq!(end.feed(&window(0, (1 << 31) - 1)), ["closed 3"]);
    let (mut end, _) = answered();
    let grown = [window(1, (1 << 31) - 1 - 65_535), settings(&[(4, 65_536)])];
    assert_eq!(end.feed(&grown.concat()), ["closed 3"]);
}

/// A server with a request whose content is not released.
fn holding() -> (End, StreamId) {
    let mut end = End::server();
    let post = end.post(1);
    end.feed(&post);
    let id = end.id(1);
    (end, id)
}

/// Feeds content without releasing it.
fn hold(end: &mut End, mut bytes: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let Received { consumed, event } = end.connection.receive(bytes, &mut end.head, &mut end.out);
        bytes = &bytes[consumed..];
        match event {
            Some(Event::Data { content, .. }) => events.push(format!("data {}", content.len())),
            Some(event) => events.push(text(&event)),
            None => return events,
        }
    }
}

#[test]
fn windows_are_given_back_when_content_is_released() {
    let (mut end, id) = holding();
    let content = data(1, &[b'x'; 16_384], false);
    assert_eq!(hold(&mut end, &content.repeat(3)).len(), 3);
    assert_eq!(end.sent(), NOTHING);
    end.connection.release(id, 32_766, &mut end.out);
    assert_eq!(end.sent(), NOTHING, "less than half");
    end.connection.release(id, 16_386, &mut end.out);
    assert_eq!(end.sent(), ["WINDOW_UPDATE 1 49152"]);
    // Half of the connection's window, with more streams than one.
    assert_eq!(hold(&mut end, &content.repeat(3)).len(), 3);
    end.connection.release(id, usize::MAX, &mut end.out);
    assert_eq!(end.sent(), ["WINDOW_UPDATE 1 49152"]);
    assert_eq!(hold(&mut end, &content.repeat(2)).len(), 2);
    end.connection.release(id, usize::MAX, &mut end.out);
    assert_eq!(end.sent(), ["WINDOW_UPDATE 1 32768", "WINDOW_UPDATE 0 131072"]);
}

#[test]
fn a_peer_that_sends_more_than_its_window_is_stopped() {
    let (mut end, _) = holding();
    let content = data(1, &[b'x'; 16_383], false);
    let content = [content.repeat(4), data(1, b"1234", false)].concat();
    assert_eq!(hold(&mut end, &content).last().unwrap(), "reset 1 3");
    // Four streams fill the connection's window; a fifth has no part in it.
    let mut end = End::server();
    let mut bytes = Vec::new();
    for number in [1, 3, 5, 7, 9] {
        bytes.extend(end.post(number));
    }
    for number in [1, 3, 5, 7] {
        bytes.extend(data(number, &[b'x'; 13_107], false).repeat(5));
    }
    assert_eq!(hold(&mut end, &bytes).len(), 5 + 20);
    assert_eq!(hold(&mut end, &data(9, b"x", false)), ["closed 3"]);
}

#[test]
fn what_of_a_stream_is_held_counts_until_it_is_reset_or_released() {
    let (mut end, id) = holding();
    let content = data(1, &[b'x'; 16_000], false);
    hold(&mut end, &content.repeat(4));
    end.connection.reset(id, ErrorCode::CANCEL, &mut end.out);
    assert_eq!(end.connection.receive_window + end.connection.credit, 4 * 65_535);
    // A response that has ended and that its reader still holds.
    let mut end = End::client();
    let id = end.ask(b"GET", true, 0);
    let bytes = [end.head(1, false, &[(":status", "200")]), data(1, &[b'x'; 16_000], true)].concat();
    assert_eq!(hold(&mut end, &bytes), ["head 1", "data 16000"]);
    assert_eq!((end.connection.open_streams(), end.connection.capacity()), (1, 100));
    assert_eq!(end.connection.receive_window + end.connection.credit, 4 * 65_535 - 16_000);
    end.connection.release(id, 16_000, &mut end.out);
    assert_eq!((end.connection.open_streams(), end.connection.credit), (0, 16_000));
}

#[test]
fn padding_counts_and_is_given_back_at_once() {
    let (mut end, _) = holding();
    let padded = [&[200][..], b"abc", &[0; 200]].concat();
    let frames = frame(kind::DATA, flag::PADDED, 1, &padded);
    assert_eq!(hold(&mut end, &frames), ["data 3"]);
    assert_eq!(end.connection.credit, 201);
    assert_eq!(end.connection.receive_window, 4 * 65_535 - 204);
    let bad = frame(kind::DATA, flag::PADDED, 1, &[5, 0, 0, 0, 0]);
    assert_eq!(hold(&mut end, &bad), ["closed 1"]);
    let (mut end, _) = holding();
    assert_eq!(hold(&mut end, &frame(kind::DATA, flag::PADDED, 1, b"")), ["closed 1"]);
}

#[test]
fn content_is_handed_on_before_its_frame_is_whole() {
    let (mut end, _) = holding();
    let padded = [&[2][..], b"hello", &[0; 2]].concat();
    let frame = frame(kind::DATA, flag::PADDED | flag::END_STREAM, 1, &padded);
    let mut events = Vec::new();
    let mut at = 0;
    for there in 1..=frame.len() {
        let (more, consumed) = end.feed_some(&frame[at..there]);
        at += consumed;
        events.extend(more);
    }
    assert_eq!(events, ["data 1 h", "data 1 e", "data 1 l", "data 1 l", "data 1 o", "data 1  end"]);
    // A stream that goes while its frame is under way.
    let (mut end, id) = holding();
    let frame = data(1, b"hello", true);
    assert_eq!(hold(&mut end, &frame[..11]), ["data 2"]);
    end.connection.reset(id, ErrorCode::CANCEL, &mut end.out);
    assert_eq!(hold(&mut end, &frame[11..]), NOTHING);
    assert_eq!(end.connection.receive_window + end.connection.credit, 4 * 65_535);
    let get = end.get(3);
    assert_eq!(end.feed(&get), ["head 3 end"]);
}
