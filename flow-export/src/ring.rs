// SPDX-License-Identifier: Apache-2.0
//! The ring of a node's last flows, the sources that fill it, and its readers.

mod source;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use self::source::Made;
pub use self::source::{FlowBatch, FlowSource, Taken};
use crate::{Filter, Flow};

/// Hubble's default for the flows that a node keeps (`hubble.eventBufferCapacity`).
pub const DEFAULT_CAPACITY: usize = 4095;

/// Flows that a reader copies at a time, so that it holds the lock for microseconds only.
const BATCH: usize = 256;

/// How often a reader that waits for new flows looks into the sources, which do not say when something
/// comes: a flow is seen this much later at most.
const LOOK: Duration = Duration::from_millis(20);

/// The last flows of a node. Cheap to clone; all clones are the same ring.
#[derive(Clone, Debug)]
pub struct FlowRing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Locked before `kept`, and never by who holds that.
    sources: Mutex<Vec<Box<dyn FlowSource>>>,
    kept: Mutex<Kept>,
    arrived: Notify,
    full: Arc<Notify>,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    flows: VecDeque<Place>,
    capacity: usize,
    /// The number of flows that ever came in: the place of the next one.
    seen: u64,
}

/// Where one flow is.
#[derive(Clone, Debug)]
struct Place {
    batch: Arc<dyn FlowBatch>,
    at: usize,
}

impl Place {
    fn flow(&self) -> Arc<Flow> {
        self.batch.flow(self.at)
    }
}

impl Kept {
    fn push(&mut self, place: Place) {
        if self.flows.len() == self.capacity {
            self.flows.pop_front();
        }
        self.flows.push_back(place);
        self.seen += 1;
    }
}

impl FlowRing {
    /// An empty ring for this many flows, at least one.
    pub fn new(capacity: usize) -> FlowRing {
        let capacity = capacity.max(1);
        let kept = Kept { flows: VecDeque::new(), capacity, seen: 0 };
        let shared = Shared {
            sources: Mutex::default(),
            kept: Mutex::new(kept),
            arrived: Notify::new(),
            full: Arc::default(),
            lost: AtomicU64::new(0),
        };
        FlowRing { shared: Arc::new(shared) }
    }

    /// Adds flows, oldest first, after those that wait at the sources.
    pub fn push_all(&self, flows: impl IntoIterator<Item = impl Into<Arc<Flow>>>) {
        self.pull();
        let made: Vec<Arc<Flow>> = flows.into_iter().map(Into::into).collect();
        let count = made.len();
        let batch: Arc<dyn FlowBatch> = Arc::new(Made(made));
        let mut kept = self.kept();
        (0..count).for_each(|at| kept.push(Place { batch: Arc::clone(&batch), at }));
        drop(kept);
        self.shared.arrived.notify_waiters();
    }

    /// Takes from this source too, from now on.
    pub fn add_source(&self, source: Box<dyn FlowSource>) {
        self.sources().push(source);
    }

    /// What a source notifies when half of its room is taken.
    pub fn full(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.full)
    }

    /// Empties the sources whenever one of them asks for it.
    pub async fn keep_up(self) {
        loop {
            self.shared.full.notified().await;
            self.pull();
        }
    }

    /// Moves what waits at the sources into the ring, in the order in which it ended.
    pub fn pull(&self) {
        let mut sources = self.sources();
        let mut found = Vec::new();
        for source in sources.iter_mut() {
            let Some(Taken { ended, batch, lost }) = source.take() else { continue };
            self.shared.lost.fetch_add(lost, Ordering::Relaxed);
            let place = |(at, time)| (time, Place { batch: Arc::clone(&batch), at });
            found.extend(ended.into_iter().enumerate().map(place));
        }
        if found.is_empty() {
            return;
        }
        found.sort_by_key(|(time, _)| *time);
        let mut kept = self.kept();
        found.into_iter().for_each(|(_, place)| kept.push(place));
        drop(kept);
        drop(sources);
        self.shared.arrived.notify_waiters();
    }

    /// A reader that begins with the last `last` flows that match the filter.
    pub fn reader(&self, last: usize, filter: &Filter) -> FlowReader {
        self.pull();
        let (seen, places) = {
            let kept = self.kept();
            // Most readers want the newest flows only.
            let places = if last == 0 { Vec::new() } else { kept.flows.iter().rev().cloned().collect() };
            (kept.seen, places)
        };
        let mut wanted = last;
        let mut next = seen;
        for (back, place) in places.iter().enumerate() {
            if wanted == 0 {
                break;
            }
            if filter.matches(&place.flow()) {
                wanted -= 1;
                next = seen - back as u64 - 1;
            }
        }
        FlowReader { ring: self.clone(), next, batch: VecDeque::new() }
    }

    /// Flows that ever came in.
    pub fn seen(&self) -> u64 {
        self.pull();
        self.kept().seen
    }

    /// Flows that are kept now.
    pub fn len(&self) -> usize {
        self.pull();
        self.kept().flows.len()
    }

    /// Whether no flow is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flows for which a source had no room (`weft_node_flows_lost`).
    pub fn lost(&self) -> u64 {
        self.pull();
        self.shared.lost.load(Ordering::Relaxed)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing between taking and releasing the lock can leave the ring half changed.
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sources(&self) -> MutexGuard<'_, Vec<Box<dyn FlowSource>>> {
        self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner)
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
    batch: VecDeque<Place>,
}

impl FlowReader {
    /// The next flow that is already there.
    pub fn try_next(&mut self) -> Option<Read> {
        if let Some(place) = self.batch.pop_front() {
            return Some(Read::Flow(place.flow()));
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
        self.batch.pop_front().map(|place| Read::Flow(place.flow()))
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
            if timeout(LOOK, arrived).await.is_err() {
                ring.pull();
            }
        }
    }
}

#[cfg(test)]
mod tests;
