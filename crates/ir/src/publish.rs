// SPDX-License-Identifier: Apache-2.0
//! The publisher: one shared log of commits, and a cursor for each node.
//!
//! A commit costs what it changes, whatever the size of the cluster and the number of nodes: it adds
//! to the log, and each node reads the log from its cursor when it is ready for the next batch. A node
//! that comes from another run, or whose cursor has fallen out of the log, says in its hello what it
//! holds, as digests, and is sent what differs. A node that was told more of the source than this
//! publisher knows is sent nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Branch, Digest, Resource, ResourceKey,
    digest::{self, Tree},
    stream::{Ack, Base, Batch, Hello, MAX_REJECTIONS, Position, Rejection, Versions},
};

mod frames;
mod log;
mod schema;

use frames::Frames;
use log::Log;
use schema::{Entry, Schemas};

/// The most nodes that are remembered: twice the 5,000 nodes that Kubernetes supports in a cluster.
pub const MAX_NODES: usize = 10_000;

/// The longest name of a node, in bytes (RFC 1123 subdomain).
pub(crate) const MAX_NODE_NAME_BYTES: usize = 253;

/// What a commit changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// New and changed resources, by their own keys.
    pub upserts: Vec<Resource>,
    /// Keys that are gone.
    pub removes: Vec<ResourceKey>,
    /// What the source is known up to with this change.
    pub versions: Versions,
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
    /// How many resources it named as rejected that the state does not have.
    pub unknown: u32,
    /// Why it is sent nothing: it was told more of the source than this publisher knows.
    pub ahead: Option<Arc<str>>,
}

/// Why a node's message was refused. Its stream must be closed; nothing else changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The name is empty or too long.
    #[error("a node's name has 1 to {MAX_NODE_NAME_BYTES} bytes, not {0}")]
    NodeName(usize),
    /// The node reads nothing that is written here.
    #[error("the node reads schema {0}, which is older than any that this controller writes: upgrade it")]
    Schema(u32),
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
    versions: Versions,
    schemas: Schemas,
    entries: BTreeMap<ResourceKey, Entry>,
    /// What nodes of each schema hold.
    trees: BTreeMap<u32, Tree>,
    /// What nodes of an older schema have a stand-in of, or nothing.
    lost: BTreeMap<u32, BTreeSet<ResourceKey>>,
    log: Log,
    nodes: BTreeMap<Arc<str>, Cursor>,
}

#[derive(Debug, Default)]
struct Cursor {
    report: NodeReport,
    /// The schema of what it is sent.
    schema: u32,
    /// The revision that the node holds; nothing means that it needs a snapshot.
    held: Option<u64>,
    /// What was sent and is not yet acknowledged.
    in_flight: Option<InFlight>,
    /// What the node was told of the source, by anybody.
    versions: Versions,
    /// The digest of what it holds, as far as known.
    digest: Option<Digest>,
    /// What it holds, until its first batch.
    branches: Option<Vec<Branch>>,
    /// The first batch of a stream is sent even when it is empty, so that the node reports.
    greeted: bool,
}

#[derive(Debug)]
struct InFlight {
    revision: u64,
    versions: Versions,
    digest: Digest,
}

impl Publisher {
    /// An empty publisher. The epoch names this run: no other run may have used it.
    pub fn new(epoch: u64) -> Publisher {
        Publisher::with_schemas(epoch, Schemas::default())
    }

    fn with_schemas(epoch: u64, schemas: Schemas) -> Publisher {
        Publisher {
            epoch,
            revision: 0,
            versions: Versions::default(),
            entries: BTreeMap::new(),
            trees: schemas.numbers().map(|number| (number, Tree::default())).collect(),
            lost: schemas.older.iter().map(|older| (older.number, BTreeSet::new())).collect(),
            schemas,
            log: Log::default(),
            nodes: BTreeMap::new(),
        }
    }

