// SPDX-License-Identifier: Apache-2.0
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::{Timestamp, flow::tests::denied_request};

const SOON: Duration = Duration::from_secs(10);

fn flow(number: u64) -> Flow {
    Flow { time: Timestamp(number), ..denied_request() }
}

fn ring(capacity: usize, flows: u64) -> FlowRing {
    let ring = FlowRing::new(capacity);
    ring.push_all((0..flows).map(flow));
    ring
}

fn numbers(reader: &mut FlowReader) -> Vec<u64> {
    std::iter::from_fn(|| reader.try_next())
        .map(|read| match read {
            Read::Flow(flow) => flow.time.0,
            Read::Lost(count) => panic!("{count} lost"),
        })
        .collect()
}

#[test]
fn a_reader_begins_with_the_last_flows_that_match() {
    let ring = ring(10, 25);
    assert_eq!(numbers(&mut ring.reader(3, &Filter::new())), [22, 23, 24]);
    assert_eq!(numbers(&mut ring.reader(0, &Filter::new())), [0; 0]);
    assert_eq!(numbers(&mut ring.reader(usize::MAX, &Filter::new())), (15..25).collect::<Vec<_>>());
    let mut other = denied_request();
    other.node = "n2".into();
    ring.push_all([other, flow(26), flow(27)]);
    let mut filter = Filter::new();
    filter.add("node-name", "n1").unwrap();
    // It rewinds over flows that do not match; who reads filters them again.
    assert_eq!(numbers(&mut ring.reader(3, &filter)).len(), 4);
}

#[test]
fn a_slow_reader_is_told_how_much_it_lost() {
    let ring = ring(10, 5);
    let mut reader = ring.reader(usize::MAX, &Filter::new());
    ring.push_all((5..28).map(flow));
    assert_eq!(reader.unread(), 28);
    assert_eq!(reader.try_next(), Some(Read::Lost(18)));
    assert_eq!(numbers(&mut reader), (18..28).collect::<Vec<_>>());
    assert_eq!((ring.seen(), ring.len()), (28, 10));
}

#[tokio::test]
async fn a_full_queue_loses_flows_and_counts_them() {
    let ring = FlowRing::new(100);
    let (producer, queue) = ring.producer(8);
    for number in 0..20 {
        producer.send(flow(number));
    }
    assert_eq!(ring.lost(), 12);
    drop(producer);
    timeout(SOON, queue.drain()).await.unwrap();
    assert_eq!(numbers(&mut ring.reader(usize::MAX, &Filter::new())), (0..8).collect::<Vec<_>>());
}

#[test]
fn many_producers_and_readers_neither_lose_nor_repeat() {
    let ring = FlowRing::new(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let mut reader = ring.reader(0, &Filter::new());
            runtime.spawn(async move {
                let mut seen = Vec::new();
                while seen.len() < 4_000 {
                    match reader.next().await {
                        Read::Flow(flow) => seen.push(flow.time.0),
                        Read::Lost(count) => panic!("{count} lost"),
                    }
                }
                seen.sort_unstable();
                seen
            })
        })
        .collect();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (producer, queue) = ring.producer(1_000);
            runtime.spawn(queue.drain());
            scope.spawn(move || (0..1_000).for_each(|number| producer.send(flow(worker * 1_000 + number))));
        }
    });
    for reader in readers {
        let seen = runtime.block_on(async { timeout(SOON, reader).await.unwrap().unwrap() });
        assert_eq!(seen, (0..4_000).collect::<Vec<_>>());
    }
    assert_eq!(ring.lost(), 0);
}
