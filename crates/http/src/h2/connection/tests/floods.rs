// SPDX-License-Identifier: Apache-2.0
//! Attacks: how many frames are handled, and how much memory grows, until the connection ends.

use super::*;
use crate::h2::{CONTROL, RESETS};

/// What an attack came to.
struct Ended {
    /// Repetitions of the attack that were handled.
    handled: u32,
    /// The code with which the connection ended.
    code: u32,
    /// The most octets that waited to be written.
    output: usize,
    /// The most streams at once.
    streams: usize,
}

/// Repeats frames in one read until the connection ends. The peer reads everything that it is sent, so that
/// nothing but the budgets stops it.
fn attack(end: &mut End, mut frames: impl FnMut(&mut End, u32) -> Vec<u8>) -> Ended {
    let (mut output, mut streams) = (0, 0);
    for round in 0..100_000 {
        let bytes = frames(end, round);
        // No call of `receive` comes to the end of what was read: it is one turn.
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Received { consumed, event } = end.connection.receive(rest, &mut end.head, &mut end.out);
            end.connection.turn_over = false;
            rest = &rest[consumed..];
            output = output.max(end.out.len());
            streams = streams.max(end.connection.open_streams());
            match event {
                Some(Event::Closed { failure }) => {
                    assert!(end.sent().last().unwrap().starts_with("GOAWAY"));
                    return Ended { handled: round, code: failure.code.0, output, streams };
                }
                Some(Event::Data { stream, content, .. }) => {
                    end.connection.release(stream, content.len(), &mut end.out);
                }
                _ => {}
            }
        }
        end.out.clear();
    }
    panic!("the attack goes on");
}

/// Frames, and how often they are handled at most.
type Flood = (fn() -> Vec<u8>, u32);

const CALM: u32 = ErrorCode::ENHANCE_YOUR_CALM.0;

#[track_caller]
fn calmed(ended: &Ended, at_most: u32) {
    assert_eq!(ended.code, CALM);
    assert!(ended.handled <= at_most, "{} rounds", ended.handled);
    assert!(ended.output < 400, "{} octets waited to be written", ended.output);
    assert!(ended.streams <= 10, "{} streams", ended.streams);
}

#[test]
fn rapid_reset() {
    let ended = attack(&mut End::server(), |end, round| {
        let number = 2 * round + 1;
        [end.get(number), reset(number, 8)].concat()
    });
    calmed(&ended, RESETS);
}

#[test]
fn made_you_reset() {
    let attacks: [fn(u32) -> Vec<u8>; 4] = [
        |number| window(number, 0),
        |number| window(number, (1 << 31) - 1),
        |number| data(number, b"behind the end", true),
        |number| frame(kind::HEADERS, flag::END_HEADERS, number, b""),
    ];
    for provoke in attacks {
        let ended = attack(&mut End::server(), |end, round| {
            let number = 2 * round + 1;
            [end.get(number), provoke(number)].concat()
        });
        calmed(&ended, RESETS);
    }
}

#[test]
fn malformed_oversized_and_refused_requests() {
    let ended = attack(&mut End::server(), |end, round| end.head(2 * round + 1, true, &[("x-one", "1")]));
    calmed(&ended, RESETS);
    let mut end = End::server_with(&Config { max_header_list: 100, ..config() });
    let ended = attack(&mut end, |end, round| {
        let (number, long) = (2 * round + 1, "v".repeat(100));
        let bytes = end.head(number, true, &[GET, &[("x-long", &long)]].concat());
        if let Some(id) = end.connection.streams.find(number.wrapping_sub(2)) {
            end.connection.reset(id, ErrorCode::NO_ERROR, &mut end.out);
        }
        bytes
    });
    calmed(&ended, RESETS);
    let ended = attack(&mut End::server(), |end, round| end.get(2 * round + 1));
    calmed(&ended, RESETS + 10);
}

