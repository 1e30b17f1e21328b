// SPDX-License-Identifier: Apache-2.0
//! Whatever happens to the stream, the node's state becomes the publisher's, and never goes back.
//!
//! A case is a list of events: commits, frames and acknowledgements that arrive or are lost, repeated
//! or swapped, cuts at any point, restarts of the node (from what it saved) and of the publisher (with
//! a new epoch). After each event the state must be one that was published; after the last one, with
//! the stream left in peace, it must be the newest.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use proptest::prelude::*;
use weft_ir::{
    Identity, IdentityNumber, ObjectName, Resource, ResourceKey, Service, Snapshot,
    publish::{Change, Publisher},
    stream::{Ack, Batch, FromNode, Position, Rejection},
    subscribe::{Commit, Progress, Subscriber},
};

type State = BTreeMap<ResourceKey, Resource>;

const NODE: &str = "node-1";

#[derive(Clone, Debug)]
enum Event {
    /// One commit that puts and removes some of a few resources.
    Commit { put: Vec<(u8, u8)>, remove: Vec<u8> },
    /// The next frame arrives.
    Deliver,
    /// The next frame is lost.
    LoseFrame,
    /// The next frame arrives, and will again.
    RepeatFrame,
    /// The next two frames change places.
    SwapFrames,
    /// The next acknowledgement arrives.
    DeliverAck,
    /// The node says that it has applied what it has.
    Apply,
    /// The stream is cut: everything on its way is lost, and the node opens another.
    Cut,
    /// The node starts again from the last state that it applied.
    RestartNode,
    /// The publisher starts again with nothing but its sources.
    RestartPublisher,
}

/// Large resources, so that a batch has several frames.
fn resource(number: u8, value: u8) -> Resource {
    // Two of the sixteen are large.
    let padding = "x".repeat(if number.is_multiple_of(8) { 130 * 1024 } else { 10 });
    if number % 3 == 1 {
        Resource::Service(Service {
            name: ObjectName::new("shop", &format!("s{number}")),
            addresses: vec![[10, 0, number, value].into()],
            ports: Vec::new(),
        })
    } else {
        let labels = BTreeMap::from([(Arc::from(format!("k8s:v{value}")), Arc::from(padding))]);
        Resource::Identity(Identity { number: IdentityNumber(number.into()), labels })
    }
}

struct World {
    epoch: u64,
    publisher: Publisher,
    /// What the publisher must have as its state.
    state: State,
    /// Every commit there was.
    history: BTreeMap<(u64, u64), State>,
    node: Arc<str>,
    subscriber: Subscriber,
    /// What the node's tables are made of, built from changes only.
    tables: State,
    tables_at: Option<Position>,
    /// What the node has on its disk, before it is encoded.
    saved: Option<Commit>,
    to_node: VecDeque<Batch>,
    to_publisher: VecDeque<Ack>,
    connected: bool,
}

