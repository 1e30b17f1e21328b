// SPDX-License-Identifier: Apache-2.0
//! The publisher: one shared log of commits, and a cursor for each node.
//!
//! A commit costs what it changes, whatever the size of the cluster and the number of nodes: it adds
//! to the log, and each node reads the log from its cursor when it is ready for the next batch. A node
//! whose cursor has fallen out of the log gets a snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    Resource, ResourceKey, Scope,
    stream::{Ack, Batch, Hello, MAX_REJECTIONS, MAX_RESOURCE_BYTES, Position, Rejection, Upsert},
    wire,
};

mod frames;
mod log;

use frames::Frames;
use log::{Log, Touched};

/// The most nodes that are remembered: twice the 5,000 nodes that Kubernetes supports in a cluster.
pub const MAX_NODES: usize = 10_000;

/// The longest name of a node, in bytes (RFC 1123 subdomain).
pub const MAX_NODE_NAME_BYTES: usize = 253;

/// What a commit changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// New and changed resources, by their own keys.
    pub upserts: Vec<Resource>,
    /// Keys that are gone.
    pub removes: Vec<ResourceKey>,
}

/// What is known about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Its stream is open.
    pub connected: bool,
    /// The revision that it has applied in this run of the publisher.
    pub applied: Option<u64>,
    /// The resources of that revision that it could not take.
    pub rejected: Vec<Rejection>,
    /// How many more there are than `rejected` lists.
    pub omitted: u32,
}

/// Why a node's message was refused. Its stream must be closed; nothing else changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The name is empty or too long.
    #[error("a node's name has 1 to {MAX_NODE_NAME_BYTES} bytes, not {0}")]
    NodeName(usize),
    /// Too many nodes are connected.
    #[error("{MAX_NODES} nodes are connected already")]
    TooManyNodes,
    /// The node has not said hello.
    #[error("node {0} has no open stream")]
    NotConnected(Arc<str>),
    /// The acknowledged revision is not the one that was sent.
    #[error("node {node} acknowledges revision {acked}, which is not in flight")]
    UnexpectedAck {
        /// The node.
        node: Arc<str>,
        /// What it acknowledged.
        acked: u64,
    },
}

/// Holds the state, numbers its commits and knows how far every node is.
#[derive(Debug)]
pub struct Publisher {
    epoch: u64,
    revision: u64,
    entries: BTreeMap<ResourceKey, Entry>,
    log: Log,
    nodes: BTreeMap<Arc<str>, Cursor>,
}

/// A resource, encoded once for all nodes.
#[derive(Debug)]
struct Entry {
    scope: Scope,
    min_schema: u32,
    bytes: Bytes,
}

#[derive(Debug, Default)]
struct Cursor {
    report: NodeReport,
    /// The revision that the node holds; nothing means that it needs a snapshot.
    held: Option<u64>,
    /// The revision that was sent and is not yet acknowledged.
    in_flight: Option<u64>,
    /// The first batch of a stream is sent even when it is empty, so that the node reports.
    greeted: bool,
}

impl Publisher {
    /// An empty publisher. The epoch names this run: no other run may have used it.
    pub fn new(epoch: u64) -> Publisher {
        Publisher {
            epoch,
            revision: 0,
            entries: BTreeMap::new(),
            log: Log::default(),
            nodes: BTreeMap::new(),
        }
    }

    /// The number of the last commit; 0 before the first, and until then no node is sent anything.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes one commit of a change, and returns the revision. What is already there as given is no
    /// change; a change of nothing makes no commit, except for the first.
    pub fn commit(&mut self, change: Change) -> u64 {
        let mut touched = BTreeMap::new();
        for resource in change.upserts {
            self.upsert(resource.key(), &resource, &mut touched);
        }
        for key in change.removes {
            self.remove(key, &mut touched);
        }
        self.finish(touched)
    }

    /// A node has opened a stream; an older stream of the same name is to be closed by the caller.
    ///
    /// # Errors
    /// A name of a wrong length, and more than [`MAX_NODES`] connected nodes.
    pub fn on_hello(&mut self, hello: &Hello) -> Result<(), PublishError> {
        let length = hello.node.len();
        if length == 0 || length > MAX_NODE_NAME_BYTES {
            return Err(PublishError::NodeName(length));
        }
        if !self.nodes.contains_key(&hello.node) && self.nodes.len() >= MAX_NODES {
            self.nodes.retain(|_, cursor| cursor.report.connected);
            if self.nodes.len() >= MAX_NODES {
                return Err(PublishError::TooManyNodes);
            }
        }
        let resume = hello.resume.filter(|at| at.epoch == self.epoch && at.revision <= self.revision);
        let cursor = self.nodes.entry(hello.node.clone()).or_default();
        cursor.report.connected = true;
        cursor.held = resume.map(|at| at.revision);
        cursor.in_flight = None;
        cursor.greeted = false;
        Ok(())
    }

    /// A node's stream has ended. What it has applied stays known.
    pub fn on_disconnect(&mut self, node: &str) {
        if let Some(cursor) = self.nodes.get_mut(node) {
            cursor.report.connected = false;
            cursor.in_flight = None;
        }
    }