/// A field of 2,000 octets in the table, and heads that refer to it so often that they are too large, each of
/// which is answered: to answer what was refused is no use that pays for the next one.
#[test]
fn small_blocks_that_stand_for_much_again_and_again() {
    for end_stream in [true, false] {
        let mut end = End::server();
        let mut block = end.block(&[GET, &[("x", &"v".repeat(2000))]].concat());
        block.resize(block.len() + 40, 0xbe);
        let first = frame(kind::HEADERS, flag::END_HEADERS | 1, 1, &block);
        assert_eq!(end.feed(&first), ["rejected 1 431"]);
        end.out.clear();
        let mut block = end.block(GET);
        block.resize(block.len() + 40, 0xbe);
        let ended = attack(&mut end, |end, round| {
            let number = 2 * round + 1;
            if end.connection.streams.find(number).is_some() {
                end.answer(number, 431, true);
            }
            let flags = flag::END_HEADERS | u8::from(end_stream);
            frame(kind::HEADERS, flags, number + 2, &block)
        });
        calmed(&ended, RESETS);
    }
}

#[test]
fn frames_that_carry_nothing() {
    let attacks: [Flood; 8] = [
        (|| frame(kind::PING, 0, 0, &[0; 8]), CONTROL),
        (|| frame(kind::PING, flag::ACK, 0, &[0; 8]), CONTROL),
        (|| frame(kind::SETTINGS, 0, 0, b""), CONTROL),
        (|| settings(&[(4, 1); 2730]), CONTROL / 342),
        (|| frame(kind::SETTINGS, flag::ACK, 0, b""), CONTROL + 1),
        (|| frame(kind::PRIORITY, 0, 1, &[0; 5]), CONTROL),
        (|| window(0, 1), CONTROL),
        (|| frame(0xee, 0, 0, &[0; 100]), CONTROL),
    ];
    for (frames, at_most) in attacks {
        calmed(&attack(&mut End::server(), |_, _| frames()), at_most);
    }
    let goaway = frame(kind::GOAWAY, 0, 0, &[0; 8]);
    calmed(&attack(&mut End::client(), |_, _| goaway.clone()), CONTROL);
}

#[test]
fn frames_for_a_stream_that_carry_nothing() {
    let attacks: [Flood; 5] = [
        (|| data(1, b"", false), CONTROL / 10),
        (|| frame(kind::DATA, flag::PADDED, 1, &[[9_u8].as_slice(), &[0; 9]].concat()), CONTROL / 10),
        (|| window(1, 1), CONTROL),
        (|| reset(3, 8), CONTROL),
        (|| window(3, 1), CONTROL),
    ];
    for (frames, at_most) in attacks {
        let mut end = End::server();
        let open = [end.post(1), end.get(3)].concat();
        end.feed(&open);
        end.answer(3, 200, true);
        calmed(&attack(&mut end, |_, _| frames()), at_most);
    }
}

#[test]
fn what_comes_for_streams_that_we_reset() {
    for late in [data(1, b"late", false), frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x82")] {
        let mut end = End::server();
        let post = end.post(1);
        end.feed(&post);
        let id = end.id(1);
        end.connection.reset(id, ErrorCode::CANCEL, &mut end.out);
        calmed(&attack(&mut end, |_, _| late.clone()), CONTROL);
    }
}

#[test]
fn requests_behind_the_last_that_is_taken() {
    let mut end = End::server();
    end.connection.stop_taking(&mut end.out);
    let ended = attack(&mut end, |end, round| end.get(2 * round + 1));
    calmed(&ended, CONTROL);
}

#[test]
fn interim_responses_without_end() {
    let mut end = End::client();
    end.ask(b"GET", true, 0);
    let ended = attack(&mut end, |end, _| end.head(1, false, &[(":status", "103")]));
    calmed(&ended, CONTROL / 10);
}

#[test]
fn a_header_block_without_end() {
    // Empty, small, and full pieces; each ends long before the limit of the list could.
    for (piece, frames) in [(&b""[..], 17), (b"\0\x01a\x01b", 17), (&[0x82; MAX_PAYLOAD], 8)] {
        let mut end = End::server();
        let ended = attack(&mut end, |_, round| match round {
            0 => frame(kind::HEADERS, 0, 1, b"\x82"),
            _ => frame(kind::CONTINUATION, 0, 1, piece),
        });
        assert_eq!((ended.code, ended.streams), (CALM, 0));
        assert!(ended.handled <= frames, "{} frames", ended.handled);
        assert!(end.connection.block.octets.capacity() <= 4 * (64 << 10), "octets of the block");
    }
}

