// SPDX-License-Identifier: Apache-2.0
//! Whatever happens to the stream, the node's state becomes the publisher's, and never goes back.
//!
//! A case is a list of events: commits, frames and acknowledgements that arrive or are lost, repeated
//! or swapped, frames that lose a resource, cuts at any point, restarts of the node (from what it saved,
//! or from nothing where that is damaged) and of the publisher (with a new epoch), other publishers that
//! know as much or less. After each event the state must be one that was published, and made of no less
//! of the source than the one before, unless it is the same; after the last one, with the stream left in
//! peace, it must be the newest.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use proptest::prelude::*;
use weft_ir::{
    Identity, IdentityNumber, ObjectName, Resource, ResourceKey, Service, Snapshot,
    publish::{Change, Publisher},
    stream::{Ack, Batch, FromNode, Position, Rejection, ToNode, Versions},
    subscribe::{Commit, Progress, Subscriber},
};

type State = BTreeMap<ResourceKey, Resource>;

const NODE: &str = "node-1";

#[derive(Clone, Debug)]
enum Event {
    /// One commit that puts and removes some of a few resources.
    Commit { put: Vec<(u8, u8)>, remove: Vec<u8> },
    /// One commit that leaves exactly these resources.
    Replace(Vec<(u8, u8)>),
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
    /// The node starts again, and the file with its state is damaged.
    DamageNode,
    /// The next frame arrives without the first of its resources.
    ThinFrame,
    /// The publisher starts again with nothing but its sources.
    RestartPublisher,
    /// Another publisher takes over, whose source is as many commits behind.
    OtherPublisher(usize),
}

/// How many different resources there are: more than one leaf of the digests has.
const NUMBERS: u8 = 120;

