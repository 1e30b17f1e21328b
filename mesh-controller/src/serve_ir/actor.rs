// SPDX-License-Identifier: Apache-2.0
//! The task that owns the publisher.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;
use weft_ir::{
    Resource, ResourceKey,
    publish::Publisher,
    stream::{Ack, Batch, Hello},
};

use super::IrReport;

/// What the publisher's task is asked.
#[derive(Debug)]
pub(super) enum Command {
    Publish { state: BTreeMap<ResourceKey, Resource>, reply: oneshot::Sender<u64> },
    Hello { hello: Hello, session: Session },
    Ack { node: Arc<str>, session: u64, ack: Ack },
    Gone { node: Arc<str>, session: u64 },
}

/// An open stream.
#[derive(Debug)]
pub(super) struct Session {
    /// Tells it from other streams of the same node.
    pub(super) number: u64,
    /// Batches for the node: room for one is enough, since only one is ever in flight.
    pub(super) batches: mpsc::Sender<Result<Vec<Batch>, Status>>,
    /// Ends the stream.
    pub(super) end: oneshot::Sender<Status>,
}

struct Actor {
    publisher: Publisher,
    sessions: BTreeMap<Arc<str>, Session>,
    /// Nodes that may have something to be sent.
    ready: BTreeSet<Arc<str>>,
}

/// Runs until it is told to stop. Ends every stream when it does.
pub(super) async fn run(
    epoch: u64,
    mut inbox: mpsc::Receiver<Command>,
    report: watch::Sender<Arc<IrReport>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut actor =
        Actor { publisher: Publisher::new(epoch), sessions: BTreeMap::new(), ready: BTreeSet::new() };
    loop {
        let command = tokio::select! {
            command = inbox.recv() => command,
            _ = stopped.changed() => None,
        };
        let Some(command) = command else { break };
        actor.handle(command);
        // What has come in the meantime shares one look at the nodes and one report.
        while let Ok(command) = inbox.try_recv() {
            actor.handle(command);
        }
        actor.send_batches();
        report.send_replace(Arc::new(actor.report()));
    }
    for (_, session) in actor.sessions {
        end(session, Status::unavailable("the controller is stopping"));
    }
}

impl Actor {
    fn handle(&mut self, command: Command) {
        match command {
            Command::Publish { state, reply } => self.publish(&state, reply),
            Command::Hello { hello, session } => self.hello(hello, session),
            Command::Ack { node, session, ack } if self.is_open(&node, session) => {
                for rejection in &ack.rejected {
                    let (key, error) = (&rejection.key, &rejection.message);
                    tracing::warn!(%node, revision = ack.revision, %key, %error, "node rejected a resource");
                }
                match self.publisher.on_ack(&node, ack) {
                    Ok(()) => {
                        self.ready.insert(node);
                    }
                    Err(error) => self.close(&node, Status::failed_precondition(error.to_string())),
                }
            }
            Command::Gone { node, session } if self.is_open(&node, session) => {
                tracing::info!(%node, "node disconnected");
                self.close(&node, Status::ok(""));
            }
            // Of a stream that another one of the same node has replaced.
            Command::Ack { .. } | Command::Gone { .. } => {}
        }
    }

    fn publish(&mut self, state: &BTreeMap<ResourceKey, Resource>, reply: oneshot::Sender<u64>) {
        let before = self.publisher.revision();
        let revision = self.publisher.replace(state);
        if revision != before {
            tracing::info!(revision, resources = state.len(), "state published");
            self.ready.extend(self.sessions.keys().cloned());
        }
        if reply.send(revision).is_err() {
            tracing::debug!(revision, "nobody waits for the revision");
        }
    }

    fn hello(&mut self, hello: Hello, session: Session) {
        if let Some(old) = self.sessions.remove(&hello.node) {
            end(old, Status::aborted("the node has opened another stream"));
        }
        match self.publisher.on_hello(&hello) {
            Ok(()) => {
                let resume = hello.resume.map(|at| at.revision);
                tracing::info!(node = %hello.node, schema = hello.schema, ?resume, "node connected");
                self.ready.insert(hello.node.clone());
                self.sessions.insert(hello.node, session);
            }
            Err(error) => end(session, Status::failed_precondition(error.to_string())),
        }
    }

    fn send_batches(&mut self) {
        for node in std::mem::take(&mut self.ready) {
            let Some(session) = self.sessions.get(&node) else { continue };
            let sent = match self.publisher.next_batch(&node) {
                Ok(frames) if frames.is_empty() => continue,
                Ok(frames) => session.batches.try_send(Ok(frames)).is_ok(),
                Err(_) => false,
            };
            if !sent {
                self.close(&node, Status::unavailable("the stream takes no batch"));
            }
        }
    }

    fn close(&mut self, node: &Arc<str>, status: Status) {
        self.publisher.on_disconnect(node);
        if let Some(session) = self.sessions.remove(node) {
            end(session, status);
        }
    }

    fn is_open(&self, node: &Arc<str>, session: u64) -> bool {
        self.sessions.get(node).is_some_and(|open| open.number == session)
    }

    fn report(&self) -> IrReport {
        let nodes = self.publisher.nodes().map(|(node, report)| (node.clone(), report.clone()));
        IrReport { revision: self.publisher.revision(), nodes: nodes.collect() }
    }
}

fn end(session: Session, status: Status) {
    // The stream's task may have ended by itself.
    drop(session.end.send(status));
}