#[test]
fn a_small_block_that_stands_for_much() {
    // A field of 4,000 octets in the table, then 16,000 references to it: 64 MB in one frame.
    let mut end = End::server();
    let mut block = end.block(&[GET, &[("x", &"v".repeat(2000))]].concat());
    block.resize(MAX_PAYLOAD, 0xbe);
    assert_eq!(end.feed(&frame(kind::HEADERS, flag::END_HEADERS | 1, 1, &block)), ["rejected 1 431"]);
    assert!(end.head.size_bytes() <= 64 << 10);
    // The same in cookie crumbs, whose names and 32 octets each count: CVE-2026-47774.
    let mut end = End::server();
    let mut block = end.block(&[GET, &[("cookie", "")]].concat());
    block.resize(MAX_PAYLOAD, 0x80 | 32);
    assert_eq!(end.feed(&frame(kind::HEADERS, flag::END_HEADERS | 1, 1, &block)), ["rejected 1 431"]);
    assert!(end.head.iter().count() <= (64 << 10) / 38);
}

#[test]
fn windows_that_let_out_an_octet_at_a_time() {
    let mut end = End::server();
    let bytes = [settings(&[(4, 0)]), end.get(1)].concat();
    end.feed(&bytes);
    end.answer(1, 200, false);
    let id = end.id(1);
    end.connection.send_data(id, b"xx", false, &mut end.out).unwrap();
    let ended = attack(&mut end, |end, _| {
        end.connection.send_data(id, b"xx", false, &mut end.out).unwrap();
        window(1, 1)
    });
    calmed(&ended, CONTROL);
}

#[test]
fn a_client_that_reads_nothing() {
    // Everything that it asks for is answered at once, and never written.
    let mut end = End::server();
    let mut longest = 0;
    for round in 0..100_000 {
        let number = 2 * round + 1;
        let bytes = [end.get(number), frame(kind::PING, 0, 0, &[0; 8])].concat();
        let (events, consumed) = end.feed_some(&bytes);
        longest = longest.max(end.out.len());
        if consumed < bytes.len() {
            assert!(longest <= OUTPUT_LIMIT + 100, "{longest} octets");
            return;
        }
        assert_eq!(events, [format!("head {number} end")]);
        end.answer(number, 200, true);
    }
    panic!("it was answered without end");
}

#[test]
fn streams_that_wait_and_are_reset_leave_nothing_behind() {
    let mut end = End::server();
    end.feed(&settings(&[(4, 1 << 20)]));
    for round in 0..400 {
        let number = 2 * round + 1;
        let get = end.get(number);
        assert_eq!(end.feed(&get), [format!("head {number} end")]);
        end.answer(number, 200, false);
        let id = end.id(number);
        end.connection.send_data(id, &[0; 70_000], true, &mut end.out).unwrap();
        end.out.clear();
        end.feed(&reset(number, 8));
    }
    assert_eq!((end.connection.line.len(), end.connection.open_streams()), (0, 0));
    assert!(end.connection.streams.iter().count() == 0);
}

#[test]
fn what_is_of_use_is_never_stopped() {
    let mut end = End::server();
    for round in 0..20_000 {
        let number = 2 * round + 1;
        let mut bytes = end.post(number);
        bytes.extend(data(number, b"some content", false));
        // Every second is given up, and each comes with ten window updates, two pings and a priority.
        bytes.extend([window(0, 1), window(number, 1)].concat().repeat(5));
        bytes.extend(frame(kind::PING, 0, 0, &[0; 8]).repeat(2));
        bytes.extend(frame(kind::PRIORITY, 0, number, &[0; 5]));
        bytes.extend(if round % 2 == 0 { data(number, b"", true) } else { reset(number, 8) });
        let events = end.feed(&bytes);
        assert_eq!(events.len(), 3, "{events:?}");
        if round % 2 == 0 {
            end.answer(number, 200, true);
        }
        end.out.clear();
    }
    // A connection on which nothing happens but a ping now and then.
    for _ in 0..5000 {
        assert_eq!(end.feed(&frame(kind::PING, 0, 0, &[0; 8])), NOTHING);
        end.out.clear();
    }
}
