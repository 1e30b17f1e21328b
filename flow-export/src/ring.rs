// SPDX-License-Identifier: Apache-2.0
//! The ring of a node's last flows, the queues that fill it, and its readers.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use crate::{Filter, Flow};

/// Hubble's default for the flows that a node keeps (`hubble.eventBufferCapacity`).
pub const DEFAULT_CAPACITY: usize = 4095;

/// Flows that a reader copies at a time, so that it holds the lock for microseconds only.
const BATCH: usize = 256;

/// The pause after the last flow of a queue was taken. Without it, every request would wake the control
/// thread, which costs the worker a system call and the core two switches of threads. A reader sees a flow
/// this much later at most.
const PAUSE: Duration = Duration::from_millis(5);

/// The last flows of a node. Cheap to clone; all clones are the same ring.
#[derive(Clone, Debug)]
pub struct FlowRing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    arrived: Notify,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    flows: VecDeque<Arc<Flow>>,
    capacity: usize,
    /// The number of flows that ever came in: the place of the next one.
    seen: u64,
}

impl FlowRing {
    /// An empty ring for this many flows, at least one.
    pub fn new(capacity: usize) -> FlowRing {
        let capacity = capacity.max(1);
        let kept = Kept { flows: VecDeque::with_capacity(capacity), capacity, seen: 0 };
        let shared = Shared { kept: Mutex::new(kept), arrived: Notify::new(), lost: AtomicU64::new(0) };
        FlowRing { shared: Arc::new(shared) }
    }

    /// Adds flows, oldest first. For the control thread; data workers have a [`FlowProducer`].
    pub fn push_all(&self, flows: impl IntoIterator<Item = impl Into<Arc<Flow>>>) {
        let mut kept = self.kept();
        for flow in flows {
            if kept.flows.len() == kept.capacity {
                kept.flows.pop_front();
            }
            kept.flows.push_back(flow.into());
            kept.seen += 1;
        }
        drop(kept);
        self.shared.arrived.notify_waiters();
    }

    /// A queue of `capacity` flows (at least one) for one data worker, and its end on the control thread.
    pub fn producer(&self, capacity: usize) -> (FlowProducer, FlowQueue) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let producer = FlowProducer { sender, ring: self.clone() };
        (producer, FlowQueue { receiver, ring: self.clone() })
    }

    /// A reader that begins with the last `last` flows that match the filter.
    pub fn reader(&self, last: usize, filter: &Filter) -> FlowReader {
        let kept = self.kept();
        let mut wanted = last;
        let mut next = kept.seen;
        for (back, flow) in kept.flows.iter().rev().enumerate() {
            if wanted == 0 {
                break;
            }
            if filter.matches(flow) {
                wanted -= 1;
                next = kept.seen - back as u64 - 1;
            }
        }
        FlowReader { ring: self.clone(), next, batch: VecDeque::new() }
    }

    /// Flows that ever came in.
    pub fn seen(&self) -> u64 {
        self.kept().seen
    }

    /// Flows that are kept now.
    pub fn len(&self) -> usize {
        self.kept().flows.len()
    }

    /// Whether no flow is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flows that a full queue did not take (`weft_flow_lost_total{stage="queue"}`).
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing between taking and releasing the lock can leave the ring half changed.
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where one data worker leaves its flows.
#[derive(Clone, Debug)]
pub struct FlowProducer {
    sender: mpsc::Sender<Arc<Flow>>,
    ring: FlowRing,
}

impl FlowProducer {
    /// Leaves a flow, or counts it as lost when the queue is full. Never waits.
    pub fn send(&self, flow: Flow) {
        // A flow is large: from here on a pointer is moved.
        if self.sender.try_send(Arc::new(flow)).is_err() {
            self.ring.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The other end of a producer's queue.
#[derive(Debug)]
pub struct FlowQueue {
    receiver: mpsc::Receiver<Arc<Flow>>,
    ring: FlowRing,
}

impl FlowQueue {
    /// Moves flows into the ring until every producer of the queue is gone.
    ///
    /// The queue has to hold what one worker makes in 5 ms.
    pub async fn drain(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.receiver.recv_many(&mut batch, BATCH).await > 0 {
            let is_emptied = batch.len() < BATCH;
            self.ring.push_all(batch.drain(..));
            if is_emptied {
                sleep(PAUSE).await;
            }
        }
    }
}

/// What a reader finds next.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// A flow.
    Flow(Arc<Flow>),
    /// The ring went on without the reader: this many flows are gone.
    Lost(u64),
}

/// Reads the ring at its own pace.
#[derive(Debug)]
pub struct FlowReader {
    ring: FlowRing,
    next: u64,
    batch: VecDeque<Arc<Flow>>,
}

impl FlowReader {
    /// The next flow that is already there.
    pub fn try_next(&mut self) -> Option<Read> {
        if let Some(flow) = self.batch.pop_front() {
            return Some(Read::Flow(flow));
        }
        let kept = self.ring.kept();
        let oldest = kept.seen - kept.flows.len() as u64;
        if self.next < oldest {
            let lost = oldest - self.next;
            self.next = oldest;
            return Some(Read::Lost(lost));
        }
        // A place in the ring is below its capacity, a usize.
        let from = (self.next - oldest) as usize;
        self.batch.extend(kept.flows.iter().skip(from).take(BATCH).cloned());
        self.next += self.batch.len() as u64;
        drop(kept);
        self.batch.pop_front().map(Read::Flow)
    }

    /// How many flows are between the reader and the newest one, lost ones included.
    pub fn unread(&self) -> u64 {
        self.ring.seen() - self.next + self.batch.len() as u64
    }

    /// The next flow, waiting for it. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Read {
        let ring = self.ring.clone();
        loop {
            // Listening begins before the look, so that nothing can arrive unnoticed in between.
            let mut arrived = std::pin::pin!(ring.shared.arrived.notified());
            arrived.as_mut().enable();
            if let Some(read) = self.try_next() {
                return read;
            }
            arrived.await;
        }
    }
}

#[cfg(test)]
mod tests;
