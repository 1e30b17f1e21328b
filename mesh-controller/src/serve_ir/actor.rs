// SPDX-License-Identifier: Apache-2.0
//! The task that owns the publisher.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tonic::Status;
use weft_ir::{
    publish::{Change, Publisher},
    stream::{Ack, Hello, Rejection, ToNode},
};

use super::{
    IrLimits, IrReport, StreamCounters, Waiting,
    rivals::Rivals,
    session::{Session, end},
};

/// The most rejections of one acknowledgement that are logged; the status has them all.
const MAX_LOGGED: usize = 16;

/// What the publisher's task is asked.
#[derive(Debug)]
pub(super) enum Command {
    Publish { change: Change, reply: oneshot::Sender<u64> },
    Hello { hello: Hello, session: Session },
    Ack { node: Arc<str>, session: u64, ack: Ack },
    Pong { node: Arc<str>, session: u64 },
    Gone { node: Arc<str>, session: u64 },
}

pub(super) struct Actor {
    publisher: Publisher,
    sessions: BTreeMap<Arc<str>, Session>,
    /// Streams that say that they are a node which has one already.
    rivals: Rivals,
    /// Nodes that may have something to be sent.
    ready: BTreeSet<Arc<str>>,
    waiting: BTreeMap<Arc<str>, Waiting>,
    /// When the streams ended that have ended.
    gone: BTreeMap<Arc<str>, Instant>,
    /// How long an acknowledgement may take.
    patience: Duration,
    counters: Arc<StreamCounters>,
}

impl Actor {
    pub(super) fn new(epoch: u64, limits: IrLimits, counters: Arc<StreamCounters>) -> Actor {
        Actor {
            publisher: Publisher::new(epoch),
            sessions: BTreeMap::new(),
            rivals: Rivals::new(limits.ping),
            ready: BTreeSet::new(),
            waiting: BTreeMap::new(),
            gone: BTreeMap::new(),
            patience: limits.acknowledgement,
            counters,
        }
    }

    /// Runs until it is told to stop. Ends every stream when it does.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        report: watch::Sender<Arc<IrReport>>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), Infallible> {
        loop {
            let overdue = self.next_overdue().into_iter().chain(self.rivals.due()).min();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.handle(command),
                    None => break,
                },
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {}
                _ = stopped.changed() => break,
            }
            // What has come in the meantime shares one look at the nodes and one report.
            while let Ok(command) = inbox.try_recv() {
                self.handle(command);
            }
            self.replace_silent();
            self.send_batches();
            self.mark_overdue();
            report.send_replace(Arc::new(self.report()));
        }
        for session in self.sessions.into_values().chain(self.rivals.into_sessions()) {
            end(session, Status::unavailable("the controller is stopping"));
        }
        Ok(())
    }

    /// When the next of the acknowledgements that are waited for is overdue.
    fn next_overdue(&self) -> Option<Instant> {
        let in_time = self.waiting.values().filter(|waiting| !waiting.overdue);
        in_time.map(|waiting| waiting.since + self.patience).min()
    }

    fn mark_overdue(&mut self) {
        let now = Instant::now();
        for (node, waiting) in &mut self.waiting {
            if !waiting.overdue && now >= waiting.since + self.patience {
                waiting.overdue = true;
                tracing::warn!(%node, revision = waiting.revision, "node does not acknowledge in time");
            }
        }
    }
}

impl Actor {
    fn handle(&mut self, command: Command) {
        match command {
            Command::Publish { change, reply } => self.publish(change, reply),
            Command::Hello { hello, session } => self.hello(hello, session),
            Command::Ack { node, session, ack } if self.is_open(&node, session) => {
                self.log_rejections(&node, &ack);
                self.counters.acknowledged.add();
                if !ack.rejected.is_empty() {
                    self.counters.rejecting.add();
                }
                match self.publisher.on_ack(&node, ack) {
                    Ok(()) => {
                        if self.waiting.remove(&node).is_some_and(|waiting| waiting.overdue) {
                            tracing::info!(%node, "node acknowledges again");
                        }
                        self.ready.insert(node);
                    }
                    Err(error) => self.close(&node, Status::failed_precondition(error.to_string())),
                }
            }
            Command::Pong { node, session } if self.is_open(&node, session) => self.refuse_rival(&node),
            Command::Gone { node, session } if self.is_open(&node, session) => {
                tracing::info!(%node, "node disconnected");
                self.close(&node, Status::ok(""));
            }
            Command::Gone { node, session } => self.rivals.gone(&node, session),
            // Of a stream that another one of the same node has replaced.
            Command::Ack { .. } | Command::Pong { .. } => {}
        }
    }

    /// Names what the node has not rejected before: every acknowledgement lists all that is rejected.
    fn log_rejections(&self, node: &Arc<str>, ack: &Ack) {
        let before: &[Rejection] = self.publisher.node(node).map_or(&[], |report| &report.rejected);
        let new = ack.rejected.iter().filter(|rejection| !before.contains(rejection));
        for rejection in new.take(MAX_LOGGED) {
            let (key, error) = (&rejection.key, &rejection.message);
            tracing::warn!(%node, revision = ack.revision, %key, %error, "node rejected a resource");
        }
    }

