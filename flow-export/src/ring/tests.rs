// SPDX-License-Identifier: Apache-2.0
use std::{sync::Mutex, time::Duration};

use tokio::time::timeout;
use weft_time::Timestamp;

use super::*;
use crate::flow::tests::denied_request;

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

/// Flows by number, as a worker would leave them; made when somebody looks.
#[derive(Debug, Default)]
struct Waiting {
    numbers: Arc<Mutex<Vec<u64>>>,
    lost: u64,
}

#[derive(Debug)]
struct Numbers(Vec<u64>);

impl FlowBatch for Numbers {
    fn flow(&self, at: usize) -> Arc<Flow> {
        Arc::new(flow(self.0[at]))
    }
}

impl FlowSource for Waiting {
    fn take(&mut self) -> Option<Taken> {
        let numbers = std::mem::take(&mut *self.numbers.lock().unwrap());
        let lost = std::mem::take(&mut self.lost);
        let something = !numbers.is_empty() || lost > 0;
        something.then(|| Taken { ended: numbers.clone(), batch: Arc::new(Numbers(numbers)), lost })
    }
}

/// A source of this ring, and what fills it.
fn source(ring: &FlowRing) -> Arc<Mutex<Vec<u64>>> {
    let waiting = Waiting::default();
    let numbers = Arc::clone(&waiting.numbers);
    ring.add_source(Box::new(waiting));
    numbers
}

#[test]
fn what_waits_at_sources_is_seen_by_who_asks_in_the_order_in_which_it_ended() {
    let ring = FlowRing::new(100);
    let (one, two) = (source(&ring), source(&ring));
    one.lock().unwrap().extend([1, 4, 5]);
    two.lock().unwrap().extend([2, 3, 6]);
    assert_eq!(numbers(&mut ring.reader(4, &Filter::new())), [3, 4, 5, 6]);
    one.lock().unwrap().push(7);
    ring.push_all([flow(8)]);
    assert_eq!(numbers(&mut ring.reader(2, &Filter::new())), [7, 8]);
    assert_eq!((ring.seen(), ring.lost()), (8, 0));
}

#[test]
fn what_a_source_lost_is_counted_once() {
    let ring = FlowRing::new(100);
    ring.add_source(Box::new(Waiting { lost: 12, ..Waiting::default() }));
    assert_eq!((ring.lost(), ring.lost(), ring.seen()), (12, 12, 0));
}

#[tokio::test]
async fn a_source_that_asks_is_emptied_and_a_reader_that_waits_looks_by_itself() {
    let ring = FlowRing::new(100);
    let waiting = source(&ring);
    tokio::spawn(ring.clone().keep_up());
    waiting.lock().unwrap().extend(0..8);
    ring.full().notify_one();
    let emptied = async {
        while !waiting.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, emptied).await.unwrap();
    let mut reader = ring.reader(0, &Filter::new());
    waiting.lock().unwrap().push(8);
    assert_eq!(timeout(SOON, reader.next()).await.unwrap(), Read::Flow(Arc::new(flow(8))));
}

#[test]
fn many_sources_and_readers_neither_lose_nor_repeat() {
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
            let waiting = source(&ring);
            scope.spawn(move || {
                (0..1_000).for_each(|number| waiting.lock().unwrap().push(worker * 1_000 + number));
            });
        }
    });
    for reader in readers {
        let seen = runtime.block_on(async { timeout(SOON, reader).await.unwrap().unwrap() });
        assert_eq!(seen, (0..4_000).collect::<Vec<_>>());
    }
}