    /// A node has applied the batch that it was sent.
    ///
    /// # Errors
    /// A node without a stream, and a revision that is not in flight.
    pub fn on_ack(&mut self, node: &Arc<str>, ack: Ack) -> Result<(), PublishError> {
        let cursor = connected(&mut self.nodes, node)?;
        if cursor.in_flight != Some(ack.revision) {
            return Err(PublishError::UnexpectedAck { node: node.clone(), acked: ack.revision });
        }
        cursor.in_flight = None;
        cursor.held = Some(ack.revision);
        cursor.report.applied = Some(ack.revision);
        cursor.report.rejected = ack.rejected;
        let over = cursor.report.rejected.len().saturating_sub(MAX_REJECTIONS);
        cursor.report.rejected.truncate(MAX_REJECTIONS);
        cursor.report.omitted = ack.omitted.saturating_add(u32::try_from(over).unwrap_or(u32::MAX));
        Ok(())
    }

    /// The frames that the node must be sent now; none while a batch is in flight, while there is
    /// nothing new, and before the first commit. Commits made since the last batch come as one.
    ///
    /// # Errors
    /// A node without a stream.
    pub fn next_batch(&mut self, node: &Arc<str>) -> Result<Vec<Batch>, PublishError> {
        let cursor = connected(&mut self.nodes, node)?;
        let up_to_date = cursor.greeted && cursor.held == Some(self.revision);
        if self.revision == 0 || cursor.in_flight.is_some() || up_to_date {
            return Ok(Vec::new());
        }
        cursor.greeted = true;
        cursor.in_flight = Some(self.revision);
        let base = cursor.held.filter(|held| self.log.reaches(*held));
        let mut frames = Frames::new(Position { epoch: self.epoch, revision: self.revision }, base);
        match base {
            Some(base) => self.add_delta(base, node, &mut frames),
            None => {
                for (key, entry) in self.entries.iter().filter(|(_, entry)| entry.is_for(node)) {
                    frames.upsert(entry.upsert(key));
                }
            }
        }
        Ok(frames.finish())
    }

    /// Every node that was seen in this run, connected or not.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<str>, &NodeReport)> {
        self.nodes.iter().map(|(node, cursor)| (node, &cursor.report))
    }

    /// What is known about a node; nothing where it was not seen in this run.
    pub fn node(&self, node: &str) -> Option<&NodeReport> {
        self.nodes.get(node).map(|cursor| &cursor.report)
    }

    /// The connected nodes that have not applied the revision.
    pub fn behind(&self, revision: u64) -> impl Iterator<Item = &Arc<str>> {
        self.nodes().filter_map(move |(node, report)| {
            (report.connected && report.applied.unwrap_or(0) < revision).then_some(node)
        })
    }

    fn upsert(
        &mut self,
        key: ResourceKey,
        resource: &Resource,
        touched: &mut BTreeMap<ResourceKey, Touched>,
    ) {
        let mut bytes = wire::encode(resource);
        if bytes.len() > MAX_RESOURCE_BYTES {
            bytes = Bytes::new();
        }
        let entry = Entry { scope: resource.scope(), min_schema: wire::min_schema(resource), bytes };
        if self.entries.get(&key).is_some_and(|old| old.bytes == entry.bytes && old.scope == entry.scope) {
            return;
        }
        let was = self.entries.insert(key.clone(), entry).map(|old| old.scope);
        touched.entry(key.clone()).or_insert(Touched { key, was });
    }

    fn remove(&mut self, key: ResourceKey, touched: &mut BTreeMap<ResourceKey, Touched>) {
        if let Some(old) = self.entries.remove(&key) {
            touched.entry(key.clone()).or_insert(Touched { key, was: Some(old.scope) });
        }
    }

    fn finish(&mut self, touched: BTreeMap<ResourceKey, Touched>) -> u64 {
        if !touched.is_empty() || self.revision == 0 {
            self.revision += 1;
            self.log.push(self.revision, touched.into_values().collect(), self.entries.len());
        }
        self.revision
    }

    fn add_delta(&self, base: u64, node: &str, frames: &mut Frames) {
        let mut done = BTreeSet::new();
        // From the oldest on: the first time that a key appears tells what the node had of it.
        for touched in self.log.since(base) {
            if !done.insert(&touched.key) {
                continue;
            }
            match self.entries.get(&touched.key).filter(|entry| entry.is_for(node)) {
                Some(entry) => frames.upsert(entry.upsert(&touched.key)),
                None if touched.was.as_ref().is_some_and(|scope| reaches(scope, node)) => {
                    frames.remove(touched.key.clone());
                }
                None => {}
            }
        }
    }
}

impl Entry {
    fn is_for(&self, node: &str) -> bool {
        reaches(&self.scope, node)
    }

    fn upsert(&self, key: &ResourceKey) -> Upsert {
        Upsert { key: key.clone(), min_schema: self.min_schema, resource: self.bytes.clone() }
    }
}

fn reaches(scope: &Scope, node: &str) -> bool {
    match scope {
        Scope::All => true,
        Scope::Node(name) => &**name == node,
    }
}

fn connected<'a>(
    nodes: &'a mut BTreeMap<Arc<str>, Cursor>,
    node: &Arc<str>,
) -> Result<&'a mut Cursor, PublishError> {
    match nodes.get_mut(node) {
        Some(cursor) if cursor.report.connected => Ok(cursor),
        _ => Err(PublishError::NotConnected(node.clone())),
    }
}

#[cfg(test)]
mod tests;
