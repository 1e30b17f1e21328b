// SPDX-License-Identifier: Apache-2.0
//! How a connection ends in order (RFC 9113, section 6.8).

use super::*;

#[test]
fn a_server_ends_in_two_steps_and_loses_no_request() {
    let mut end = End::server();
    let (first, second, third) = (end.get(1), end.get(3), end.get(5));
    end.feed(&first);
    end.connection.shutdown(&mut end.out);
    end.connection.shutdown(&mut end.out);
    assert_eq!(end.sent(), ["GOAWAY 2147483647 0", "PING 0 \"lastcall\""]);
    // Under way when the client had not heard of it.
    assert_eq!(end.feed(&second), ["head 3 end"]);
    assert_eq!(end.feed(&frame(kind::PING, flag::ACK, 0, b"lastcall")), NOTHING);
    assert_eq!(end.sent(), ["GOAWAY 3 0"]);
    assert_eq!(end.feed(&third), NOTHING);
    assert_eq!(end.feed(&data(5, b"late", false)), NOTHING);
    assert!(!end.connection.is_drained());
    end.answer(1, 200, true);
    end.answer(3, 200, true);
    assert!(end.connection.is_drained() && !end.connection.is_closed());
}

#[test]
fn a_client_hears_which_of_its_requests_were_never_looked_at() {
    let mut end = End::client();
    for token in [11, 12, 13] {
        end.ask(b"GET", true, token);
    }
    let goaway = frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(end.feed(&goaway), ["goaway 0", "reset 3 7 unprocessed", "reset 5 7 unprocessed"]);
    assert_eq!(end.connection.capacity(), 0);
    let mut head = Head::new();
    head.start_request(b"GET", b"/", b"a.test").unwrap();
    assert_eq!(end.connection.open(&head, true, 0, &mut end.out), Err(OpenError::Closing));
    let response = end.head(1, true, &[(":status", "200")]);
    assert_eq!(end.feed(&response), ["head 1 end"]);
    assert!(end.connection.is_drained());
}

#[test]
fn refused_streams_can_be_sent_again_and_others_cannot() {
    let mut end = End::client();
    end.ask(b"GET", true, 0);
    end.ask(b"GET", true, 0);
    assert_eq!(end.feed(&[reset(1, 7), reset(3, 8)].concat()), ["reset 1 7 unprocessed", "reset 3 8"]);
}

#[test]
fn a_client_that_ends_opens_nothing_and_waits_for_what_is_open() {
    let mut end = End::client();
    end.ask(b"GET", true, 0);
    end.connection.shutdown(&mut end.out);
    assert_eq!(end.sent(), ["GOAWAY 0 0"]);
    assert_eq!((end.connection.capacity(), end.connection.is_drained()), (0, false));
    let response = end.head(1, true, &[(":status", "200")]);
    end.feed(&response);
    assert!(end.connection.is_drained());
}

#[test]
fn no_more_streams_are_opened_than_the_server_takes() {
    let mut end = End::client();
    end.feed(&settings(&[(3, 2)]));
    assert_eq!(end.connection.capacity(), 2);
    end.ask(b"GET", true, 0);
    end.ask(b"GET", true, 0);
    let mut head = Head::new();
    head.start_request(b"GET", b"/", b"a.test").unwrap();
    assert_eq!(end.connection.open(&head, true, 0, &mut end.out), Err(OpenError::Full));
    end.feed(&reset(1, 8));
    assert_eq!(end.ask(b"GET", true, 0).number(), 5);
}

#[test]
fn a_connection_that_broke_says_and_takes_nothing_more() {
    let mut end = End::server();
    let get = end.get(1);
    end.feed(&get);
    let id = end.id(1);
    assert_eq!(end.feed(&data(0, b"", false)), ["closed 1"]);
    assert_eq!(end.sent(), ["GOAWAY 1 1"]);
    assert_eq!(end.feed(b"anything"), NOTHING);
    let mut head = Head::new();
    head.start_response(200).unwrap();
    assert_eq!(end.connection.send_head(id, &head, true, &mut end.out), Err(SendError::Gone));
    assert_eq!(end.connection.streams().count(), 1, "its owner can still ask what was on it");
    let mut end = End::server();
    end.connection.close(ErrorCode::NO_ERROR, &mut end.out);
    end.connection.close(ErrorCode::NO_ERROR, &mut end.out);
    assert_eq!(end.sent(), ["GOAWAY 0 0"]);
}

#[test]
fn a_stream_takes_what_is_its_turn() {
    let mut end = End::server();
    let get = end.get(1);
    end.feed(&get);
    let id = end.id(1);
    let out = &mut Vec::new();
    assert_eq!(end.connection.send_data(id, b"x", true, out), Err(SendError::OutOfOrder));
    assert_eq!(end.connection.send_trailers(id, &Head::new(), out), Err(SendError::OutOfOrder));
    assert_eq!(end.connection.send_head(id, &Head::new(), true, out), Err(SendError::OutOfOrder));
    end.answer(1, 103, true);
    end.answer(1, 200, false);
    let mut head = Head::new();
    head.start_response(200).unwrap();
    assert_eq!(end.connection.send_head(id, &head, true, out), Err(SendError::OutOfOrder));
    assert_eq!(out, b"");
    assert_eq!(end.sent(), ["HEADERS 1 4", "HEADERS 1 4"]);
}
