// SPDX-License-Identifier: Apache-2.0
use tokio::time::timeout;

use super::*;
use crate::flow::tests::denied_request;

const SOON: Duration = Duration::from_secs(10);

fn flow(number: u64) -> Flow {
    Flow { time: Timestamp(number), ..denied_request() }
}

fn ring(flows: u64) -> FlowRing {
    let ring = FlowRing::new(1_000);
    ring.push_all((0..flows).map(flow));
    ring
}

/// The times of the flows that arrive until the stream ends, or until there are `count`.
async fn times(pieces: &mut mpsc::Receiver<Bytes>, count: usize) -> Vec<u64> {
    let mut text = Vec::new();
    let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    while lines(&text) < count {
        match timeout(SOON, pieces.recv()).await.unwrap() {
            Some(piece) => text.extend_from_slice(&piece),
            None => break,
        }
    }
    let parse = |line: &str| match serde_json::from_str(line).unwrap() {
        Line::Flow(flow) => flow.time.0,
        Line::Lost { count } => panic!("{count} lost"),
    };
    String::from_utf8(text).unwrap().lines().map(parse).collect()
}

async fn all(ring: &FlowRing, query: &str) -> Vec<u64> {
    let (mut pieces, task) = serve(ring, FlowQuery::parse(query).unwrap());
    tokio::spawn(task);
    times(&mut pieces, usize::MAX).await
}

#[tokio::test]
async fn a_query_is_answered_with_what_is_there() {
    let ring = ring(500);
    assert_eq!(all(&ring, "").await, (480..500).collect::<Vec<_>>());
    assert_eq!(all(&ring, "last=2&verdict=DROPPED").await, [498, 499]);
    assert_eq!(all(&ring, "last=2&verdict=FORWARDED").await, [0; 0]);
    assert_eq!(all(&ring, "since=1970-01-01T00:00:00.000000497Z").await, [497, 498, 499]);
    assert_eq!(all(&ring, "last=1000").await.len(), 500);
}

#[tokio::test]
async fn following_goes_on_until_the_client_leaves() {
    let ring = ring(3);
    let (mut pieces, task) = serve(&ring, FlowQuery::parse("follow&last=1").unwrap());
    let task = tokio::spawn(task);
    assert_eq!(times(&mut pieces, 1).await, [2]);
    ring.push_all([flow(3), flow(4)]);
    assert_eq!(times(&mut pieces, 2).await, [3, 4]);
    drop(pieces);
    timeout(SOON, task).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_let_go() {
    let ring = FlowRing::new(100_000);
    let (pieces, task) = serve(&ring, FlowQuery::parse("follow").unwrap());
    let task = tokio::spawn(task);
    tokio::task::yield_now().await;
    ring.push_all((0..5_000).map(flow));
    timeout(CLIENT_PATIENCE * 2, task).await.unwrap().unwrap();
    assert_eq!(pieces.len(), CHUNKS);
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_told_what_it_lost() {
    let ring = FlowRing::new(10);
    let (mut pieces, task) = serve(&ring, FlowQuery::parse("follow&last=10").unwrap());
    ring.push_all((0..100).map(flow));
    tokio::spawn(task);
    let piece = timeout(SOON, pieces.recv()).await.unwrap().unwrap();
    let text = String::from_utf8(piece.to_vec()).unwrap();
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], Line::Lost { count: 90 });
    assert_eq!(lines[1], Line::Flow(Box::new(flow(90))));
    assert!(text.starts_with("{\"lost\":{\"count\":90}}\n{\"flow\":{"), "{text}");
}

#[test]
fn queries_are_decoded_and_checked() {
    let query = FlowQuery::parse("http-path=%5E%2Fpay%24&pod=shop%2Fclient&last=3").unwrap();
    assert_eq!(query.last, Some(3));
    assert!(query.filter.matches(&denied_request()));
    for wrong in ["last=x", "follow=maybe", "since=now", "verdict=X", "what=1", "pod=%4", "pod=%ff"] {
        assert!(FlowQuery::parse(wrong).is_err(), "{wrong}");
    }
    for text in ["a b&c=d/\u{e9}%+", "plain-._~"] {
        assert_eq!(decode(&encode(text)).unwrap(), text);
    }
}