    fn publish(&mut self, change: Change, reply: oneshot::Sender<u64>) {
        let before = self.publisher.revision();
        let (changed, gone) = (change.upserts.len(), change.removes.len());
        let revision = self.publisher.commit(change);
        if revision != before {
            tracing::debug!(revision, changed, gone, "state published");
            self.ready.extend(self.sessions.keys().cloned());
        } else {
            // The source may be known far enough now for nodes that were told more.
            let refused = self.publisher.nodes().filter(|(_, report)| report.ahead.is_some());
            self.ready.extend(refused.map(|(node, _)| node.clone()));
        }
        if reply.send(revision).is_err() {
            tracing::debug!(revision, "nobody waits for the revision");
        }
    }

    /// A node has opened a stream. Where it has one, the newer stream waits until it is clear whether somebody
    /// is still at the other end of the older.
    fn hello(&mut self, hello: Hello, session: Session) {
        let Some(open) = self.sessions.get(&hello.node) else { return self.admit(hello, session) };
        // Where it takes no ping it takes nothing else, and will not answer.
        drop(open.notices.try_send(ToNode::Ping));
        if let Some(older) = self.rivals.ask(hello, session) {
            end(older, Status::aborted("the node has opened another stream"));
        }
    }

    /// The node has answered on its open stream: who else says that it is this node is another process.
    fn refuse_rival(&mut self, node: &Arc<str>) {
        let Some(open) = self.sessions.get(node) else { return };
        let Some((session, refused)) = self.rivals.refuse(node, open.from) else { return };
        self.counters.contested.add();
        tracing::warn!(%node, from = %session.from, open_from = %open.from, refused, "another process speaks as a node");
        let text = format!(
            "another process speaks as node {node}, from {}: give each node a name and a --state-dir of its own",
            open.from
        );
        end(session, Status::already_exists(text));
    }

    /// Where nobody has answered on an older stream, the newer takes its place.
    fn replace_silent(&mut self) {
        for node in self.rivals.unanswered() {
            tracing::info!(%node, "node does not answer on its stream, and has opened another");
            self.close(&node, Status::aborted("the node has opened another stream"));
        }
    }

    fn admit(&mut self, hello: Hello, session: Session) {
        let again = self.publisher.node(&hello.node).is_some();
        let (node, schema) = (hello.node.clone(), hello.schema);
        let resume = hello.resume.map(|at| at.revision);
        match self.publisher.on_hello(hello) {
            Ok(()) => {
                self.counters.streams.add();
                if again {
                    self.counters.reconnects.add();
                }
                tracing::info!(%node, schema, ?resume, "node connected");
                self.ready.insert(node.clone());
                self.sessions.insert(node, session);
            }
            Err(error) => end(session, Status::failed_precondition(error.to_string())),
        }
    }

    fn send_batches(&mut self) {
        for node in std::mem::take(&mut self.ready) {
            let Some(session) = self.sessions.get_mut(&node) else { continue };
            let sent = match self.publisher.next_batch(&node) {
                Ok(frames) if frames.is_empty() => {
                    let ahead = self.publisher.node(&node).and_then(|report| report.ahead.clone());
                    if let Some(reason) = ahead.filter(|_| !session.is_told) {
                        tracing::warn!(%node, %reason, "node is sent nothing, since it knows more");
                        let told = session.notices.try_send(ToNode::Withheld { reason });
                        session.is_told = told.is_ok();
                    }
                    continue;
                }
                Ok(frames) => match frames.first().map(|frame| frame.position.revision) {
                    None => continue,
                    Some(revision) => session.send(frames).then_some(revision),
                },
                Err(_) => None,
            };
            if let Some(revision) = sent {
                let waiting = Waiting { revision, since: Instant::now(), overdue: false };
                self.waiting.insert(node, waiting);
            } else {
                self.close(&node, Status::unavailable("the stream takes no batch"));
            }
        }
    }

    fn close(&mut self, node: &Arc<str>, status: Status) {
        self.publisher.on_disconnect(node);
        // Only those that the publisher remembers, which are bounded.
        self.gone.retain(|node, _| self.publisher.node(node).is_some());
        self.gone.insert(node.clone(), Instant::now());
        self.waiting.remove(node);
        if let Some(session) = self.sessions.remove(node) {
            end(session, status);
        }
        if let Some((hello, session)) = self.rivals.take(node) {
            self.admit(hello, session);
        }
    }

    fn is_open(&self, node: &Arc<str>, session: u64) -> bool {
        self.sessions.get(node).is_some_and(|open| open.number == session)
    }

    fn report(&self) -> IrReport {
        let nodes = self.publisher.nodes().map(|(node, report)| (node.clone(), report.clone()));
        IrReport {
            epoch: self.publisher.epoch(),
            revision: self.publisher.revision(),
            nodes: nodes.collect(),
            waiting: self.waiting.clone(),
            gone: self.gone.clone(),
            contested: self.rivals.contested().clone(),
        }
    }
}
