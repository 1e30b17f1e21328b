// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;
use weft_ir::{Direction, IdentityNumber, stream::Position};

use super::*;

fn ended(number: u64) -> Ended {
    Ended {
        began: number,
        ended: number + 1,
        received: 3,
        sent: 4,
        position: Position { epoch: 5, revision: 6 },
        client: ([10, 0, 0, 1], 1).into(),
        destination: ([10, 0, 0, 2], 2).into(),
        endpoint: None,
        client_identity: IdentityNumber(300),
        endpoint_identity: IdentityNumber(301),
        direction: Direction::Egress,
        reason: None,
    }
}

fn asked<'a>(method: &'a str, authority: &'a str, target: &'a str) -> Asked<'a> {
    Asked {
        latency: 7,
        status: 200,
        version: Spoken::Http11,
        method: method.as_bytes(),
        authority: authority.as_bytes(),
        target: target.as_bytes(),
    }
}

fn small() -> (Recorder, Records) {
    ring(64, Arc::default())
}

/// The ring is sized in slots: 4096 of them are to be a mebibyte.
#[test]
fn a_slot_has_256_bytes() {
    assert_eq!(size_of::<slot::Slot>(), 256);
}

#[test]
fn a_record_is_read_as_it_was_left() {
    let (mut recorder, mut records) = small();
    let (policy, route) = (Arc::from("shop/allow"), Arc::from("shop/web/0"));
    let shared = Shared { policy: Some(&policy), route: Some(&route), upstream: None };
    recorder.request(ended(1), shared, asked("GET", "web.shop", "/pay?x=1"));
    recorder.connection(ended(2), Some(&policy));
    let request = records.next().expect("the request");
    assert_eq!((request.method(), request.authority(), request.target()), ("GET", "web.shop", "/pay?x=1"));
    assert_eq!(request.ended, ended(1));
    let line = request.request.expect("a request");
    assert_eq!((line.latency, line.status, line.version), (7, 200, Spoken::Http11));
    assert_eq!(
        (request.policy.as_deref(), request.route.as_deref()),
        (Some("shop/allow"), Some("shop/web/0"))
    );
    assert_eq!(request.upstream, None);
    let connection = records.next().expect("the connection");
    assert_eq!((connection.ended, connection.request), (ended(2), None));
    assert_eq!(connection.policy.as_deref(), Some("shop/allow"));
    assert_eq!((connection.method(), connection.target()), ("", ""));
    assert!(records.next().is_none() && records.lost() == 0);
}

#[test]
fn a_name_is_written_once_and_again_when_its_number_was_taken() {
    let (mut recorder, mut records) = ring(8192, Arc::default());
    let names: Vec<Arc<str>> = (0..600).map(|number| Arc::from(format!("shop/policy-{number}"))).collect();
    // More names than numbers, each twice, so that numbers change their meaning on the way.
    for name in names.iter().chain(&names) {
        recorder.connection(ended(0), Some(name));
        recorder.connection(ended(0), Some(name));
    }
    let read: Vec<_> = records.by_ref().map(|record| record.policy.expect("a policy")).collect();
    let left: Vec<_> = names.iter().chain(&names).flat_map(|name| [name.clone(), name.clone()]).collect();
    assert_eq!(read, left);
}

#[test]
fn what_finds_no_room_is_counted_and_what_comes_later_is_whole() {
    let (mut recorder, mut records) = small();
    let route: Arc<str> = Arc::from("shop/web/0");
    let shared = Shared { route: Some(&route), ..Shared::default() };
    let target = "/x".repeat(300);
    for number in 0..100 {
        recorder.request(ended(number), shared, asked("GET", "web.shop", &target));
    }
    let read = records.by_ref().count() as u64;
    assert!(read > 10 && read < 64, "{read} fit");
    assert_eq!(records.lost() + read, 100);
    assert_eq!(records.lost(), 0, "it is counted once");
    recorder.request(ended(100), shared, asked("GET", "web.shop", &target));
    let last = records.next().expect("there is room again");
    assert_eq!((last.route.as_deref(), last.target()), (Some("shop/web/0"), target.as_str()));
}

#[test]
fn a_name_without_room_is_told_when_there_is_some() {
    let (mut recorder, mut records) = small();
    while records.lost() == 0 {
        recorder.connection(ended(0), None);
    }
    let policy: Arc<str> = Arc::from("shop/allow");
    recorder.connection(ended(1), Some(&policy));
    assert_eq!(records.lost(), 1);
    assert!(records.by_ref().all(|record| record.policy.is_none()));
    recorder.connection(ended(2), Some(&policy));
    assert_eq!(records.next().expect("a record").policy.as_deref(), Some("shop/allow"));
}

#[tokio::test]
async fn the_reader_is_asked_once_when_half_of_the_room_is_taken() {
    let full = Arc::new(Notify::new());
    let (mut recorder, mut records) = ring(64, Arc::clone(&full));
    let mut asked = std::pin::pin!(full.notified());
    for number in 0..64 {
        let is_asked = asked.as_mut().enable();
        assert_eq!(is_asked, number > 32, "after {number} records");
        recorder.connection(ended(number), None);
    }
    asked.await;
    assert!(!std::pin::pin!(full.notified()).enable(), "once is enough");
    assert_eq!(records.by_ref().count(), 64);
}

#[test]
fn a_reader_on_another_thread_sees_every_record_that_was_not_lost() {
    let (mut recorder, mut records) = small();
    let route: Arc<str> = Arc::from("shop/web/0");
    let done = std::sync::atomic::AtomicBool::new(false);
    let (mut seen, mut lost) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..50_000_u64 {
                let target = "/y".repeat((number % 500) as usize);
                let shared = Shared { route: Some(&route), ..Shared::default() };
                recorder.request(ended(number), shared, asked("GET", "h", &target));
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut last = None;
        loop {
            let ended = done.load(std::sync::atomic::Ordering::Acquire);
            for record in records.by_ref() {
                let number = record.ended.began;
                assert!(last.is_none_or(|last| last < number), "in order");
                assert_eq!(record.target().len() as u64, number % 500 * 2, "whole");
                assert_eq!(record.route.as_deref(), Some("shop/web/0"));
                last = Some(number);
                seen += 1;
            }
            lost += records.lost();
            if ended {
                break;
            }
        }
    });
    assert_eq!(seen + lost, 50_000);
}

proptest! {
    #[test]
    fn any_text_is_cut_off_at_most(
        parts in proptest::collection::vec(("\\PC{0,90}", "[a-z.]{0,400}", "\\PC{0,900}"), 1..5),
    ) {
        let (mut recorder, records) = ring(1024, Arc::default());
        for (method, authority, target) in &parts {
            recorder.request(ended(0), Shared::default(), asked(method, authority, target));
        }
        let read: Vec<Named> = records.collect();
        prop_assert_eq!(read.len(), parts.len());
        for (read, (_, authority, target)) in read.iter().zip(&parts) {
            let (said, kept) = (target.as_bytes(), read.target());
            prop_assert!(authority.starts_with(read.authority()));
            prop_assert!(kept.len() <= slot::MAX_TEXT + 3);
            // Whole characters, but for the one where it was cut.
            let common = kept.trim_end_matches('\u{fffd}');
            prop_assert!(said.starts_with(common.as_bytes()));
        }
    }
}