/// Large resources, so that a batch has several frames.
fn resource(number: u8, value: u8) -> Resource {
    let padding = "x".repeat(if number < 2 { 130 * 1024 } else { 10 });
    if number % 3 == 2 {
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
    /// What the source was, by its version, and which version the publisher knows.
    source: Vec<State>,
    version: usize,
    /// Every commit there was.
    history: BTreeMap<(u64, u64), State>,
    /// The version of the source that the node was last told with a commit.
    versions_of: BTreeMap<(u64, u64), usize>,
    /// The newest version that the node has applied.
    told: usize,
    node: Arc<str>,
    subscriber: Subscriber,
    /// What the node's tables are made of, built from changes only.
    tables: State,
    tables_at: Option<Position>,
    /// What the node has applied last, whether it runs since then or not.
    last: Option<Position>,
    /// What the node has on its disk, before it is encoded.
    saved: Option<Commit>,
    to_node: VecDeque<Batch>,
    to_publisher: VecDeque<Ack>,
    connected: bool,
    /// The node has said what it holds.
    claims: bool,
}

impl World {
    fn new() -> World {
        let node: Arc<str> = NODE.into();
        let mut world = World {
            epoch: 1,
            publisher: Publisher::new(1),
            state: State::new(),
            source: vec![State::new()],
            version: 0,
            history: BTreeMap::new(),
            versions_of: BTreeMap::new(),
            told: 0,
            subscriber: Subscriber::new(node.clone()),
            node,
            tables: State::new(),
            tables_at: None,
            last: None,
            saved: None,
            to_node: VecDeque::new(),
            to_publisher: VecDeque::new(),
            connected: false,
            claims: false,
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
                self.changed();
                let versions = self.versions();
                let revision = self.publisher.commit(Change { upserts, removes, versions });
                self.published(revision);
            }
            Event::Replace(put) => {
                let all = put.iter().map(|(n, v)| resource(*n, *v));
                let before = std::mem::replace(
                    &mut self.state,
                    all.map(|resource| (resource.key(), resource)).collect(),
                );
                self.changed();
                let removes = before.into_keys().filter(|key| !self.state.contains_key(key)).collect();
                self.publish_all(removes);
            }
            Event::ThinFrame => {
                if let Some(frame) = self.to_node.front_mut().filter(|frame| !frame.upserts.is_empty()) {
                    frame.upserts.remove(0);
                }
                self.deliver();
            }
            Event::DamageNode => {
                if let Some(saved) = &self.saved {
                    let mut bytes = weft_ir::persist::encode(&"a".into(), saved);
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    assert!(weft_ir::persist::decode(&bytes).is_err());
                }
                self.saved = None;
                // Who has forgotten everything can be told anything.
                self.told = 0;
                self.last = None;
                self.run(Event::RestartNode);
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
                        let bytes = weft_ir::persist::encode(&"a".into(), commit);
                        let restored = weft_ir::persist::decode(&bytes).unwrap();
                        Subscriber::restored(self.node.clone(), &restored.commit, restored.same_schema)
                    }
                    None => Subscriber::new(self.node.clone()),
                };
                self.apply();
                self.reconnect();
            }
            Event::RestartPublisher => {
                // It reads its source, and so is behind nobody.
                self.version = self.source.len() - 1;
                self.other_publisher();
            }
            Event::OtherPublisher(behind) => {
                self.version = (self.source.len() - 1).saturating_sub(behind);
                self.other_publisher();
            }
        }
        self.pump();
        self.check();
    }

    fn other_publisher(&mut self) {
        self.state = self.source[self.version].clone();
        self.epoch += 1;
        self.publisher = Publisher::new(self.epoch);
        // A publisher that has not read its source yet must send nothing.
        self.reconnect();
        self.pump();
        assert!(self.to_node.is_empty());
        self.publish_all(Vec::new());
        self.pump();
        let applied = self.subscriber.commit().filter(|commit| contents(&commit.snapshot) == self.state);
        // Unless it was sent something wrong, and so asks for everything.
        if self.claims && applied.is_some_and(|applied| self.tables_at == Some(applied.position)) {
            let sent = self.to_node.iter().map(|frame| frame.upserts.len() + frame.removes.len());
            assert_eq!((self.to_node.len(), sent.sum::<usize>()), (1, 0), "it has all of it");
        }
    }

    fn publish_all(&mut self, removes: Vec<ResourceKey>) {
        let (upserts, versions) = (self.state.values().cloned().collect(), self.versions());
        let revision = self.publisher.commit(Change { upserts, removes, versions });
        self.published(revision);
    }

    /// The source has changed: whoever reads it now knows most.
    fn changed(&mut self) {
        self.source.push(self.state.clone());
        self.version = self.source.len() - 1;
    }

    fn versions(&self) -> Versions {
        Versions::of("source", self.version as u64)
    }

    fn published(&mut self, revision: u64) {
        let before = self.history.insert((self.epoch, revision), self.state.clone());
        assert!(before.is_none_or(|before| before == self.state), "one revision, two states");
    }

    fn pump(&mut self) {
        if self.connected {
            let frames = self.publisher.next_batch(&self.node).unwrap();
            assert!(frames.iter().all(|frame| frame.versions == self.versions()));
            self.to_node.extend(frames);
        }
    }

    fn reconnect(&mut self) {
        self.to_node.clear();
        self.to_publisher.clear();
        let hello = self.subscriber.hello();
        self.claims = hello.held.is_some();
        let bytes = weft_ir::wire::encode_from_node(&FromNode::Hello(hello.clone()));
        assert_eq!(weft_ir::wire::decode_from_node(bytes), Ok(FromNode::Hello(hello.clone())));
        self.publisher.on_disconnect(&self.node);
        self.publisher.on_hello(hello).unwrap();
        self.connected = true;
    }

    fn deliver(&mut self) {
        let Some(frame) = self.to_node.pop_front() else { return };
        let at = (frame.position.epoch, frame.position.revision);
        let told = frame.versions.0["source"] as usize;
        let bytes = weft_ir::wire::encode_to_node(ToNode::Batch(frame));
        assert!(bytes.len() <= weft_ir::stream::MAX_FRAME_BYTES, "a frame of {} bytes", bytes.len());
        let ToNode::Batch(frame) = weft_ir::wire::decode_to_node(bytes).unwrap() else { panic!("a batch") };
        match self.subscriber.frame(frame) {
            Ok(Progress::Incomplete) => {}
            Ok(Progress::Commit(_)) => {
                self.versions_of.insert(at, told);
            }
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
        let before = self.last.map(|at| &self.history[&(at.epoch, at.revision)]);
        let at = (commit.position.epoch, commit.position.revision);
        let (content, version) = (&self.history[&at], self.versions_of[&at]);
        assert!(version >= self.told || before == Some(content), "rolled back from {}", self.told);
        self.told = self.told.max(version);
        self.tables_at = Some(commit.position);
        self.last = self.tables_at;
        self.to_publisher.extend(self.subscriber.applied(commit.position, Vec::<Rejection>::new()));
        self.saved = Some(commit);
    }

    fn check(&self) {
        if let Some(at) = self.tables_at {
            assert_eq!(self.tables, self.history[&(at.epoch, at.revision)], "no published state");
        }
        if let Some(commit) = self.subscriber.commit() {
            let at = (commit.position.epoch, commit.position.revision);
            assert_eq!(contents(&commit.snapshot), self.history[&at], "no published state");
        }
    }

    /// The stream is left in peace, after one last cut: what was lost before is not noticed otherwise. A
    /// publisher that was behind has read the newest source.
    fn settle(&mut self) {
        if self.version + 1 != self.source.len() {
            self.run(Event::RestartPublisher);
        }
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
    prop::collection::vec((0..NUMBERS, any::<u8>()), 0..12)
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (puts(), prop::collection::vec(0..NUMBERS, 0..4)).prop_map(|(put, remove)| Event::Commit { put, remove }),
        1 => prop::collection::vec((0..NUMBERS, any::<u8>()), 0..100).prop_map(Event::Replace),
        10 => Just(Event::Deliver),
        1 => Just(Event::LoseFrame),
        1 => Just(Event::RepeatFrame),
        1 => Just(Event::SwapFrames),
        6 => Just(Event::DeliverAck),
        6 => Just(Event::Apply),
        2 => Just(Event::Cut),
        1 => Just(Event::RestartNode),
        1 => Just(Event::DamageNode),
        1 => Just(Event::ThinFrame),
        2 => Just(Event::RestartPublisher),
        2 => (0..4usize).prop_map(Event::OtherPublisher),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_node_converges_whatever_happens_to_the_stream(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        let all = (0..NUMBERS).map(|number| (number, 0)).collect();
        world.run(Event::Replace(all));
        for event in events {
            world.run(event);
        }
        world.settle();
    }
}

/// Two controllers, of which the second has read 8 of the 12 resources.
#[test]
fn a_controller_that_knows_less_rolls_nothing_back() {
    let mut world = World::new();
    let numbers = |numbers: std::ops::Range<u8>| numbers.map(|number| (number, 0)).collect();
    world.run(Event::Replace(numbers(0..8)));
    world.run(Event::Replace(numbers(0..12)));
    world.settle();
    assert_eq!(world.tables.len(), 12);
    world.run(Event::OtherPublisher(1));
    assert_eq!(world.state.len(), 8);
    let node = Arc::clone(&world.node);
    assert_eq!(world.publisher.next_batch(&node), Ok(Vec::new()), "it sends nothing");
    let ahead = world.publisher.node(NODE).unwrap().ahead.clone().unwrap();
    assert_eq!(&*ahead, "was told source 2, and this controller knows source 1");
    // Nor does the node take it from one that sends what it should not.
    let mut careless = Publisher::new(99);
    let upserts = world.state.values().cloned().collect();
    careless.commit(Change { upserts, removes: Vec::new(), versions: Versions::of("source", 1) });
    let hello = Subscriber::new(world.node.clone()).hello();
    careless.on_hello(hello).unwrap();
    let frames = careless.next_batch(&world.node).unwrap();
    assert!(!frames.is_empty());
    for frame in frames {
        let refused = world.subscriber.frame(frame).unwrap_err().to_string();
        assert_eq!(refused, "the controller knows source 1 of its source, and this node was told source 2");
    }
    assert_eq!(contents(&world.subscriber.commit().unwrap().snapshot).len(), 12);
    // Two that know the same alternate freely.
    for _ in 0..4 {
        world.run(Event::OtherPublisher(0));
        world.settle();
    }
    assert_eq!(world.tables.len(), 12);
}

/// A controller that knows less of the source, but nothing else than the node has, may be followed, over a restart too.
#[test]
fn what_was_saved_of_a_controller_with_the_same_content_is_no_rollback() {
    let nothing = || Event::Commit { put: Vec::new(), remove: Vec::new() };
    let events = [
        Event::OtherPublisher(1),
        nothing(),
        nothing(),
        Event::Cut,
        Event::Deliver,
        Event::OtherPublisher(1),
        Event::Apply,
        Event::Deliver,
        Event::Apply,
        Event::RestartNode,
    ];
    let mut world = World::new();
    world.run(Event::Replace((0..NUMBERS).map(|number| (number, 0)).collect()));
    events.into_iter().for_each(|event| world.run(event));
    world.settle();
}