    /// Names this run.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the last commit; 0 before the first, and until then no node is sent anything.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes one commit of a change, and returns the revision. What is already there as given is no
    /// change; a change of nothing makes no commit, except for the first.
    pub fn commit(&mut self, change: Change) -> u64 {
        let mut touched = BTreeSet::new();
        self.versions.raise(&change.versions);
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
    pub fn on_hello(&mut self, hello: Hello) -> Result<(), PublishError> {
        let length = hello.node.len();
        if length == 0 || length > MAX_NODE_NAME_BYTES {
            return Err(PublishError::NodeName(length));
        }
        let schema = self.schemas.of_node(hello.schema).ok_or(PublishError::Schema(hello.schema))?;
        if !self.nodes.contains_key(&hello.node) && self.nodes.len() >= MAX_NODES {
            self.nodes.retain(|_, cursor| cursor.report.connected);
            if self.nodes.len() >= MAX_NODES {
                return Err(PublishError::TooManyNodes);
            }
        }
        let resume = hello.resume.filter(|at| at.epoch == self.epoch && at.revision <= self.revision);
        let cursor = self.nodes.entry(hello.node.clone()).or_default();
        cursor.report.connected = true;
        cursor.schema = schema;
        cursor.held = resume.map(|at| at.revision);
        cursor.in_flight = None;
        cursor.greeted = false;
        cursor.versions = hello.versions.clone();
        cursor.digest = hello.held.as_ref().map(|held| held.digest);
        cursor.branches = hello.held.map(|held| held.branches);
        Ok(())
    }

    /// A node's stream has ended. What it has applied stays known.
    pub fn on_disconnect(&mut self, node: &str) {
        if let Some(cursor) = self.nodes.get_mut(node) {
            cursor.report.connected = false;
            cursor.in_flight = None;
            cursor.branches = None;
        }
    }

    /// A node has applied the batch that it was sent.
    ///
    /// # Errors
    /// A node without a stream, and a revision that is not in flight.
    pub fn on_ack(&mut self, node: &Arc<str>, ack: Ack) -> Result<(), PublishError> {
        let cursor = connected(&mut self.nodes, node)?;
        let Some(sent) = cursor.in_flight.take_if(|sent| sent.revision == ack.revision) else {
            return Err(PublishError::UnexpectedAck { node: node.clone(), acked: ack.revision });
        };
        cursor.held = Some(sent.revision);
        cursor.versions.raise(&sent.versions);
        cursor.digest = Some(sent.digest);
        let report = &mut cursor.report;
        report.applied = Some(ack.revision);
        let listed = count(ack.rejected.len());
        report.rejected = ack.rejected;
        // A key that is gone meanwhile concerns nobody any more, and the others were never sent.
        report.rejected.retain(|rejection| self.entries.contains_key(&rejection.key));
        report.unknown = listed.saturating_sub(count(report.rejected.len()));
        for key in self.lost.get(&cursor.schema).into_iter().flatten() {
            let loss = self.entries.get(key).and_then(|entry| entry.loss(cursor.schema));
            let lost = loss.map(|loss| Rejection { key: key.clone(), message: loss.into() });
            report.rejected.extend(lost);
        }
        let over = count(report.rejected.len().saturating_sub(MAX_REJECTIONS));
        report.rejected.truncate(MAX_REJECTIONS);
        report.omitted = ack.omitted.saturating_add(over);
        Ok(())
    }

    /// The frames that the node must be sent now; none while a batch is in flight, while there is
    /// nothing new, before the first commit, and while the node was told more than is known here
    /// ([`NodeReport::ahead`]). Commits made since the last batch come as one.
    ///
    /// # Errors
    /// A node without a stream.
    pub fn next_batch(&mut self, node: &Arc<str>) -> Result<Vec<Batch>, PublishError> {
        let cursor = connected(&mut self.nodes, node)?;
        let up_to_date = cursor.greeted && cursor.held == Some(self.revision);
        if self.revision == 0 || cursor.in_flight.is_some() || up_to_date {
            return Ok(Vec::new());
        }
        let tree = &self.trees[&cursor.schema];
        let digest = tree.digest();
        cursor.report.ahead = cursor.ahead_of(&self.versions, digest);
        if cursor.report.ahead.is_some() {
            return Ok(Vec::new());
        }
        cursor.greeted = true;
        let versions = self.versions.clone();
        cursor.in_flight = Some(InFlight { revision: self.revision, versions, digest });
        let branches = cursor.branches.take();
        let base = match cursor.held.filter(|held| self.log.reaches(*held)) {
            Some(held) => Base::Revision(held),
            None => branches.as_ref().map_or(Base::Nothing, |branches| differences(tree, branches)),
        };
        let schema = cursor.schema;
        Ok(self.batch(schema, base, branches.as_deref().unwrap_or_default(), digest))
    }

    fn batch(&self, schema: u32, base: Base, held: &[Branch], digest: Digest) -> Vec<Batch> {
        let mut frames = Frames::new(Batch {
            position: Position { epoch: self.epoch, revision: self.revision },
            base: base.clone(),
            versions: self.versions.clone(),
            digest,
            frame: 0,
            upserts: Vec::new(),
            removes: Vec::new(),
            last: false,
        });
        match base {
            Base::Nothing => {
                let all = self.entries.iter().filter_map(|(key, entry)| entry.upsert_for(schema, key));
                all.for_each(|upsert| frames.upsert(upsert));
            }
            Base::Revision(base) => self.add_delta(schema, base, &mut frames),
            Base::Hello { branches } if branches.is_empty() => {}
            Base::Hello { branches } => {
                let within = digest::Within::new(held, &branches);
                let touched = self.entries.iter().filter(|(key, _)| within.contains(key));
                let touched = touched.filter_map(|(key, entry)| entry.upsert_for(schema, key));
                touched.for_each(|upsert| frames.upsert(upsert));
            }
        }
        frames.finish()
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

    fn upsert(&mut self, key: ResourceKey, resource: &Resource, touched: &mut BTreeSet<ResourceKey>) {
        let entry = self.schemas.entry(resource);
        if self.entries.get(&key).is_some_and(|old| old.bytes == entry.bytes) {
            return;
        }
        for (schema, tree) in &mut self.trees {
            match entry.bytes_for(*schema) {
                Some(bytes) => tree.insert(&key, digest::of_bytes(bytes)),
                None => tree.remove(&key),
            }
        }
        for (schema, lost) in &mut self.lost {
            match entry.loss(*schema) {
                Some(_) => lost.insert(key.clone()),
                None => lost.remove(&key),
            };
        }
        self.entries.insert(key.clone(), entry);
        touched.insert(key);
    }

    fn remove(&mut self, key: ResourceKey, touched: &mut BTreeSet<ResourceKey>) {
        if self.entries.remove(&key).is_some() {
            self.trees.values_mut().for_each(|tree| tree.remove(&key));
            for lost in self.lost.values_mut() {
                lost.remove(&key);
            }
            touched.insert(key);
        }
    }

    fn finish(&mut self, touched: BTreeSet<ResourceKey>) -> u64 {
        if !touched.is_empty() || self.revision == 0 {
            self.revision += 1;
            self.log.push(self.revision, touched.into_iter().collect(), self.entries.len());
        }
        self.revision
    }

    fn add_delta(&self, schema: u32, base: u64, frames: &mut Frames) {
        let touched: BTreeSet<&ResourceKey> = self.log.since(base).collect();
        for key in touched {
            match self.entries.get(key).and_then(|entry| entry.upsert_for(schema, key)) {
                Some(upsert) => frames.upsert(upsert),
                None => frames.remove(key.clone()),
            }
        }
    }
}

impl Cursor {
    /// Why the node must not be sent what is known here: it was told more. Not where it holds the same.
    fn ahead_of(&self, known: &Versions, digest: Digest) -> Option<Arc<str>> {
        let ahead = known.know_less_than(&self.versions) && self.digest != Some(digest);
        let text = || format!("was told {}, and this controller knows {known}", self.versions);
        ahead.then(|| text().into())
    }
}

/// What differs from what a node holds; where that is most of it, everything.
fn differences(own: &Tree, held: &[Branch]) -> Base {
    let branches = own.differences(held);
    match branches.len() > held.len() / 2 {
        true => Base::Nothing,
        false => Base::Hello { branches },
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
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