impl World {
    fn new() -> World {
        let node: Arc<str> = NODE.into();
        let mut world = World {
            epoch: 1,
            publisher: Publisher::new(1),
            state: State::new(),
            history: BTreeMap::new(),
            subscriber: Subscriber::new(node.clone()),
            node,
            tables: State::new(),
            tables_at: None,
            saved: None,
            to_node: VecDeque::new(),
            to_publisher: VecDeque::new(),
            connected: false,
        };
        world.reconnect();
        world
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Commit { put, remove } => {
                let upserts: Vec<_> = put.iter().map(|(n, v)| resource(*n, *v)).collect();
                let removes: Vec<_> = remove.iter().map(|n| resource(*n, 0).key()).collect();
                for resource in &upserts {
                    self.state.insert(resource.key(), resource.clone());
                }
                for key in &removes {
                    self.state.remove(key);
                }
                let revision = self.publisher.commit(Change { upserts, removes });
                self.published(revision);
            }
            Event::Deliver => self.deliver(),
            Event::LoseFrame => drop(self.to_node.pop_front()),
            Event::RepeatFrame => {
                if let Some(frame) = self.to_node.front().cloned() {
                    self.to_node.push_front(frame);
                    self.deliver();
                }
            }
            Event::SwapFrames => {
                if self.to_node.len() > 1 {
                    self.to_node.swap(0, 1);
                }
            }
            Event::DeliverAck => self.deliver_ack(),
            Event::Apply => self.apply(),
            Event::Cut => self.reconnect(),
            Event::RestartNode => {
                self.tables = State::new();
                self.tables_at = None;
                self.subscriber = match &self.saved {
                    Some(commit) => {
                        let bytes = weft_ir::persist::encode(commit);
                        let restored = weft_ir::persist::decode(&bytes).unwrap();
                        Subscriber::restored(self.node.clone(), &restored.commit, restored.same_schema)
                    }
                    None => Subscriber::new(self.node.clone()),
                };
                self.apply();
                self.reconnect();
            }
            Event::RestartPublisher => {
                self.epoch += 1;
                self.publisher = Publisher::new(self.epoch);
                // A publisher that has not read its sources yet must send nothing.
                self.reconnect();
                self.pump();
                assert!(self.to_node.is_empty());
                let revision = self
                    .publisher
                    .commit(Change { upserts: self.state.values().cloned().collect(), removes: vec![] });
                self.published(revision);
            }
        }
        self.pump();
        self.check();
    }

    fn published(&mut self, revision: u64) {
        let before = self.history.insert((self.epoch, revision), self.state.clone());
        assert!(before.is_none_or(|before| before == self.state), "one revision, two states");
    }

    fn pump(&mut self) {
        if self.connected {
            self.to_node.extend(self.publisher.next_batch(&self.node).unwrap());
        }
    }

    fn reconnect(&mut self) {
        self.to_node.clear();
        self.to_publisher.clear();
        let hello = self.subscriber.hello();
        let bytes = weft_ir::wire::encode_from_node(&FromNode::Hello(hello.clone()));
        assert_eq!(weft_ir::wire::decode_from_node(bytes), Ok(FromNode::Hello(hello.clone())));
        self.publisher.on_disconnect(&self.node);
        self.publisher.on_hello(&hello).unwrap();
        self.connected = true;
    }

    fn deliver(&mut self) {
        let Some(frame) = self.to_node.pop_front() else { return };
        let bytes = weft_ir::wire::encode_to_node(frame);
        assert!(bytes.len() <= weft_ir::stream::MAX_FRAME_BYTES, "a frame of {} bytes", bytes.len());
        match self.subscriber.frame(weft_ir::wire::decode_to_node(bytes).unwrap()) {
            Ok(Progress::Incomplete | Progress::Commit(_)) => {}
            Ok(Progress::Ack(ack)) => self.to_publisher.push_back(ack),
            Err(_) => self.reconnect(),
        }
    }

    fn deliver_ack(&mut self) {
        let Some(ack) = self.to_publisher.pop_front() else { return };
        let applied = self.tables_at.map(|at| at.revision);
        assert!(applied.is_some_and(|applied| applied >= ack.revision), "acknowledged, not applied");
        // A repeated frame makes a second acknowledgement, at which the stream is closed.
        if self.publisher.on_ack(&self.node, ack).is_err() {
            self.reconnect();
        }
    }

    /// Applies only what is said to have changed, as a node does.
    fn apply(&mut self) {
        let Some(commit) = self.subscriber.commit() else { return };
        for key in &commit.changed {
            let resource = commit.snapshot.resources.get(key).unwrap();
            self.tables.insert(key.clone(), (**resource).clone());
        }
        for key in &commit.removed {
            self.tables.remove(key);
        }
        self.tables_at = Some(commit.position);
        self.to_publisher.extend(self.subscriber.applied(commit.position, Vec::<Rejection>::new()));
        self.saved = Some(commit);
    }

    fn check(&self) {
        if let Some(at) = self.tables_at {
            assert_eq!(Some(&self.tables), self.history.get(&(at.epoch, at.revision)), "no published state");
        }
        if let Some(commit) = self.subscriber.commit() {
            let at = (commit.position.epoch, commit.position.revision);
            assert_eq!(Some(&contents(&commit.snapshot)), self.history.get(&at), "no published state");
        }
    }

    /// The stream is left in peace, after one last cut: what was lost before is not noticed otherwise.
    fn settle(&mut self) {
        self.reconnect();
        self.pump();
        for _ in 0..200 {
            self.deliver();
            self.apply();
            self.deliver_ack();
            self.pump();
            self.check();
            if self.to_node.is_empty() && self.to_publisher.is_empty() {
                break;
            }
        }
        assert_eq!(self.tables, self.state, "not converged");
        let behind: Vec<_> = self.publisher.behind(self.publisher.revision()).collect();
        assert!(behind.is_empty(), "the publisher does not know that {behind:?} has applied all");
    }
}

fn contents(snapshot: &Snapshot) -> State {
    snapshot.resources.iter().map(|(key, resource)| (key.clone(), (**resource).clone())).collect()
}

fn puts() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0..16u8, any::<u8>()), 0..12)
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (puts(), prop::collection::vec(0..16u8, 0..4)).prop_map(|(put, remove)| Event::Commit { put, remove }),
        10 => Just(Event::Deliver),
        1 => Just(Event::LoseFrame),
        1 => Just(Event::RepeatFrame),
        1 => Just(Event::SwapFrames),
        6 => Just(Event::DeliverAck),
        6 => Just(Event::Apply),
        2 => Just(Event::Cut),
        1 => Just(Event::RestartNode),
        1 => Just(Event::RestartPublisher),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_node_converges_whatever_happens_to_the_stream(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        for event in events {
            world.run(event);
        }
        if world.publisher.revision() == 0 {
            world.run(Event::Commit { put: vec![(1, 1)], remove: Vec::new() });
        }
        world.settle();
    }
}
